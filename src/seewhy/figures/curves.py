"""Loss, accuracy and learning rate over a run."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seewhy.figures.style import BLUE, STYLE, VERMILION
from seewhy.train.loop import EpochStats

Points = list[tuple[float, float]]


def curves_figure(history: Sequence[EpochStats], held_out: str = "test", title: str = "") -> Figure:
    """Loss, accuracy and learning rate by epoch, of training (dashed) and of the `held_out` split.

    Training is measured while it goes on, on augmented images and smoothed labels, so it may lie below the held-out split.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.2), layout="constrained")
        loss, accuracy, rate = figure.subplots(1, 3)
        _plot_loss(loss, history, held_out)
        _plot_accuracy(accuracy, history, held_out)
        _plot_rate(rate, history)
        spent = f"{history[-1].epoch:g} epochs in {history[-1].seconds:,.0f} s of training"
        heading = f"{title}: {spent}" if title else spent
        figure.suptitle(heading, parse_math=False, x=0.005, ha="left", weight="bold", fontsize=11)
    return figure


def loss_figure(history: Sequence[EpochStats], held_out: str = "test") -> Figure:
    """Loss by epoch, and by second along the top."""
    with mpl.rc_context(STYLE):
        figure, axes = _panel()
        _plot_loss(axes, history, held_out)
        _seconds_on_top(axes, history)
    return figure


def accuracy_figure(history: Sequence[EpochStats], held_out: str = "test") -> Figure:
    """Accuracy by epoch, and by second along the top."""
    with mpl.rc_context(STYLE):
        figure, axes = _panel()
        _plot_accuracy(axes, history, held_out)
        _seconds_on_top(axes, history)
    return figure


def lr_schedule_figure(history: Sequence[EpochStats]) -> Figure:
    """Learning rate by epoch, and momentum on an axis of its own."""
    with mpl.rc_context(STYLE):
        figure, axes = _panel()
        _plot_rate(axes, history)
        momentum = axes.twinx()
        _curve(
            momentum,
            [(row.epoch, row.momentum) for row in history],
            VERMILION,
            "--",
            "momentum, right",
        )
        momentum.set_ylim(0, 1.02)
        momentum.spines["right"].set_visible(True)
        momentum.grid(False)
        axes.set_title("Learning rate and momentum", loc="left")
        lines = [*axes.lines, *momentum.lines]
        axes.legend(
            lines, ["learning rate, left", "momentum, right"], frameon=False, loc="lower center"
        )
    return figure


def _panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 3.1), layout="constrained")
    return figure, figure.subplots()


def _plot_loss(axes: Axes, history: Sequence[EpochStats], held_out: str) -> None:
    _curve(axes, [(row.epoch, row.train_loss) for row in history], BLUE, "--", "train, augmented")
    _curve(
        axes,
        [(row.epoch, row.eval_loss) for row in history if row.eval_loss is not None],
        VERMILION,
        "-",
        held_out,
    )
    _by_epoch(axes, "Cross entropy", history)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="upper right")


def _plot_accuracy(axes: Axes, history: Sequence[EpochStats], held_out: str) -> None:
    _curve(
        axes,
        [(row.epoch, 100 * row.train_accuracy) for row in history],
        BLUE,
        "--",
        "train, augmented",
    )
    held = [
        (row.epoch, 100 * row.eval_accuracy) for row in history if row.eval_accuracy is not None
    ]
    _curve(axes, held, VERMILION, "-", f"{held_out}, last {held[-1][1]:.2f}" if held else held_out)
    _by_epoch(axes, "Accuracy [%]", history)
    axes.legend(frameon=False, loc="lower right")


def _plot_rate(axes: Axes, history: Sequence[EpochStats]) -> None:
    _curve(axes, [(row.epoch, row.lr) for row in history], "0.35", "-", "")
    _by_epoch(axes, "Learning rate", history)
    axes.set_ylim(bottom=0)


def _by_epoch(axes: Axes, name: str, history: Sequence[EpochStats]) -> None:
    axes.set_title(name, loc="left")
    axes.set_xlabel("epoch")
    axes.set_xlim(0, 1.02 * history[-1].epoch)


def _seconds_on_top(axes: Axes, history: Sequence[EpochStats]) -> None:
    """A second axis, on which as much training time has gone by as at the epoch below."""
    epochs = np.array([0.0, *(row.epoch for row in history)])
    seconds = np.array([0.0, *(row.seconds for row in history)])
    pace = seconds[-1] / epochs[-1]
    if pace <= 0 or (np.diff(seconds) <= 0).any():
        return  # so fast that the clock did not move

    def to_seconds(epoch: np.ndarray) -> Any:
        inside = np.interp(epoch, epochs, seconds)
        return inside + pace * (
            np.maximum(epoch - epochs[-1], 0) + np.minimum(epoch, 0)
        )  # beyond the ends at the mean pace

    def to_epochs(second: np.ndarray) -> Any:
        inside = np.interp(second, seconds, epochs)
        return inside + (np.maximum(second - seconds[-1], 0) + np.minimum(second, 0)) / pace

    top = axes.secondary_xaxis("top", functions=(to_seconds, to_epochs))
    top.set_xlabel("seconds of training", fontsize=8)
    top.tick_params(labelsize=8)


def _curve(axes: Axes, points: Points, color: str, line: str, label: str) -> None:
    marker = "o" if len(points) <= 30 else ""
    if points:
        axes.plot(
            *zip(*points, strict=True),
            color=color,
            linestyle=line,
            marker=marker,
            markersize=3,
            label=label,
        )
