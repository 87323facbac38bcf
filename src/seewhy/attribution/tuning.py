"""`tune_method`: the layer and the settings with which a method explains a model best."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from torch import Tensor

from seewhy.attribution.bootstrap import BootstrapSummary, bootstrap_summary
from seewhy.attribution.layers import Layers
from seewhy.attribution.settings import (
    Setting,
    SettingMeter,
    SettingRecord,
    affordable,
    candidate_settings,
)
from seewhy.attribution.target import Relative, Target, prepare
from seewhy.errors import SeewhyError
from seewhy.models.classifier import ClassifierLike
from seewhy.significance import LEVEL, paired_t

FIRST_IMAGES = 4  # in the first round; each later round doubles them
MIN_FINALISTS = 2  # kept even if the time does not suffice for them
TIMINGS = 5  # of each setting in the last round; the fastest counts
SHARES = (0.6, 0.65, 1.0)  # of the time, at the end of the rounds, the choice, and the check
EQUAL_COST = 1.5  # seconds per image within this factor count as equal: clocks are noisy


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference of two gains on the same images.

    Args:
        mean: The mean.
        interval: 95%, by Student's t, not corrected for the number of differences.
        p_value: Of the paired t-test, corrected for the number of tests (Bonferroni); NaN where
            not tested.
    """

    mean: float
    interval: tuple[float, float]
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.p_value < LEVEL


@dataclass(frozen=True)
class Candidate:
    """A setting and its measurements on the images for the choice.

    Args:
        setting: What was measured.
        images: Number of images, the first ones of those for the choice.
        gain: As in `TrustScore`.
        difference: Of the gain, minus that of the best setting, on the images that both have. It
            is tested for those that reached the last round.
        seconds: For the map of an image, the least of several measurements.
        failed_checks: Checks of `trust` that it does not pass: "gain", "random", "mosaic". Mosaics
            are played only with settings that would be chosen.
    """

    setting: Setting
    images: int
    gain: BootstrapSummary
    difference: PairedDifference
    seconds: float
    failed_checks: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeldOutScore:
    """The chosen setting on images that were not used for the choice.

    Args:
        images: Number of images.
        gain: Of the chosen setting.
        default_gain: Of the default setting.
        improvement: Of the gain, minus that of the default; its p-value needs no correction.
        failed_checks: Checks of `trust` that the chosen setting does not pass on these images.
    """

    images: int
    gain: BootstrapSummary
    default_gain: BootstrapSummary
    improvement: PairedDifference
    failed_checks: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class MethodTuning:
    """The settings of a method, measured, and the one that is proposed.

    Args:
        candidates: Those that reached the last round by gain, then the others by images and gain.
        default: The method as given, at the last layer, without smoothing.
        best: The candidate with the highest gain of those that reached the last round and pass the
            checks; of all that reached it if none passes.
        chosen: The cheapest of those that pass and are within one standard error of the best.
        held_out: The chosen setting on other images.
        left_out: Settings that were not measured, for lack of time.
        failures: Why settings have no maps.
        seconds: Time taken.
    """

    candidates: tuple[Candidate, ...]
    default: Setting
    best: Candidate
    chosen: Candidate | None
    held_out: HeldOutScore | None
    left_out: tuple[Setting, ...]
    failures: Mapping[Setting, str]
    seconds: float

    @property
    def proposed(self) -> Setting | None:
        """The chosen setting, unless it fails a check on the held-out images."""
        if self.chosen is None or self.held_out is None or self.held_out.failed_checks:
            return None
        return self.chosen.setting

    @property
    def images(self) -> int:
        """Number of images for the choice in the last round."""
        return max(each.images for each in self.candidates)

    @property
    def finalists(self) -> tuple[Candidate, ...]:
        """The candidates that reached the last round."""
        return tuple(each for each in self.candidates if each.images == self.images)


