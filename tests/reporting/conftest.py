"""One training that all tests of the report share, and a maker of small data."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from seewhy.data.dataset import Dataset, Split
from seewhy.fitting import fit
from seewhy.reporting.page import Page, page
from seewhy.reporting.study import Study, study
from seewhy.run import Run
from seewhy.train.recipe import Recipe

CLASSES = ("upright", "level <&> flat", "$x^2$", 'the "rest"')


def bars(count: int, classes: int = 4, shape: tuple[int, int, int] = (3, 12, 12), seed: int = 0) -> Split:
    """`count` noisy images (C, H, W) with a brighter bar, upright, level or slanting, or a square, somewhere; at most 4 classes."""
    generator = torch.Generator().manual_seed(seed)
    _, height, width = shape
    labels = torch.arange(count) % classes
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    steps = torch.arange(6)
    for mask, label in zip(masks, labels.tolist(), strict=True):
        top, left = (int(torch.randint(0, side - 5, (), generator=generator)) for side in (height, width))
        if label == 3:
            mask[top : top + 3, left : left + 3] = True
        else:
            mask[top + steps * (label != 1), left + steps * (label != 0)] = True
    images = torch.randint(0, 120, (count, *shape), generator=generator) + 90 * masks[:, None]
    return Split(images.byte(), labels, [f"photos/{seed}/bar-{index}.png" for index in range(count)], masks)


@pytest.fixture(scope="session")
def make_bars() -> Callable[..., Split]:
    return bars


@pytest.fixture(scope="session")
def data() -> Dataset:
    """Four classes of bars, some of them with wrong labels, one of them in both splits."""
    train, test = bars(240, seed=1), bars(120, seed=2)
    wrong = torch.arange(0, 120, 9)
    labels = test.labels.index_copy(0, wrong, (test.labels[wrong] + 1 + wrong // 9 % 3) % 4)
    images = test.images.index_copy(0, torch.tensor([5]), train.images[7:8])
    return Dataset("bars", CLASSES, train, replace(test, labels=labels, images=images), None, "5" * 32)


@pytest.fixture(scope="session")
def small_recipe() -> Recipe:
    return Recipe(
        name="small",
        model="speednet:width=0.125",
        epochs=3,
        batch_size=40,
        lr=0.5,
        optimizer="sgd:momentum=0.85",
        precision="fp32",
    )


@pytest.fixture(scope="session")
def run(small_recipe: Recipe, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run whose diagnosis is kept beside it."""
    return fit(small_recipe, data, tmp_path_factory.mktemp("runs") / "run", quiet=True)


@pytest.fixture(scope="session")
def asked(run: Run, data: Dataset) -> Study:
    return study(run, data=data, quiet=True)


@pytest.fixture(scope="session")
def made(asked: Study) -> Page:
    return page(asked)


@pytest.fixture(scope="session")
def later(small_recipe: Recipe, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same, from other weights."""
    return fit(replace(small_recipe, seed=1, epochs=4), data, tmp_path_factory.mktemp("runs") / "later", quiet=True)
