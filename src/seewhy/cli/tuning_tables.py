"""The table and the conclusion of `seewhy trust --tune`; they fit a terminal of 80 columns."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from seewhy.attribution.bootstrap import BootstrapSummary
from seewhy.attribution.settings import Setting
from seewhy.attribution.statuses import PIXELS
from seewhy.attribution.tuning import Candidate, HeldOutScore, MethodTuning
from seewhy.cli.tables import console, print_command, table
from seewhy.escaping import shell_text
from seewhy.progress import clock
from seewhy.wording import counted

MOST_NAMED = 3  # settings in a sentence


def print_tuning(tuning: MethodTuning, run: Path) -> None:
    """The measured settings, the proposed one and its command, and what does not differ."""
    rows = table("settings", "layer", "n", "gain", "vs. best", "ms", "", left=2)
    rows.columns[-1].justify = "left"
    for each in tuning.candidates:
        is_best = each is tuning.best
        rows.add_row(
            _short(each.setting),
            "–" if each.setting.layer == PIXELS else each.setting.layer,
            str(each.images),
            _with_half_width(each.gain.mean, each.gain.interval),
            "" if is_best else _with_half_width(each.difference.mean, each.difference.interval),
            f"{1000 * each.seconds:.3g}",
            _remark(each, tuning),
        )
    out = console()
    out.print(rows)
    out.print()
    out.print(_conclusion(tuning), style="bold")
    if tuning.proposed is not None:
        print_command("use it", _command(tuning.proposed, run))
    sentences = [_held_out(tuning), _differences(tuning), _extent(tuning), *_failures(tuning)]
    for sentence in filter(None, sentences):
        out.print(f"\n{sentence}")
    out.print(
        "\nn: images\n"
        "gain: area between insertion and deletion curves, minus random maps; 0 is chance\n"
        "vs. best: difference of the gains on the same images\n"
        "±: half of the 95% interval, not corrected for the number of settings\n"
        "ms: milliseconds for the map of an image\n"
        "flip: with --smooth flip, the mean over mirrored images"
    )


def _short(setting: Setting) -> str:
    """The settings without the name of the method, and the smoothing."""
    _, _, settings = setting.method.partition(":")
    smooth = "" if setting.smooth == "none" else setting.smooth
    return " ".join(filter(None, (settings, smooth))) or "default"


def _named(setting: Setting) -> str:
    """A setting in a sentence, such as `grad-cam:eigen=true at layer4 (smooth=flip)`."""
    layer = "" if setting.layer == PIXELS else f" at {setting.layer}"
    smooth = "" if setting.smooth == "none" else f" (smooth={setting.smooth})"
    return f"{setting.method}{layer}{smooth}"


def _with_half_width(mean: float, interval: tuple[float, float]) -> str:
    return f"{mean:+.2f}±{(interval[1] - interval[0]) / 2:.2f}"


def _remark(candidate: Candidate, tuning: MethodTuning) -> str:
    if candidate.setting == tuning.proposed:
        return "proposed"
    if candidate.failed_checks:
        return f"fails {candidate.failed_checks[0]}"
    if candidate is tuning.best:
        return "best"
    if candidate not in tuning.finalists:
        return "left out"
    return "worse" if candidate.difference.significant else "similar"


def _command(setting: Setting, run: Path) -> str:
    options = [word for name, value in setting.arguments.items() for word in (f"--{name}", value)]
    return " ".join(map(shell_text, ("seewhy", "explain", run, *options)))


def _conclusion(tuning: MethodTuning) -> str:
    if tuning.proposed is not None and tuning.chosen is not None:
        return (
            f"proposed: {_named(tuning.proposed)}, the cheapest within one standard error of the "
            "best"
        )
    if tuning.chosen is None or tuning.held_out is None:
        checks = Counter(each.failed_checks[0] for each in tuning.finalists)
        counts = ", ".join(f"{check} {count}" for check, count in checks.items())
        remedy = "; more --images and --seconds narrow the intervals" if "gain" in checks else ""
        images = counted(tuning.images, "image")
        return (
            f"no setting is proposed: none passes the checks on {images} (fails: {counts}){remedy}"
        )
    failed = " and ".join(tuning.held_out.failed_checks)
    return (
        f"no setting is proposed: {_named(tuning.chosen.setting)} was chosen, but fails on "
        f"{counted(tuning.held_out.images, 'held-out image')}: {failed}"
    )


def _held_out(tuning: MethodTuning) -> str:
    """The gain on images that were not used for the choice."""
    chosen, score = tuning.chosen, tuning.held_out
    if chosen is None or score is None:
        return ""
    text = f"On {counted(score.images, 'held-out image')}, its gain is {_interval(score.gain)}"
    if chosen.setting == tuning.default:
        return f"{text}. It is the default."
    default = f"that of the default, {_named(tuning.default)}, {_interval(score.default_gain)}"
    return f"{text}, and {default}. {_improvement(score)}."


def _improvement(score: HeldOutScore) -> str:
    difference = score.improvement
    low, high = difference.interval
    verdict = "significantly" if difference.significant else "not significantly"
    return (
        f"The difference is {difference.mean:+.2f} ({low:+.2f} to {high:+.2f}), {verdict} "
        f"different from 0 (paired t-test, p = {difference.p_value:.2g})"
    )


def _interval(gain: BootstrapSummary) -> str:
    low, high = gain.interval
    return f"{gain.mean:+.2f} (95% interval {low:+.2f} to {high:+.2f})"


def _differences(tuning: MethodTuning) -> str:
    """Which settings of those that pass the checks do not differ significantly from the best."""
    others = [each for each in tuning.finalists if each is not tuning.best]
    if not others or tuning.chosen is None:
        return ""
    passing = [each for each in others if not each.failed_checks]
    similar = [_named(each.setting) for each in passing if not each.difference.significant]
    failing = sum(bool(each.failed_checks) for each in tuning.candidates)
    tests = f"paired t-tests, Bonferroni's correction for {counted(len(others), 'test')}"
    return (
        f"Not significantly different from the best, {_named(tuning.best.setting)} ({tests}): "
        f"{_listed(similar) or 'none'}. Significantly worse: {len(passing) - len(similar)}. "
        f"Failing a check: {failing} of {counted(len(tuning.candidates), 'setting')}."
    )


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMED
    return ", ".join([*names[:MOST_NAMED], *([counted(rest, "other")] if rest > 0 else [])])


def _extent(tuning: MethodTuning) -> str:
    """How many settings and images were measured, and what was left out."""
    images = Counter(each.images for each in tuning.candidates)
    parts = [
        f"{counted(count, 'setting')} on {counted(number, 'image')}"
        for number, count in sorted(images.items(), reverse=True)
    ]
    text = f"Measured for the choice: {', '.join(parts)}."
    if tuning.left_out:
        left_out = counted(len(tuning.left_out), "setting")
        text += f" Not measured for lack of time: {left_out}; give more --seconds."
    return f"{text} Time: {clock(tuning.seconds)}."


def _failures(tuning: MethodTuning) -> list[str]:
    reasons = Counter(tuning.failures.values())
    return [f"{counted(count, 'setting')} failed: {reason}" for reason, count in reasons.items()]
