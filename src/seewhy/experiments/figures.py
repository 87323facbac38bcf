"""Figures of an experiment: curves of each recipe over its seeds, and the metrics of every seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from seewhy.errors import SeewhyError, lookup
from seewhy.experiments.experiment import Experiment, Trial
from seewhy.experiments.statistics import (
    METRICS,
    Metric,
    MetricSummary,
    pairwise_tests,
    rank_recipes,
)
from seewhy.figures.curves import whole_ticks
from seewhy.figures.style import BLUE, GREEN, ORANGE, PURPLE, SKY, STYLE, VERMILION
from seewhy.figures.text import text_height, text_width, truncate, wrap
from seewhy.wording import counted

# yellow would be invisible on white
_COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, "black", SKY, "#767676")
_DASHES = ((1, 1.2), (6, 1.5), (4, 1.2, 1, 1.2, 1, 1.2), (2, 1))
_LINES = ("-", "--", "-.", *((0, dashes) for dashes in _DASHES), "-")
_MARKERS = "os^DvPXp"
MOST_RECIPES = len(_COLORS)  # more lines would be hard to distinguish
MOST_ROWS = 30  # of seeds_figure
_LOG_RATIO = 20.0  # largest to smallest loss for a logarithmic axis
_NAME_WIDTH = 1.15  # inches, for a name at the end of its line
_LEGEND_WIDTH = 1.9  # inches, for the names in the legend beside the panels
_GRAY = "0.35"
_BEST_KEY = "best, or not significantly different from the best"
_BUTT = {"solid_capstyle": "butt"}

Array = NDArray[np.float64]
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """A quantity by epoch, with its labels in figures."""

    title: str  # {} is replaced by the evaluated split
    label: str
    scale: float = 1.0


CURVES: dict[str, Curve] = {
    "train_loss": Curve("Training loss", "loss"),
    "eval_loss": Curve("{} loss", "loss"),
    "train_accuracy": Curve("Training accuracy", "accuracy [%]", 100),
    "eval_accuracy": Curve("{} accuracy", "accuracy [%]", 100),
}
X_AXES = {"epoch": "epoch", "seconds": "seconds of training"}


@dataclass(frozen=True, eq=False)
class Band:
    """Mean and range of a recipe over its seeds."""

    x: Array  # (K,) float64, as are all
    mean: Array
    low: Array
    high: Array


def recipes_figure(experiment: Experiment, metric: str = "train_loss", by: str = "epoch") -> Figure:
    """The curve of each recipe: mean over its finished seeds as a line, their range as a band.

    By seconds, the curves of the seeds are interpolated up to the end of the fastest. Of more than
    8 recipes, those with the highest test accuracy are shown.

    Args:
        experiment: The experiment.
        metric: An entry of CURVES.
        by: "epoch" or "seconds", the x axis.

    Returns:
        The figure.

    Raises:
        SeewhyError: No trial has finished, or `metric` or `by` is unknown.
    """
    shown = shown_recipes(experiment)
    with mpl.rc_context({**STYLE, "font.size": 8, "axes.titlesize": 9.5}):
        figure = Figure(figsize=(4.4, 3.1), layout="constrained")
        axes = figure.subplots()
        lines = _plot(axes, experiment, shown, metric, by)
        title = f"{_title(experiment, metric, by)}: {_coverage(experiment, shown)}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=9.5)
        if not _label_lines(figure, axes, lines):
            _add_legend(figure, lines)
    return figure


def experiment_figure(experiment: Experiment, by: str = "epoch") -> Figure:
    """Loss and accuracy of each recipe on the training images and on the evaluated ones.

    Lines and bands are those of `recipes_figure`.

    Args:
        experiment: The experiment.
        by: "epoch" or "seconds", the x axis.

    Returns:
        The figure, with a legend beside its four panels.

    Raises:
        SeewhyError: No trial has finished, or `by` is unknown.
    """
    shown = shown_recipes(experiment)
    with mpl.rc_context({**STYLE, "axes.titlesize": 10}):
        figure = Figure(figsize=(10, 6.0), layout="constrained")
        for axes, metric in zip(figure.subplots(2, 2).flat, CURVES, strict=True):
            lines = _plot(axes, experiment, shown, metric, by)
            axes.set_title(_title(experiment, metric, by), loc="left")
        recipes = counted(len(shown), "recipe")
        heading = f"{recipes} on {experiment.data.name}, {_coverage(experiment, shown)}"
        figure.suptitle(heading, parse_math=False, x=0.005, ha="left", weight="bold", fontsize=11)
        style = {"frameon": False, "handlelength": 3.4, "labelspacing": 0.8}
        names = [wrap(name, _LEGEND_WIDTH) for name in lines]
        figure.legend(list(lines.values()), names, loc="outside right upper", **style)
    return figure


def seeds_figure(experiment: Experiment, metric: str = "accuracy") -> Figure:
    """Every seed of each recipe as a dot, with the mean and its 95% interval, best recipe on top.

    Blue, filled dots mark the best recipe and those not significantly different from it; gray, open
    dots mark significantly worse ones. An arrow stands for a recipe outside the axis. Of more than
    30 recipes the best are shown.

    Args:
        experiment: The experiment.
        metric: An entry of METRICS.

    Returns:
        The figure.

    Raises:
        SeewhyError: No trial has finished, or `metric` is unknown.
    """
    info = lookup(METRICS, metric, "metric")
    _check_finished(experiment)
    ranked = rank_recipes(experiment, metric)
    rows, best = ranked[:MOST_ROWS], ranked[0].recipe
    tests = pairwise_tests(experiment, metric)
    worse = {test.worse for test in tests if test.better == best and test.significant}
    with mpl.rc_context({**STYLE, "font.size": 8, "axes.titlesize": 9.5}):
        figure = Figure(figsize=(4.4, 1.15 + 0.36 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.set_xlim(*_x_limits(rows, info))
        for y, row in enumerate(rows):
            _plot_seeds(axes, y, row, info, row.recipe not in worse)
        axes.set_ylim(len(rows) - 0.55, -0.75)
        axes.set_yticks([])
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{info.title}{f' [{info.unit.strip()}]' if info.unit else ''}")
        several = any(len(row.values) > 1 for row in rows)
        title = "Every seed, the mean and its 95% interval" if several else "One seed per recipe"
        if len(rows) < len(ranked):
            title += f"\nthe {len(rows)} best of {counted(len(ranked), 'recipe')}"
        axes.set_title(title, loc="left")
        untested = not any(test.tested for test in tests)
        best_key = "one seed allows no test" if untested else _BEST_KEY
        keys = [_key(best_key, True)]
        keys += [_key("significantly worse than the best", False)] if worse else []
        if len(ranked) > 1:
            figure.legend(handles=keys, loc="outside lower left", frameon=False, ncols=1)
    return figure


def shown_recipes(experiment: Experiment) -> tuple[str, ...]:
    """Names of the recipes in figures: up to 8, those with the highest test accuracy."""
    _check_finished(experiment)
    best = [row.recipe for row in rank_recipes(experiment, "accuracy")][:MOST_RECIPES]
    return tuple(name for name in experiment.recipes if name in best)


def band(curves: Sequence[Points]) -> Band:
    """Mean and range of curves of (x, y) in ascending x, at every x within all of them.

    If they have no x in common, as with a single epoch, the band is one point: the means of their
    ends.
    """
    arrays = [np.array(curve, dtype=np.float64) for curve in curves]
    start, end = max(array[0, 0] for array in arrays), min(array[-1, 0] for array in arrays)
    if start > end:
        last = np.array([array[-1] for array in arrays])
        x, values = last[:, :1].mean(0), last[:, 1:]
    else:
        x = np.unique(np.concatenate([array[:, 0] for array in arrays]))
        x = x[(x >= start) & (x <= end)]
        values = np.array([np.interp(x, array[:, 0], array[:, 1]) for array in arrays])
    return Band(x, values.mean(0), values.min(0), values.max(0))


def bands(experiment: Experiment, shown: Sequence[str], metric: str, by: str) -> dict[str, Band]:
    """The band of each recipe with values; `metric` is an entry of CURVES, `by` one of X_AXES."""
    lookup(X_AXES, by, "x axis")
    scale = lookup(CURVES, metric, "curve").scale

    def points(trial: Trial) -> list[tuple[float, float]]:
        values = [(getattr(row, by), getattr(row, metric)) for row in trial.history]
        return [(x, scale * y) for x, y in values if y is not None]

    curves = {name: list(map(points, experiment.finished_of(name))) for name in shown}
    return {name: band(list(filter(None, each))) for name, each in curves.items() if any(each)}


def _check_finished(experiment: Experiment) -> None:
    if not experiment.finished:
        raise SeewhyError(f"no trial of {experiment.directory} has finished; resume it first")


def _plot(
    axes: Axes, experiment: Experiment, shown: Sequence[str], metric: str, by: str
) -> dict[str, Line2D]:
    """A line and a band per recipe, in the same style in every figure of the experiment."""
    by_recipe = bands(experiment, shown, metric, by)
    numbered = list(experiment.recipes) if len(experiment.recipes) <= MOST_RECIPES else list(shown)
    lines = {}
    for name, curve in by_recipe.items():
        index = numbered.index(name)
        color = _COLORS[index]
        style: dict[str, Any] = {"color": color, "marker": _MARKERS[index]}
        # offset and distance of the markers, as fractions of the axes
        markevery = (index / 100, 0.12) if len(curve.x) > 8 else None
        style |= {"markersize": 4, "markevery": markevery, "linestyle": _LINES[index]}
        (lines[name],) = axes.plot(curve.x, curve.mean, **style, linewidth=1.6, zorder=3)
        if len(curve.x) > 1:
            axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.15, linewidth=0)
        else:
            axes.vlines(curve.x, curve.low, curve.high, color=color, linewidth=1)
    axes.set_xlabel(X_AXES[by])
    axes.set_ylabel(CURVES[metric].label)
    end = max((curve.x[-1] for curve in by_recipe.values()), default=0)
    axes.set_xlim(0, 1.02 * end or 1)  # a coarse clock may show 0 seconds
    if by == "epoch":
        whole_ticks(axes, end)
    _scale_y(axes, list(by_recipe.values()), metric)
    return lines


def _scale_y(axes: Axes, curves: Sequence[Band], metric: str) -> None:
    """Fit the axis to the curves; make that of a loss logarithmic for a wide range."""
    if not metric.endswith("loss") or not curves:
        return
    low, high = min(curve.low.min() for curve in curves), max(curve.high.max() for curve in curves)
    if 0 < low * _LOG_RATIO < high:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    axes.set_ylim(bottom=max(0, axes.get_ylim()[0]))


def _title(experiment: Experiment, metric: str, by: str) -> str:
    """The title of a curve; the evaluated split is the validation split if there is one."""
    results = [trial.result for trial in experiment.finished if trial.result is not None]
    validated = any(result.selected_on == "validation" for result in results)
    title = CURVES[metric].title.format("Validation" if validated else "Test")
    return f"{title} by {by.removesuffix('s')}"


def _coverage(experiment: Experiment, shown: Sequence[str]) -> str:
    """The meaning of lines and bands, and the selection of recipes if not all are shown."""
    seeds = {len(experiment.finished_of(name)) for name in shown}
    number = f"{'up to ' if len(seeds) > 1 else ''}{max(seeds)}"
    text = "one seed" if seeds == {1} else f"mean and range of {number} seeds"
    finished = sum(bool(experiment.finished_of(name)) for name in experiment.recipes)
    if len(shown) < finished:
        text += (
            f"\nthe {len(shown)} of {counted(finished, 'recipe')} with the highest test accuracy"
        )
    return text


def _label_lines(figure: Figure, axes: Axes, lines: Mapping[str, Line2D]) -> bool:
    """Write names at the ends of the lines; if they do not fit, write nothing and return False."""
    ends = {name: line.get_xydata()[-1] for name, line in lines.items()}
    right = 0.9 * axes.get_xlim()[1]
    if any(text_width(name) > _NAME_WIDTH or end[0] < right for name, end in ends.items()):
        return False
    figure.draw_without_rendering()  # sets the size of the axes
    heights = sorted(axes.transData.transform(end)[1] / figure.dpi for end in ends.values())
    if any(above - below < text_height(1) for below, above in pairwise(heights)):
        return False
    for name, (_, y) in ends.items():
        axes.annotate(
            truncate(name, _NAME_WIDTH),
            (1, y),
            xycoords=axes.get_yaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )
    return True


def _add_legend(figure: Figure, lines: Mapping[str, Line2D]) -> None:
    """A legend below the axes; a small figure grows to make room for it."""
    width = figure.get_figwidth() - 0.2
    size, handle = float(mpl.rcParams["font.size"]), 0.75  # points; inches of a line before a name
    names = [truncate(name, width - handle) for name in lines]
    widest = max(map(text_width, names), default=0) + handle
    columns = min(len(names), max(1, int(width / widest))) or 1
    rows = math.ceil(len(names) / columns)
    if figure.get_figwidth() < 6:
        figure.set_figheight(figure.get_figheight() + rows * 1.35 * size / 72 + 0.1)
    figure.legend(
        list(lines.values()),
        names,
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        handlelength=3.4,
        labelspacing=0.25,
    )


def _x_limits(rows: Sequence[MetricSummary], info: Metric) -> tuple[float, float]:
    """Limits of the axis, without outliers that would make the other recipes look equal."""

    def extent(subset: Sequence[MetricSummary]) -> tuple[float, float]:
        values = [info.scale * x for row in subset for x in (*row.values, *row.interval)]
        values = [x for x in values if not math.isnan(x)]
        return min(values), max(values)

    low, high = extent(rows[: max(2, math.ceil(len(rows) / 2))])
    reach = 1.5 * (high - low)
    near = extent([row for row in rows if low - reach <= info.scale * row.mean <= high + reach])
    low, high = extent(rows)
    if 0 < 2.5 * (near[1] - near[0]) < high - low:
        low, high = near
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    top = 100 + margin / 2 if info.unit == "%" else math.inf
    return max(low - margin, -margin / 2), min(high + margin, top)


def _plot_seeds(axes: Axes, y: int, row: MetricSummary, info: Metric, is_best: bool) -> None:
    """Name, seeds (or an arrow toward them), mean and spread of a recipe."""
    color = BLUE if is_best else _GRAY
    values, mean = [info.scale * value for value in row.values], info.scale * row.mean
    transform = axes.get_yaxis_transform()
    left, right = axes.get_xlim()
    if left <= mean <= right:
        if len(values) > 1:
            interval = [info.scale * end for end in row.interval]
            axes.plot(interval, [y, y], color=color, linewidth=5, alpha=0.3, **_BUTT)
        axes.plot([mean, mean], [y - 0.17, y + 0.17], color=color, linewidth=1.8, **_BUTT)
        face = color if is_best else "none"
        dots = {"color": color, "markerfacecolor": face, "markersize": 4.5}
        axes.plot(values, [y] * len(values), "o", **dots)
    else:
        is_right = mean > right
        arrow = ">" if is_right else "<"
        axes.plot([float(is_right)], [y], arrow, color=color, transform=transform, clip_on=False)
    weight = "bold" if y == 0 else None
    name = truncate(row.recipe, 3.2)
    axes.text(0, y - 0.24, name, transform=transform, va="bottom", weight=weight)
    spread = "" if math.isnan(row.std) else f" ± {info.format(row.std)}"
    text = f"{info.format(row.mean)}{spread}"
    axes.text(1.03, y, text, transform=transform, va="center")


def _key(label: str, is_best: bool) -> Line2D:
    """A legend entry of seeds_figure."""
    color = BLUE if is_best else _GRAY
    face = color if is_best else "none"
    style = {"linestyle": "", "marker": "o", "color": color, "markerfacecolor": face}
    return Line2D([], [], label=label, **style)
