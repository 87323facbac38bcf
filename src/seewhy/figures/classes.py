"""Accuracy by class, and the confusion matrix."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from seewhy.diagnosis.metrics import class_scores, most_confused
from seewhy.diagnosis.predictions import Predictions, confusion_matrix
from seewhy.figures.style import BLUE, STYLE, VERMILION
from seewhy.figures.text import text_width, truncate
from seewhy.wording import counted

WIDTH = 4.4  # inches
ROW_HEIGHT = 0.2  # inches
MAX_ROWS = 40  # classes of class_figure
MAX_CLASSES = 100  # classes of confusion_figure
MAX_NUMBERED = 20  # classes up to which counts are written into the cells
NAME_WIDTH = 1.2  # inches, of a class name
ERRORS = LinearSegmentedColormap.from_list("errors", ["#ffffff", VERMILION])


def class_figure(predictions: Predictions) -> Figure:
    """Plot the accuracy of each class with its 95% interval, worst first, and their mean.

    Of more than 40 classes the 40 worst are shown.
    """
    scores = class_scores(predictions)
    ranked = sorted((score for score in scores if score.images), key=lambda score: score.accuracy)
    rows = ranked[:MAX_ROWS]
    accuracy = 100 * np.array([row.accuracy for row in rows])
    interval = 100 * np.array([row.interval for row in rows])
    mean = 100 * float(np.mean([row.accuracy for row in ranked]))
    y = np.arange(len(rows))
    with mpl.rc_context(STYLE):
        height = 0.95 + ROW_HEIGHT * max(len(rows), 4)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        axes.hlines(y, *interval.T, color=BLUE, linewidth=1.6, alpha=0.55)
        axes.plot(accuracy, y, color=BLUE, linestyle="", marker="o", markersize=5)
        axes.axvline(mean, color=VERMILION, linestyle="--", linewidth=1, zorder=0)
        axes.annotate(
            f"mean {mean:.1f}",
            (mean, 1),
            (0, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
        )
        axes.set_yticks(y, [truncate(row.name, NAME_WIDTH) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_title(_class_title(len(rows), len(ranked), len(scores)), loc="left", pad=16)
        axes.set_xlabel("accuracy [%] with 95% interval")
        right = axes.secondary_yaxis("right")
        right.set_yticks(y, [f"{value:.1f}" for value in accuracy])
        right.spines["right"].set_visible(False)
        for side in (axes, right):
            side.tick_params(axis="y", length=0)
        low, high = interval.min(), interval.max()
        axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    return figure


def confusion_figure(predictions: Predictions) -> Figure:
    """Show the confusion matrix, with errors in color as a fraction of the true class.

    Counts are written into the cells of up to 20 classes. Of more than 100 classes those with the
    most errors are shown; classes without images and predictions are left out.
    """
    counts, classes = confusion_matrix(predictions).cpu(), predictions.classes
    all_shares = 100 * counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    indices = most_confused(counts, MAX_CLASSES).tolist()
    counts, shares = counts[indices][:, indices], all_shares[indices][:, indices].numpy()
    numbered = len(indices) <= MAX_NUMBERED
    side = min(0.9, max(0.34, 2.4 / len(indices))) if numbered else 0.1  # inches of a cell
    sizes = {"font.size": 8 if numbered else 6, "axes.labelsize": STYLE["font.size"]}
    with mpl.rc_context({**STYLE, **sizes, "axes.grid": False}):
        names = [truncate(classes[index], NAME_WIDTH) for index in indices]
        margin = max(map(text_width, names))
        extent = side * len(names)
        size = (max(WIDTH, extent + margin + 1.1), extent + margin + 0.65)
        figure = Figure(figsize=size, layout="compressed")  # constrained, for a fixed aspect
        axes = figure.subplots()
        diagonal = np.eye(len(names), dtype=bool)
        peak = np.where(diagonal, 0, shares).max()
        errors = np.ma.masked_array(shares, diagonal)
        image = axes.imshow(errors, cmap=ERRORS, vmin=0, vmax=peak or 1)
        light_gray = np.ma.masked_array(np.full_like(shares, 0.9), ~diagonal)
        axes.imshow(light_gray, cmap="gray", vmin=0, vmax=1)
        _label_cells(axes, names, side)
        if numbered:
            _write_counts(axes, counts)
        of = (
            f", {len(names)} of {counted(len(classes), 'class')}"
            if len(names) < len(classes)
            else ""
        )
        figure.suptitle(
            f"Confusion matrix{of}", x=0.01, ha="left", fontsize=STYLE["axes.titlesize"]
        )
        if peak:
            figure.colorbar(
                image,
                ax=axes,
                label="errors [% of true class]",
                aspect=30 if numbered else 60,
                pad=0.02,
            )
    return figure


def _class_title(shown: int, present: int, total: int) -> str:
    if shown < present:
        return f"The {shown} worst of {counted(present, 'class')}"
    rest = "worst first" if present == total else f"{present:,} of {total:,} with images"
    return f"Accuracy by class, {rest}"


def _label_cells(axes: Axes, names: Sequence[str], side: float) -> None:
    """Names of the classes; in one direction where they fit into cells of `side` inches."""
    fits = max(map(text_width, names)) <= 0.9 * side
    axes.set_xticks(range(len(names)), names, rotation=0 if fits else 90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    edges = np.arange(len(names) + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.4, alpha=1)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)


def _write_counts(axes: Axes, counts: Tensor) -> None:
    for row, column in torch.nonzero(counts).tolist():
        color = "0.35" if row == column else "black"
        text = f"{counts[row, column]}"
        axes.text(column, row, text, ha="center", va="center", color=color, size=7)
