"""Recipes side by side: their curves, each the mean over its seeds, and what every seed came to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from seewhy.errors import SeewhyError, lookup
from seewhy.experiments.experiment import Experiment
from seewhy.experiments.statistics import (
    METRICS,
    Metric,
    MetricSummary,
    pairwise_tests,
    rank_recipes,
)
from seewhy.figures.style import BLUE, GREEN, ORANGE, PURPLE, SKY, STYLE, VERMILION
from seewhy.figures.text import text_height, text_width, truncate

_COLORS = (
    BLUE,
    VERMILION,
    GREEN,
    PURPLE,
    ORANGE,
    "black",
    SKY,
    "#767676",
)  # no yellow, which is lost on white
_LINES = (
    "-",
    "--",
    "-.",
    (0, (1, 1.2)),
    (0, (6, 1.5)),
    (0, (4, 1.2, 1, 1.2, 1, 1.2)),
    (0, (2, 1)),
    "-",
)
_MARKERS = "os^DvPXp"
MOST_RECIPES = len(_COLORS)  # that can be told apart
MOST_ROWS = 30  # of recipes below one another
_STEEP = (
    20.0  # from the smallest to the largest loss, from which on a linear axis hides the small ones
)
_NAME = 1.15  # inches, of a name at the end of its line
_GRAY = "0.35"

Array = NDArray[np.float64]
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """What an epoch is measured by, in the words of an axis."""

    title: str  # {} stands for the split that is evaluated
    label: str
    scale: float = 1.0


# By the field of EpochStats.
CURVES: dict[str, Curve] = {
    "train_loss": Curve("Training loss", "cross entropy"),
    "train_accuracy": Curve("Training accuracy", "accuracy [%]", 100),
    "eval_loss": Curve("{} loss", "cross entropy"),
    "eval_accuracy": Curve("{} accuracy", "accuracy [%]", 100),
}
ALONG = {
    "epoch": "epoch",
    "seconds": "seconds of training",
}  # what a curve goes along, by the field of EpochStats


@dataclass(frozen=True, eq=False)
class Band:
    """One recipe over its seeds: the mean with the smallest and largest value at each x, all (K,) float64."""

    x: Array
    mean: Array
    low: Array
    high: Array


def recipes_figure(experiment: Experiment, metric: str = "train_loss", by: str = "epoch") -> Figure:
    """A metric of CURVES by "epoch" or "seconds": of each recipe the mean over its finished seeds, and their range as a band.

    Of more than 8 recipes those with the highest test accuracy. By second each seed's curve is interpolated, as far as all seeds
    of the recipe reach. Raises SeewhyError where no training has finished.
    """
    shown = shown_recipes(experiment)
    with mpl.rc_context({**STYLE, "font.size": 8, "axes.titlesize": 9.5}):
        figure = Figure(figsize=(4.4, 3.1), layout="constrained")
        axes = figure.subplots()
        lines = _plot(axes, experiment, shown, metric, by)
        title = (
            f"{_called(experiment, metric)} by {by.removesuffix('s')}: {_over(experiment, shown)}"
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=9.5)
        if not _named_at_their_ends(figure, axes, lines):
            _legend(figure, lines)
    return figure


def experiment_figure(experiment: Experiment) -> Figure:
    """Training loss and held-out accuracy, by epoch and by second, of each recipe as in `recipes_figure`."""
    shown = shown_recipes(experiment)
    with mpl.rc_context({**STYLE, "axes.titlesize": 10}):
        figure = Figure(figsize=(10, 6.4), layout="constrained")
        grid = figure.subplots(2, 2, sharey="row")
        for row, metric in zip(grid, ("train_loss", "eval_accuracy"), strict=True):
            for axes, by in zip(row, ALONG, strict=True):
                lines = _plot(axes, experiment, shown, metric, by)
                axes.set_title(
                    f"{_called(experiment, metric)} by {by.removesuffix('s')}", loc="left"
                )
            row[1].set_ylabel("")
        recipes = "1 recipe" if len(shown) == 1 else f"{len(shown)} recipes"
        heading = f"{recipes} on {experiment.data['name']}, {_over(experiment, shown)}"
        figure.suptitle(heading, parse_math=False, x=0.005, ha="left", weight="bold", fontsize=11)
        _legend(figure, lines)
    return figure


def seeds_figure(experiment: Experiment, metric: str = "accuracy") -> Figure:
    """A metric of METRICS: of each recipe, the best on top, every seed as a dot, the mean and its 95% interval.

    Filled and blue are the best and those that cannot be told from it, open and gray those that are worse beyond luck. An arrow
    stands for a recipe that is far off; of more than 30 the best are shown. Raises SeewhyError where no training has finished.
    """
    about = lookup(METRICS, metric, "metric")
    _check(experiment)
    ranked = rank_recipes(experiment, metric)
    rows, best = ranked[:MOST_ROWS], ranked[0].recipe
    worse = {
        row.worse
        for row in pairwise_tests(experiment, metric)
        if row.better == best and row.significant
    }
    with mpl.rc_context({**STYLE, "font.size": 8, "axes.titlesize": 9.5}):
        figure = Figure(figsize=(4.4, 1.15 + 0.36 * len(rows)), layout="constrained")
        axes = figure.subplots()
        left, right = _limits(rows, about)
        axes.set_xlim(left, right)
        for place, row in enumerate(rows):
            _plot_seeds(axes, place, row, about, row.recipe not in worse)
        axes.set_ylim(len(rows) - 0.55, -0.75)
        axes.set_yticks([])
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{about.title}{f' [{about.unit.strip()}]' if about.unit else ''}")
        of = f"\nthe {len(rows)} best of {len(ranked)} recipes" if len(rows) < len(ranked) else ""
        said = (
            "Every seed, the mean and its 95% interval"
            if any(len(row.values) > 1 for row in rows)
            else "One seed of each"
        )
        axes.set_title(f"{said}{of}", loc="left")
        keys = [_key("the best, and those that cannot be told from it", True)]
        keys += [_key("worse than the best, beyond luck", False)] if worse else []
        if len(ranked) > 1:
            figure.legend(handles=keys, loc="outside lower left", frameon=False, ncols=1)
    return figure


def shown_recipes(experiment: Experiment) -> tuple[str, ...]:
    """The recipes that figures show, in the experiment's order: up to 8, those with the highest test accuracy."""
    _check(experiment)
    best = [row.recipe for row in rank_recipes(experiment, "accuracy")][:MOST_RECIPES]
    return tuple(name for name in experiment.recipes if name in best)


