"""ROC and precision-recall curves."""

import math
from collections.abc import Callable
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seewhy.diagnosis.predictions import AnyPredictions
from seewhy.diagnosis.thresholds import (
    ClassRanking,
    ThresholdCurve,
    ranking_scores,
    threshold_curve,
)
from seewhy.figures.calibration import GRAY
from seewhy.figures.style import BLUE, GREEN, ORANGE, PURPLE, STYLE, VERMILION, legend_below
from seewhy.figures.text import truncate
from seewhy.wording import counted

SIZE = (4.4, 3.9)  # inches
NAME_WIDTH = 1.2  # inches, of a class name
WORST = (
    (VERMILION, "-"),
    (ORANGE, "--"),
    (PURPLE, "-."),
    (GREEN, ":"),
)  # lines of the worst classes
GRID = np.linspace(0, 1, 201)  # of the mean over classes
MAX_POINTS = 200  # of a curve

Curve = tuple[np.ndarray, np.ndarray]  # x and y, (M,) in [0, 1]


def roc_figure(predictions: AnyPredictions) -> Figure:
    """Plot the ROC curve of the positive class, or of each class against the rest.

    Of two classes, the second one is positive. Of more, the mean over the classes is shown, and of
    more than 4 the 4 with the lowest AUROC.
    """
    return _figure(predictions, _ROC)


def precision_recall_figure(predictions: AnyPredictions) -> Figure:
    """Plot the precision-recall curve of the positive class, or of each class against the rest.

    Of two classes, the second one is positive. Of more, the mean over the classes is shown, and of
    more than 4 the 4 with the lowest average precision. The dashed line is the precision of random
    predictions.
    """
    return _figure(predictions, _PRECISION_RECALL)


class _Kind(NamedTuple):
    """What differs between the two figures."""

    title: str
    labels: tuple[str, str]  # of the axes
    score: str  # name of the area
    area: Callable[[ClassRanking], float]
    curve: Callable[[ThresholdCurve], Curve]
    on_grid: Callable[[Curve], np.ndarray]  # y at the x of GRID
    chance: Callable[[float], Curve]  # of random predictions, by prevalence


def _on_roc_grid(curve: Curve) -> np.ndarray:
    """The highest true-positive rate that a threshold, or a random mixture of two, reaches."""
    return np.interp(GRID, *curve)  # of equal x the last y, which is the highest


def _on_precision_grid(curve: Curve) -> np.ndarray:
    """The precision at the highest threshold that reaches each recall, without interpolation."""
    recall, precision = curve
    return precision[np.searchsorted(recall, GRID)]


_ROC = _Kind(
    "ROC",
    ("false-positive rate [%]", "true-positive rate (recall) [%]"),
    "AUROC",
    lambda row: row.auroc,
    lambda curve: (curve.false_positive_rate.numpy(), curve.recall.numpy()),
    _on_roc_grid,
    lambda prevalence: (np.array([0.0, 1.0]), np.array([0.0, 1.0])),
)
_PRECISION_RECALL = _Kind(
    "Precision-recall",
    ("recall [%]", "precision [%]"),
    "average precision",
    lambda row: row.average_precision,
    lambda curve: (curve.recall.numpy(), curve.precision.numpy()),
    _on_precision_grid,
    lambda prevalence: (np.array([0.0, 1.0]), np.array([prevalence, prevalence])),
)


def _figure(predictions: AnyPredictions, kind: _Kind) -> Figure:
    defined = [row for row in ranking_scores(predictions).classes if not row.undefined]
    worst = sorted(defined, key=kind.area)[: len(WORST)]
    curves = {
        row.index: kind.curve(threshold_curve(predictions, row.index))
        for row in (defined if len(defined) > 1 else worst)
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        title = f"{kind.title} curve{'s' if len(curves) > 1 else ''} and {kind.score}"
        axes.set_title(title, loc="left")
        axes.set(xlim=(-2, 102), ylim=(-2, 102), xticks=range(0, 101, 25), yticks=range(0, 101, 25))
        axes.set_xlabel(kind.labels[0])
        axes.set_ylabel(kind.labels[1])
        if not defined:
            text = "no class has both images\nand images of other classes"
            axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center")
            return figure
        prevalence = math.fsum(row.prevalence for row in defined) / len(defined)
        dashes = (0, (4, 3))
        _plot(axes, kind.chance(prevalence), GRAY, dashes, 0.9, "random predictions")
        for row, (color, line) in zip(worst, WORST, strict=False):
            label = f"{truncate(row.name, NAME_WIDTH)}, {kind.area(row):.3f}"
            _plot(axes, curves[row.index], color, line, 1.3, label)
        if len(defined) > 1:
            mean = np.mean([kind.on_grid(curve) for curve in curves.values()], 0)
            area = math.fsum(map(kind.area, defined)) / len(defined)
            label = f"mean of {counted(len(defined), 'class')}, {area:.3f}"
            _plot(axes, (GRID, mean), BLUE, "-", 2, label)
        legend_below(figure, axes)
    return figure


def _plot(
    axes: Axes,
    curve: Curve,
    color: str,
    line: str | tuple[int, tuple[int, int]],
    width: float,
    label: str,
) -> None:
    x, y = _thinned(curve)
    axes.plot(100 * x, 100 * y, color=color, linestyle=line, linewidth=width, label=label)


def _thinned(curve: Curve) -> Curve:
    """At most 200 points of a curve, evenly along its length."""
    x, y = curve
    if len(x) <= MAX_POINTS:
        return curve
    length = np.concatenate([[0], (np.abs(np.diff(x)) + np.abs(np.diff(y))).cumsum()])
    evenly = np.linspace(0, length[-1], MAX_POINTS)
    kept = np.unique(np.searchsorted(length, evenly).clip(max=len(x) - 1))
    return x[kept], y[kept]
