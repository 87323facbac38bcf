"""Pictures of the data: labelled samples, and what each augmentation of a recipe does to them."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from seewhy.data.augment import Batch, augmentation, one_hot, step_name
from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.figures.style import STYLE

MOST_CLASSES = 20
ROWS = 5  # images that augmentations_figure shows
THUMBNAIL = 128  # pixels; larger images are shrunk to it, smaller ones are shown pixel by pixel


def samples_figure(split: Split, classes: Sequence[str], per_class: int = 8, seed: int = 0) -> Figure:
    """`per_class` random images of each class, a row per class; of more than 20 classes, 20 evenly spaced ones."""
    if per_class < 1:
        raise SeewhyError(f"per_class must be 1 or more, found {per_class}")
    shown = np.linspace(0, len(classes) - 1, min(len(classes), MOST_CLASSES)).round().astype(int).tolist()
    images = _thumbnails(_pick(split, shown, per_class, seed).flatten(0, 1)).unflatten(0, (len(shown), per_class))
    columns = 2 if len(shown) > MOST_CLASSES // 2 else 1
    rows = -(-len(shown) // columns)
    names = [_shortened(classes[index], 24) for index in shown]
    height, width = _cell(images)
    size = (columns * (width * per_class + 0.2 + 0.075 * max(map(len, names))), height * rows + 0.4)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
        for column, first in enumerate(range(0, len(shown), rows)):
            block = slice(first, first + rows)
            _show(axes[column], _padded(images[block], rows))
            _label_rows(axes[column], images, names[block])
        total = f"{len(classes)} class{'es' * (len(classes) != 1)}"
        of = f"{len(shown)} of {total}" if len(shown) < len(classes) else total
        figure.suptitle(f"{of}, {len(split):,} images", x=0.01, ha="left", weight="bold")
    return figure


def augmentations_figure(split: Split, steps: Sequence[str | Callable[..., Any]], seed: int = 0) -> Figure:
    """Five random images, a row each: as they are, after each of `steps` (see `augmentation`) alone, and after all of them."""
    named = [steps] if isinstance(steps, str) else list(steps)
    columns = {"original": []} | {f"{place}. {step_name(step)}": [step] for place, step in enumerate(named, 1)}
    if len(named) > 1:
        columns["all together"] = named
    batch = _random_batch(split, seed)
    after = []
    for column in columns.values():
        generator = torch.Generator().manual_seed(seed)
        after.append(_thumbnails(augmentation(column)(batch, generator).images[:ROWS]))
    images = torch.stack(after, dim=1)  # (rows, columns, C, H, W)
    height, width = _cell(images, largest=1.25)
    labels = [_wrapped(name, int(width * 14)) for name in columns]
    lines = 1 + max(label.count("\n") for label in labels)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width * len(columns) + 0.1, height * len(images) + 0.14 * lines + 0.1), layout="constrained")
        axes = figure.subplots()
        _show(axes, images)
        _label_columns(axes, images, labels)
    return figure


def _pick(split: Split, shown: Sequence[int], per_class: int, seed: int) -> Tensor:
    """(rows, per_class, C, H, W) uint8: random images of each class in `shown`; white where a class has too few."""
    images = torch.full((len(shown), per_class, *split.images.shape[1:]), 255, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    for row, index in enumerate(shown):
        members = (split.labels.cpu() == index).nonzero().flatten()
        chosen = members[torch.randperm(len(members), generator=generator)[:per_class]]
        images[row, : len(chosen)] = split.images[chosen.to(split.images.device)].cpu()
    return images


def _random_batch(split: Split, seed: int) -> Batch:
    """64 images, though only a few are shown: so that mixing has partners to choose from."""
    indices = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:64]
    images = split.images[indices.to(split.images.device)].cpu()
    labels = split.labels.cpu()
    return Batch(images, one_hot(labels[indices], int(labels.max()) + 1), indices, epoch=0)


def _thumbnails(images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 with no side above THUMBNAIL, by the mean over areas."""
    shrink = THUMBNAIL / max(images.shape[2:])
    if shrink >= 1:
        return images
    size = [max(1, round(length * shrink)) for length in images.shape[2:]]
    return F.interpolate(images.float(), size=size, mode="area").round().byte()


def _cell(images: Tensor, largest: float = 0.75) -> tuple[float, float]:
    """Height and width in inches of one image of (…, H, W) with its gap."""
    height, width = images.shape[-2:]
    return largest * height / max(height, width), largest * width / max(height, width)


def _gap(images: Tensor) -> int:
    return max(1, round(0.05 * max(images.shape[-2:])))


def _padded(images: Tensor, rows: int) -> Tensor:
    return torch.cat([images, images.new_full((rows - len(images), *images.shape[1:]), 255)])


def _show(axes: Axes, images: Tensor) -> None:
    """(R, K, C, H, W) uint8 as one picture of R rows and K columns, nearest neighbour, white between them."""
    if images.shape[2] != 3:  # one channel, or a number that has no colours of its own
        images = images.float().mean(2, keepdim=True).round().byte().expand(-1, -1, 3, -1, -1)
    gap = _gap(images)
    spaced = F.pad(images, (0, gap, 0, gap), value=255)
    picture = spaced.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)[:-gap, :-gap]  # (height, width, 3)
    axes.imshow(picture.numpy(), interpolation="nearest")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0, pad=3)


def _label_rows(axes: Axes, images: Tensor, names: Sequence[str]) -> None:
    height = images.shape[-2]
    axes.set_yticks([row * (height + _gap(images)) + (height - 1) / 2 for row in range(len(names))], names)


def _label_columns(axes: Axes, images: Tensor, names: Sequence[str]) -> None:
    width = images.shape[-1]
    axes.xaxis.tick_top()
    axes.set_xticks([column * (width + _gap(images)) + (width - 1) / 2 for column in range(len(names))], names)
    axes.tick_params(length=0, pad=3)


def _shortened(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"


def _wrapped(name: str, length: int) -> str:
    """`name` in lines of about `length` characters, broken after a blank, comma, colon, equals sign or hyphen."""
    lines = [""]
    for part in re.split(r"(?<=[ ,:=-])", name):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > length:
            lines.append("")
        lines[-1] += part
    return "\n".join(_shortened(line.rstrip(), length + 2) for line in lines)