def band(curves: Sequence[Points]) -> Band:
    """The curves of several seeds, each of (x, y) in ascending x, on common x: all that any of them has, where all reach.

    Where they share no x, as those of a single epoch, the means of their last points.
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
    """The band of each recipe that was measured at all; a metric of CURVES, along an entry of ALONG."""
    lookup(ALONG, by, "axis of a curve")
    scale = lookup(CURVES, metric, "curve").scale
    found = {}
    for name in shown:
        curves = [
            [
                (getattr(row, by), scale * getattr(row, metric))
                for row in trial.history
                if getattr(row, metric) is not None
            ]
            for trial in experiment.of(name)
        ]
        if measured := [curve for curve in curves if curve]:
            found[name] = band(measured)
    return found


def _check(experiment: Experiment) -> None:
    if not experiment.finished:
        raise SeewhyError(
            f"no training of {experiment.directory} has finished, so there is nothing to draw; resume it"
        )


def _plot(
    axes: Axes, experiment: Experiment, shown: Sequence[str], metric: str, by: str
) -> dict[str, Line2D]:
    """A line and a band for each recipe; its color, line and marker are the same in every figure of the experiment."""
    found = bands(experiment, shown, metric, by)
    places = list(experiment.recipes) if len(experiment.recipes) <= MOST_RECIPES else list(shown)
    lines = {}
    for name, curve in found.items():
        place = places.index(name)
        look = {"color": _COLORS[place], "linestyle": _LINES[place], "marker": _MARKERS[place]}
        some = (
            (place / 100, 0.12) if len(curve.x) > 8 else None
        )  # of the markers, so far apart as shares of the axes
        (lines[name],) = axes.plot(
            curve.x, curve.mean, **look, markersize=4, linewidth=1.6, markevery=some, zorder=3
        )
        if len(curve.x) > 1:
            axes.fill_between(
                curve.x, curve.low, curve.high, color=_COLORS[place], alpha=0.15, linewidth=0
            )
        else:
            axes.vlines(curve.x, curve.low, curve.high, color=_COLORS[place], linewidth=1)
    axes.set_xlabel(ALONG[by])
    axes.set_ylabel(CURVES[metric].label)
    axes.set_xlim(
        0, 1.02 * max((curve.x[-1] for curve in found.values()), default=0) or 1
    )  # a clock may not have moved
    _scale(axes, list(found.values()), metric)
    return lines


def _scale(axes: Axes, found: Sequence[Band], metric: str) -> None:
    """A loss from 0, or on a logarithmic axis where it falls far; an accuracy as it comes."""
    if not metric.endswith("loss") or not found:
        return
    low, high = min(curve.low.min() for curve in found), max(curve.high.max() for curve in found)
    if 0 < low * _STEEP < high:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    axes.set_ylim(0, 1.05 * high)


def _called(experiment: Experiment, metric: str) -> str:
    """The title of a metric; the split that is evaluated while training is the validation split where there is one."""
    validated = any(
        trial.result is not None and trial.result.selected_on == "validation"
        for trial in experiment.finished
    )
    return CURVES[metric].title.format("Validation" if validated else "Test")


def _over(experiment: Experiment, shown: Sequence[str]) -> str:
    """What lines and bands are, and which recipes are shown where it is not all that have finished."""
    seeds = max(len(experiment.of(name)) for name in shown)
    finished = sum(bool(experiment.of(name)) for name in experiment.recipes)
    of = (
        ""
        if len(shown) == finished
        else f"\nthe {len(shown)} of {finished} recipes with the highest test accuracy"
    )
    return ("one seed" if seeds == 1 else f"mean and range of {seeds} seeds") + of


def _named_at_their_ends(figure: Figure, axes: Axes, lines: Mapping[str, Line2D]) -> bool:
    """Write the names to the right of where the lines end; False, and nothing written, where they would not fit there."""
    ends = {name: line.get_xydata()[-1] for name, line in lines.items()}
    if any(
        text_width(name) > _NAME or end[0] < 0.9 * axes.get_xlim()[1] for name, end in ends.items()
    ):
        return False
    figure.draw_without_rendering()  # which gives the axes their size
    heights = sorted(axes.transData.transform(end)[1] / figure.dpi for end in ends.values())
    if any(above - below < text_height(1) for below, above in pairwise(heights)):
        return False
    for name, (_, y) in ends.items():
        axes.annotate(
            truncate(name, _NAME),
            (1, y),
            xycoords=axes.get_yaxis_transform(),
            xytext=(3, 0),
            **_BESIDE,
        )
    return True


_BESIDE = {"textcoords": "offset points", "va": "center", "annotation_clip": False}


def _legend(figure: Figure, lines: Mapping[str, Line2D]) -> None:
    """Names and lines beneath the figure, which grows by as much where it is a small one."""
    width = figure.get_figwidth() - 0.2
    size, beside = (
        float(mpl.rcParams["font.size"]),
        0.75,
    )  # inches that a line takes beside its name
    names = [truncate(name, width - beside) for name in lines]
    widest = max(map(text_width, names), default=0) + beside
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


def _limits(rows: Sequence[MetricSummary], about: Metric) -> tuple[float, float]:
    """Of the axis: all recipes, or those near the better half where others are so far off that its differences would be lost."""

    def ends(some: Sequence[MetricSummary]) -> tuple[float, float]:
        shown = [
            about.scale * x
            for row in some
            for x in (*row.values, *row.interval)
            if not math.isnan(x)
        ]
        return min(shown), max(shown)

    low, high = ends(rows[: max(2, math.ceil(len(rows) / 2))])
    reach = 1.5 * (high - low)
    near = ends([row for row in rows if low - reach <= about.scale * row.mean <= high + reach])
    low, high = ends(rows)
    if 0 < 2.5 * (near[1] - near[0]) < high - low:
        low, high = near
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    top = 100 + margin / 2 if about.unit == "%" else math.inf
    return max(low - margin, -margin / 2), min(high + margin, top)


def _plot_seeds(axes: Axes, place: int, row: MetricSummary, about: Metric, near: bool) -> None:
    """The name of a recipe, below it its seeds, or an arrow to where they are, and what they come to at the right."""
    color, values, mean = (
        BLUE if near else _GRAY,
        [about.scale * value for value in row.values],
        about.scale * row.mean,
    )
    beside = axes.get_yaxis_transform()
    left, right = axes.get_xlim()
    if left <= mean <= right:
        if len(values) > 1:
            axes.plot(
                [about.scale * end for end in row.interval],
                [place, place],
                color=color,
                linewidth=5,
                alpha=0.3,
                **_BUTT,
            )
        axes.plot([mean, mean], [place - 0.17, place + 0.17], color=color, linewidth=1.8, **_BUTT)
        axes.plot(
            values,
            [place] * len(values),
            "o",
            color=color,
            markerfacecolor=color if near else "none",
            markersize=4.5,
        )
    else:
        axes.plot(
            [float(mean > right)],
            [place],
            ">" if mean > right else "<",
            color=color,
            transform=beside,
            clip_on=False,
        )
    name = truncate(row.recipe, 3.2)
    axes.text(
        0, place - 0.24, name, transform=beside, va="bottom", weight="bold" if place == 0 else None
    )
    spread = "" if math.isnan(row.std) else f" ± {about.said(row.std)}"
    axes.text(1.03, place, f"{about.said(row.mean)}{spread}", transform=beside, va="center")


_BUTT = {"solid_capstyle": "butt"}


def _key(words: str, near: bool) -> Line2D:
    color = BLUE if near else _GRAY
    return Line2D(
        [],
        [],
        linestyle="",
        marker="o",
        color=color,
        markerfacecolor=color if near else "none",
        label=words,
    )
