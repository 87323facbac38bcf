"""Labeled samples of a dataset, and the effect of a recipe's augmentations."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from seewhy.data.augment import Batch, augmentation_name, bind_augmentations, one_hot
from seewhy.data.dataset import Split
from seewhy.data.thumbnails import downscale
from seewhy.errors import SeewhyError
from seewhy.figures.image_grid import MARGIN, Tiles, place_tiles
from seewhy.figures.style import STYLE
from seewhy.figures.text import text_height, text_width, truncate, wrap

MAX_CLASSES = 20
AUGMENTED_ROWS = 5
TITLE_HEIGHT = 0.35  # inches


def samples_figure(
    split: Split, classes: Sequence[str], per_class: int = 8, seed: int = 0
) -> Figure:
    """Show random images of each class in a row; of more than 20 classes, 20 evenly spaced ones.

    Args:
        split: The images and labels.
        classes: Class names.
        per_class: Images per class, at least 1.
        seed: Seed of the selection.
    """
    if per_class < 1:
        raise SeewhyError(f"per_class must be at least 1, found {per_class}")
    count = min(len(classes), MAX_CLASSES)
    indices = np.linspace(0, len(classes) - 1, count).round().astype(int).tolist()
    images = downscale(_sample(split, indices, per_class, seed))
    images = images.view(count, per_class, *images.shape[1:])
    blocks = 2 if count > MAX_CLASSES // 2 else 1
    rows = -(-count // blocks)
    scale = 0.72 / max(images.shape[-2:])
    with mpl.rc_context(STYLE):
        names = [truncate(classes[index], 1.8) for index in indices]
        left = 2 * MARGIN + max(map(text_width, names))
        height, width = Tiles(images[:rows], scale).extent
        pitch = left + width + 2 * MARGIN
        figure = Figure(figsize=(blocks * pitch - MARGIN, TITLE_HEIGHT + height + MARGIN))
        for block in range(blocks):
            part = slice(block * rows, (block + 1) * rows)
            tiles = Tiles(images[part], scale)
            axes = place_tiles(figure, tiles, left + block * pitch, TITLE_HEIGHT)
            axes.set_yticks(tiles.centers(0), names[part])
        total = f"{len(classes)} class{'es' * (len(classes) != 1)}"
        of = f"{count} of {total}" if count < len(classes) else total
        figure.text(
            MARGIN / figure.get_figwidth(),
            1 - 0.5 * TITLE_HEIGHT / figure.get_figheight(),
            f"{of}, {len(split):,} images",
            va="center",
            weight="bold",
            fontsize="large",
        )
    return figure


def augmentations_figure(
    split: Split, steps: Sequence[str | Callable[..., Any]], seed: int = 0
) -> Figure:
    """Show five random images unchanged, after each augmentation alone, and after all of them.

    Args:
        split: The images and labels.
        steps: Augmentations as in a recipe, such as ["flip", "crop:4"].
        seed: Seed of the selection and of the augmentations.
    """
    steps = [steps] if isinstance(steps, str) else list(steps)
    columns: dict[str, list[str | Callable[..., Any]]] = {"original": []}
    for number, step in enumerate(steps, 1):
        columns[f"{number}. {augmentation_name(step)}"] = [step]
    if len(steps) > 1:
        columns["all together"] = steps
    batch = _random_batch(split, seed)
    augmented = []
    for column in columns.values():
        generator = torch.Generator().manual_seed(seed)
        images = bind_augmentations(column)(batch, generator).images
        augmented.append(downscale(images[:AUGMENTED_ROWS]))
    images = torch.stack(augmented, dim=1)  # (rows, columns, C, H, W)
    tiles = Tiles(images, scale=1.2 / max(images.shape[-2:]))
    with mpl.rc_context(STYLE):
        headers = [wrap(name, 0.97 * images.shape[-1] * tiles.scale) for name in columns]
        lines = 1 + max(header.count("\n") for header in headers)
        top = 2 * MARGIN + text_height(lines)
        height, width = tiles.extent
        figure = Figure(figsize=(width + 2 * MARGIN, top + height + MARGIN))
        axes = place_tiles(figure, tiles, MARGIN, top)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_xticks(tiles.centers(1), headers)
    return figure


def _sample(split: Split, classes: Sequence[int], per_class: int, seed: int) -> Tensor:
    """Random images (classes * per_class, C, H, W) uint8 of each class, padded with white."""
    images = torch.full((len(classes), per_class, *split.images.shape[1:]), 255, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    for row, index in enumerate(classes):
        members = (split.labels.cpu() == index).nonzero().flatten()
        chosen = members[torch.randperm(len(members), generator=generator)[:per_class]]
        images[row, : len(chosen)] = split.images[chosen.to(split.images.device)].cpu()
    return images.flatten(0, 1)


def _random_batch(split: Split, seed: int) -> Batch:
    """64 random images; more than shown, as partners for mixing augmentations."""
    indices = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:64]
    images = split.images[indices.to(split.images.device)].cpu()
    labels = split.labels.cpu()
    return Batch(images, one_hot(labels[indices], int(labels.max()) + 1), indices, epoch=0)
