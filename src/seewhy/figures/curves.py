"""Loss, accuracy and learning rate over a run."""

from collections.abc import Sequence

import matplotlib as mpl
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
        _curve(loss, [(row.epoch, row.train_loss) for row in history], BLUE, "--", "train, augmented")
        _curve(loss, [(row.epoch, row.eval_loss) for row in history if row.eval_loss is not None], VERMILION, "-", held_out)
        _curve(accuracy, [(row.epoch, 100 * row.train_accuracy) for row in history], BLUE, "--", "train, augmented")
        held = [(row.epoch, 100 * row.eval_accuracy) for row in history if row.eval_accuracy is not None]
        _curve(accuracy, held, VERMILION, "-", f"{held_out}, last {held[-1][1]:.2f}" if held else held_out)
        _curve(rate, [(row.epoch, row.lr) for row in history], "0.35", "-", "")
        for axes, name in ((loss, "Cross entropy"), (accuracy, "Accuracy [%]"), (rate, "Learning rate")):
            axes.set_title(name, loc="left")
            axes.set_xlabel("epoch")
            axes.set_xlim(0, 1.02 * history[-1].epoch)
        loss.set_ylim(bottom=0)
        rate.set_ylim(bottom=0)
        loss.legend(frameon=False, loc="upper right")
        accuracy.legend(frameon=False, loc="lower right")
        spent = f"{history[-1].epoch:g} epochs in {history[-1].seconds:,.0f} s of training"
        heading = f"{title}: {spent}" if title else spent
        figure.suptitle(heading, parse_math=False, x=0.005, ha="left", weight="bold", fontsize=11)
    return figure


def _curve(axes: Axes, points: Points, color: str, line: str, label: str) -> None:
    marker = "o" if len(points) <= 30 else ""
    if points:
        axes.plot(*zip(*points, strict=True), color=color, linestyle=line, marker=marker, markersize=3, label=label)
