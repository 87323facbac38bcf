"""What a training goes through, checked before its first step."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seewhy.data.augment import Augmentation, bind_augmentations
from seewhy.data.dataset import Dataset, Split, class_weights
from seewhy.errors import SeewhyError
from seewhy.models.inspection import device_of, evaluating
from seewhy.train.batches import equal_batches, on_device, resize_images
from seewhy.train.device import find_precision
from seewhy.train.freezing import freezable, frozen_after
from seewhy.train.optimizers import needs_full_batch, peak_momentum
from seewhy.train.schedules import Schedule, bind_schedule
from seewhy.train.state import TrainState
from seewhy.train.world import World


@dataclass(frozen=True)
class TrainingPlan:
    """What a training goes through: everything that its recipe and data fix, and that no step changes."""

    split: Split
    held_out: Split
    validated: bool  # whether that is a validation split, by which one may choose
    classes: int
    batch_size: int
    per_epoch: int  # steps in an epoch
    steps: int  # in all
    accumulate: int  # steps whose gradients make one update
    schedules: tuple[Schedule, Schedule, Schedule]  # of learning rate, momentum and image size
    augment: Augmentation
    freezing: list[tuple[nn.Parameter, float]]
    weights: Tensor | None  # of the classes
    forward: Callable[[Tensor], Tensor]
    precision: str
    world: World

    def progress(self, step: int) -> float:
        """How far the update that this step belongs to is through the run, from 0 for the first to 1 for the last."""
        return self._began(step) / max(1, self._began(self.steps - 1))

    def _began(self, step: int) -> int:
        """The first step of the update that this one belongs to; the end of an epoch ends an update."""
        return step - step % self.per_epoch % self.accumulate

    @property
    def factors(self) -> list[float]:
        """Of the images' sides, for each epoch."""
        return [
            self.schedules[2](first / self.steps, ())
            for first in range(0, self.steps, self.per_epoch)
        ]

    @property
    def updates(self) -> int:
        """How many there are in all."""
        epochs, rest = divmod(self.steps, self.per_epoch)
        return epochs * -(-self.per_epoch // self.accumulate) + -(-rest // self.accumulate)


def make_plan(state: TrainState, data: Dataset, world: World) -> TrainingPlan:
    """The course of a training. Raises SeewhyError for what its recipe asks of this model, data or machine in vain."""
    recipe, model, device = state.recipe, state.model, device_of(state.model)
    per_epoch, batch_size = equal_batches(len(data.train), recipe.batch_size)
    freezing = freezable(model, frozen_after(recipe.freeze))
    course = TrainingPlan(
        split=on_device(data.train, device),
        held_out=data.test if data.validation is None else data.validation,
        validated=data.validation is not None,
        classes=len(data.classes),
        batch_size=batch_size,
        per_epoch=per_epoch,
        steps=max(1, round(recipe.epochs * per_epoch)),
        accumulate=per_epoch if needs_full_batch(state.optimizers) else recipe.accumulate,
        schedules=(
            bind_schedule(recipe.schedule),
            bind_schedule(recipe.momentum_schedule),
            bind_schedule(recipe.resolution),
        ),
        augment=bind_augmentations(recipe.augment),
        freezing=freezing,
        weights=class_weights(data.train, len(data.classes)).to(device)
        if recipe.class_weights
        else None,
        forward=torch.compile(model, dynamic=False) if recipe.compile else model,
        precision=find_precision(recipe.precision, device),
        world=world,
    )
    _check(course, state)
    return course


@contextmanager
def compiling(course: TrainingPlan, wanted: bool) -> Iterator[None]:
    """Inside the block torch compiles a graph for every size of images, and another where parameters have been frozen."""
    if not wanted:
        yield
        return
    graphs = 2 * len(set(course.factors))
    with torch._dynamo.config.patch(
        recompile_limit=max(torch._dynamo.config.recompile_limit, graphs)
    ):
        yield


def _check(course: TrainingPlan, state: TrainState) -> None:
    recipe, model = state.recipe, state.model
    if course.batch_size < course.world.size:
        raise SeewhyError(
            f"batches of {course.batch_size} images cannot be shared by {course.world.size} processes"
        )
    frozen = {id(parameter) for parameter, after in course.freezing if after < recipe.epochs}
    if all(id(parameter) in frozen for parameter in model.parameters() if parameter.requires_grad):
        raise SeewhyError(
            f"freeze {' '.join(recipe.freeze)} leaves nothing to train before the {recipe.epochs:g} epochs are over"
        )
    if recipe.lookahead > course.updates:
        raise SeewhyError(
            f"lookahead {recipe.lookahead} is more than the {course.updates} updates of this training"
        )
    compilers = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    if (
        recipe.compile
        and device_of(model).type == "cpu"
        and os.name == "posix"
        and not any(map(shutil.which, compilers))
    ):
        raise SeewhyError(
            "compile needs a C++ compiler, such as g++, and none was found; install one, or leave compile out"
        )
    _check_momentum(course, state)
    _check_resolution(course, state)


def _check_momentum(course: TrainingPlan, state: TrainState) -> None:
    """A momentum of 1 or more never forgets, so that the weights run away."""
    highest = max(course.schedules[1](place / 100, ()) for place in range(101))
    peak = max(
        peak_momentum(group) for optimizer in state.optimizers for group in optimizer.param_groups
    )
    if peak * highest >= 1:
        raise SeewhyError(
            f"momentum_schedule {state.recipe.momentum_schedule} takes a momentum of {peak:g} to {peak * highest:.3g}; "
            "it must stay below 1"
        )


def _check_resolution(course: TrainingPlan, state: TrainState) -> None:
    """Try the smallest images of the run before it begins, not when it comes to them."""
    images = resize_images(
        course.split.images[:2].to(device_of(state.model)).float() / 255, min(course.factors)
    )
    if images.shape[2:] == course.split.images.shape[2:]:
        return
    try:
        with evaluating(state.model), torch.no_grad():
            state.model(images)
    except (RuntimeError, AssertionError) as error:
        size = "x".join(map(str, images.shape[2:]))
        name, reason = state.recipe.model, str(error).splitlines()[0]
        raise SeewhyError(
            f"resolution {state.recipe.resolution} makes images of {size}, which {name} does not take ({reason})"
        ) from error
