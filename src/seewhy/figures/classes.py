"""Pictures of classes: how often each is recognized, and which are taken for which."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from seewhy.diagnosis.metrics import ClassScore
from seewhy.errors import SeewhyError
from seewhy.figures.image_grid import text_width, truncate
from seewhy.figures.style import BLUE, STYLE, VERMILION

WIDTH = 4.4  # inches
ROW = 0.2  # inches, of a class
MOST_ROWS = 40  # classes that class_figure shows
MOST_CELLS = 100  # classes that confusion_figure shows
MOST_NUMBERS = 20  # classes up to which the counts are written into the cells
LONGEST = 1.2  # inches, of a class's name
MISTAKES = LinearSegmentedColormap.from_list("mistakes", ["#ffffff", VERMILION])


def class_figure(scores: Sequence[ClassScore]) -> Figure:
    """The accuracy of every class with its 95% interval, the worst first, and the mean over classes.

    Of more than 40 classes the 40 worst are shown. Raises SeewhyError where no class has images.
    """
    ranked = sorted((score for score in scores if score.images), key=lambda score: score.accuracy)
    if not ranked:
        raise SeewhyError("no class has images, so that there is no accuracy to show")
    rows = ranked[:MOST_ROWS]
    accuracy = 100 * np.array([row.accuracy for row in rows])
    interval = 100 * np.array([row.interval for row in rows])
    mean = 100 * float(np.mean([row.accuracy for row in ranked]))
    places = np.arange(len(rows))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.95 + ROW * max(len(rows), 4)), layout="constrained")
        axes = figure.subplots()
        axes.hlines(places, *interval.T, color=BLUE, linewidth=1.6, alpha=0.55)
        axes.plot(accuracy, places, color=BLUE, linestyle="", marker="o", markersize=5)
        axes.axvline(mean, color=VERMILION, linestyle="--", linewidth=1, zorder=0)
        axes.annotate(
            f"mean {mean:.1f}",
            (mean, 1),
            (0, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
        )
        axes.set_yticks(places, [truncate(row.name, LONGEST) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_title(_ranking(len(rows), len(ranked), len(scores)), loc="left", pad=16)
        axes.set_xlabel("accuracy [%], with 95% interval")
        beside = axes.secondary_yaxis("right")
        beside.set_yticks(places, [f"{value:.1f}" for value in accuracy])
        beside.spines["right"].set_visible(False)
        for each in (axes, beside):
            each.tick_params(axis="y", length=0)
        low, high = interval.min(), interval.max()
        axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    return figure


def confusion_figure(
    counts: Tensor, classes: Sequence[str]
) -> Figure:  # (K, K) int64, true class by row
    """Which classes are taken for which, in shares of the true class: mistakes in color, what is right in gray.

    Counts are written up to 20 classes. Of more than 100 classes those with the most mistakes are shown. Raises SeewhyError for
    counts that do not fit the classes.
    """
    if counts.shape != (len(classes), len(classes)) or len(classes) == 0:
        raise SeewhyError(
            f"{len(classes)} classes need counts (K, K) of as many, at least 1, found {tuple(counts.shape)}"
        )
    counts = counts.cpu()
    shares = 100 * counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    chosen = _most_mistaken(counts)
    counts, shown, names = (
        counts[chosen][:, chosen],
        shares[chosen][:, chosen].numpy(),
        [classes[index] for index in chosen],
    )
    written = len(names) <= MOST_NUMBERS
    side = min(0.9, max(0.34, 2.4 / len(names))) if written else 0.1  # inches
    with mpl.rc_context(
        STYLE
        | {
            "axes.grid": False,
            "font.size": 8 if written else 6,
            "axes.labelsize": STYLE["font.size"],
        }
    ):
        names = [truncate(name, LONGEST) for name in names]
        beside = max(map(text_width, names))
        extent = side * len(names)
        # compressed: constrained, for axes whose shape is fixed
        figure = Figure(
            figsize=(max(WIDTH, extent + beside + 1.1), extent + beside + 0.65), layout="compressed"
        )
        axes = figure.subplots()
        own = np.eye(len(names), dtype=bool)
        most = np.where(own, 0, shown).max()
        image = axes.imshow(np.ma.masked_array(shown, own), cmap=MISTAKES, vmin=0, vmax=most or 1)
        axes.imshow(np.ma.masked_array(np.full_like(shown, 0.9), ~own), cmap="gray", vmin=0, vmax=1)
        _name_cells(axes, names)
        if written:
            _write_counts(axes, counts)
        of = f", the {len(names)} with the most mistakes" if len(names) < len(classes) else ""
        figure.suptitle(
            f"Images by true and predicted class{of}",
            x=0.01,
            ha="left",
            fontsize=STYLE["axes.titlesize"],
        )
        if most:
            figure.colorbar(
                image,
                ax=axes,
                label="mistakes [% of the true class]",
                aspect=30 if written else 60,
                pad=0.02,
            )
    return figure


def _ranking(shown: int, present: int, classes: int) -> str:
    missing = f", {classes - present} without images" if present < classes else ""
    return (
        f"The {shown} worst of {present} classes"
        if shown < present
        else "Accuracy by class, the worst first"
    ) + missing


def _most_mistaken(counts: Tensor) -> list[int]:
    """The classes to show, in their order: those that most mistakes are made of or into."""
    wrong = counts.clone().fill_diagonal_(0)
    order = (wrong.sum(0) + wrong.sum(1)).argsort(descending=True, stable=True)
    return sorted(order[:MOST_CELLS].tolist())


def _name_cells(axes: Axes, names: Sequence[str]) -> None:
    places = range(len(names))
    axes.set_xticks(places, names, rotation=90)
    axes.set_yticks(places, names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.4, alpha=1)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)


def _write_counts(axes: Axes, counts: Tensor) -> None:
    for row, column in torch.nonzero(counts).tolist():
        muted = "0.35" if row == column else "black"
        axes.text(
            column, row, f"{counts[row, column]}", ha="center", va="center", color=muted, size=7
        )
