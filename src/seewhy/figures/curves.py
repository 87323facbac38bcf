"""Loss, accuracy, and learning rate over a run."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seewhy.figures.style import BLUE, GREEN, STYLE, VERMILION, legend_below
from seewhy.train.loop import EpochStats

Points = list[tuple[float, float]]


def curves_figure(history: Sequence[EpochStats], held_out: str = "test", title: str = "") -> Figure:
    """Plot loss, accuracy, and learning rate by epoch, for training (dashed) and held-out images.

    Both losses are the criterion that the training minimizes, with smoothed labels and class
    weights if the recipe has them. Those of training are measured during the epoch, on augmented
    images.

    Args:
        history: One entry per epoch.
        held_out: Name of the held-out split.
        title: Name of the run.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.2), layout="constrained")
        loss, accuracy, lr = figure.subplots(1, 3)
        _plot_loss(loss, history, held_out)
        _plot_accuracy(accuracy, history, held_out)
        _plot_lr(lr, history)
        legend_below(figure, accuracy)
        summary = (
            f"{round(history[-1].epoch, 2):g} epochs, training time {history[-1].seconds:,.0f} s"
        )
        heading = f"{title}: {summary}" if title else summary
        figure.suptitle(heading, parse_math=False, x=0.005, ha="left", weight="bold", fontsize=11)
    return figure


def loss_figure(history: Sequence[EpochStats], held_out: str = "test") -> Figure:
    """Plot the loss by epoch, with training time on top.

    Args:
        history: One entry per epoch.
        held_out: Name of the held-out split.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _panel()
        _plot_loss(axes, history, held_out)
        _add_seconds(axes, history)
        legend_below(figure, axes)
    return figure


def accuracy_figure(history: Sequence[EpochStats], held_out: str = "test") -> Figure:
    """Plot the accuracy by epoch, with training time on top.

    Args:
        history: One entry per epoch.
        held_out: Name of the held-out split.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _panel()
        _plot_accuracy(axes, history, held_out)
        _add_seconds(axes, history)
        legend_below(figure, axes)
    return figure


def lr_schedule_figure(history: Sequence[EpochStats]) -> Figure:
    """Plot learning rate and momentum by epoch."""
    with mpl.rc_context(STYLE):
        figure, axes = _panel()
        _plot_lr(axes, history)
        right = axes.twinx()
        axes.lines[0].set_label("learning rate (left)")
        momentum = [(row.epoch, row.momentum) for row in history]
        _plot(right, momentum, VERMILION, "--", "momentum (right)")
        right.set_ylim(0, 1.02)
        right.spines["right"].set_visible(True)
        right.grid(False)
        axes.set_title("Learning rate and momentum", loc="left")
        legend_below(figure, axes, right)
    return figure


def _panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 3.1), layout="constrained")
    return figure, figure.subplots()


def _plot_loss(axes: Axes, history: Sequence[EpochStats], held_out: str) -> None:
    training = [(row.epoch, row.train_loss) for row in history]
    evaluated = [(row.epoch, row.eval_loss) for row in history if row.eval_loss is not None]
    _plot(axes, training, BLUE, "--", "train, augmented")
    _plot(axes, evaluated, VERMILION, "-", held_out)
    _label_epochs(axes, "Loss", history)


def _plot_accuracy(axes: Axes, history: Sequence[EpochStats], held_out: str) -> None:
    training = [(row.epoch, 100 * row.train_accuracy) for row in history]
    evaluated = [
        (row.epoch, 100 * row.eval_accuracy) for row in history if row.eval_accuracy is not None
    ]
    _plot(axes, training, BLUE, "--", "train, augmented")
    label = f"{held_out}, last {evaluated[-1][1]:.2f}%" if evaluated else held_out
    _plot(axes, evaluated, VERMILION, "-", label)
    precision = [
        (row.epoch, 100 * row.eval_average_precision)
        for row in history
        if row.eval_average_precision is not None
    ]
    if precision:  # of any number of labels, whose accuracy needs all of them right
        label = f"{held_out}, mean average precision, last {precision[-1][1]:.2f}%"
        _plot(axes, precision, GREEN, "-", label)
    _label_epochs(axes, "Accuracy [%]", history)


def _plot_lr(axes: Axes, history: Sequence[EpochStats]) -> None:
    _plot(axes, [(row.epoch, row.lr) for row in history], "0.35", "-")
    _label_epochs(axes, "Learning rate", history)
    axes.set_ylim(bottom=0)


def _label_epochs(axes: Axes, title: str, history: Sequence[EpochStats]) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel("epoch")
    last = history[-1].epoch
    axes.set_xlim(0 if last else -0.5, 1.02 * last if last else 0.5)  # 0: after a probe alone
    whole_ticks(axes, history[-1].epoch)


def whole_ticks(axes: Axes, last_epoch: float) -> None:
    """Ticks of the x-axis at whole epochs, unless the training is shorter than one."""
    if last_epoch >= 1:
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def _add_seconds(axes: Axes, history: Sequence[EpochStats]) -> None:
    """An axis on top with the training time at each epoch."""
    start = [] if history[0].epoch == 0 else [0.0]  # the row of a probe is that of epoch 0
    epochs = np.array([*start, *(row.epoch for row in history)])
    seconds = np.array([*start, *(row.seconds for row in history)])
    if len(epochs) < 2:
        return
    pace = (seconds[-1] - seconds[0]) / epochs[-1]
    if pace <= 0 or (np.diff(seconds) <= 0).any():
        return  # faster than the clock's resolution

    # extrapolated at the mean pace
    def to_seconds(epoch: np.ndarray) -> Any:
        inside = np.interp(epoch, epochs, seconds)
        return inside + pace * (np.maximum(epoch - epochs[-1], 0) + np.minimum(epoch, 0))

    def to_epochs(second: np.ndarray) -> Any:
        inside = np.interp(second, seconds, epochs)
        outside = np.maximum(second - seconds[-1], 0) + np.minimum(second - seconds[0], 0)
        return inside + outside / pace

    top = axes.secondary_xaxis("top", functions=(to_seconds, to_epochs))
    top.set_xlabel("training time [s]", fontsize=8)
    top.tick_params(labelsize=8)


def _plot(axes: Axes, points: Points, color: str, line: str, label: str = "") -> None:
    if not points:
        return
    marker = "o" if len(points) <= 30 else ""
    x, y = zip(*points, strict=True)
    axes.plot(x, y, color=color, linestyle=line, marker=marker, markersize=3, label=label)
