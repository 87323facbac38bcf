"""Images in rows and columns of a figure, each placed to the pixel, and text that fits beside them."""

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from torch import Tensor
from torch.nn import functional as F

from seewhy.data.thumbnails import to_rgb
from seewhy.figures.style import STYLE

MARGIN = 0.08  # inches, around the figure and between a label and its images


@dataclass(frozen=True, eq=False)
class Tiles:
    """Images of one size in rows and columns, and how far apart and how large they are shown."""

    images: Tensor  # (R, K, C, H, W) uint8
    scale: float  # inches per pixel
    gaps: tuple[int, int] | None = (
        None  # pixels between rows and between columns; by default 5% of the longer side
    )

    @property
    def gap(self) -> tuple[int, int]:
        return self.gaps or (max(1, round(0.05 * max(self.images.shape[-2:]))),) * 2

    @property
    def pitch(self) -> tuple[int, int]:
        """Pixels from a row to the next, and from a column to the next."""
        return self.images.shape[-2] + self.gap[0], self.images.shape[-1] + self.gap[1]

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width in inches, of the images with the gaps between them."""
        height, width = (
            count * pitch - gap
            for count, pitch, gap in zip(self.images.shape, self.pitch, self.gap, strict=False)
        )
        return self.scale * height, self.scale * width

    def centers(self, axis: int) -> list[float]:
        """Where the middle of every row (axis 0) or column (axis 1) is, in pixels."""
        return [
            place * self.pitch[axis] + (self.images.shape[3 + axis] - 1) / 2
            for place in range(self.images.shape[axis])
        ]


def show(
    figure: Figure, tiles: Tiles, left: float, top: float, interpolation: str = "nearest"
) -> Axes:
    """Framed images, `left` and `top` in inches from the figure's corner; an empty cell is white and has no frame."""
    height, width = tiles.extent
    whole_width, whole_height = figure.get_size_inches()
    box = (
        left / whole_width,
        1 - (top + height) / whole_height,
        width / whole_width,
        height / whole_height,
    )
    axes: Axes = figure.add_axes(box)
    images, (below, beside) = to_rgb(tiles.images), tiles.gap
    spaced = F.pad(images, (0, beside, 0, below), value=255)
    picture = (
        spaced.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)[:-below, :-beside]
    )  # (height, width, 3)
    axes.imshow(picture.numpy(), interpolation=interpolation, aspect="auto")
    pitch_y, pitch_x = tiles.pitch
    frames = [
        Rectangle((column * pitch_x - 0.5, row * pitch_y - 0.5), images.shape[-1], images.shape[-2])
        for row, column in (images != 255).flatten(2).any(2).nonzero().tolist()
    ]
    axes.add_collection(
        PatchCollection(frames, facecolor="none", edgecolor="0.6", linewidth=0.4, clip_on=False),
        autolim=False,
    )
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0, pad=72 * MARGIN)
    return axes


def text_width(text: str) -> float:
    """How wide a line of text is, in inches."""
    if not text.strip():
        return 0.0
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font"
        )  # a name in another script
        font = FontProperties(size=mpl.rcParams["font.size"])
        width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def text_height(lines: int) -> float:
    """How high that many lines of text are, in inches."""
    return 1.25 * float(mpl.rcParams["font.size"]) / 72 * lines


def truncate(text: str, width: float) -> str:
    """`text`, or as much of it as fits into `width` inches with an ellipsis."""
    whole = text_width(text)
    if whole > width:
        kept = max(0, int(len(text) * width / whole)) + 3  # a start; letters differ in width
        while kept > 1 and text_width(text[:kept] + "…") > width:
            kept -= 1
        text = text[:kept].rstrip() + "…"
    return text.replace("$", r"\$")  # a dollar, not a formula


