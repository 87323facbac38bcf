"""Decoded data: images, labels and names, by split."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seewhy.data.decode import Preprocessing
from seewhy.data.pixel_range import ValueRange
from seewhy.errors import SeewhyError
from seewhy.escaping import visible
from seewhy.wording import counted


@dataclass(frozen=True, eq=False)
class Split:
    """Decoded images with labels and names, in memory or memory-mapped."""

    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64, index into Dataset.classes; or (N, K) bool, any number of labels
    names: Sequence[str]  # (N,) file name or id
    masks: Tensor | None = None  # (N, H, W) bool, true on the object; None for most datasets
    originals: np.ndarray | None = None  # (N,) of the dtype ORIGINAL: the images before they were
    # decoded to one size; None for data made in memory

    def __len__(self) -> int:
        return len(self.images)

    def members(self, index: int) -> Tensor:
        """Whether each image is of a class, or has a label: (N,) bool on the CPU."""
        labels = self.labels.cpu()
        return labels == index if labels.ndim == 1 else labels[:, index]

    def take(self, indices: Tensor) -> "Split":
        """The images at `indices` (M,) int64, copied into memory."""
        return Split(
            images=self.images[indices],
            labels=self.labels[indices],
            names=[self.names[i] for i in indices.tolist()],
            masks=None if self.masks is None else self.masks[indices],
            originals=None if self.originals is None else self.originals[indices.cpu().numpy()],
        )

    def center_crop(self, margin: int) -> "Split":
        """The images without a margin of `margin` rows and columns in all; nothing is copied."""
        if not margin:
            return self
        first, last = margin // 2, margin - margin // 2
        inner = (slice(None), ..., slice(first, -last), slice(first, -last))
        masks = None if self.masks is None else self.masks[inner]
        return replace(self, images=self.images[inner], masks=masks)


@dataclass(frozen=True, eq=False)
class Dataset:
    """The splits of a dataset, its classes and its fingerprint.

    With a margin, the images of `train` are larger than `image_shape` by `margin` rows and columns,
    so that augmentations move real pixels into view. Everything else sees their center crop, as in
    `splits`.
    """

    name: str
    classes: tuple[str, ...]
    train: Split  # empty for data that is only to be predicted
    test: Split
    validation: Split | None
    fingerprint: str  # hex digest of the decoded content: equal for equal data from any source;
    # empty if it is not computed yet, as after `dataclasses.replace(data, test=…)`
    skipped: tuple[str, ...] = ()  # unreadable files
    load_args: Mapping[str, Any] = field(default_factory=dict)  # of `load`; empty if made in memory
    value_range: ValueRange | None = None  # of images with more than 8 bits, see `Preprocessing`
    held_out: tuple[str, ...] = ()  # splits that the source lacks, drawn from its training images

    margin: int = 0  # rows and columns by which images of `train` are larger than `image_shape`
    resize: str = "crop"  # of the images that were resized, see `Preprocessing`
    interpolation: str = "bicubic"
    folds: Tensor | None = None  # (N,) int64, from 0: the images of `train`, which are also those
    # of `test`, are each tested by the run that does not train on its fold
    described: tuple[object, ...] = field(default=(), repr=False)  # what the fingerprint is of

    def __post_init__(self) -> None:
        # `dataclasses.replace` keeps the fingerprint, also of other images, labels or classes
        content = [
            id(getattr(split, name, None))
            for split in (self.train, self.test, self.validation)
            for name in ("images", "labels")
        ]
        described = (self.fingerprint, str(self.classes), *content)
        if self.described[:1] == (self.fingerprint,) and self.described != described:
            object.__setattr__(self, "fingerprint", "")
        object.__setattr__(self, "described", (self.fingerprint, *described[1:]))

    def __setstate__(self, state: dict[str, Any]) -> None:
        # in another process, equal tensors have other identities
        self.__dict__.update(state | {"described": ()})
        self.__post_init__()

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name: "train" unless it is empty, "test" and, if there, "validation".

        All have images of `image_shape`.
        """
        train = {"train": self.train.center_crop(self.margin)} if len(self.train) else {}
        validation = {} if self.validation is None else {"validation": self.validation}
        return {**train, "test": self.test, **validation}

    @property
    def multi_label(self) -> bool:
        """Whether an image has any number of labels, instead of one class."""
        return self.train.labels.ndim == 2

    @property
    def num_folds(self) -> int:
        """Number of folds; 0 without cross-validation."""
        return 0 if self.folds is None else 1 + int(self.folds.max())

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image, without the margin."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height - self.margin, width - self.margin

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image file becomes pixels like those of the test images."""
        side = min(self.image_shape[1:])
        cropped = self.margin and self.resize == "crop"
        crop = side / (side + self.margin) if cropped else 1.0
        return Preprocessing(crop, self.interpolation, self.value_range, self.resize)

    @property
    def origin(self) -> "DataOrigin":
        """The identity of the dataset, as plain values."""
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
        if self.folds is not None:
            return (
                f"Dataset({visible(self.name)}: {counted(len(self.train), 'image')} in "
                f"{self.num_folds} folds, {counted(len(self.classes), 'class')}, "
                f"{channels}x{height}x{width})"
            )
        validation = "" if self.validation is None else f", {len(self.validation):,} validation"
        return (
            f"Dataset({visible(self.name)}: {len(self.train):,} train{validation}, "
            f"{counted(len(self.test), 'test image')}, {counted(len(self.classes), 'class')}, "
            f"{channels}x{height}x{width})"
        )


@dataclass(frozen=True)
class DataOrigin:
    """The identity of a dataset, and how to load it again (see `reload_data`)."""

    name: str
    fingerprint: str
    load_args: Mapping[str, Any]  # the arguments of `load`; empty for data made in memory
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]  # (C, H, W)
    images: Mapping[str, int]  # number of images by split
    skipped: tuple[str, ...] = ()  # unreadable files


def fingerprint(classes: Sequence[str], digests: Mapping[str, str]) -> str:
    """Hex digest of a dataset, from its classes and the digests of its splits."""
    content = json.dumps([list(classes), sorted(digests.items())]).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def split_digest(hasher: hashlib.blake2b, shape: tuple[int, ...], labels: np.ndarray) -> str:
    """Hex digest of a split; `hasher` must contain all pixel bytes; it is consumed."""
    hasher.update(json.dumps(list(shape)).encode())
    hasher.update(labels.astype("<i8").tobytes())
    return hasher.hexdigest()


def compute_digest(split: Split) -> str:
    """The `split_digest` of a decoded split."""
    hasher = hashlib.blake2b(digest_size=16)
    for start in range(0, len(split), 1024):
        hasher.update(split.images[start : start + 1024].cpu().contiguous().numpy().data)
    return split_digest(hasher, tuple(split.images.shape), split.labels.cpu().numpy())


def check_one_label(data: Dataset, what: str) -> None:
    """Raise SeewhyError if the images have several labels; `what` needs one class each."""
    if data.multi_label:
        raise SeewhyError(
            f"{what} needs one class per image, but images of {data.name} have any number of "
            "labels; seewhy train, evaluate, predict, explain, export and report take them"
        )


def class_counts(split: Split, num_classes: int) -> Tensor:
    """Number of images of each class, or with each label.

    Args:
        split: Labels (N,) in [0, num_classes), or (N, num_classes) bool.
        num_classes: Number of classes.

    Returns:
        (num_classes,) int64.
    """
    if split.labels.ndim == 2:
        return split.labels.sum(0)
    return torch.bincount(split.labels, minlength=num_classes)


def class_weights(split: Split, num_classes: int) -> Tensor:
    """Weights inversely proportional to class counts: N / (K * count).

    The "balanced" heuristic of King & Zeng 2001, "Logistic Regression in Rare Events Data". All
    weights are 1 if the classes are balanced. A class without images gets weight 0.

    Args:
        split: Labels in [0, num_classes).
        num_classes: Number of classes, K.

    Returns:
        (num_classes,) float32.
    """
    counts = class_counts(split, num_classes).double()
    weights = counts.sum() / (num_classes * counts)
    return torch.where(counts > 0, weights, 0.0).float()


def label_weights(split: Split, num_classes: int) -> Tensor:
    """Weights of each label where an image has it: images without it / images with it.

    The `pos_weight` that torch recommends for `BCEWithLogitsLoss`: both parts then weigh the same.
    A label that no image has, or that all have, gets weight 1.

    Args:
        split: Labels (N, K) bool.
        num_classes: Number of labels, K.

    Returns:
        (K,) float32.
    """
    counts = class_counts(split, num_classes).double()
    others = len(split) - counts
    return torch.where(counts * others > 0, others / counts.clamp(min=1), 1.0).float()


def strata(labels: np.ndarray) -> np.ndarray:
    """The stratum of each image in a stratified split: its class, or the rarest of its labels.

    Rare labels are the ones that a random split distributes unevenly (Sechidis et al. 2011). Images
    without a label are a stratum of their own.

    Args:
        labels: (N,) int64; or (N, K) bool.

    Returns:
        (N,) int64 in [0, K], K for images without a label.
    """
    if labels.ndim == 1:
        return labels
    rarest = np.where(labels, labels.sum(0), len(labels) + 1).argmin(1)
    stratum: np.ndarray = np.where(labels.any(1), rarest, labels.shape[1])
    return stratum


def stratified_split(
    labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a fraction of each class.

    Of a class with at least two images, at least one is kept and at least one is held out.

    Args:
        labels: (N,) int64.
        fraction: In (0, 1).
        seed: The same seed gives the same split.

    Returns:
        Indices of the kept and of the held-out images, each sorted int64.

    Raises:
        SeewhyError: `fraction` is not in (0, 1).
    """
    if not 0 < fraction < 1:
        raise SeewhyError(f"the held-out fraction must be above 0 and below 1, found {fraction}")
    generator = np.random.default_rng(seed)
    held_out = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held_out.append(members[:count])
    indices = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), indices), indices


def stratified_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Divide images into folds of about equal size, each class as evenly as possible.

    Every class has images outside of each fold: the only image of a class is in no fold.

    Args:
        labels: (N,) int64.
        folds: Number of folds, at least 2.
        seed: The same seed gives the same folds.

    Returns:
        (N,) int64, the fold of each image, or -1.
    """
    generator = np.random.default_rng(seed)
    fold_of = np.full(len(labels), -1)
    next_fold = 0  # so that the remainders of the classes go to different folds
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        if len(members) > 1:
            fold_of[members] = (next_fold + np.arange(len(members))) % folds
            next_fold += len(members)
    return fold_of


def stratified_sample(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sample images of each class in proportion to its frequency.

    With the same seed, a larger sample contains a smaller one. If `count` is at least the number of
    classes, the sample has an image of each class.

    Args:
        labels: (N,) int64.
        count: Size of the sample, at most N.
        seed: The same seed gives the same sample.

    Returns:
        Sorted indices (count,) int64.
    """
    generator = np.random.default_rng(seed)
    # in [0, 1): sorting by it takes images from all classes at the same pace
    priority = np.empty(len(labels))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        priority[members] = np.arange(len(members)) / len(members)
    return np.sort(np.argsort(priority, kind="stable")[:count])
