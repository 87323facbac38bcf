"""Which maps to believe."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from seewhy.attribution.scores import TrustScore
from seewhy.figures.image_grid import text_width, truncate
from seewhy.figures.style import BLUE, GREEN, ORANGE, PURPLE, SKY, STYLE, VERMILION

_COLORS, _MARKERS = (
    (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, "black"),
    "osD^vPX*",
)  # of coprime lengths: 56 methods
_LAYER = 1.3  # inches
_ROW = 0.14  # inches, the least from one whisker to the next


def trust_figure(verdicts: Sequence[TrustScore]) -> Figure:
    """The gain of each method over random maps with its 95% interval, by layer; filled where the maps are trusted.

    Layers are in the order of their best gain. Without an interval, as of a single image, there are no whiskers.
    """
    methods = list(dict.fromkeys(sorted(verdict.method for verdict in verdicts)))
    layers = list(
        dict.fromkeys(
            verdict.layer for verdict in sorted(verdicts, key=lambda each: -each.gain.mean)
        )
    )
    step = 0.8 / max(1, len(methods))
    with mpl.rc_context({**STYLE, "font.size": 8, "axes.titlesize": 9}):
        height = max(3.1, _ROW * len(layers) * (len(methods) + 1) + 1.1)
        figure = Figure(figsize=(4.4, height), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color="black", linewidth=0.8)
        for verdict in verdicts:
            place = methods.index(verdict.method)
            color, marker = _look(place)
            y = layers.index(verdict.layer) + (place - (len(methods) - 1) / 2) * step
            axes.plot(
                verdict.gain.interval, (y, y), color=color, linewidth=1.5, solid_capstyle="butt"
            )
            filled = color if verdict.trusted else "white"
            axes.plot(
                verdict.gain.mean,
                y,
                marker,
                color=color,
                markerfacecolor=filled,
                markersize=5.5,
                zorder=3,
            )
        for place, method in enumerate(methods):
            color, marker = _look(place)
            axes.plot([], [], marker, color=color, markersize=5.5, label=truncate(method, 1.2))
        axes.set_yticks(range(len(layers)), [_end_of(layer) for layer in layers])
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("Gain over random maps [probability]")
        axes.set_title("Filled: trusted, hollow: not", loc="left", x=0)
        figure.legend(
            loc="outside lower center", ncols=3, frameon=False, handletextpad=0.2, columnspacing=1.2
        )
    return figure


def _look(place: int) -> tuple[str, str]:
    """Color and marker of a method."""
    return _COLORS[place % len(_COLORS)], _MARKERS[place % len(_MARKERS)]


def _end_of(layer: str) -> str:
    """The name of a layer, or the end of it, which tells it from its neighbors."""
    if text_width(layer) <= _LAYER:
        return truncate(layer, _LAYER)
    return "…" + truncate(layer[::-1], _LAYER)[::-1].lstrip(".…")
