"""Thumbnails of images for pages and figures."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.data.dataset import Split

FIGURE_SIDE = 128  # maximum longer side of an image in a figure, in pixels
THUMBNAIL_SIDE = 128  # maximum longer side of a thumbnail, in pixels

_BLOCK = 256  # images read at once


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """Thumbnails of some images of a split."""

    indices: Tensor  # (T,) int64, ascending, into the split
    images: Tensor  # (T, C, h, w) uint8


def make_thumbnails(split: Split, indices: Sequence[int]) -> Thumbnails:
    """Thumbnails of the images at `indices`, without repetition, no side longer than 128 pixels."""
    unique = torch.tensor(sorted(set(indices)), dtype=torch.int64)
    blocks = torch.split(unique, _BLOCK) if len(unique) else [unique]
    images = [downscale(split.images[block], THUMBNAIL_SIDE) for block in blocks]
    return Thumbnails(unique, torch.cat(images))


def to_rgb(images: Tensor) -> Tensor:
    """Images (..., C, H, W) uint8 as (..., 3, H, W) uint8; gray unless C is 3."""
    if images.shape[-3] == 3:
        return images
    gray = images.float().mean(-3, keepdim=True).round().byte()
    return gray.expand(*gray.shape[:-3], 3, *gray.shape[-2:])


def downscale(images: Tensor, side: int = FIGURE_SIDE) -> Tensor:
    """Images (N, C, H, W) uint8 with no side longer than `side` pixels, by averaging areas."""
    scale = side / max(images.shape[2:])
    if scale >= 1:
        return images
    size = [max(1, round(length * scale)) for length in images.shape[2:]]
    return F.interpolate(images.float(), size=size, mode="area").round().byte()
