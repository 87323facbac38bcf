"""Datasets of generated photographs, in which defects are planted."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from generated_photographs import photographs

from seewhy.data.dataset import Dataset, Split

MakeData = Callable[..., Dataset]


def split_of(images: np.ndarray, labels: np.ndarray, name: str = "image") -> Split:
    return Split(
        torch.from_numpy(images),
        torch.from_numpy(labels.astype(np.int64)),
        [f"{name}-{index}.png" for index in range(len(images))],
    )


@pytest.fixture(scope="session")
def clean_images() -> np.ndarray:
    """(60, 3, 64, 64) uint8; read only."""
    images = photographs(60, 0, side=64)
    images.setflags(write=False)
    return images


@pytest.fixture
def images(clean_images: np.ndarray) -> np.ndarray:
    """Photographs to plant defects in."""
    return clean_images.copy()


@pytest.fixture(scope="session")
def data_of() -> MakeData:
    """`data_of(images, labels, test=20)`: the last images are those of the test split."""

    def made(
        images: np.ndarray,
        labels: np.ndarray | None = None,
        test: int = 20,
        classes: tuple[str, ...] = ("ant", "bee"),
    ) -> Dataset:
        labels = np.arange(len(images)) % 2 if labels is None else labels
        first = len(images) - test
        return Dataset(
            "photos",
            classes,
            split_of(images[:first], labels[:first], "train"),
            split_of(images[first:], labels[first:], "test"),
            None,
            "0" * 32,
        )

    return made
