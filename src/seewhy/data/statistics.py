"""Statistics of a dataset: pixel values by channel, class counts, exact duplicates."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.data.dataset import Dataset, Split, class_counts
from seewhy.errors import SeewhyError
from seewhy.wording import counted, counted_splits

_BLOCK_PIXELS = 2**22  # pixels read at once; a dataset may be larger than memory


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Statistics of each channel, over pixels in [0, 1]; `var` divides by N."""

    min: Tensor  # (C,) float64, as are all
    max: Tensor
    mean: Tensor
    std: Tensor
    var: Tensor


def channel_statistics(split: Split, max_images: int | None = None) -> ChannelStatistics:
    """Exact pixel statistics of each channel, from 256-bin histograms.

    Args:
        split: Images (N, C, H, W) uint8.
        max_images: Read at most this number of images, evenly spaced; None reads all.

    Returns:
        Statistics of pixels in [0, 1], each (C,) float64.

    Raises:
        SeewhyError: `max_images` is less than 1.
    """
    if max_images is not None and max_images < 1:
        raise SeewhyError(f"max_images must be at least 1, found {max_images}")
    step = 1 if max_images is None else math.ceil(len(split) / max_images)
    _, channels, height, width = split.images.shape
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    block_length = max(1, _BLOCK_PIXELS // (height * width))
    for start in range(0, len(split), block_length * step):
        block = split.images[start : start + block_length * step : step]
        for channel in range(channels):
            counts[channel] += torch.bincount(block[:, channel].flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = shares @ values
    var = (shares * (values - mean[:, None]) ** 2).sum(1)
    occurs = counts > 0
    lowest = torch.stack([values[row].min() for row in occurs])
    highest = torch.stack([values[row].max() for row in occurs])
    return ChannelStatistics(min=lowest, max=highest, mean=mean, std=var.sqrt(), var=var)


@dataclass(frozen=True)
class Duplicates:
    """Groups of images with equal pixels."""

    groups: tuple[tuple[tuple[str, int], ...], ...]  # (split, index) of each member, in order

    @property
    def across(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """The groups across splits, such as images in both train and test."""
        return tuple(group for group in self.groups if len({split for split, _ in group}) > 1)


def exact_duplicates(splits: Mapping[str, Split]) -> Duplicates:
    """Find images with equal pixels inside and across splits, regardless of their labels.

    Args:
        splits: Splits by name.

    Returns:
        Groups of two or more images with the same 128-bit hash of their pixels.
    """
    members: dict[tuple[tuple[int, ...], bytes], list[tuple[str, int]]] = {}
    for name, split in splits.items():
        shape = tuple(split.images.shape[1:])
        for start in range(0, len(split), 1024):
            block = split.images[start : start + 1024].contiguous().flatten(1).numpy()
            for index, pixels in enumerate(block, start):
                digest = hashlib.blake2b(pixels.data, digest_size=16).digest()
                members.setdefault((shape, digest), []).append((name, index))
    return Duplicates(tuple(tuple(group) for group in members.values() if len(group) > 1))


@dataclass(frozen=True, eq=False)
class Description:
    """Statistics of a dataset; the keys of the dictionaries are split names."""

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]  # (C, H, W)
    images: dict[str, int]  # number of images
    pixels: dict[str, ChannelStatistics]
    counts: dict[str, Tensor]  # (K,) int64, images of each class
    duplicates: Duplicates
    skipped: tuple[str, ...]

    def __repr__(self) -> str:
        classes = counted(len(self.classes), "class")
        return f"Description({self.name}: {counted_splits(self.images)}, {classes})"


def describe(data: Dataset) -> Description:
    """Pixel statistics, class counts and exact duplicates of a dataset; reads every image."""
    splits = data.splits
    return Description(
        name=data.name,
        classes=data.classes,
        image_shape=data.image_shape,
        images={name: len(split) for name, split in splits.items()},
        pixels={name: channel_statistics(split) for name, split in splits.items()},
        counts={name: class_counts(split, len(data.classes)) for name, split in splits.items()},
        duplicates=exact_duplicates(splits),
        skipped=data.skipped,
    )
