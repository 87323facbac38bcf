"""The images in which each concept is strongest."""

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from seewhy.attribution.concepts import Concepts
from seewhy.attribution.maps import resize_maps
from seewhy.errors import SeewhyError, describe_value
from seewhy.figures.explanations import enlarge, to_rgb_bytes
from seewhy.figures.image_grid import Cell, ImageGrid, Label, draw_grids
from seewhy.figures.style import STYLE
from seewhy.models.inspection import check_images
from seewhy.wording import counted

EXAMPLES = 6
_DARK = 0.25  # brightness where a concept is absent


def concepts_figure(images: Tensor, concepts: Concepts, examples: int = EXAMPLES) -> Figure:
    """Show the images with the most of each concept, a row for each, most important first.

    An image is as bright as the concept is strong there, relative to its maximum over all images.

    Args:
        images: The images in which the concepts were found (N, C, H, W), uint8 or float in [0, 1].
        concepts: From `find_concepts`.
        examples: Maximum number of images per concept.

    Raises:
        SeewhyError: If the images are not those of the concepts, and for less than one example.
    """
    check_images(images)
    if len(images) != len(concepts.maps):
        raise SeewhyError(
            f"concepts of {counted(len(concepts.maps), 'image')} need these, found "
            f"{describe_value(images)}"
        )
    if examples < 1:
        raise SeewhyError(f"examples must be at least 1, found {examples}")
    rows = [_row(images, concepts, index, examples) for index in range(len(concepts.directions))]
    labels = [
        Label(
            (
                f"concept {index}",
                f"importance {drop.mean:.2f}",
                f"({drop.interval[0]:.2f}–{drop.interval[1]:.2f})",
                f"stability {stability:.2f}",
            )
        )
        for index, (drop, stability) in enumerate(
            zip(concepts.importance, concepts.stability.tolist(), strict=True), 1
        )
    ]
    with mpl.rc_context(STYLE):
        grid = ImageGrid([""] * len(rows[0]), labels, rows, concepts.layer)
        return draw_grids([grid])


def _row(images: Tensor, concepts: Concepts, index: int, examples: int) -> list[Cell]:
    """The images in which a concept is strongest; those with the most of it first."""
    maps = concepts.maps[:, index]  # (N, h, w)
    chosen = maps.mean((1, 2)).argsort(descending=True, stable=True)[:examples]
    pixels = enlarge(to_rgb_bytes(images[chosen.to(images.device)]))
    peak = maps.max().clamp(min=torch.finfo(maps.dtype).tiny)
    strength = resize_maps(maps[chosen], pixels.shape[2:]) / peak
    light = _DARK + (1 - _DARK) * (2 * strength).clamp(0, 1)
    return [Cell(image) for image in (pixels * light[:, None]).round().byte()]
