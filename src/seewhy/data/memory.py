"""Datasets made in memory: checked, and as sources that can be resized and split."""

import hashlib
import json
from collections.abc import Sequence, Sized
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from seewhy.data.dataset import Dataset, Split, compute_digest, fingerprint
from seewhy.data.decode import Encoded
from seewhy.data.options import LoadOptions, check_integer
from seewhy.data.raw import (
    LoadRequest,
    RawDataset,
    RawSplit,
    Source,
    check_labels,
    reject_label_choice,
)
from seewhy.errors import SeewhyError, describe_value
from seewhy.wording import counted


def check_dataset(dataset: Dataset) -> Dataset:
    """Check a dataset, and compute its fingerprint if missing.

    A dataset with a fingerprint is returned unchanged, without reading its pixels.

    Args:
        dataset: Made by `load`, or by hand with `fingerprint=""`.

    Returns:
        The dataset with a fingerprint.

    Raises:
        SeewhyError: A tensor has the wrong shape or type, the splits do not match, or the labels
            cannot be trained on, unless there are no training images.
    """
    margin = check_integer("margin", dataset.margin, minimum=0)
    problem = _find_problem(dataset.train, None, margin)
    if problem:
        raise SeewhyError(f"{dataset.name}: the train split's {problem}")
    for name, split in dataset.splits.items():
        problem = _find_problem(split, dataset.image_shape)
        if problem:
            raise SeewhyError(f"{dataset.name}: the {name} split's {problem}")
    if isinstance(dataset.classes, str) or not isinstance(dataset.classes, Sequence):
        raise SeewhyError(
            f"{dataset.name}: classes must be a tuple of names, found "
            f"{describe_value(dataset.classes)}"
        )
    labels = {name: split.labels.cpu().numpy() for name, split in dataset.splits.items()}
    if len({values.ndim for values in labels.values()}) > 1:
        raise SeewhyError(
            f"{dataset.name}: some splits have one class per image (N,), others several labels "
            "(N, K); use the same for all"
        )
    check_labels(dataset.classes, labels, dataset.name)
    if dataset.folds is not None:
        _check_folds(dataset, dataset.folds.numpy(), labels["train"])
    if dataset.fingerprint:
        return dataset
    stored = dataset.splits | {"train": dataset.train}  # with its margin
    digests = {name: compute_digest(split) for name, split in stored.items()}
    return replace(dataset, fingerprint=fingerprint(dataset.classes, digests))


def _check_folds(dataset: Dataset, folds: np.ndarray, labels: np.ndarray) -> None:
    """Raise SeewhyError unless the images outside of each fold can be trained on for those in it.

    All images of a class may be in one fold, for example after others were dropped.
    """
    for fold in range(dataset.num_folds):
        parts = {"train": labels[folds != fold], "test": labels[folds == fold]}
        name = f"{dataset.name}, fold {fold + 1} of {dataset.num_folds}"
        check_labels(dataset.classes, parts, name)


def _find_problem(split: Split, image_shape: tuple[int, ...] | None, margin: int = 0) -> str | None:
    """The first problem with the tensors of a split of images (C, H, W), or None."""
    images, labels, names, masks = split.images, split.labels, split.names, split.masks
    if not _is(images, torch.uint8, 4) or 0 in images.shape[1:]:
        return f"images must be (N, C, H, W) uint8, found {describe_value(images)}"
    if margin >= min(images.shape[2:]):
        return f"margin must be below the side of its images, found {margin}"
    if not _is(labels, torch.int64, 1) and not _is(labels, torch.bool, 2):
        found = describe_value(labels)
        return f"labels must be (N,) int64, or (N, K) bool for several labels, found {found}"
    if not isinstance(names, Sized):
        return f"names must be a list of N names, found {describe_value(names)}"
    if not len(images) == len(labels) == len(names):
        counts = f"{counted(len(images), 'image')}, {counted(len(labels), 'label')} and "
        counts += counted(len(names), "name")
        return f"images, labels and names must be equal in number, found {counts}"
    if masks is not None and not (
        _is(masks, torch.bool, 3) and masks.shape == (len(images), *images.shape[2:])
    ):
        shape = (len(images), *images.shape[2:])
        return f"masks must be (N, H, W) bool, here {shape}, found {describe_value(masks)}"
    if image_shape is not None and images.shape[1:] != image_shape:
        shapes = ["x".join(map(str, shape)) for shape in (images.shape[1:], image_shape)]
        return f"images are {shapes[0]} but those of train are {shapes[1]}; resize them to one size"
    return None


def _is(value: object, dtype: torch.dtype, ndim: int) -> bool:
    return isinstance(value, Tensor) and value.dtype == dtype and value.ndim == ndim


def fits(dataset: Dataset, options: LoadOptions) -> bool:
    """Whether a dataset in memory is already as `options` ask for."""
    channels, *sides = dataset.image_shape
    return (
        (options.image_size is None or sides == [options.image_size] * 2)
        and options.channels in (None, channels)
        and options.margin in (0, dataset.margin)
        and options.split in (None, "folder", "test")
        and options.label is None
        and not options.validation
        and not options.folds
    )


def memory_source(dataset: Dataset) -> Source:
    """A source from a dataset in memory, which can be resized and split."""

    def open_(request: LoadRequest) -> RawDataset:
        reject_label_choice(dataset.name, request)
        splits = {name: _raw_split(split) for name, split in dataset.splits.items()}
        return RawDataset(dataset.classes, splits)

    signature = {"memory": dataset.fingerprint, "names and masks": _digest(dataset)}
    return Source(dataset.name, signature, open_)


def _digest(dataset: Dataset) -> str:
    """Hex digest of names and masks, which the fingerprint leaves out."""
    hasher = hashlib.blake2b(digest_size=16)
    for split in dataset.splits.values():
        hasher.update(json.dumps([str(name) for name in split.names]).encode())
        if split.masks is not None:
            hasher.update(np.packbits(split.masks.cpu().numpy()).tobytes())
    return hasher.hexdigest()


def _raw_split(split: Split) -> RawSplit:
    def read(indices: Sequence[int]) -> list[tuple[str, Encoded]]:
        return [(split.names[i], split.images[i].permute(1, 2, 0).numpy()) for i in indices]

    masks = None if split.masks is None else split.masks.numpy()
    return RawSplit(read, split.labels.numpy(), masks)
