"""Numbers about a split: pixel statistics per channel, exact duplicates."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.data.dataset import Dataset, Split, class_counts
from seewhy.errors import SeewhyError

_BLOCK_PIXELS = 2**22  # read at once: what a data set larger than memory may take of it


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Of every channel, over pixels in [0, 1]: five tensors (C,) float64; `var` and `std` divide by the number of pixels."""

    min: Tensor
    max: Tensor
    mean: Tensor
    std: Tensor
    var: Tensor


def channel_statistics(split: Split, at_most: int | None = None) -> ChannelStatistics:
    """Exact pixel statistics of each channel, from 256-bin histograms, so that no image is ever held as floats.

    `at_most` reads no more than that many images, evenly spaced, where a data set is too large to read whole.
    """
    if at_most is not None and at_most < 1:
        raise SeewhyError(f"at_most must be at least 1, found {at_most}")
    step = 1 if at_most is None else math.ceil(len(split) / at_most)
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
    seen = counts > 0
    lowest = torch.stack([values[row].min() for row in seen])
    highest = torch.stack([values[row].max() for row in seen])
    return ChannelStatistics(min=lowest, max=highest, mean=mean, std=var.sqrt(), var=var)


@dataclass(frozen=True)
class Duplicates:
    """Images that occur more than once, pixel for pixel."""

    groups: tuple[
        tuple[tuple[str, int], ...], ...
    ]  # of each picture all its places: (split, index), in order

    @property
    def across(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """The groups with members in more than one split: what a model was trained on and is tested on."""
        return tuple(group for group in self.groups if len({split for split, _ in group}) > 1)


def exact_duplicates(splits: Mapping[str, Split]) -> Duplicates:
    """Groups of equal images inside and across `splits`, found by a 128-bit hash of the pixels; labels play no part."""
    places: dict[tuple[tuple[int, ...], bytes], list[tuple[str, int]]] = {}
    for name, split in splits.items():
        shape = tuple(split.images.shape[1:])
        for start in range(0, len(split), 1024):
            block = split.images[start : start + 1024].contiguous().flatten(1).numpy()
            for index, pixels in enumerate(block, start):
                digest = hashlib.blake2b(pixels.data, digest_size=16).digest()
                places.setdefault((shape, digest), []).append((name, index))
    return Duplicates(tuple(tuple(group) for group in places.values() if len(group) > 1))


@dataclass(frozen=True, eq=False)
class Description:
    """A data set in numbers; the dictionaries go by split: train, test and, where there is one, validation."""

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]  # (C, H, W)
    images: dict[str, int]
    pixels: dict[str, ChannelStatistics]
    counts: dict[str, Tensor]  # (K,) int64
    duplicates: Duplicates
    skipped: tuple[str, ...]


def describe(data: Dataset) -> Description:
    """Read every image once or twice and describe the data set."""
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
