"""What a dataset looks like before it is decoded: its classes, and the sizes of its images."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seewhy.data.dataset import Dataset
from seewhy.data.decode import open_image, upright_size
from seewhy.data.options import LoadOptions
from seewhy.data.raw import LoadRequest
from seewhy.data.sources import find_source

_SAMPLED = 64  # headers of images that are read


@dataclass(frozen=True)
class DataFacts:
    """Classes and image sizes of a dataset."""

    name: str
    train_images: int
    class_counts: tuple[int, ...]  # training images of each class that has some
    side: int  # median of the shorter sides of the images, in pixels
    multi_label: bool = False  # whether an image has any number of labels


def data_facts(
    data: str | os.PathLike[str] | Dataset,
    root: str | os.PathLike[str] | None = None,
    label: str | None = None,
    **options: Any,
) -> DataFacts:
    """The facts of a dataset; of one that is not loaded, only some headers of images are read.

    Args:
        data: A dataset, or its name or path, as `load` takes it.
        root: As for `load`.
        label: As for `load`.
        options: Others of `load` that decide which images and labels there are, such as
            `label_pattern`.

    Raises:
        SeewhyError: As `load`, if there is no such dataset.
    """
    loading = LoadOptions(label=label, **options)
    source = data if isinstance(data, Dataset) else find_source(data, root, loading)
    if isinstance(source, Dataset):
        labels, side = source.train.labels.numpy(), min(source.image_shape[1:])
        return DataFacts(source.name, len(labels), _counts(labels), side, labels.ndim == 2)
    with tempfile.TemporaryDirectory() as scratch:
        raw = source.open(LoadRequest(label, None, Path(scratch), quiet=True))
        split = raw.splits.get("train") or next(iter(raw.splits.values()))
        sample = np.unique(np.linspace(0, len(split) - 1, _SAMPLED).astype(np.int64)).tolist()
        sides = []
        for _, encoded in split.read(sample):
            try:
                sides.append(min(upright_size(open_image(encoded))))
            except Exception:  # decoding will report or skip it; Pillow raises many types
                continue
        side = round(float(np.median(sides))) if sides else 0
        multi_label = split.labels.ndim == 2
        return DataFacts(source.name, len(split), _counts(split.labels), side, multi_label)


def _counts(labels: np.ndarray) -> tuple[int, ...]:
    counts = labels.sum(0) if labels.ndim == 2 else np.unique(labels, return_counts=True)[1]
    return tuple(int(count) for count in counts if count)
