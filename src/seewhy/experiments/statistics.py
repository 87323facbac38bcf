"""What an experiment measured: mean and spread over seeds, and which differences between recipes are real."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev

from scipy.stats import t as student

from seewhy.diagnosis.statistics import holm
from seewhy.experiments.experiment import Experiment, Trial
from seewhy.runs.result import RunResult

CLOSEST = 3  # recipes that a sentence names
LOSS_FIELDS = (
    "augment",
    "class_weights",
    "l1",
    "label_smoothing",
    "resolution",
)  # that change what is minimized
LEVEL = 0.05  # of significance, of all comparisons together


@dataclass(frozen=True)
class Metric:
    """A number that a trial came to."""

    title: str
    of: Callable[[Trial, RunResult], float]
    higher_is_better: bool = False
    unit: str = ""
    scale: float = 1.0  # from the number to its unit
    digits: int = 3
    resolution: Callable[[RunResult], float] = lambda result: (
        0.0
    )  # the smallest step between two values

    def said(self, value: float, sign: str = "") -> str:
        """A value with as many digits as make sense, without its unit."""
        return f"{self.scale * value:{sign},.{self.digits}f}"


@dataclass(frozen=True)
class MetricSummary:
    """One metric of one recipe over its seeds."""

    recipe: str
    values: tuple[float, ...]  # of the finished trials
    mean: float
    std: float  # of the sample; nan for fewer than two
    interval: tuple[float, float]  # 95%, Student's t; nan for fewer than two


@dataclass(frozen=True)
class PairwiseTest:
    """How much better one recipe is than another, paired over the seeds that both finished."""

    better: str
    worse: str
    seeds: int
    difference: float  # mean of better minus worse over those seeds; negative where smaller is better; nan for none
    interval: tuple[float, float]  # 95% of this difference alone
    p_value: float  # two-sided paired t-test
    adjusted: float  # by Holm's method, for all pairs of the metric

    @property
    def significant(self) -> bool:
        """Whether luck explains it at most once in twenty experiments, all pairs taken together."""
        return self.adjusted < LEVEL


def metric_summary(experiment: Experiment, name: str, metric: str) -> MetricSummary:
    """A metric of METRICS, of the recipe of that name in an experiment."""
    values = tuple(_values(experiment, name, metric).values())
    mean = fmean(values) if values else math.nan
    if len(values) < 2:
        return MetricSummary(name, values, mean, math.nan, (math.nan, math.nan))
    std = stdev(values)
    half = float(student.ppf(0.975, len(values) - 1)) * std / math.sqrt(len(values))
    return MetricSummary(name, values, mean, std, (mean - half, mean + half))


def rank_recipes(experiment: Experiment, metric: str) -> list[MetricSummary]:
    """The recipes that have a finished trial, the best mean first."""
    found = [
        metric_summary(experiment, name, metric)
        for name in experiment.recipes
        if _values(experiment, name, metric)
    ]
    return sorted(found, key=lambda row: row.mean, reverse=METRICS[metric].higher_is_better)


def pairwise_tests(experiment: Experiment, metric: str) -> list[PairwiseTest]:
    """Every pair of recipes, the better one first, those with the smallest p first.

    Trials of one seed begin with the same weights and see the same images in the same order, so they are compared in pairs. The
    p-values are of a paired t-test and corrected for the number of pairs (Holm 1979). Where the two share fewer than two seeds
    there is nothing to tell by: p is 1. Equal steps between the values that a metric can take are no evidence, so the
    spread is never taken to be smaller than that of rounding to them.
    """
    rows = []
    sign = 1 if METRICS[metric].higher_is_better else -1
    for better, worse in combinations([row.recipe for row in rank_recipes(experiment, metric)], 2):
        ours, theirs = _values(experiment, better, metric), _values(experiment, worse, metric)
        gaps = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        if (
            sign * sum(gaps) < 0
        ):  # the one with the better mean of all its seeds is the worse one where both have finished
            better, worse, gaps = worse, better, [-gap for gap in gaps]
        rows.append((better, worse, gaps, *_paired_t(gaps, _resolution(experiment, metric))))
    adjusted = holm([row[-1] for row in rows])
    found = [
        PairwiseTest(
            better,
            worse,
            len(gaps),
            fmean(gaps) if gaps else math.nan,
            interval,
            p_value,
            corrected,
        )
        for (better, worse, gaps, interval, p_value), corrected in zip(rows, adjusted, strict=True)
    ]
    return sorted(found, key=lambda row: row.p_value)


def summarize(experiment: Experiment, metric: str) -> str:
    """In words: which recipe is best by a metric, and over which others that is no luck."""
    rows, about = rank_recipes(experiment, metric), METRICS[metric]
    if not rows:
        return "No training has finished yet."
    best = rows[0]
    spread = "" if math.isnan(best.std) else f" ± {about.said(best.std)}"
    said = f"{best.recipe} has the {'highest' if about.higher_is_better else 'lowest'} {about.title}: {about.said(best.mean)}"
    said += f"{spread}{about.unit}"
    if len(best.values) < len(experiment.seeds):
        said += f" ({len(best.values)} of {len(experiment.seeds)} seeds)"
    if len(rows) == 1:
        return f"{said}."
    pairs = [
        row for row in pairwise_tests(experiment, metric) if best.recipe in (row.better, row.worse)
    ]
    over = [row.worse for row in pairs if row.significant and row.better == best.recipe]
    under = [row.better for row in pairs if row.significant and row.worse == best.recipe]
    others = [row for row in pairs if not row.significant]
    if over and not others and not under:
        return f"{said}. That is significant over {'all the others' if len(over) > 1 else over[0]}.{_tasks(experiment, metric)}"
    parts = [
        *([f"significant over {_listed(over)}"] if over else []),
        *([f"not told from luck over {_gaps(best.recipe, others, about)}"] if others else []),
        *(
            [f"turned round for {_listed(under)} on the seeds that both have finished"]
            if under
            else []
        ),
    ]
    return f"{said}. That is {', but '.join(parts)}.{_tasks(experiment, metric)}"


def _tasks(experiment: Experiment, metric: str) -> str:
    """What makes training losses those of different tasks, in words."""
    finished = [recipe for name, recipe in experiment.recipes.items() if experiment.of(name)]
    differing = [
        field for field in LOSS_FIELDS if len({getattr(recipe, field) for recipe in finished}) > 1
    ]
    if metric != "train_loss" or not differing:
        return ""
    return f" But {_listed(differing)} differ{'s' * (len(differing) == 1)}, and with that what the training loss is of."


def _gaps(best: str, rows: Sequence[PairwiseTest], about: Metric) -> str:
    """The recipes that come closest, and by how much; of the rest their number."""
    ordered = sorted(
        rows, key=lambda row: math.inf if math.isnan(row.difference) else abs(row.difference)
    )
    closest = [_gap(best, row, about) for row in ordered[:CLOSEST]]
    left = len(ordered) - len(closest)
    return _listed(closest + [f"{left} other{'s' * (left > 1)}"] * (left > 0))


def _gap(best: str, row: PairwiseTest, about: Metric) -> str:
    other, gap = (
        (row.worse, row.difference) if row.better == best else (row.better, -row.difference)
    )
    if math.isnan(gap):
        return f"{other} (no seed in common)"
    return f"{other} ({about.said(gap, '+')}, p = {row.adjusted:.2g})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _values(experiment: Experiment, name: str, metric: str) -> dict[int, float]:
    """The metric of each finished trial of a recipe, by seed."""
    of = METRICS[metric].of
    values = {
        trial.seed: of(trial, trial.result)
        for trial in experiment.of(name)
        if trial.result is not None
    }
    return {seed: value for seed, value in values.items() if not math.isnan(value)}


def _resolution(experiment: Experiment, metric: str) -> float:
    results = [trial.result for trial in experiment.finished if trial.result is not None]
    return max(map(METRICS[metric].resolution, results), default=0.0)


def _paired_t(gaps: Sequence[float], resolution: float) -> tuple[tuple[float, float], float]:
    """95% interval of the mean gap, and the two-sided p-value of none."""
    if len(gaps) < 2:
        return (math.nan, math.nan), 1.0
    mean, freedom = fmean(gaps), len(gaps) - 1
    rounding = resolution / math.sqrt(
        6
    )  # standard deviation of the difference of two values that are rounded
    error = max(stdev(gaps), rounding) / math.sqrt(len(gaps))
    half = float(student.ppf(0.975, freedom)) * error
    if error == 0:
        return (mean, mean), 1.0 if mean == 0 else 0.0
    return (mean - half, mean + half), 2 * float(student.sf(abs(mean) / error, freedom))


METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        "test accuracy",
        lambda trial, result: result.accuracy,
        True,
        "%",
        100,
        2,
        lambda result: 1 / result.test_images,
    ),
    "test_loss": Metric("test loss", lambda trial, result: result.test_loss),
    "train_loss": Metric("training loss", lambda trial, result: trial.history[-1].train_loss),
    "calibration_error": Metric(
        "calibration error", lambda trial, result: trial.calibration_error, False, "%", 100, 2
    ),
    "seconds": Metric(
        "training time", lambda trial, result: result.train_seconds, False, " s", 1, 1
    ),
}
