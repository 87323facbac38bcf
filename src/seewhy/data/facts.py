"""What a dataset looks like before it is decoded: its classes, and the sizes of its images."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seewhy.data.dataset import Dataset, strata, stratified_sample
from seewhy.data.decode import open_image, upright_size
from seewhy.data.options import LoadOptions, check_integer
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
    limit: int | None = None,
    **options: Any,
) -> DataFacts:
    """The facts of a dataset; of one that is not loaded, only some headers of images are read.

    Args:
        data: A dataset, or its name or path, as `load` takes it.
        root: As for `load`.
        label: As for `load`.
        limit: As for `load`.
        options: Others of `load` that decide which images and labels there are, such as
            `label_pattern`.

    Raises:
        SeewhyError: As `load`, if there is no such dataset.
    """
    limit = None if limit is None else check_integer("limit", limit, minimum=1)
    loading = LoadOptions(label=label, **options)
    source = data if isinstance(data, Dataset) else find_source(data, root, loading)
    if isinstance(source, Dataset):
        return _facts(source.name, source.train.labels.numpy(), min(source.image_shape[1:]), limit)
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
        return _facts(source.name, split.labels, side, limit)


def _facts(name: str, labels: np.ndarray, side: int, limit: int | None) -> DataFacts:
    if limit is not None and limit < len(labels):
        labels = labels[stratified_sample(strata(labels), limit, seed=0)]
    several = labels.ndim == 2
    counts = labels.sum(0) if several else np.unique(labels, return_counts=True)[1]
    return DataFacts(
        name, len(labels), tuple(int(count) for count in counts if count), side, several
    )
