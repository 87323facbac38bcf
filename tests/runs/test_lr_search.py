"""What is known before a training: how fast it will be, by a clock that the test moves, and a rate to train at."""

import random
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import seewhy.runs.lr_search
from seewhy.data.augment import Batch
from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.runs.lr_search import find_lr, images_per_second
from seewhy.train import loop
from seewhy.train.recipe import Recipe


@dataclass
class Clock:
    """Stands still but for what the steps and evaluations of a training are said to take."""

    steps: int = 0
    evaluations: int = 0
    now: float = 1e6
    first: float = 100.0  # seconds of each of the first three steps
    other: float = 0.5

    def step(self, batch: Batch, generator: torch.Generator) -> Batch:
        self.steps += 1
        self.now += self.first if self.steps <= 3 else self.other
        return batch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    true = loop.compute_logits

    def slow(*arguments: Any) -> torch.Tensor:
        clock.evaluations += 1
        clock.now += 1000
        return true(*arguments)

    monkeypatch.setattr(loop, "compute_logits", slow)
    for module in (seewhy.runs.lr_search, loop):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def timed(recipe: Recipe, clock: Clock, **changes: Any) -> Recipe:
    return replace(recipe, augment=(clock.step,), **changes)


@pytest.mark.parametrize("epochs", [4.0, 1.0, 0.1])
@pytest.mark.parametrize("batch_size", [24, 80, 240])
def test_first_steps_and_evaluation_do_not_count(
    recipe: Recipe, data: Dataset, clock: Clock, epochs: float, batch_size: int
) -> None:
    pace = images_per_second(
        timed(recipe, clock, batch_size=batch_size, epochs=epochs), data, seconds=2.0
    )
    assert pace == pytest.approx(batch_size / 0.5)
    assert (clock.steps, clock.evaluations) == (3 + 4, 0)  # through as many epochs as it takes


def test_images_have_the_mean_area_of_the_run(
    recipe: Recipe, data: Dataset, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = set()
    true = loop.resize_images

    def watched(images: torch.Tensor, factor: float) -> torch.Tensor:
        sides.add(round(factor, 6))
        return true(images, factor)

    monkeypatch.setattr(loop, "resize_images", watched)
    images_per_second(
        timed(recipe, clock, resolution="linear:start=0.75,end=1,warmup=0.5"), data, seconds=2.0
    )
    (side,) = sides
    rising = np.linspace(0.75, 1, 10_000) ** 2
    assert side == pytest.approx(((rising.mean() + 1) / 2) ** 0.5, rel=0.01)


def test_batches_are_those_of_an_epoch_cut_evenly(
    recipe: Recipe, data: Dataset, clock: Clock
) -> None:
    """240 images in batches of at most 35 are 7 of 34."""
    assert images_per_second(timed(recipe, clock, batch_size=35), data) == pytest.approx(34 / 0.5)


def test_random_state_is_left_as_it_was(recipe: Recipe, data: Dataset) -> None:
    def draws(batch: Batch, generator: torch.Generator) -> Batch:
        torch.rand(1)
        random.random()
        np.random.rand()  # noqa: NPY002
        return batch

    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]  # noqa: NPY002
    assert images_per_second(replace(recipe, augment=(draws,)), data, seconds=0.01) > 0
    find_lr(replace(recipe, augment=(draws,)), data, updates=10, end=1e-3)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_a_rate_that_is_still_to_be_found_does_not_change_what_is_found(
    recipe: Recipe, data: Dataset
) -> None:
    found = find_lr(replace(recipe, lr="find"), data, updates=20)
    assert found.lrs[0] == pytest.approx(1e-7)
    other = find_lr(replace(recipe, lr=1.0), data, updates=20)
    assert found == other
    third = find_lr(
        replace(recipe, lr=0.01), data, updates=20
    )  # the recipe's own rate is of no account
    assert found.lrs == pytest.approx(third.lrs)
    assert found.losses == pytest.approx(third.losses, rel=1e-3)


def test_the_seed_decides(recipe: Recipe, data: Dataset) -> None:
    once, again, other = (
        find_lr(replace(recipe, lr="find", seed=seed), data, updates=12) for seed in (0, 0, 1)
    )
    assert once == again
    assert once.losses != other.losses


def test_a_pace_needs_a_rate(recipe: Recipe, data: Dataset) -> None:
    with pytest.raises(SeewhyError, match=r"lr is still to be found"):
        images_per_second(replace(recipe, lr="find"), data)
