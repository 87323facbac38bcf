"""Images as a page shows them: whole where they are small, otherwise as thumbnails."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.data.dataset import Split

THUMBNAIL = 128  # pixels; larger images are shrunk to it, smaller ones are shown pixel by pixel
SIDE = 96  # pixels; larger images are shrunk to it


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """Images of a split that a page may show."""

    index: Tensor  # (T,) int64, ascending places in the split
    images: Tensor  # (T, C, h, w) uint8


def make_thumbnails(split: Split, indices: Sequence[int]) -> Thumbnails:
    """The images at `indices`, each once, no side longer than 96 pixels."""
    index = torch.tensor(sorted(set(indices)), dtype=torch.int64)
    images = (
        [shrink(split.images[some], SIDE) for some in torch.split(index, 256)]
        if len(index)
        else [split.images[:0]]
    )
    return Thumbnails(index, torch.cat(images))


def to_rgb(images: Tensor) -> Tensor:  # (..., 3, H, W) uint8
    """Images (..., C, H, W) uint8 in three channels: the mean of one channel, or of a number that has no colors of its own."""
    if images.shape[-3] == 3:
        return images
    gray = images.float().mean(-3, keepdim=True).round().byte()
    return gray.expand(*gray.shape[:-3], 3, *gray.shape[-2:])


def shrink(images: Tensor, side: int = THUMBNAIL) -> Tensor:
    """(N, C, H, W) uint8 with no side above `side` pixels, by the mean over areas."""
    shrink = side / max(images.shape[2:])
    if shrink >= 1:
        return images
    size = [max(1, round(length * shrink)) for length in images.shape[2:]]
    return F.interpolate(images.float(), size=size, mode="area").round().byte()
