"""Where a model is weak, and where it looks for each class."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from seewhy.data.thumbnails import downscale
from seewhy.diagnosis.shortcuts import ClassAttribution
from seewhy.diagnosis.slices import Slice
from seewhy.figures.image_grid import MARGIN, Tiles, show, text_height, truncate, wrap
from seewhy.figures.style import BLUE, HEAT, STYLE, VERMILION

MOST_SLICES = 8
MOST_CLASSES = 20
_DESCRIPTION = 1.75  # inches
_WIDTH, _HEIGHT = 4.4, 3.1  # inches


def slices_figure(slices: Sequence[Slice], accuracy: float) -> Figure:
    """The accuracy of each slice with its 95% interval against `accuracy`, that of all images; at most 8 slices.

    Beside each stand what it is and how many images it has.
    """
    rows = slices[:MOST_SLICES]
    with mpl.rc_context({**STYLE, "font.size": 7.5, "axes.titlesize": 9, "axes.labelsize": 8}):
        labels = [
            wrap(each.description.replace(" %", "\u00a0%"), _DESCRIPTION, after=" ")
            for each in rows
        ]
        heights = [text_height(1 + label.count("\n")) + 0.12 for label in labels]
        places = np.cumsum(heights) - np.array(heights) / 2
        figure = Figure(figsize=(_WIDTH, max(_HEIGHT, sum(heights) + 0.9)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(100 * accuracy, color=BLUE, linewidth=1.5, linestyle="--")
        for place, each in zip(places, rows, strict=True):
            axes.plot(
                [100 * bound for bound in each.interval],
                [place, place],
                color=VERMILION,
                linewidth=1.5,
            )
            axes.plot(100 * each.accuracy, place, "o", color=VERMILION, markersize=5, zorder=3)
            above = {
                "xytext": (0, 4),
                "textcoords": "offset points",
                "ha": "center",
                "va": "bottom",
                "fontsize": 7,
            }
            axes.annotate(
                f"{100 * each.accuracy:.0f}% of {each.images:,}",
                (100 * each.accuracy, place),
                **above,
            )
        axes.set_yticks(places, labels)
        axes.set_ylim(sum(heights) if rows else 1, -0.05)
        axes.margins(x=0.2)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("Accuracy [%]")
        axes.set_title(f"Dashed: all images, {100 * accuracy:.1f}%", loc="left", x=0)
    return figure


def class_attribution_figure(evidence: ClassAttribution) -> Figure:
    """Mean place of the evidence for each class, a tile each on its own scale from 0 to its largest value.

    At most 20 classes, those with most images; classes without images are left out.
    """
    shown = shown_classes(evidence)
    with mpl.rc_context({**STYLE, "font.size": 7.5}):
        if not len(shown):
            figure = Figure(figsize=(_WIDTH, 0.6))
            figure.text(0.5, 0.5, "There is no evidence for any class.", ha="center", va="center")
            return figure
        columns = min(len(shown), 5 if len(shown) > 4 else 4)
        pictures = heat_images(evidence.mean_maps[shown])
        scale = min((_WIDTH - (columns + 1) * MARGIN) / columns, 1.2) / pictures.shape[-1]
        scale = min(scale, 1.2 / pictures.shape[-2])
        height, width = (side * scale for side in pictures.shape[-2:])
        pitch, line = max(width, 0.75) + MARGIN, text_height(1) + 0.5 * MARGIN
        rows = -(-len(shown) // columns)
        title = text_height(1) + 2 * MARGIN
        figure = Figure(
            figsize=(max(_WIDTH, columns * pitch + MARGIN), title + rows * (height + line + MARGIN))
        )
        wide, high = figure.get_size_inches()
        left = (wide - columns * pitch + MARGIN) / 2
        of = (
            f", {len(shown)} of {len(evidence.classes)} classes"
            if len(shown) < len(evidence.classes)
            else ""
        )
        figure.text(
            MARGIN / wide,
            1 - MARGIN / high,
            f"Mean heat on images of each class{of}",
            va="top",
            fontsize=9,
        )
        for place, (index, picture) in enumerate(zip(shown.tolist(), pictures, strict=True)):
            row, column = divmod(place, columns)
            x, y = (
                left + column * pitch + (pitch - MARGIN - width) / 2,
                title + row * (height + line + MARGIN) + line,
            )
            show(figure, Tiles(picture[None, None], scale), x, y, interpolation="nearest")
            name = truncate(evidence.classes[index], pitch - MARGIN)
            figure.text(
                (x + width / 2) / wide,
                1 - (y - 0.25 * MARGIN) / high,
                name,
                ha="center",
                va="bottom",
            )
    return figure


def shown_classes(evidence: ClassAttribution) -> Tensor:  # (S,) int64
    """The classes whose evidence is shown, in their order."""
    order = evidence.images.argsort(descending=True, stable=True)
    return order[evidence.images[order] > 0][:MOST_CLASSES].sort().values


def heat_images(maps: Tensor) -> Tensor:  # (K, 3, H, W) uint8
    """Maps (K, H, W) float in colors, each from 0 to its largest value; large ones made smaller."""
    scaled = maps / maps.amax((1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
    colors = mpl.colormaps[HEAT](scaled.cpu().numpy(), bytes=True)[..., :3]
    return downscale(torch.from_numpy(np.ascontiguousarray(colors)).permute(0, 3, 1, 2))
