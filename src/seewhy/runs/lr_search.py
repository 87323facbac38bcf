"""Before a run: finding its learning rate, and measuring its speed."""

import time
from dataclasses import replace
from functools import partial
from statistics import fmean

from seewhy.data.dataset import Dataset
from seewhy.data.memory import check_dataset
from seewhy.errors import check_type
from seewhy.train.device import find_device, seeded
from seewhy.train.loop import train
from seewhy.train.lr_finder import LRRangeTest, lr_range_test
from seewhy.train.plan import TrainingPlan, make_plan
from seewhy.train.recipe import RECIPE_REMEDY, Recipe
from seewhy.train.schedules import Schedule, exponential
from seewhy.train.state import TrainState, new_state

WARM_UP_STEPS = 3  # not timed: they allocate and compile


def find_lr(
    recipe: Recipe,
    data: Dataset,
    start: float = 1e-7,
    end: float = 10.0,
    updates: int = 100,
    beta: float = 0.98,
    device: str = "auto",
) -> LRRangeTest:
    """Run a learning rate range test on a new model, with the initial weights of `fit`.

    The caller's random state is restored.

    Args:
        recipe: The recipe; its `lr` is ignored.
        data: Data to train on.
        start: First learning rate.
        end: Last learning rate.
        updates: Number of updates.
        beta: Smoothing factor of the loss, in [0, 1).
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Returns:
        The range test; train at its `suggestion`.

    Raises:
        SeewhyError: If the recipe does not fit the data or the machine, the range is invalid, or
        fewer than 10 updates have a finite loss.
    """
    check_type(recipe, Recipe, RECIPE_REMEDY)
    if recipe.needs_lr:
        recipe = replace(recipe, lr=1.0)
    plan = make_plan(recipe, check_dataset(data), find_device(device))
    with seeded(recipe.seed, plan.device):
        return lr_range_test(new_state(plan), plan, start, end, updates, beta)


def resolve_lr(
    recipe: Recipe, data: Dataset, device: str = "auto"
) -> tuple[Recipe, LRRangeTest | None]:
    """The recipe with its learning rate: if it is "find", the suggestion of a range test.

    Returns:
        The recipe, and the range test if there was one.

    Raises:
        SeewhyError: As `find_lr`, and if the loss did not decrease at any learning rate.
    """
    if not recipe.needs_lr:
        return recipe, None
    test = find_lr(recipe, data, device=device)
    return replace(recipe, lr=test.suggestion), test


def images_per_second(
    recipe: Recipe, data: Dataset, device: str = "auto", seconds: float = 2.0
) -> float:
    """Measure the training speed of a recipe.

    If the recipe's `resolution` changes, images have the mean area of the run. With gradual
    unfreezing, it is the speed at which all layers train. The caller's random state is restored.

    Args:
        recipe: The recipe to measure.
        data: Data to train on.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        seconds: Training time to measure over, after three steps of warm-up.

    Returns:
        Training images per second, without evaluation.

    Raises:
        SeewhyError: If the recipe does not fit the data or the machine.
    """
    plan = make_plan(recipe, check_dataset(data), find_device(device))
    with seeded(recipe.seed, plan.device):
        state = new_state(plan)
        timed_plan = _endless(plan)
        first_step, start = 0, 0.0
        for _ in train(state, timed_plan):
            elapsed = state.seconds + state.epoch_seconds - start
            if state.step == WARM_UP_STEPS:
                first_step, start = state.step, _seconds_when_done(state)
            elif first_step and state.step > first_step and elapsed >= seconds:
                break
        images = plan.images_before(state.step) - plan.images_before(first_step)
        return images / (_seconds_when_done(state) - start)


def _endless(plan: TrainingPlan) -> TrainingPlan:
    """`plan` without evaluations, unfreezing and an end, at the run's mean image area."""
    side = fmean(plan.resolution_schedule(percent / 100, ()) ** 2 for percent in range(100)) ** 0.5
    return replace(
        plan,
        recipe=replace(plan.recipe, eval_every=0, unfreeze_epochs=0),
        steps=10**6 * plan.steps_per_epoch,
        resolution_schedule=Schedule(partial(exponential, start=side, end=side)),
    )


def _seconds_when_done(state: TrainState) -> float:
    """Training time, after all steps so far have finished on the device."""
    start = time.perf_counter()
    state.totals.device_sums.tolist()
    return state.seconds + state.epoch_seconds + time.perf_counter() - start