def tune_method(
    classifier: ClassifierLike,
    images: Tensor,
    method: str = "grad-cam",
    layers: Layers = "auto",
    target: Target = Relative.PREDICTED,
    *,
    labels: Tensor | None = None,
    seconds: float = 300.0,
) -> MethodTuning:
    """Choose the layer and the settings of a method by their gain, within a time.

    The candidates are all values of TUNED_SETTINGS that the method has, at all layers, with and
    without smoothing. Half of the images, at random, are for the choice. All candidates are
    measured on a few of them, and those whose maps do not depend on the weights are left out. Then
    the number of images doubles from round to round; where the time does not suffice, only the
    better half of the candidates is kept (successive halving, Jamieson & Talwalkar 2016).

    Of the candidates that pass the checks of `trust`, the cheapest is chosen whose gain is within
    one standard error of the best one (the rule of Breiman et al. 1984); of equally cheap ones,
    that with the highest gain. Its gain and that of the default are measured on the other half of
    the images, where it has to pass the checks again.

    The setting that is truly the best of those that reach the last round is, with 95% confidence,
    one that does not differ significantly from the measured best.

    Args:
        classifier: A Classifier, a Run, or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1]; at least eight.
        method: Name of a method; settings that are given, as in "smooth-grad:noise=0.1", stay.
        layers: As in `explain`.
        target: As in `explain`.
        labels: True classes (N,) int64, for the target "true".
        seconds: Time to take. The default setting is measured in any case.

    Raises:
        SeewhyError: As `explain`, for fewer images than eight, and if all settings fail.
    """
    if not seconds > 0:
        raise SeewhyError(f"seconds must be above 0, found {seconds:g}")
    if len(images) < 2 * FIRST_IMAGES:
        raise SeewhyError(
            f"tuning needs at least {2 * FIRST_IMAGES} images, half of them to choose a setting "
            f"and half to check it, found {len(images)}"
        )
    began = time.monotonic()
    rounds_end, choice_end, end = (began + share * seconds for share in SHARES)
    inputs = prepare(classifier, images, target, labels)
    settings = candidate_settings(inputs, method, layers)
    meter, half = SettingMeter(inputs), len(images) // 2
    first, failures = _first_round(meter, settings, rounds_end)
    records = _later_rounds(meter, first, half, rounds_end)
    records = _timed_again(meter, records, choice_end)
    candidates, best, chosen = _choose(meter, records, choice_end)
    default, held_out = next(iter(records)), None
    if chosen is not None:
        held_out = _check(meter, default, chosen.setting, records, half, end)
    return MethodTuning(
        candidates=candidates,
        default=default,
        best=best,
        chosen=chosen,
        held_out=held_out,
        left_out=tuple(settings[len(first) + len(failures) :]),
        failures=failures,
        seconds=time.monotonic() - began,
    )


def _first_round(
    meter: SettingMeter, settings: Sequence[Setting], end: float
) -> tuple[dict[Setting, SettingRecord], dict[Setting, str]]:
    """Records on the first images, and why settings fail; by the pace so far, until `end`."""
    records: dict[Setting, SettingRecord] = {}
    failures: dict[Setting, str] = {}
    began = time.monotonic()
    for index, setting in enumerate(settings):
        now = time.monotonic()
        if index and now + (now - began) / index > end:
            break
        try:
            records[setting] = meter.measure(setting, slice(0, FIRST_IMAGES), randomized=True)
        except SeewhyError as error:
            failures[setting] = str(error)
    if not records:
        raise SeewhyError("; ".join(dict.fromkeys(failures.values())))
    return records, failures


