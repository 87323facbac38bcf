"""Pictures of the data: labelled samples, and what each augmentation of a recipe does to them."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath
from torch import Tensor
from torch.nn import functional as F

from seewhy.data.augment import Batch, augmentation, one_hot, step_name
from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.figures.style import STYLE

MOST_CLASSES = 20
ROWS = 5  # images that augmentations_figure shows
THUMBNAIL = 128  # pixels; larger images are shrunk to it, smaller ones are shown pixel by pixel
MARGIN = 0.08  # inches, around the figure and between a label and its images


def samples_figure(split: Split, classes: Sequence[str], per_class: int = 8, seed: int = 0) -> Figure:
    """`per_class` random images of each class, a row per class; of more than 20 classes, 20 evenly spaced ones."""
    if per_class < 1:
        raise SeewhyError(f"per_class must be 1 or more, found {per_class}")
    shown = np.linspace(0, len(classes) - 1, min(len(classes), MOST_CLASSES)).round().astype(int).tolist()
    images = _thumbnails(_pick(split, shown, per_class, seed))
    images = images.view(len(shown), per_class, *images.shape[1:])
    blocks = 2 if len(shown) > MOST_CLASSES // 2 else 1
    rows = -(-len(shown) // blocks)
    title = 0.35
    scale = 0.72 / max(images.shape[-2:])
    with mpl.rc_context(STYLE):
        names = [_shortened(classes[index], 1.8) for index in shown]
        beside = 2 * MARGIN + max(map(_text_width, names))
        height, width = _extent(images[:rows], scale)
        pitch = beside + width + 2 * MARGIN
        figure = Figure(figsize=(blocks * pitch - MARGIN, title + height + MARGIN))
        for block in range(blocks):
            part = slice(block * rows, (block + 1) * rows)
            axes = _show(figure, images[part], beside + block * pitch, title, scale)
            axes.set_yticks(_centres(images, -2, len(names[part])), names[part])
        total = f"{len(classes)} class{'es' * (len(classes) != 1)}"
        of = f"{len(shown)} of {total}" if len(shown) < len(classes) else total
        top = 1 - 0.5 * title / figure.get_figheight()
        heading = f"{of}, {len(split):,} images"
        figure.text(MARGIN / figure.get_figwidth(), top, heading, va="center", weight="bold", fontsize="large")
    return figure


def augmentations_figure(split: Split, steps: Sequence[str | Callable[..., Any]], seed: int = 0) -> Figure:
    """Five random images, a row each: as they are, after each of `steps` (see `augmentation`) alone, and after all of them."""
    named: list[str | Callable[..., Any]] = [steps] if isinstance(steps, str) else list(steps)
    columns: dict[str, list[str | Callable[..., Any]]] = {"original": []}
    columns |= {f"{place}. {step_name(step)}": [step] for place, step in enumerate(named, 1)}
    if len(named) > 1:
        columns["all together"] = named
    batch = _random_batch(split, seed)
    after = []
    for column in columns.values():
        generator = torch.Generator().manual_seed(seed)
        after.append(_thumbnails(augmentation(column)(batch, generator).images[:ROWS]))
    images = torch.stack(after, dim=1)  # (rows, columns, C, H, W)
    scale = 1.2 / max(images.shape[-2:])
    with mpl.rc_context(STYLE):
        labels = [_wrapped(name, 0.97 * images.shape[-1] * scale) for name in columns]
        above = 2 * MARGIN + 1.25 * mpl.rcParams["font.size"] / 72 * (1 + max(label.count("\n") for label in labels))
        height, width = _extent(images, scale)
        figure = Figure(figsize=(width + 2 * MARGIN, above + height + MARGIN))
        axes = _show(figure, images, MARGIN, above, scale)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_xticks(_centres(images, -1, len(labels)), labels)
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


def _thumbnails(images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 with no side above THUMBNAIL, by the mean over areas."""
    shrink = THUMBNAIL / max(images.shape[2:])
    if shrink >= 1:
        return images
    size = [max(1, round(length * shrink)) for length in images.shape[2:]]
    return F.interpolate(images.float(), size=size, mode="area").round().byte()


def _show(figure: Figure, images: Tensor, left: float, top: float, scale: float) -> Axes:
    """(R, K, C, H, W) uint8 as R rows of K framed images, `left` and `top` in inches, `scale` inches per pixel.

    Nearest neighbour, each placed to the pixel: an empty cell is white and has no frame.
    """
    if images.shape[2] != 3:  # one channel, or a number of them that has no colours of its own
        images = images.float().mean(2, keepdim=True).round().byte().expand(-1, -1, 3, -1, -1)
    height, width = _extent(images, scale)
    whole_width, whole_height = figure.get_size_inches()
    box = (left / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height)
    axes: Axes = figure.add_axes(box)
    gap = _gap(images)
    spaced = F.pad(images, (0, gap, 0, gap), value=255)
    picture = spaced.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)[:-gap, :-gap]  # (height, width, 3)
    axes.imshow(picture.numpy(), interpolation="nearest", aspect="auto")
    pitch_y, pitch_x = (length + gap for length in images.shape[-2:])
    frames = [
        Rectangle((column * pitch_x - 0.5, row * pitch_y - 0.5), images.shape[-1], images.shape[-2])
        for row, column in (images != 255).flatten(2).any(2).nonzero().tolist()
    ]
    axes.add_collection(PatchCollection(frames, facecolor="none", edgecolor="0.6", linewidth=0.4, clip_on=False), autolim=False)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0, pad=72 * MARGIN)
    return axes


def _gap(images: Tensor) -> int:  # pixels between images
    return max(1, round(0.05 * max(images.shape[-2:])))


def _extent(images: Tensor, scale: float) -> tuple[float, float]:
    """Height and width in inches of (R, K, C, H, W) with the gaps between them."""
    rows, columns, _, height, width = images.shape
    gap = _gap(images)
    return scale * (rows * (height + gap) - gap), scale * (columns * (width + gap) - gap)


def _centres(images: Tensor, axis: int, count: int) -> list[float]:
    length = images.shape[axis]
    return [place * (length + _gap(images)) + (length - 1) / 2 for place in range(count)]


def _text_width(text: str) -> float:  # inches
    if not text.strip():
        return 0.0
    plain = text.replace("$", "S")  # as wide, and no formula
    return float(TextPath((0, 0), plain, size=mpl.rcParams["font.size"]).get_extents().width) / 72


def _shortened(text: str, width: float) -> str:
    """`text`, or as much of it as fits into `width` inches with an ellipsis."""
    whole = _text_width(text)
    if whole > width:
        kept = int(len(text) * width / whole) + 3  # a start; letters differ in width
        while kept > 1 and _text_width(text[:kept] + "…") > width:
            kept -= 1
        text = text[:kept].rstrip() + "…"
    return text.replace("$", r"\$")  # a dollar, not a formula


def _wrapped(name: str, width: float) -> str:
    """`name` in lines of at most `width` inches, broken after blanks, commas, colons and hyphens, or shortened."""
    lines = [""]
    for part in re.split(r"(?<=[ ,:-])", name):
        if lines[-1] and _text_width(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(_shortened(line.rstrip(), width) for line in lines)
