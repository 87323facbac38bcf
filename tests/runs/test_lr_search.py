"""`find_lr` and `images_per_second`, the latter by a clock that the test moves."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import seewhy.runs.lr_search
from seewhy.data.batch import Batch
from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.runs.lr_search import find_lr, images_per_second, resolve_lr
from seewhy.train import loop
from seewhy.train.plan import TrainingPlan
from seewhy.train.recipe import Recipe
from seewhy.train.state import TrainState

pytestmark = pytest.mark.train


@dataclass
class Clock:
    """A clock that only steps and evaluations advance."""

    steps: int = 0
    evaluations: int = 0
    now: float = 1e6
    warm_up: float = 100.0  # seconds of each of the first three steps
    other: float = 0.5

    def step(self, batch: Batch, generator: torch.Generator) -> Batch:
        """An augmentation that takes the time of a step."""
        self.steps += 1
        self.now += self.warm_up if self.steps <= 3 else self.other
        return batch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    compute_logits = loop.compute_logits

    def slow(*arguments: Any) -> torch.Tensor:
        clock.evaluations += 1
        clock.now += 1000
        return compute_logits(*arguments)

    monkeypatch.setattr(loop, "compute_logits", slow)
    for module in (seewhy.runs.lr_search, loop):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def timed(recipe: Recipe, clock: Clock, **changes: Any) -> Recipe:
    return replace(recipe, augment=(clock.step,), **changes)


@pytest.mark.parametrize(
    ("batch_size", "expected", "epochs"),
    [
        (24, 24, 4.0),
        (240, 240, 0.1),  # an epoch has one step
        (35, 34, 1.0),  # 240 images in batches of at most 35 are 7 of 34
    ],
)
def test_images_per_second_leaves_out_warm_up_and_evaluation(
    batch_size: int, expected: int, epochs: float, recipe: Recipe, data: Dataset, clock: Clock
) -> None:
    changed = timed(recipe, clock, batch_size=batch_size, epochs=epochs)
    assert images_per_second(changed, data, seconds=2.0) == pytest.approx(expected / 0.5)
    assert (clock.steps, clock.evaluations) == (3 + 4, 0)  # in as many epochs as it takes


def test_images_per_second_uses_images_of_the_mean_area(
    recipe: Recipe, data: Dataset, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors = set()
    resize_images = loop.resize_images

    def spy(images: torch.Tensor, factor: float) -> torch.Tensor:
        factors.add(round(factor, 6))
        return resize_images(images, factor)

    monkeypatch.setattr(loop, "resize_images", spy)
    changed = timed(recipe, clock, resolution="linear:start=0.75,end=1,warmup=0.5")
    images_per_second(changed, data, seconds=2.0)
    (factor,) = factors
    rising = np.linspace(0.75, 1, 10_000) ** 2
    assert factor == pytest.approx(((rising.mean() + 1) / 2) ** 0.5, rel=0.01)


def test_images_per_second_trains_all_layers(
    recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though they are frozen in the first epochs of the run."""
    trained: list[bool] = []
    update = loop.update

    def parameters(state: TrainState) -> Iterator[torch.nn.Parameter]:
        return (each for group in state.optimizers[0].param_groups for each in group["params"])

    def spy(state: TrainState, plan: TrainingPlan) -> None:
        trained.extend(each.grad is not None for each in parameters(state))
        update(state, plan)

    monkeypatch.setattr(loop, "update", spy)
    images_per_second(replace(recipe, unfreeze_epochs=2), data, "cpu", seconds=0.0)
    assert all(trained)


def test_images_per_second_needs_a_learning_rate(recipe: Recipe, data: Dataset) -> None:
    with pytest.raises(SeewhyError, match="lr is 'find', which only"):
        images_per_second(replace(recipe, lr="find"), data)


def random_states() -> tuple[list[int], Any, list[int]]:
    numpy_state = np.random.get_state(legacy=False)["state"]["key"]  # type: ignore[call-overload]  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), numpy_state.tolist()


def test_random_states_are_restored(recipe: Recipe, data: Dataset) -> None:
    def draw(batch: Batch, generator: torch.Generator) -> Batch:
        torch.rand(1)
        random.random()
        np.random.rand()  # noqa: NPY002
        return batch

    drawing = replace(recipe, augment=(draw,))
    torch.manual_seed(5)
    before = random_states()
    assert images_per_second(drawing, data, seconds=0.01) > 0
    find_lr(drawing, data, updates=10, end=1e-3)
    assert random_states() == before


def test_find_lr_depends_on_the_seed_and_not_on_lr(recipe: Recipe, data: Dataset) -> None:
    test = find_lr(replace(recipe, lr="find"), data, updates=12)
    assert test.lrs[0] == pytest.approx(1e-7)
    assert find_lr(replace(recipe, lr=1.0), data, updates=12) == test
    scaled = find_lr(replace(recipe, lr=0.01), data, updates=12)
    assert scaled.lrs == pytest.approx(test.lrs)
    assert scaled.losses == pytest.approx(test.losses, rel=1e-3)
    other_seed = find_lr(replace(recipe, lr="find", seed=1), data, updates=12)
    assert other_seed.losses != test.losses


def test_resolve_lr_searches_only_if_it_is_to_be_found(recipe: Recipe, data: Dataset) -> None:
    assert resolve_lr(recipe, data) == (recipe, None)
    resolved, test = resolve_lr(replace(recipe, lr="find"), data)
    assert test is not None
    assert resolved == replace(recipe, lr=test.suggestion)
