"""Images in rows and columns of a figure, aligned to pixels, so that saving does not resample them.

Matplotlib's layout engines fit axes into a figure of a given size. Here the figure is sized to fit
its images and text, so that each pixel of an image is a whole number of pixels in the file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn import functional as F

from seewhy.data.thumbnails import to_rgb
from seewhy.figures.style import STYLE
from seewhy.figures.text import text_height, text_width, truncate, wrap

PIXEL: float = 1 / STYLE["savefig.dpi"]  # inches
MARGIN = 0.08  # inches, around the figure and between a label and its images
MIN_PITCH = 0.7  # inches from column to column, to leave room for a header
MAX_LABEL = 2.3  # inches
MIN_WIDTH = 3.1  # inches of a figure, to leave room for a line of text below
NOTE_SCALE = 7 / 9  # font size of notes, relative to other text


@dataclass(frozen=True, eq=False)
class Tiles:
    """Images of one size in rows and columns, with their spacing and scale."""

    images: Tensor  # (R, K, C, H, W) uint8
    scale: float  # inches per pixel
    gaps: tuple[int, int] | None = None  # pixels between rows and columns; default 5% of a side

    @property
    def gap(self) -> tuple[int, int]:
        return self.gaps or (max(1, round(0.05 * max(self.images.shape[-2:]))),) * 2

    @property
    def pitch(self) -> tuple[int, int]:
        """Pixels from one row to the next, and from one column to the next."""
        return self.images.shape[-2] + self.gap[0], self.images.shape[-1] + self.gap[1]

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width in inches, including the gaps."""
        rows, columns = self.images.shape[:2]
        height = rows * self.pitch[0] - self.gap[0]
        width = columns * self.pitch[1] - self.gap[1]
        return self.scale * height, self.scale * width

    def centers(self, axis: int) -> list[float]:
        """Middle of every row (axis 0) or column (axis 1), in pixels."""
        offset = (self.images.shape[3 + axis] - 1) / 2
        return [index * self.pitch[axis] + offset for index in range(self.images.shape[axis])]


def place_tiles(
    figure: Figure, tiles: Tiles, left: float, top: float, interpolation: str = "nearest"
) -> Axes:
    """Draw tiles at their scale, `left` and `top` inches from the figure's corner."""
    height, width = tiles.extent
    total_width, total_height = figure.get_size_inches()
    axes: Axes = figure.add_axes(
        (
            left / total_width,
            1 - (top + height) / total_height,
            width / total_width,
            height / total_height,
        )
    )
    draw_tiles(axes, tiles, interpolation, aspect="auto")
    return axes


