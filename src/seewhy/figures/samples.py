"""Pictures of the data: labeled samples, and what each augmentation of a recipe does to them."""

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
from seewhy.figures.image_grid import MARGIN, Tiles, show, text_height, text_width, truncate, wrap
from seewhy.figures.style import STYLE

MOST_CLASSES = 20
ROWS = 5  # images that augmentations_figure shows


def samples_figure(
    split: Split, classes: Sequence[str], per_class: int = 8, seed: int = 0
) -> Figure:
    """`per_class` random images of each class, a row per class; of more than 20 classes, 20 evenly spaced ones."""
    if per_class < 1:
        raise SeewhyError(f"per_class must be 1 or more, found {per_class}")
    shown = (
        np.linspace(0, len(classes) - 1, min(len(classes), MOST_CLASSES))
        .round()
        .astype(int)
        .tolist()
    )
    images = downscale(_pick(split, shown, per_class, seed))
    images = images.view(len(shown), per_class, *images.shape[1:])
    blocks = 2 if len(shown) > MOST_CLASSES // 2 else 1
    rows = -(-len(shown) // blocks)
    title = 0.35
    scale = 0.72 / max(images.shape[-2:])
    with mpl.rc_context(STYLE):
        names = [truncate(classes[index], 1.8) for index in shown]
        beside = 2 * MARGIN + max(map(text_width, names))
        height, width = Tiles(images[:rows], scale).extent
        pitch = beside + width + 2 * MARGIN
        figure = Figure(figsize=(blocks * pitch - MARGIN, title + height + MARGIN))
        for block in range(blocks):
            part = slice(block * rows, (block + 1) * rows)
            tiles = Tiles(images[part], scale)
            show(figure, tiles, beside + block * pitch, title).set_yticks(
                tiles.centers(0), names[part]
            )
        total = f"{len(classes)} class{'es' * (len(classes) != 1)}"
        of = f"{len(shown)} of {total}" if len(shown) < len(classes) else total
        top = 1 - 0.5 * title / figure.get_figheight()
        heading = f"{of}, {len(split):,} images"
        figure.text(
            MARGIN / figure.get_figwidth(),
            top,
            heading,
            va="center",
            weight="bold",
            fontsize="large",
        )
    return figure


def augmentations_figure(
    split: Split, steps: Sequence[str | Callable[..., Any]], seed: int = 0
) -> Figure:
    """Five random images, a row each: as they are, after each of `steps` (see `augmentation`) alone, and after all of them."""
    named: list[str | Callable[..., Any]] = [steps] if isinstance(steps, str) else list(steps)
    columns: dict[str, list[str | Callable[..., Any]]] = {"original": []}
    columns |= {
        f"{place}. {augmentation_name(step)}": [step] for place, step in enumerate(named, 1)
    }
    if len(named) > 1:
        columns["all together"] = named
    batch = _random_batch(split, seed)
    after = []
    for column in columns.values():
        generator = torch.Generator().manual_seed(seed)
        after.append(downscale(bind_augmentations(column)(batch, generator).images[:ROWS]))
    images = torch.stack(after, dim=1)  # (rows, columns, C, H, W)
    tiles = Tiles(images, scale=1.2 / max(images.shape[-2:]))
    with mpl.rc_context(STYLE):
        labels = [wrap(name, 0.97 * images.shape[-1] * tiles.scale) for name in columns]
        above = 2 * MARGIN + text_height(1 + max(label.count("\n") for label in labels))
        height, width = tiles.extent
        figure = Figure(figsize=(width + 2 * MARGIN, above + height + MARGIN))
        axes = show(figure, tiles, MARGIN, above)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_xticks(tiles.centers(1), labels)
    return figure


def _pick(split: Split, shown: Sequence[int], per_class: int, seed: int) -> Tensor:
    """(classes * per_class, C, H, W) uint8: random images of each class in `shown`; white where a class has too few."""
    images = torch.full((len(shown), per_class, *split.images.shape[1:]), 255, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    for row, index in enumerate(shown):
        members = (split.labels.cpu() == index).nonzero().flatten()
        chosen = members[torch.randperm(len(members), generator=generator)[:per_class]]
        images[row, : len(chosen)] = split.images[chosen.to(split.images.device)].cpu()
    return images.flatten(0, 1)


def _random_batch(split: Split, seed: int) -> Batch:
    """64 images, though only a few are shown: so that mixing has partners to choose from."""
    indices = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:64]
    images = split.images[indices.to(split.images.device)].cpu()
    labels = split.labels.cpu()
    return Batch(images, one_hot(labels[indices], int(labels.max()) + 1), indices, epoch=0)
