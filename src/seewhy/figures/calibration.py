"""Calibration of confidence, and selective prediction."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seewhy.diagnosis.calibration import Calibration, RiskCoverageCurve
from seewhy.figures.style import BLUE, STYLE, VERMILION, legend_below

SIZE = (4.4, 3.4)  # inches
GRAY = "0.45"  # of reference lines
MIN_IMAGES = 20  # with fewer, the accuracy of a bin is unreliable


def reliability_figure(before: Calibration, after: Calibration | None = None) -> Figure:
    """Plot a reliability diagram with the distribution of confidence below it.

    Stems show how far each bin is from the diagonal, that is, from perfect calibration. Bins with
    fewer than 20 images are hollow and not connected.

    Args:
        before: Calibration of the model as trained.
        after: Calibration after temperature scaling.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes, histogram = figure.subplots(2, 1, sharex=True, height_ratios=(4.5, 1))
        axes.plot([0, 100], [0, 100], color=GRAY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        name = "as trained" if after else "this model"
        _reliability(axes, before, VERMILION, "-", "o", f"{name}, ECE {_percent(before.ece)}")
        _histogram(histogram, before, VERMILION, "-")
        if after:
            label = f"temperature-scaled, ECE {_percent(after.ece)}"
            _reliability(axes, after, BLUE, "--", "s", label)
            _histogram(histogram, after, BLUE, "--")
        axes.set_title("Reliability diagram", loc="left")
        axes.set_ylabel("accuracy [%]")
        axes.set(xlim=(0, 102), ylim=(-4, 104), yticks=range(0, 101, 25))
        histogram.set_ylabel("images [%]")
        histogram.set_ylim(bottom=0)
        histogram.set_xlabel("confidence [%]")
        histogram.set_xticks(range(0, 101, 20))
        figure.align_ylabels()
        legend_below(figure, axes, ncols=1)
    return figure


def risk_coverage_figure(curve: RiskCoverageCurve) -> Figure:
    """Plot selective accuracy against coverage, with the ideal ranking.

    The axis on top is the confidence threshold for each coverage.
    """
    coverage, accuracy = 100 * curve.coverage.numpy(), 100 * curve.accuracy.numpy()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        x = np.linspace(0.25, 100, 400)
        axes.plot(
            x,
            100 * np.minimum(1, accuracy[-1] / x),
            color=GRAY,
            linewidth=1,
            linestyle=(0, (4, 3)),
            label="ideal ranking",
        )
        axes.plot(
            coverage,
            accuracy,
            color=BLUE,
            linewidth=1.8,
            marker="o" if len(coverage) <= 30 else "",
            markersize=3,
            label=f"this model, AURC {curve.aurc:.4f}",
        )
        axes.plot(100, accuracy[-1], color=BLUE, marker="o", markersize=6, clip_on=False, zorder=3)
        low = min(accuracy.min(), 99.0)
        axes.set(xlim=(0, 100), ylim=(low - 0.35 * (100 - low), 100 + 0.03 * (100 - low)))
        axes.annotate(
            f"all images: {accuracy[-1]:.2f}%",
            (100, accuracy[-1]),
            (-9, -3),
            textcoords="offset points",
            ha="right",
            va="top",
        )
        axes.set_title("Selective prediction", loc="left")
        axes.set_xlabel("coverage [%]")
        axes.set_ylabel("selective accuracy [%]")
        legend_below(figure, axes)
        _add_thresholds(axes, curve)
    return figure


def _reliability(
    axes: Axes, bins: Calibration, color: str, line: str, marker: str, label: str
) -> None:
    present = bins.images > 0
    images = bins.images[present].numpy()
    confidence = 100 * bins.confidence[present].numpy()
    accuracy = 100 * bins.accuracy[present].numpy()
    reliable = images >= MIN_IMAGES
    width = np.where(reliable, 3, 1)
    axes.vlines(confidence, confidence, accuracy, color=color, alpha=0.35, linewidth=width)
    axes.plot(
        confidence[reliable],
        accuracy[reliable],
        color=color,
        linestyle=line,
        marker=marker,
        markersize=4.5,
        linewidth=1.3,
        label=label,
    )
    axes.plot(
        confidence[~reliable],
        accuracy[~reliable],
        color=color,
        linestyle="",
        marker=marker,
        markersize=4.5,
        markerfacecolor="white",
    )


def _histogram(axes: Axes, bins: Calibration, color: str, line: str) -> None:
    shares = 100 * bins.images.numpy() / bins.images.sum().item()
    edges = 100 * bins.edges.numpy()
    axes.stairs(shares, edges, color=color, alpha=0.2, fill=True)
    axes.stairs(shares, edges, color=color, linestyle=line, linewidth=1)


def _add_thresholds(axes: Axes, curve: RiskCoverageCurve) -> None:
    """An axis on top: the confidence threshold at every tick of the axis below."""
    top = axes.secondary_xaxis("top")
    ticks = [tick for tick in range(20, 101, 20) if tick >= 100 * curve.coverage[0]]
    indices = np.searchsorted(curve.coverage.numpy(), np.array(ticks) / 100 - 1e-9)
    top.set_xticks(ticks, [_threshold(curve.confidence[index].item()) for index in indices])
    top.set_xlabel("confidence threshold [%]")
    top.spines["top"].set_visible(False)
    top.tick_params(length=0)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _threshold(confidence: float) -> str:
    """A confidence in percent, with enough digits not to be rounded to 100."""
    for digits in (0, 1, 2):
        if confidence < 1 - 0.5 * 10 ** (-2 - digits):
            return f"{100 * confidence:.{digits}f}"
    return "100" if confidence == 1 else ">99.99"