def wrap(text: str, width: float, after: str = " ,:-") -> str:
    """`text` in lines of at most `width` inches, broken after any of `after` but not before a digit, or shortened."""
    lines = [""]
    for part in re.split(rf"(?<=[{re.escape(after)}])(?!\d)", text):
        if lines[-1] and text_width(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(truncate(line.rstrip(), width) for line in lines)


PIXEL: float = (
    1 / STYLE["savefig.dpi"]
)  # inches; a saved figure shows every pixel of a picture as one of its own
NARROWEST = 0.7  # inches from column to column, so that there is room for a header
WIDEST = 2.3  # inches, of a label
LEAST = 3.1  # inches of a figure, so that there is room for a line of text below
SMALL = 7 / 9  # size of a note, by that of other text


@dataclass(frozen=True, eq=False)
class Cell:
    """A picture, what is written on it, and what is written below it."""

    picture: Tensor  # (3, H, W) uint8
    note: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Label:
    """Lines of text beside a row."""

    lines: tuple[str, ...]
    color: str = "black"


@dataclass(frozen=True, eq=False)
class Sheet:
    """Cells in rows and columns. Make and draw it within `STYLE`, which says how large text is."""

    headers: Sequence[str]  # of the columns
    labels: Sequence[Label]  # of the rows
    cells: Sequence[Sequence[Cell | None]]  # row by row; None stays empty
    corner: str = ""  # above the labels
    header_lines: int = 1  # there is room for at least so many

    @cached_property
    def tiles(self) -> Tiles:
        """The pictures, as far apart as the text between them needs."""
        white = torch.full_like(
            next(cell.picture for row in self.cells for cell in row if cell), 255
        )
        images = torch.stack(
            [torch.stack([cell.picture if cell else white for cell in row]) for row in self.cells]
        )
        height, width = images.shape[-2:]
        gap = round(0.05 * max(height, width))
        captions = [cell.caption for row in self.cells for cell in row if cell and cell.caption]
        below = (
            text_height(1 + max(caption.count("\n") for caption in captions)) + MARGIN
            if captions
            else 0.0
        )
        rows = max(gap + _pixels(below), _pixels(self.label_height) - height)
        return Tiles(images, PIXEL, (rows, max(gap, _pixels(NARROWEST) - width)))

    @property
    def label_height(self) -> float:
        """Inches of the highest label."""
        return text_height(max(len(label.lines) for label in self.labels))

    @property
    def overhang(self) -> float:
        """Inches by which a label may stand out above the first row."""
        return max(0.0, 0.5 * (self.label_height - self.tiles.images.shape[-2] * PIXEL))

    @cached_property
    def wrapped_headers(self) -> list[str]:
        width = self.tiles.pitch[1] * PIXEL - 0.5 * MARGIN
        return [
            "\n".join(wrap(line, width, " ,:-._/") for line in header.split("\n"))
            for header in self.headers
        ]

    @property
    def above(self) -> float:
        """Inches above the pictures."""
        lines = max(self.header_lines, *(header.count("\n") + 1 for header in self.wrapped_headers))
        return _whole(2 * MARGIN + self.overhang + text_height(lines))

    @property
    def beside(self) -> float:
        """Inches left of the pictures."""
        lines = [line for label in self.labels for line in label.lines]
        widest = min(WIDEST, max(map(text_width, [*lines, self.corner])))
        return _whole(
            widest + max(MARGIN, 0.5 * self.tiles.gap[1] * PIXEL)
        )  # a header may be wider than its pictures

    @property
    def below(self) -> float:
        """Inches below the pictures, where the last row has captions or a label that is higher than it."""
        return self.tiles.gap[0] * PIXEL


def draw(sheets: Sequence[Sheet], left: float = MARGIN, below: float = MARGIN) -> Figure:
    """The sheets of equal size below each other, `left` and `below` inches from the edges of the figure."""
    first = sheets[0]
    height, width = first.tiles.extent
    beside = _whole(left) + max(sheet.beside for sheet in sheets)
    above = max(sheet.above for sheet in sheets)
    block = above + height + first.below
    right = max(MARGIN, 0.5 * first.tiles.gap[1] * PIXEL)  # a header may be wider than its pictures
    figure = Figure(
        figsize=(_whole(max(beside + width + right, LEAST)), _whole(len(sheets) * block + below))
    )
    for place, sheet in enumerate(sheets):
        axes = show(figure, sheet.tiles, beside, place * block + above, "auto")
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_xticks(sheet.tiles.centers(1), sheet.wrapped_headers)
        axes.set_yticks(sheet.tiles.centers(0), ["\n".join(label.lines) for label in sheet.labels])
        for text, label in zip(axes.get_yticklabels(), sheet.labels, strict=True):
            text.set_color(label.color)
        _write(
            figure,
            truncate(sheet.corner, WIDEST),
            left,
            place * block + above - MARGIN - sheet.overhang,
        )
        _write_on_cells(axes, sheet)
    return figure


def _write(figure: Figure, text: str, left: float, bottom: float) -> None:
    """Bold text whose lower left corner is so many inches from the figure's upper left one."""
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - bottom / height, text, va="bottom", weight="bold")


def _write_on_cells(axes: Axes, sheet: Sheet) -> None:
    height, width = sheet.tiles.images.shape[-2:]
    pitch_y, pitch_x = sheet.tiles.pitch
    paper = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.0}
    for row, cells in enumerate(sheet.cells):
        for column, cell in enumerate(cells):
            if cell is None:
                continue
            if cell.note:
                text = wrap(cell.note, (pitch_x * PIXEL - MARGIN) / SMALL)
                place = column * pitch_x + (width - 1) / 2, row * pitch_y + 0.94 * height
                axes.text(
                    *place, text, ha="center", va="bottom", size=7, linespacing=1.0, bbox=paper
                )
            if cell.caption:
                place = column * pitch_x - 0.5, row * pitch_y + height + _pixels(0.5 * MARGIN)
                axes.text(*place, cell.caption, ha="left", va="top")


def _pixels(inches: float) -> int:
    return math.ceil(inches / PIXEL - 1e-6)


def _whole(inches: float) -> float:
    """A length of whole pixels, so that pictures are not resampled."""
    return _pixels(inches) * PIXEL
