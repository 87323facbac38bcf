"""What many tests share: a tiny data set, a recipe that learns it in a second, a cache of their own."""

import os
from pathlib import Path

import pytest
import torch

from seewhy.data.dataset import Dataset, Split
from seewhy.train.recipe import Recipe

os.environ.setdefault("MPLBACKEND", "agg")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache; all of a session share one, as a user's loads do."""
    path = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("SEEWHY_CACHE", str(path))
    return path


def bars(count: int, seed: int) -> Split:
    """`count` noisy 8x8 RGB images with a bright bar: upright (class 0), level (1) or slanting (2)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 90, (count, 3, 8, 8), generator=generator)
    for index, label in enumerate(labels.tolist()):
        place = int(torch.randint(1, 7, (), generator=generator))
        if label == 0:
            images[index, :, :, place] += 150
        elif label == 1:
            images[index, :, place, :] += 150
        else:
            images[index, :, range(8), range(8)] += 150
    return Split(images.to(torch.uint8), labels, [f"bar-{seed}-{index}.png" for index in range(count)])


@pytest.fixture
def data() -> Dataset:
    """Three classes of bars, 240 for training and 60 for testing."""
    return Dataset("bars", ("upright", "level", "slanting"), bars(240, 0), bars(60, 1), None, "0" * 32)


@pytest.fixture
def recipe() -> Recipe:
    """Learns the bars in a second."""
    return Recipe(
        name="tiny",
        model="speednet:width=0.125",
        epochs=4,
        batch_size=40,
        lr=0.5,
        optimizer="sgd:momentum=0.85,nesterov=true",
        schedule="linear:warmup=0.2",
        augment=("crop:1",),
        precision="fp32",
    )
