"""What can be known before a training: which learning rate to take, and how fast it will be."""

import time
from dataclasses import replace
from statistics import fmean

import torch

from seewhy.data.dataset import Dataset
from seewhy.data.sources import check_dataset
from seewhy.models.registry import build_model
from seewhy.train.batches import equal_batches
from seewhy.train.device import find_device, seeded
from seewhy.train.loop import train
from seewhy.train.lr_finder import LRRangeTest, lr_range_test
from seewhy.train.recipe import Recipe
from seewhy.train.schedules import bind_schedule
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
) -> LRRangeTest:
    """A range test of a new model, with the optimizer, batches, augmentation and loss of `recipe`; see `range_test`.

    Weights are those that `fit` begins with. The caller's random state is left as it was. Raises as `range_test` does.
    """
    data, place = check_dataset(data), find_device(device)
    if recipe.lr == "find":
        recipe = replace(recipe, lr=1.0)
    with seeded(recipe.seed, place):
        state = new_state(
            build_model(recipe.model, len(data.classes), data.train).to(torch.device(place)), recipe
        )
        return lr_range_test(state, data, start, end, steps, beta)


def images_per_second(
    recipe: Recipe, data: Dataset, device: str = "auto", seconds: float = 2.0
) -> float:
    """How fast a new model trains as `recipe` says, measured for so many seconds of training after three steps.

    Images have the side whose area is the mean over the run, where `resolution` changes it. The caller's random state is left as
    it was.
    """
    data, place = check_dataset(data), find_device(device)
    schedule = bind_schedule(recipe.resolution)
    side = fmean(schedule(step / 100, ()) ** 2 for step in range(100)) ** 0.5
    recipe = replace(
        recipe, epochs=1e6, eval_every=0, resolution=f"exponential:start={side},end={side}"
    )
    with seeded(recipe.seed, place):
        state = new_state(
            build_model(recipe.model, len(data.classes), data.train).to(torch.device(place)), recipe
        )
        _, batch_size = equal_batches(len(data.train), recipe.batch_size)
        steps, began = 0, 0.0
        for _ in train(state, data):
            if state.step == WARM:
                steps, began = state.step, _once_done(state)
            elif steps and state.step > steps and state.seconds + state.spent - began >= seconds:
                break
        return (state.step - steps) * batch_size / (_once_done(state) - began)


def _once_done(state: TrainState) -> float:
    """Seconds of training until the device has done every step so far."""
    waited = time.perf_counter()
    state.totals.device_sums.tolist()
    return state.seconds + state.spent + time.perf_counter() - waited
