"""Metrics of an experiment: mean and spread over seeds, and tests of the differences of recipes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev

from scipy.special import stdtrit  # scipy.stats takes a second to import

from seewhy.errors import lookup
from seewhy.experiments.experiment import Experiment, Trial
from seewhy.runs.result import RunResult
from seewhy.significance import LEVEL, holm, paired_t
from seewhy.wording import counted

MOST_NAMED = 3  # maximum number of recipes in a sentence
# Fields that change the training loss itself, so that its values are not comparable.
LOSS_FIELDS = ("augment", "class_weights", "l1", "label_smoothing", "resolution", "sampler")


@dataclass(frozen=True)
class Metric:
    """A metric of a finished trial."""

    title: str
    measure: Callable[[Trial, RunResult], float]  # value from a trial and its result
    higher_is_better: bool = False
    unit: str = ""  # appended to a number: "%", " s"
    scale: float = 1.0  # factor from the number to its unit
    digits: int = 3
    resolution: Callable[[RunResult], float] = lambda result: 0.0  # smallest possible difference

    def format(self, value: float, sign: str = "") -> str:
        """A value as text, without the unit; `sign` "+" shows the sign of positive values."""
        return f"{self.scale * value:{sign},.{self.digits}f}"


@dataclass(frozen=True)
class MetricSummary:
    """A metric of one recipe over its seeds."""

    recipe: str
    values: tuple[float, ...]  # of the finished trials
    mean: float
    std: float  # of the sample; nan for fewer than two values
    interval: tuple[float, float]  # 95%, Student's t; nan for fewer than two values


@dataclass(frozen=True)
class PairwiseTest:
    """The difference of two recipes in a metric, paired over the seeds that both finished."""

    better: str
    worse: str
    seeds: int
    difference: float  # mean of better minus worse; negative if lower is better; nan for no seeds
    interval: tuple[float, float]  # 95%, not corrected for the number of pairs
    p_value: float  # of a two-sided paired t-test; nan for fewer than two seeds
    adjusted_p_value: float  # corrected for all tested pairs of the metric (Holm 1979)

    @property
    def tested(self) -> bool:
        """Whether both recipes finished at least two common seeds."""
        return not math.isnan(self.p_value)

    @property
    def significant(self) -> bool:
        """Whether the adjusted p-value is below 0.05."""
        return self.adjusted_p_value < LEVEL


def metric_summary(experiment: Experiment, name: str, metric: str) -> MetricSummary:
    """Mean, standard deviation and 95% interval of a metric over the seeds of a recipe.

    Args:
        experiment: The experiment.
        name: Name of the recipe in the experiment.
        metric: An entry of METRICS.

    Returns:
        The summary; nan if too few trials have finished.
    """
    values = tuple(_values(experiment, name, metric).values())
    mean = fmean(values) if values else math.nan
    if len(values) < 2:
        return MetricSummary(name, values, mean, math.nan, (math.nan, math.nan))
    std = stdev(values)
    half = float(stdtrit(len(values) - 1, 0.975)) * std / math.sqrt(len(values))
    return MetricSummary(name, values, mean, std, (mean - half, mean + half))


def rank_recipes(experiment: Experiment, metric: str) -> list[MetricSummary]:
    """Summaries of the recipes with a finished trial, by a metric of METRICS, best mean first."""
    summaries = [metric_summary(experiment, name, metric) for name in experiment.recipes]
    reverse = lookup(METRICS, metric, "metric").higher_is_better
    return sorted((s for s in summaries if s.values), key=lambda s: s.mean, reverse=reverse)


def pairwise_tests(experiment: Experiment, metric: str) -> list[PairwiseTest]:
    """Test the difference of each pair of recipes.

    Trials of the same seed have the same initial weights and the same order of images, so the
    t-test is paired by seed. Its p-values are corrected for the number of pairs (Holm 1979).
    Fewer than two common seeds allow no test: p is nan. The standard deviation of the differences
    is at least that of the metric's rounding error, because equal differences of rounded values do
    not imply zero variance.

    Args:
        experiment: The experiment.
        metric: An entry of METRICS.

    Returns:
        A test of each pair, smallest p-value first.
    """
    ranked = [row.recipe for row in rank_recipes(experiment, metric)]
    values = {name: _values(experiment, name, metric) for name in ranked}
    sign = 1 if METRICS[metric].higher_is_better else -1
    # standard deviation of a difference of rounded values
    rounding = _resolution(experiment, metric) / math.sqrt(6)
    rows = []
    for better, worse in combinations(ranked, 2):
        common = [seed for seed in values[better] if seed in values[worse]]
        gaps = [values[better][seed] - values[worse][seed] for seed in common]
        if sign * sum(gaps) < 0:  # the better recipe over all seeds is worse on the common seeds
            better, worse, gaps = worse, better, [-gap for gap in gaps]
        rows.append((better, worse, gaps, *paired_t(gaps, rounding)))
    adjusted = _holm_of_tested([row[-1] for row in rows])
    tests = [
        PairwiseTest(
            better, worse, len(gaps), fmean(gaps) if gaps else math.nan, interval, p, adjusted_p
        )
        for (better, worse, gaps, interval, p), adjusted_p in zip(rows, adjusted, strict=True)
    ]
    return sorted(tests, key=lambda test: (not test.tested, test.p_value if test.tested else 0.0))


def summarize(experiment: Experiment, metric: str) -> str:
    """Sentences on the best recipe by a metric of METRICS, and on its significant differences."""
    ranked, info = rank_recipes(experiment, metric), lookup(METRICS, metric, "metric")
    if not ranked:
        return "No trial has finished yet."
    best = ranked[0]
    spread = "" if math.isnan(best.std) else f" ± {info.format(best.std)}"
    text = f"{best.recipe} has the {'highest' if info.higher_is_better else 'lowest'} "
    text += f"{info.title}: {info.format(best.mean)}{spread}{info.unit}"
    if len(best.values) < len(experiment.seeds):
        text += f" ({len(best.values)} of {counted(len(experiment.seeds), 'seed')})"
    if len(ranked) == 1:
        return f"{text}."
    tests = [t for t in pairwise_tests(experiment, metric) if best.recipe in (t.better, t.worse)]
    better_than = [t.worse for t in tests if t.significant and t.better == best.recipe]
    worse_than = [t.better for t in tests if t.significant and t.worse == best.recipe]
    similar = [t for t in tests if t.tested and not t.significant]
    untested = [t for t in tests if not t.tested]
    if better_than and not similar and not untested and not worse_than:
        names = "all others" if len(better_than) > 1 else better_than[0]
        clauses = [f"significantly better than {names}"]
    else:
        clauses = [
            *([f"significantly better than {_join(better_than)}"] if better_than else []),
            *(
                [f"not significantly different from {_list_gaps(best.recipe, similar, info)}"]
                if similar
                else []
            ),
            *(
                [f"significantly worse than {_join(worse_than)} on the seeds that both finished"]
                if worse_than
                else []
            ),
            *(
                [f"not tested against {_list_gaps(best.recipe, untested, info)}"]
                if untested
                else []
            ),
        ]
    if len(experiment.seeds) == 1:
        clauses[-1] += ": one seed allows no test"
    return f"{text}. It is {', but '.join(clauses)}.{_loss_caveat(experiment, metric)}"


def _holm_of_tested(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for the number of tested pairs; nan remains nan."""
    adjusted = iter(holm([p for p in p_values if not math.isnan(p)]))
    return [p if math.isnan(p) else next(adjusted) for p in p_values]


