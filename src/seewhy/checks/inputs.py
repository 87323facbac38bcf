"""What the checks read: a dataset, and what is computed from it at most once."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from seewhy.checks.measures import descriptors, image_measures
from seewhy.checks.result import ImageName, NotJudged
from seewhy.data.dataset import Dataset, Split
from seewhy.diagnosis.outliers import UnusualImage, unusual_images
from seewhy.models.cached_features import cached_features
from seewhy.models.classifier import Classifier

NEIGHBORS = 5  # of an image in the features


@dataclass(frozen=True, eq=False)
class CheckInputs:
    """A dataset, and what is computed from it when a check first asks for it.

    Rows are the images of all splits, one split after another.
    """

    data: Dataset
    classifier: Classifier | None = None  # whose features are used; None for none
    quiet: bool = True

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The splits with images, by name; of a cross-validation all images, as "train"."""
        if self.data.folds is not None:
            return {"train": self.data.splits["train"]}
        return {name: split for name, split in self.data.splits.items() if len(split)}

    @cached_property
    def labels(self) -> np.ndarray:
        """Labels (N,) int64, by row."""
        return np.concatenate([split.labels.cpu().numpy() for split in self.splits.values()])

    @cached_property
    def split_of(self) -> np.ndarray:
        """The split (N,) of each row, as an index into `splits`."""
        return np.repeat(np.arange(len(self.splits)), [len(each) for each in self.splits.values()])

    def rows_of(self, split: str) -> np.ndarray:
        """The rows (n,) int64 of a split."""
        return np.flatnonzero(self.split_of == list(self.splits).index(split))

    def image(self, row: int) -> ImageName:
        """The image of a row."""
        index = row
        for name, split in self.splits.items():
            if index < len(split):
                return self.image_in(name, index)
            index -= len(split)
        raise IndexError(row)

    def row(self, image: ImageName) -> int:
        """The row of an image."""
        return int(self.rows_of(image.split)[image.index])

    def image_in(self, split: str, index: int) -> ImageName:
        """An image of a split."""
        images = self.splits[split]
        label = self.data.classes[int(images.labels[index])]
        return ImageName(split, index, images.names[index], label)

    @cached_property
    def measures(self) -> dict[str, np.ndarray]:
        """Numbers (N,) about each image by name, see `image_measures`."""
        parts = [image_measures(split.images) for split in self.splits.values()]
        return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}

    @cached_property
    def originals(self) -> np.ndarray:
        """What is known of the image files (N,), of the dtype ORIGINAL.

        Raises NotJudged if the images were made in memory.
        """
        parts = [split.originals for split in self.splits.values()]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            raise NotJudged("the images were made in memory, so their files are not known")
        return np.concatenate(known)

    @cached_property
    def features(self) -> Tensor:
        """Features (N, D) float32 of the images. Raises NotJudged without a model."""
        if self.classifier is None:
            raise NotJudged("needs the features of a pretrained model (--model)")
        parts = [
            cached_features(self.classifier, split.images, quiet=self.quiet)
            for split in self.splits.values()
        ]
        return torch.cat(parts)

    @cached_property
    def by_similarity(self) -> tuple[UnusualImage, ...]:
        """All images by the similarity of their features to their neighbors, the lowest first."""
        return unusual_images(self.features, count=len(self.features), neighbors=NEIGHBORS)

    @cached_property
    def descriptors(self) -> Tensor:
        """Layout and colors (N, D) float32 of the images, see `descriptors` in measures.py."""
        return torch.cat([descriptors(split.images) for split in self.splits.values()])

    def images(self, rows: Iterable[int]) -> tuple[ImageName, ...]:
        """The images of some rows."""
        return tuple(self.image(row) for row in rows)
