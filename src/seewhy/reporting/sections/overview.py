"""The report in five sentences."""

from seewhy.diagnosis.metrics import worst_confusions
from seewhy.reporting.context import ReportContext
from seewhy.reporting.section import Section, be, between, count, percent, render
from seewhy.reporting.sections.robustness import least_attack, worst_corruption
from seewhy.reporting.sprites import Sprites


def overview_section(study: ReportContext, album: Sprites) -> Section:
    """Accuracy, the worst confusion, calibration, robustness, and what to look at first."""
    result = study.result
    finding = (
        f"{percent(result.accuracy, 2)} of {count(result.test_images, 'test image')} {be(result.test_images)} classified correctly "
        f"(95% interval {between(result.interval, 2)})."
    )
    sentences = [_confusion(study), _calibration(study), _robustness(study), _first(study)]
    html = render(
        "sections/verdict.html",
        sentences=[each for each in sentences if each],
        numbers=_numbers(study),
    )
    return Section("Verdict", finding, html)


Sentence = tuple[str, str, str]  # what it says, and the section behind it with its name


def _confusion(study: ReportContext) -> Sentence:
    classes = study.test.classes
    worst = worst_confusions(study.test, 1)
    if not worst:
        return "No image is misclassified.", "classes", "Classes"
    [pair] = worst
    text = (
        f"The worst confusion is {classes[pair.true]} taken for {classes[pair.predicted]}: {count(pair.images, 'image')}, "
        f"{percent(pair.share)} of all mistakes."
    )
    return text, "classes", "Classes"


def _calibration(study: ReportContext) -> Sentence:
    result = study.test
    error, scaling = study.calibration.ece, study.scaling
    sure, right = result.confidence.mean().item(), result.accuracy
    direction = "surer than it is right" if sure > right else "right more often than it is sure"
    text = f"The network is {direction}: {percent(sure)} sure on average, an expected calibration error of {percent(error)}"
    if scaling is None:
        return f"{text}.", "calibration", "Calibration"
    text += f", {percent(scaling.after.ece)} with a temperature of {scaling.temperature:.2f}."
    return text, "calibration", "Calibration"


def _robustness(study: ReportContext) -> Sentence:
    attack, worst = least_attack(study.diagnosis), worst_corruption(study.diagnosis)
    text = (
        f"It is right on {percent(attack.accuracy)} of {count(attack.images, 'image')} attacked by at most {attack.epsilon} per "
        f"pixel, and loses most to {worst.name}: {percent(worst.accuracy[-1].item())} of {worst.images:,} at strength "
        f"{worst.levels[-1]:g}."
    )
    return text, "robustness", "Robustness"


def _first(study: ReportContext) -> Sentence:
    """The weak slice that costs most, else labels in doubt, else the surest mistakes."""
    result, found = study.test, study.diagnosis.slices
    wrong = int((~result.correct).sum())
    doubtful = len(study.suspects)
    if found and wrong:
        group = found[0]
        share = int((~result.correct[group.members]).sum()) / wrong
        text = (
            f"Look first at the group “{group.description}”: {count(group.images, 'image')}, {percent(group.accuracy)} right, "
            f"{percent(share)} of all mistakes."
        )
        return text, "slices", "Weak slices"
    if doubtful:
        return (
            f"Look first at the {count(doubtful, 'label')} in doubt: a wrong label makes a right answer a mistake.",
            "labels",
            "Labels in doubt",
        )
    return (
        f"Look first at the mistakes that the network is surest of, {wrong:,} in all.",
        "mistakes",
        "Mistakes",
    )


def _numbers(study: ReportContext) -> list[tuple[str, str, str]]:
    """Large figures with what they are of, and the section behind each."""
    result = study.test
    wrong = int((~result.correct).sum())
    attack = least_attack(study.diagnosis)
    return [
        (percent(study.result.accuracy, 2), "accuracy", "classes"),
        (f"{wrong:,}", "mistakes", "mistakes"),
        (percent(study.calibration.ece), "calibration error", "calibration"),
        (
            percent(attack.accuracy),
            f"of {attack.images:,}, attacked by {attack.epsilon}",
            "robustness",
        ),
        (f"{len(study.suspects):,}", "labels in doubt", "labels"),
        (f"{study.result.train_seconds:,.0f} s", "of training", "training"),
    ]
