"""Weak slices of the data, and average heat maps of classes."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from seewhy.data.thumbnails import downscale
from seewhy.diagnosis.shortcuts import ClassAttribution
from seewhy.diagnosis.slices import Slice
from seewhy.figures.image_grid import MARGIN, Tiles, draw_tiles
from seewhy.figures.style import BLUE, HEAT, STYLE, VERMILION, fix_layout
from seewhy.figures.text import text_height, truncate, wrap
from seewhy.wording import counted

MAX_SLICES = 8
MAX_CLASSES = 20
_DESCRIPTION_WIDTH = 1.75  # inches
_WIDTH, _HEIGHT = 4.4, 3.1  # inches
_MAX_SIDE = 1.2  # inches of a heat map


def slices_figure(slices: Sequence[Slice], accuracy: float) -> Figure:
    """Plot the accuracy of each slice with its 95% interval; at most 8 slices.

    Args:
        slices: The slices, the first on top.
        accuracy: Accuracy on all images, in [0, 1], as a dashed line.
    """
    rows = slices[:MAX_SLICES]
    with mpl.rc_context({**STYLE, "font.size": 7.5, "axes.titlesize": 9, "axes.labelsize": 8}):
        labels = [wrap(row.description, _DESCRIPTION_WIDTH, " ") for row in rows]
        heights = [text_height(1 + label.count("\n")) + 0.12 for label in labels]
        centers = np.cumsum(heights) - np.array(heights) / 2
        figure = Figure(figsize=(_WIDTH, max(_HEIGHT, sum(heights) + 0.9)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(100 * accuracy, color=BLUE, linewidth=1.5, linestyle="--")
        for y, row in zip(centers, rows, strict=True):
            low, high = row.interval
            axes.plot([100 * low, 100 * high], [y, y], color=VERMILION, linewidth=1.5)
            axes.plot(100 * row.accuracy, y, "o", color=VERMILION, markersize=5, zorder=3)
            axes.annotate(
                f"{100 * row.accuracy:.0f}% of {row.images:,}",
                (100 * row.accuracy, y),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=7,
                bbox={
                    "facecolor": "white",
                    "edgecolor": "none",
                    "pad": 0.5,
                },  # over the dashed line
            )
        axes.set_yticks(centers, labels)
        axes.set_ylim(sum(heights) if rows else 1, -0.05)
        axes.margins(x=0.2)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("accuracy [%]")
        axes.set_title(f"Dashed: all images, {100 * accuracy:.1f}%", loc="left", x=0)
    return figure


def class_attribution_figure(attribution: ClassAttribution) -> Figure:
    """Show the average heat map of each class, each scaled to its maximum.

    Of more than 20 classes those with the most images are shown. Classes without images are left
    out.
    """
    classes = shown_classes(attribution)
    with mpl.rc_context({**STYLE, "font.size": 7.5, "axes.titlesize": 7.5, "axes.titlepad": 3}):
        if not len(classes):
            figure = Figure(figsize=(_WIDTH, 0.6))
            text = "No class has images with a heat map."
            figure.text(0.5, 0.5, text, ha="center", va="center")
            return figure
        columns = min(len(classes), 5 if len(classes) > 4 else 4)
        rows = -(-len(classes) // columns)
        images = heat_images(attribution.mean_maps[classes])
        column_width = (_WIDTH - MARGIN) / columns
        scale = min(column_width - 2 * MARGIN, _MAX_SIDE) / images.shape[-1]
        scale = min(scale, _MAX_SIDE / images.shape[-2])
        row_height = images.shape[-2] * scale + text_height(1) + 1.5 * MARGIN
        figure = Figure(figsize=(_WIDTH, 0.27 + rows * row_height), layout="constrained")
        figure.get_layout_engine().set(w_pad=MARGIN, h_pad=0.5 * MARGIN, wspace=0, hspace=0)
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes, index, image in zip(grid, classes.tolist(), images, strict=False):
            draw_tiles(axes, Tiles(image[None, None], scale))
            axes.set_title(truncate(attribution.classes[index], column_width - 1.5 * MARGIN))
        for axes in grid[len(classes) :]:
            axes.remove()
        total = len(attribution.classes)
        of = f", {len(classes)} of {counted(total, 'class')}" if len(classes) < total else ""
        title = f"Average heat map per class{of}"
        figure.suptitle(title, x=MARGIN / _WIDTH, ha="left", fontsize=9)
        fix_layout(figure)
    return figure


def shown_classes(attribution: ClassAttribution) -> Tensor:
    """Indices (S,) int64 of the classes that are shown, in order."""
    order = attribution.images.argsort(descending=True, stable=True)
    return order[attribution.images[order] > 0][:MAX_CLASSES].sort().values


def heat_images(maps: Tensor) -> Tensor:
    """Color maps (K, H, W) float, each scaled to its maximum; returns (K, 3, H, W) uint8."""
    scaled = maps / maps.amax((1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
    colors = mpl.colormaps[HEAT](scaled.cpu().numpy(), bytes=True)[..., :3]
    return downscale(torch.from_numpy(np.ascontiguousarray(colors)).permute(0, 3, 1, 2))
