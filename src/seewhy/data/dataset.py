"""What a data set is: decoded images, their labels, their names."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seewhy.errors import SeewhyError


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, decoded once; in memory or memory-mapped."""

    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64, index into Dataset.classes
    names: Sequence[str]  # (N,) file name or id
    masks: Tensor | None = (
        None  # (N, H, W) bool, where the object is; only some data sets have them
    )

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Tensor) -> "Split":
        """The images at `indices` (M,) int64, copied into memory."""
        return Split(
            images=self.images[indices],
            labels=self.labels[indices],
            names=[self.names[i] for i in indices.tolist()],
            masks=None if self.masks is None else self.masks[indices],
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Everything one training needs to know of its data."""

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    validation: Split | None
    fingerprint: str  # hex digest of the decoded content: equal data has equal fingerprints, wherever it came from
    skipped: tuple[str, ...] = ()  # files left out because they could not be read
    load_args: Mapping[str, Any] = field(
        default_factory=dict
    )  # the arguments with which `load` gives it again, if any

    @property
    def splits(self) -> dict[str, Split]:
        """The splits there are, by name: train, test and perhaps validation."""
        splits = {"train": self.train, "test": self.test}
        return splits if self.validation is None else splits | {"validation": self.validation}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def origin(self) -> "DataOrigin":
        """Which data set this is, as plain values."""
        return DataOrigin(
            self.name,
            self.fingerprint,
            dict(self.load_args),
            self.classes,
            self.image_shape,
            {name: len(split) for name, split in self.splits.items()},
            self.skipped,
        )

    def __repr__(self) -> str:
        channels, height, width = self.image_shape
        held_out = "" if self.validation is None else f", {len(self.validation):,} validation"
        return (
            f"Dataset({self.name}: {len(self.train):,} train{held_out}, {len(self.test):,} test images, "
            f"{len(self.classes)} classes, {channels}x{height}x{width})"
        )


@dataclass(frozen=True)
class DataOrigin:
    """Which data set something was made from, and how to load it again."""

    name: str
    fingerprint: str
    load_args: Mapping[str, Any]  # the arguments of `load`; empty for data made in memory
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]  # (C, H, W)
    images: Mapping[str, int]  # number of images by split
    skipped: tuple[str, ...] = ()  # files that could not be read


def fingerprint(classes: Sequence[str], digests: Mapping[str, str]) -> str:
    """Hex digest of a data set with these classes and these digests of its splits."""
    content = json.dumps([list(classes), sorted(digests.items())]).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def split_digest(pixels: hashlib.blake2b, shape: tuple[int, ...], labels: np.ndarray) -> str:
    """Hex digest of a split, from a hash that has seen all its pixel bytes (and is used up), its shape and its labels."""
    pixels.update(json.dumps(list(shape)).encode())
    pixels.update(labels.astype("<i8").tobytes())
    return pixels.hexdigest()


def digest_of(split: Split) -> str:
    """The `split_digest` of a split at hand."""
    hasher = hashlib.blake2b(digest_size=16)
    for start in range(0, len(split), 1024):
        hasher.update(split.images[start : start + 1024].cpu().contiguous().numpy().data)
    return split_digest(hasher, tuple(split.images.shape), split.labels.cpu().numpy())


def class_counts(split: Split, num_classes: int) -> Tensor:
    """How many images each class has: (num_classes,) int64."""
    return torch.bincount(split.labels, minlength=num_classes)


def class_weights(split: Split, num_classes: int) -> Tensor:
    """Weights (num_classes,) float32 inversely proportional to class counts, 1 where all are equal.

    The "balanced" heuristic of King & Zeng 2001: N / (K * count). A class without images gets weight 0.
    """
    counts = class_counts(split, num_classes).double()
    weights = counts.sum() / (num_classes * counts)
    return torch.where(counts > 0, weights, 0.0).float()


def stratified_split(
    labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (kept, held_out), each sorted int64, with `fraction` of every class held out; the same for the same seed.

    Every class with at least two images keeps one and gives one. Raises SeewhyError unless 0 < fraction < 1.
    """
    if not 0 < fraction < 1:
        raise SeewhyError(f"a held-out fraction must be between 0 and 1, found {fraction}")
    generator = np.random.default_rng(seed)
    held_out = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held_out.append(members[:count])
    chosen = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def stratified_sample(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sorted indices (count,) int64 of images of every class, as often as the class occurs; a larger sample holds a smaller one.

    At least one of each class is among them where `count` is no less than the number of classes.
    """
    generator = np.random.default_rng(seed)
    turn = np.empty(
        len(labels)
    )  # in [0, 1): when an image is taken, so that all classes are used up at the same pace
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        turn[members] = np.arange(len(members)) / len(members)
    return np.sort(np.argsort(turn, kind="stable")[:count])