def draw_tiles(
    axes: Axes, tiles: Tiles, interpolation: str = "nearest", aspect: str = "equal"
) -> None:
    """Draw framed images; a white image is an empty cell and gets no frame."""
    images, (row_gap, column_gap) = to_rgb(tiles.images), tiles.gap
    padded = F.pad(images, (0, column_gap, 0, row_gap), value=255)
    mosaic = padded.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)[:-row_gap, :-column_gap]
    axes.imshow(mosaic.numpy(), interpolation=interpolation, aspect=aspect)
    row_pitch, column_pitch = tiles.pitch
    frames = [
        Rectangle(
            (column * column_pitch - 0.5, row * row_pitch - 0.5),
            images.shape[-1],
            images.shape[-2],
        )
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


@dataclass(frozen=True, eq=False)
class Cell:
    """An image, a note written on it, and a caption below it."""

    image: Tensor  # (3, H, W) uint8
    note: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Label:
    """Lines of text beside a row."""

    lines: tuple[str, ...]
    color: str = "black"


@dataclass(frozen=True, eq=False)
class ImageGrid:
    """Cells in rows and columns with labels. Create and draw it inside `STYLE`, for its font."""

    headers: Sequence[str]  # one per column
    labels: Sequence[Label]  # one per row
    cells: Sequence[Sequence[Cell | None]]  # row by row; None stays empty
    corner: str = ""  # above the labels
    header_lines: int = 1  # at least

    @cached_property
    def tiles(self) -> Tiles:
        """The images, with gaps for the text between them."""
        present = [cell for row in self.cells for cell in row if cell]
        white = torch.full_like(present[0].image, 255)
        images = torch.stack(
            [torch.stack([cell.image if cell else white for cell in row]) for row in self.cells]
        )
        height, width = images.shape[-2:]
        gap = round(0.05 * max(height, width))
        captions = [cell.caption for cell in present if cell.caption]
        caption_height = 0.0
        if captions:
            lines = 1 + max(caption.count("\n") for caption in captions)
            caption_height = text_height(lines) + MARGIN
        row_gap = max(gap + _pixels(caption_height), _pixels(self.label_height) - height)
        return Tiles(images, PIXEL, (row_gap, max(gap, _pixels(MIN_PITCH) - width)))

    @property
    def label_height(self) -> float:
        """Height of the tallest label in inches."""
        return text_height(max(len(label.lines) for label in self.labels))

    @property
    def overhang(self) -> float:
        """Inches by which a label may protrude above the first row."""
        return max(0.0, 0.5 * (self.label_height - self.tiles.images.shape[-2] * PIXEL))

    @cached_property
    def wrapped_headers(self) -> list[str]:
        width = self.tiles.pitch[1] * PIXEL - 0.5 * MARGIN
        return [
            "\n".join(wrap(line, width, " ,:-._/") for line in header.split("\n"))
            for header in self.headers
        ]

    @property
    def top(self) -> float:
        """Inches above the images."""
        lines = max(self.header_lines, *(header.count("\n") + 1 for header in self.wrapped_headers))
        return _whole_pixels(2 * MARGIN + self.overhang + text_height(lines))

    @property
    def left(self) -> float:
        """Inches left of the images."""
        lines = [line for label in self.labels for line in label.lines]
        widest = min(MAX_LABEL, max(map(text_width, [*lines, self.corner])))
        # a header may be wider than its images
        return _whole_pixels(widest + max(MARGIN, 0.5 * self.tiles.gap[1] * PIXEL))

    @property
    def bottom(self) -> float:
        """Inches below the images, for captions and labels of the last row."""
        return self.tiles.gap[0] * PIXEL


def draw_grids(grids: Sequence[ImageGrid], left: float = MARGIN, bottom: float = MARGIN) -> Figure:
    """Draw grids of equal size below each other, with margins of `left` and `bottom` inches."""
    first = grids[0]
    height, width = first.tiles.extent
    images_left = _whole_pixels(left) + max(grid.left for grid in grids)
    top = max(grid.top for grid in grids)
    block = top + height + first.bottom
    right = max(MARGIN, 0.5 * first.tiles.gap[1] * PIXEL)  # a header may be wider than its images
    figure_width = _whole_pixels(max(images_left + width + right, MIN_WIDTH))
    figure_height = _whole_pixels(len(grids) * block + bottom)
    figure = Figure(figsize=(figure_width, figure_height))
    for index, grid in enumerate(grids):
        axes = place_tiles(figure, grid.tiles, images_left, index * block + top, "auto")
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_xticks(grid.tiles.centers(1), grid.wrapped_headers)
        axes.set_yticks(grid.tiles.centers(0), ["\n".join(label.lines) for label in grid.labels])
        for text, label in zip(axes.get_yticklabels(), grid.labels, strict=True):
            text.set_color(label.color)
        figure.text(
            left / figure_width,
            1 - (index * block + top - MARGIN - grid.overhang) / figure_height,
            truncate(grid.corner, MAX_LABEL),
            va="bottom",
            weight="bold",
        )
        _write_on_cells(axes, grid)
    return figure


def _write_on_cells(axes: Axes, grid: ImageGrid) -> None:
    height, width = grid.tiles.images.shape[-2:]
    row_pitch, column_pitch = grid.tiles.pitch
    box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.0}
    for row, cells in enumerate(grid.cells):
        for column, cell in enumerate(cells):
            if cell is None:
                continue
            left, top = column * column_pitch, row * row_pitch
            if cell.note:
                axes.text(
                    left + (width - 1) / 2,
                    top + 0.94 * height,
                    wrap(cell.note, (column_pitch * PIXEL - MARGIN) / NOTE_SCALE),
                    ha="center",
                    va="bottom",
                    size=7,
                    linespacing=1.0,
                    bbox=box,
                )
            if cell.caption:
                y = top + height + _pixels(0.5 * MARGIN)
                axes.text(left - 0.5, y, cell.caption, ha="left", va="top")


def _pixels(inches: float) -> int:
    return math.ceil(inches / PIXEL - 1e-6)


def _whole_pixels(inches: float) -> float:
    return _pixels(inches) * PIXEL
