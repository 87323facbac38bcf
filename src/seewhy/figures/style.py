"""How every figure looks: Okabe–Ito colors, which color-blind readers can tell apart; text stays text in SVG."""

import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from seewhy.files import make_directory, write_atomically

# Okabe & Ito 2008, "Color Universal Design"
BLUE, VERMILION = "#0072B2", "#D55E00"
ORANGE, SKY, GREEN, YELLOW, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7"

# of heat on images: perceptually uniform, rising in lightness, readable with any color vision; unlike cividis, whose dull
# blues and yellows get lost on grass, skies and fur, it holds colors that photographs seldom do
HEAT = "inferno"

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.dpi": 110,
    "savefig.dpi": 160,
    # dark on white wherever it is shown: a user's dark style would leave black text on black, or white gaps between images
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "white"),
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), "black"
    ),
    "grid.color": "#b0b0b0",
}


def save_figure(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write `stem`.svg and `stem`.png, making the directory; returns both paths."""
    make_directory(stem.parent)
    paths = stem.with_name(f"{stem.name}.svg"), stem.with_name(f"{stem.name}.png")
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font"
        )  # text stays text in the SVG
        for path in paths:
            write_atomically(path, figure.savefig)
    return paths


def heat_colors(steps: int) -> bytes:
    """`HEAT` in so many steps from cold to hot, each a byte of red, green and blue."""
    colors = mpl.colormaps[HEAT](np.linspace(0, 1, steps), bytes=True)
    return bytes(colors[:, :3].tobytes())
