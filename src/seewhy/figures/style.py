"""Style of all figures, with the color-blind safe palette of Okabe and Ito."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seewhy.data.decode import open_image
from seewhy.errors import SeewhyError
from seewhy.files import check_file_name, make_directory, write_atomically, write_text

# Okabe & Ito 2008, "Color Universal Design"
BLUE, VERMILION = "#0072B2", "#D55E00"
ORANGE, SKY, GREEN, YELLOW, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7"

# color map of heat: perceptually uniform, of increasing lightness, color-blind safe. Its colors are
# rare in photographs, unlike the blues and yellows of cividis.
HEAT = "inferno"

SUFFIXES = (".svg", ".png", ".pdf")  # of files that hold a figure

_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_NOT_IN_XML = dict.fromkeys(
    [code for code in range(32) if chr(code) not in "\t\n\r"] + [0xFFFE, 0xFFFF]
)

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # keep text as text in SVG
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.dpi": 110,
    "savefig.dpi": 160,
    # dark on white, even inside a user's dark style
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "white"),
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), "black"
    ),
    "grid.color": "#b0b0b0",
}


def legend_below(figure: Figure, *axes: Axes, ncols: int = 2) -> None:
    """A legend of the axes' artists below all axes, so that it never covers data."""
    pairs = zip(*(each.get_legend_handles_labels() for each in axes), strict=True)
    handles, labels = ([item for part in parts for item in part] for parts in pairs)
    figure.legend(handles, labels, loc="outside lower left", frameon=False, ncols=ncols)


def fix_layout(figure: Figure) -> None:
    """Lay out the figure now, for all its files: a layout takes as long as drawing the figure.

    Another layout would also move images by a fraction of a pixel.
    """
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)


def save_figure(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Save a figure as `stem`.svg and `stem`.png and return both paths."""
    check_file_name(stem)
    paths = stem.with_name(f"{stem.name}.svg"), stem.with_name(f"{stem.name}.png")
    for path in paths:
        write_figure(figure, path)
    return paths


def check_figure_path(path: Path) -> None:
    """Raise SeewhyError unless a figure can be written in the format that the suffix names."""
    if path.suffix not in SUFFIXES:
        raise SeewhyError(
            f"{path} has the suffix {path.suffix!r}, which is no format of a figure; "
            f"possible: {', '.join(SUFFIXES)}"
        )


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the suffix of `path` names (.svg, .png, .pdf)."""
    check_figure_path(path)
    make_directory(path.parent)
    if path.suffix == ".svg":
        write_text(path, figure_svg(figure))
        return
    with _drawing(figure):
        write_atomically(path, figure.savefig)


def figure_svg(figure: Figure) -> str:
    """A figure as the text of an SVG file, the same whenever it is drawn."""
    stream = io.StringIO()
    with _drawing(figure), mpl.rc_context({"svg.hashsalt": "seewhy"}):
        figure.savefig(stream, format="svg", metadata=_NO_METADATA)
    return stream.getvalue().translate(_NOT_IN_XML)


def figure_png(figure: Figure, colors: int = 256) -> bytes:
    """A figure as a PNG file of few colors: a notebook keeps it, at a quarter of the size."""
    stream, small = io.BytesIO(), io.BytesIO()
    with _drawing(figure):
        figure.savefig(stream, format="png")
    open_image(stream.getvalue()).convert("RGB").quantize(colors).save(small, "PNG", optimize=True)
    return small.getvalue()


@contextmanager
def _drawing(figure: Figure) -> Iterator[None]:
    """Fix the layout of a figure and draw it in our style."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # text is text in an SVG, which the reader's fonts draw
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        fix_layout(figure)
        yield


def heat_colors(steps: int) -> bytes:
    """`HEAT` from cold to hot in `steps` colors of 3 bytes (red, green, blue)."""
    colors = mpl.colormaps[HEAT](np.linspace(0, 1, steps), bytes=True)
    return bytes(colors[:, :3].tobytes())
