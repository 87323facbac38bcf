"""What can be known before a training: which learning rate to take, and how fast it will be."""

import time
from dataclasses import replace
from itertools import islice

import torch

from seewhy.data.dataset import Dataset
from seewhy.data.sources import checked
from seewhy.models import build
from seewhy.train.batches import equal_batches
from seewhy.train.loop import train
from seewhy.train.lr_finder import RangeTest, range_test
from seewhy.train.precision import find_device
from seewhy.train.recipe import Recipe
from seewhy.train.seeding import seeded
from seewhy.train.state import TrainState, new_state

WARM = 3  # steps before the clock is started: the first ones plan, allocate and compile


def find_lr(
    recipe: Recipe,
    data: Dataset,
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
    beta: float = 0.98,
    device: str = "auto",
) -> RangeTest:
    """A range test of a new model, with the optimizer, batches, augmentation and loss of `recipe`; see `range_test`.

    Weights are those that `fit` begins with. The caller's random state is left as it was. Raises as `range_test` does.
    """
    data, place = checked(data), find_device(device)
    if recipe.lr == "find":
        recipe = replace(recipe, lr=1.0)
    with seeded(recipe.seed, place):
        state = new_state(build(recipe.model, len(data.classes), data.train).to(torch.device(place)), recipe)
        return range_test(state, data, start, end, steps, beta)


def images_per_second(recipe: Recipe, data: Dataset, device: str = "auto", seconds: float = 2.0) -> float:
    """How fast a new model trains as `recipe` says, measured for so many seconds after three steps, or to the end of an epoch.

    Evaluation is not counted. The caller's random state is left as it was.
    """
    data, place = checked(data), find_device(device)
    recipe = replace(recipe, epochs=max(1.0, recipe.epochs))  # no evaluation comes before the end of an epoch
    with seeded(recipe.seed, place):
        state = new_state(build(recipe.model, len(data.classes), data.train).to(torch.device(place)), recipe)
        per_epoch, batch_size = equal_batches(len(data.train), recipe.batch_size)
        warm = WARM if per_epoch > WARM else 0
        steps, began = 0, time.perf_counter()
        for _ in islice(train(state, data), per_epoch):
            steps += 1
            if steps == warm:
                began = _once_done(state)
            if steps > warm and time.perf_counter() - began >= seconds:
                break
        return (steps - warm) * batch_size / (_once_done(state) - began)


def _once_done(state: TrainState) -> float:
    """The time, in seconds, when the device has done every step so far."""
    state.totals.device_sums.tolist()
    return time.perf_counter()