def _later_rounds(
    meter: SettingMeter, first: Mapping[Setting, SettingRecord], images: int, end: float
) -> dict[Setting, SettingRecord]:
    """The records with more images, up to `images`, of the candidates that are kept until `end`."""
    records = dict(first)
    running = [each for each, record in records.items() if record.depends_on_weights]
    done = FIRST_IMAGES
    while running and done < images:
        running.sort(key=lambda each: -records[each].gains.mean().item())
        wanted, left = min(done, images - done), end - time.monotonic()
        while len(running) > MIN_FINALISTS and wanted * meter.cost(records, running) > left:
            running = running[: max(MIN_FINALISTS, (len(running) + 1) // 2)]
        count = affordable(left, meter.cost(records, running), wanted)
        if 2 * count < wanted:  # too few to leave candidates out for them
            break
        for each in running:
            later = meter.measure(each, slice(done, done + count))
            records[each] = records[each].extended(later)
        done += count
    return records


def _timed_again(
    meter: SettingMeter, records: Mapping[Setting, SettingRecord], end: float
) -> dict[Setting, SettingRecord]:
    """The records; those of the last round with the least of several times, measured in turns."""
    timed = dict(records)
    for _ in range(TIMINGS):
        for each in _finalists(records):
            if time.monotonic() >= end:
                return timed
            seconds = meter.measure_time(each, slice(0, FIRST_IMAGES))
            timed[each] = replace(timed[each], seconds=min(seconds, timed[each].seconds))
    return timed


def _finalists(records: Mapping[Setting, SettingRecord]) -> list[Setting]:
    """The settings with the most images."""
    images = max(len(record.gains) for record in records.values())
    return [each for each, record in records.items() if len(record.gains) == images]


def _choose(
    meter: SettingMeter, records: Mapping[Setting, SettingRecord], end: float
) -> tuple[tuple[Candidate, ...], Candidate, Candidate | None]:
    """The candidates in order, the best, and the chosen one if any passes the checks."""
    finalists = _finalists(records)
    images = len(records[finalists[0]].gains)
    failed = {each: _failed_checks(record) for each, record in records.items()}
    passing = [each for each in finalists if not failed[each]]
    best, chosen = _highest(passing or finalists, records), None
    while passing and chosen is None:
        best = _highest(passing, records)
        chosen = _cheapest([each for each in passing if _is_close(each, best, records)], records)
        if not meter.points_right(chosen, slice(0, images), records[chosen].seconds, end):
            failed[chosen] = ("mosaic",)
            passing.remove(chosen)
            chosen = None
    # As many tests as other finalists, any of which might have been the measured best.
    tests = {each: len(finalists) - 1 for each in finalists if each != best}
    candidates = {
        each: Candidate(
            each,
            len(record.gains),
            bootstrap_summary({"gain": record.gains})["gain"],
            _difference(record.gains, records[best].gains[: len(record.gains)], tests.get(each, 0)),
            record.seconds,
            failed[each],
        )
        for each, record in records.items()
    }
    order = sorted(candidates.values(), key=lambda each: (-each.images, -each.gain.mean))
    return tuple(order), candidates[best], None if chosen is None else candidates[chosen]


def _highest(settings: Sequence[Setting], records: Mapping[Setting, SettingRecord]) -> Setting:
    """The setting with the highest gain."""
    return max(settings, key=lambda each: records[each].gains.mean().item())


def _cheapest(settings: Sequence[Setting], records: Mapping[Setting, SettingRecord]) -> Setting:
    """The cheapest setting; of equally cheap ones, that with the highest gain."""
    limit = EQUAL_COST * min(records[each].seconds for each in settings)
    return _highest([each for each in settings if records[each].seconds <= limit], records)


def _is_close(setting: Setting, best: Setting, records: Mapping[Setting, SettingRecord]) -> bool:
    """Whether the mean difference to the best setting is at most its standard error."""
    differences = records[best].gains - records[setting].gains
    error = differences.std() / math.sqrt(len(differences))
    return bool(differences.mean() <= error)


def _failed_checks(record: SettingRecord) -> tuple[str, ...]:
    """The checks that maps do not pass, of those without mosaics."""
    gain = bootstrap_summary({"gain": record.gains})["gain"]
    passed = {"gain": gain.interval[0] > 0, "random": record.depends_on_weights}
    return tuple(name for name, each in passed.items() if not each)


def _difference(gains: Tensor, others: Tensor, tests: int) -> PairedDifference:
    """The difference of gains on the same images; tested if it is one of some `tests`."""
    differences = (gains - others).tolist()
    interval, p_value = paired_t(differences)
    corrected = min(1.0, tests * p_value) if tests else math.nan
    return PairedDifference(fmean(differences), interval, corrected)


def _check(
    meter: SettingMeter,
    default: Setting,
    chosen: Setting,
    records: Mapping[Setting, SettingRecord],
    start: int,
    end: float,
) -> HeldOutScore:
    """Measure the chosen and the default setting on the images from `start` on."""
    both = list(dict.fromkeys((chosen, default)))
    cost = meter.cost(records, both) + 2 * records[chosen].seconds  # with random weights, too
    count = max(2, affordable(end - time.monotonic(), cost, len(meter.inputs.images) - start))
    rows = slice(start, start + count)
    record = meter.measure(chosen, rows, randomized=True)
    gains = record.gains
    default_gains = gains if chosen == default else meter.measure(default, rows).gains
    summaries = bootstrap_summary({"chosen": gains, "default": default_gains})
    failed = _failed_checks(record)
    if not meter.points_right(chosen, rows, record.seconds, end):
        failed = (*failed, "mosaic")
    return HeldOutScore(
        images=count,
        gain=summaries["chosen"],
        default_gain=summaries["default"],
        improvement=_difference(gains, default_gains, tests=1),
        failed_checks=failed,
    )