def _loss_caveat(experiment: Experiment, metric: str) -> str:
    """A sentence if the recipes minimize different training losses."""
    if metric != "train_loss":
        return ""
    recipes = [
        recipe for name, recipe in experiment.recipes.items() if experiment.finished_of(name)
    ]
    fields = [f for f in LOSS_FIELDS if len({getattr(recipe, f) for recipe in recipes}) > 1]
    if not fields:
        return ""
    return f" Training losses are not comparable: the recipes differ in {_join(fields)}."


def _list_gaps(best: str, tests: Sequence[PairwiseTest], info: Metric) -> str:
    """The closest recipes with their differences, and the number of the others."""
    ordered = sorted(
        tests, key=lambda t: math.inf if math.isnan(t.difference) else abs(t.difference)
    )
    closest = [_format_gap(best, test, info) for test in ordered[:MOST_NAMED]]
    rest = len(ordered) - len(closest)
    return _join(closest + [f"{rest} other{'s' * (rest > 1)}"] * (rest > 0))


def _format_gap(best: str, test: PairwiseTest, info: Metric) -> str:
    is_better = test.better == best
    other, gap = (test.worse, test.difference) if is_better else (test.better, -test.difference)
    if math.isnan(gap):
        return f"{other} (no common seed)"
    p = f", p = {test.adjusted_p_value:.2g}" if test.tested else ""
    return f"{other} ({info.format(gap, '+')}{p})"


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _values(experiment: Experiment, name: str, metric: str) -> dict[int, float]:
    """The metric of each finished trial of a recipe, by seed, without nan."""
    measure = lookup(METRICS, metric, "metric").measure
    values = {
        trial.seed: measure(trial, trial.result)
        for trial in experiment.finished_of(name)
        if trial.result is not None
    }
    return {seed: value for seed, value in values.items() if not math.isnan(value)}


def _resolution(experiment: Experiment, metric: str) -> float:
    results = [trial.result for trial in experiment.finished if trial.result is not None]
    return max(map(METRICS[metric].resolution, results), default=0.0)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        title="test accuracy",
        measure=lambda trial, result: result.accuracy,
        higher_is_better=True,
        unit="%",
        scale=100,
        digits=2,
        resolution=lambda result: 1 / result.test_images,
    ),
    "test_nll": Metric("test NLL", lambda trial, result: result.test_nll),
    "train_loss": Metric("training loss", lambda trial, result: trial.history[-1].train_loss),
    "calibration_error": Metric(
        title="calibration error",
        measure=lambda trial, result: result.calibration_error,
        unit="%",
        scale=100,
        digits=2,
    ),
    "seconds": Metric(
        "training time", lambda trial, result: result.train_seconds, unit=" s", digits=1
    ),
}
