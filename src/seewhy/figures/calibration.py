"""Pictures of confidence: how far it can be believed, and what is gained by answering only where it is high."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seewhy.diagnosis.calibration import Calibration, RiskCoverageCurve
from seewhy.figures.style import BLUE, STYLE, VERMILION

SIZE = (4.4, 3.1)  # inches
GRAY = "0.45"  # of what the data are compared with
FEW = 20  # images, of which an accuracy says little


def reliability_figure(before: Calibration, after: Calibration | None = None) -> Figure:
    """Accuracy by confidence, bin by bin, before and after temperature scaling, and below how the images are spread.

    A stem from the diagonal, where confidence is right, shows how far off a bin is. Bins of fewer than 20 images are hollow and
    apart from the line.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes, strip = figure.subplots(2, 1, sharex=True, height_ratios=(4.5, 1))
        axes.plot([0, 100], [0, 100], color=GRAY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        name = "as trained" if after else "this model"
        _reliability(axes, before, VERMILION, "-", "o", f"{name}, ECE {_percent(before.ece)}")
        _spread(strip, before, VERMILION, "-")
        if after:
            _reliability(
                axes, after, BLUE, "--", "s", f"temperature scaled, ECE {_percent(after.ece)}"
            )
            _spread(strip, after, BLUE, "--")
        axes.set_title("Accuracy by confidence", loc="left")
        axes.set_ylabel("accuracy [%]")
        axes.set(xlim=(0, 102), ylim=(-4, 104), yticks=range(0, 101, 25))
        strip.set_ylabel("images [%]")
        strip.set_ylim(bottom=0)
        strip.set_xlabel("confidence [%]")
        strip.set_xticks(range(0, 101, 20))
        figure.align_ylabels()
        axes.legend(
            loc="best",
            edgecolor="none",
            framealpha=0.8,
            borderpad=0.1,
            borderaxespad=0.2,
            handlelength=2.4,
        )
    return figure


def risk_coverage_figure(coverage: RiskCoverageCurve) -> Figure:
    """Accuracy by the share of images that are answered, the most confident first, beside the best order that there could be.

    Above stands the confidence that an image needs in order to be among them.
    """
    share, accuracy = 100 * coverage.coverage.numpy(), 100 * coverage.accuracy.numpy()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        possible = np.linspace(0.25, 100, 400)
        best = 100 * np.minimum(1, accuracy[-1] / possible)
        axes.plot(
            possible,
            best,
            color=GRAY,
            linewidth=1,
            linestyle=(0, (4, 3)),
            label="if every mistake came last",
        )
        marker = "o" if len(share) <= 30 else ""
        axes.plot(
            share,
            accuracy,
            color=BLUE,
            linewidth=1.8,
            marker=marker,
            markersize=3,
            label=f"as it is, area under risk {coverage.aurc:.4f}",
        )
        axes.plot(100, accuracy[-1], color=BLUE, marker="o", markersize=6, clip_on=False, zorder=3)
        low = min(accuracy.min(), 99.0)
        axes.set(xlim=(0, 100), ylim=(low - 0.35 * (100 - low), 100 + 0.03 * (100 - low)))
        axes.annotate(
            f"all: {accuracy[-1]:.2f}%",
            (100, accuracy[-1]),
            (-9, -3),
            textcoords="offset points",
            ha="right",
            va="top",
        )
        axes.set_title("Accuracy where the model is sure enough", loc="left")
        axes.set_xlabel("answered images [%]")
        axes.set_ylabel("accuracy of those [%]")
        axes.legend(frameon=False, loc="lower left", borderaxespad=0.1, handlelength=2.4)
        _thresholds(axes, coverage)
    return figure


def _reliability(
    axes: Axes, bins: Calibration, color: str, line: str, marker: str, label: str
) -> None:
    some = bins.images > 0
    images, confidence, accuracy = (
        bins.images[some].numpy(),
        100 * bins.confidence[some].numpy(),
        100 * bins.accuracy[some].numpy(),
    )
    many = images >= FEW
    axes.vlines(
        confidence, confidence, accuracy, color=color, alpha=0.35, linewidth=np.where(many, 3, 1)
    )
    axes.plot(
        confidence[many],
        accuracy[many],
        color=color,
        linestyle=line,
        marker=marker,
        markersize=4.5,
        linewidth=1.3,
        label=label,
    )
    axes.plot(
        confidence[~many],
        accuracy[~many],
        color=color,
        linestyle="",
        marker=marker,
        markersize=4.5,
        markerfacecolor="white",
    )


def _spread(axes: Axes, bins: Calibration, color: str, line: str) -> None:
    shares = 100 * bins.images.numpy() / bins.images.sum().item()
    edges = 100 * bins.edges.numpy()
    axes.stairs(shares, edges, color=color, alpha=0.2, fill=True)
    axes.stairs(shares, edges, color=color, linestyle=line, linewidth=1)


def _thresholds(axes: Axes, coverage: RiskCoverageCurve) -> None:
    """An axis on top: the confidence at every tick of the axis below."""
    above = axes.secondary_xaxis("top")
    ticks = [tick for tick in range(20, 101, 20) if tick >= 100 * coverage.coverage[0]]
    places = np.searchsorted(coverage.coverage.numpy(), np.array(ticks) / 100 - 1e-9)
    above.set_xticks(ticks, [_sure(coverage.confidence[place].item()) for place in places])
    above.set_xlabel("least confidence [%]")
    above.spines["top"].set_visible(False)
    above.tick_params(length=0)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _sure(confidence: float) -> str:
    """A confidence in percent, with digits enough not to look like certainty."""
    for digits in (0, 1, 2):
        if confidence < 1 - 0.5 * 10 ** (-2 - digits):
            return f"{100 * confidence:.{digits}f}"
    return "100" if confidence == 1 else ">99.99"
