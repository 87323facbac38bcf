"""Labeled samples of a dataset, and what augmentations and normalization make of them."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from seewhy.data.augment import augmentation_name, bind_augmentations, encode_labels
from seewhy.data.batch import Batch
from seewhy.data.dataset import Split
from seewhy.data.thumbnails import downscale
from seewhy.errors import SeewhyError
from seewhy.figures.image_grid import MARGIN, Tiles, place_tiles
from seewhy.figures.style import STYLE
from seewhy.figures.text import text_height, text_width, truncate, wrap
from seewhy.models.normalization import normalize_for
from seewhy.wording import counted

MAX_CLASSES = 20
AUGMENTED_ROWS = 5
TITLE_HEIGHT = 0.35  # inches


def samples_figure(
    split: Split,
    classes: Sequence[str],
    per_class: int = 8,
    seed: int = 0,
    *,
    count: int | None = None,
) -> Figure:
    """Show random images of each class in a row; of more than 20 classes, 20 evenly spaced ones.

    Args:
        split: The images and labels.
        classes: Class names.
        per_class: Images per class, at least 1.
        seed: Seed of the selection.
        count: Images in all, spread evenly over the classes, instead of `per_class` of each.

    Raises:
        SeewhyError: If `per_class` or `count` is less than 1.
    """
    if per_class < 1:
        raise SeewhyError(f"per_class must be at least 1, found {per_class}")
    if count is not None and count < 1:
        raise SeewhyError(f"the number of samples must be at least 1, found {count}")
    shown = min(len(classes), MAX_CLASSES, count or MAX_CLASSES)
    indices = np.linspace(0, len(classes) - 1, shown).round().astype(int).tolist()
    total = shown * per_class if count is None else count
    counts = [total // shown + (row < total % shown) for row in range(shown)]
    images = downscale(_sample(split, indices, counts, seed))
    images = images.view(shown, max(counts), *images.shape[1:])
    blocks = 2 if shown > MAX_CLASSES // 2 else 1
    rows = -(-shown // blocks)
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
        every = counted(len(classes), "class")
        of = f"{shown} of {every}" if shown < len(classes) else every
        figure.text(
            MARGIN / figure.get_figwidth(),
            1 - 0.5 * TITLE_HEIGHT / figure.get_figheight(),
            f"{of}, {counted(len(split), 'image')}",
            va="center",
            weight="bold",
            fontsize="large",
        )
    return figure


def augmentations_figure(
    split: Split, steps: Sequence[str | Callable[..., Any]], seed: int = 0
) -> Figure:
    """Show five random images unchanged, augmented by each step alone and by all, and normalized.

    The last column is what a model sees in training: the augmented images, normalized with the mean
    and std of the split, from the smallest value in black to the largest in white.

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
    normalized, low, high = _normalized(split, augmented[-1])
    augmented.append(normalized)
    names = [*columns, f"normalized, {low:.1f} to {high:.1f}"]
    images = torch.stack(augmented, dim=1)  # (rows, columns, C, H, W)
    tiles = Tiles(images, scale=1.2 / max(images.shape[-2:]))
    with mpl.rc_context(STYLE):
        headers = [wrap(name, 0.97 * images.shape[-1] * tiles.scale) for name in names]
        lines = 1 + max(header.count("\n") for header in headers)
        top = 2 * MARGIN + text_height(lines)
        height, width = tiles.extent
        figure = Figure(figsize=(width + 2 * MARGIN, top + height + MARGIN))
        axes = place_tiles(figure, tiles, MARGIN, top)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_xticks(tiles.centers(1), headers)
    return figure


def _normalized(split: Split, images: Tensor) -> tuple[Tensor, float, float]:
    """Images (N, C, H, W) uint8 after normalization, as uint8, and the range of their values."""
    values = normalize_for(split).cpu()(images / 255)
    low, high = values.min().item(), values.max().item()
    scaled = (values - low) / ((high - low) or 1)
    return (255 * scaled).round().to(torch.uint8), low, high


def _sample(split: Split, classes: Sequence[int], counts: Sequence[int], seed: int) -> Tensor:
    """Random images (classes * max(counts), C, H, W) uint8 of each class, padded with white."""
    shape = (len(classes), max(counts), *split.images.shape[1:])
    images = torch.full(shape, 255, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    for row, (index, count) in enumerate(zip(classes, counts, strict=True)):
        members = split.members(index).nonzero().flatten()
        chosen = members[torch.randperm(len(members), generator=generator)[:count]]
        images[row, : len(chosen)] = split.images[chosen.to(split.images.device)].cpu()
    return images.flatten(0, 1)


def _random_batch(split: Split, seed: int) -> Batch:
    """64 random images; more than shown, as partners for mixing augmentations."""
    indices = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:64]
    images = split.images[indices.to(split.images.device)].cpu()
    labels = split.labels.cpu()
    return Batch(images, encode_labels(labels[indices], int(labels.max()) + 1), indices, epoch=0)
