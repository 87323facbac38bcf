"""Faithfulness of methods and layers."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from seewhy.attribution.scores import TrustScore
from seewhy.attribution.statuses import PIXELS
from seewhy.figures.style import BLUE, GREEN, ORANGE, PURPLE, SKY, STYLE, VERMILION
from seewhy.figures.text import text_width, truncate

# of coprime lengths: 56 distinct combinations
_COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, "black")
_MARKERS = "osD^vPX*"
WHOLE_MODEL = "whole model"  # the label of methods that need no layer
_LAYER_WIDTH = 1.3  # inches
_ROW_HEIGHT = 0.14  # inches, at least


def trust_figure(scores: Sequence[TrustScore]) -> Figure:
    """Plot the gain of each method over random maps with its 95% interval, by layer.

    Markers of trusted maps are filled. The layer with the best gain is on top. Without an interval
    (a single image) there are no whiskers.
    """
    methods = sorted({score.method for score in scores})
    by_gain = sorted(scores, key=lambda score: -score.gain.mean)
    layers = list(dict.fromkeys(score.layer for score in by_gain))
    step = 0.8 / max(1, len(methods))
    with mpl.rc_context({**STYLE, "font.size": 8, "axes.titlesize": 9}):
        height = max(3.1, _ROW_HEIGHT * len(layers) * (len(methods) + 1) + 1.1)
        figure = Figure(figsize=(4.4, height), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color="black", linewidth=0.8)
        for score in scores:
            index = methods.index(score.method)
            color, marker = _style(index)
            y = layers.index(score.layer) + (index - (len(methods) - 1) / 2) * step
            axes.plot(
                score.gain.interval, (y, y), color=color, linewidth=1.5, solid_capstyle="butt"
            )
            axes.plot(
                score.gain.mean,
                y,
                marker,
                color=color,
                markerfacecolor=color if score.trusted else "white",
                markersize=5.5,
                zorder=3,
            )
        for index, method in enumerate(methods):
            color, marker = _style(index)
            axes.plot([], [], marker, color=color, markersize=5.5, label=truncate(method, 1.2))
        axes.set_yticks(range(len(layers)), [_truncate_start(layer) for layer in layers])
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("gain over random maps [probability]")
        axes.set_title("Filled: trusted; hollow: not trusted", loc="left", x=0)
        figure.legend(
            loc="outside lower center", ncols=3, frameon=False, handletextpad=0.2, columnspacing=1.2
        )
    return figure


def _style(index: int) -> tuple[str, str]:
    """Color and marker of a method."""
    return _COLORS[index % len(_COLORS)], _MARKERS[index % len(_MARKERS)]


def _truncate_start(layer: str) -> str:
    """A layer name, shortened at its start, because the ends of names differ."""
    if layer == PIXELS:
        return WHOLE_MODEL
    if text_width(layer) <= _LAYER_WIDTH:
        return truncate(layer, _LAYER_WIDTH)
    return "…" + truncate(layer[::-1], _LAYER_WIDTH)[::-1].lstrip(".…")
