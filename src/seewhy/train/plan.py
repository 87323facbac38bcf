"""The plan of a run: its recipe bound to data and machine, checked before the first step."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seewhy.data.augment import Augmentation, bind_augmentations
from seewhy.data.dataset import Dataset, Split
from seewhy.errors import SeewhyError, first_line
from seewhy.models.inspection import device_of, evaluating
from seewhy.models.registry import bind_model
from seewhy.models.tta import Predict, bind_tta
from seewhy.train.batches import equal_batches, full_batches, move_to_gpu, resize_images
from seewhy.train.device import find_device, find_precision
from seewhy.train.freezing import frozen_after, training_spans
from seewhy.train.loss_scale import ScalerFactory, bind_loss_scale
from seewhy.train.objective import Objective, find_objective
from seewhy.train.optimizers import (
    OptimizerFactory,
    bind_optimizer,
    peak_momentum,
    uses_full_batch,
)
from seewhy.train.probes import Probe, bind_probe
from seewhy.train.recipe import Recipe
from seewhy.train.samplers import Sampler, bind_sampler
from seewhy.train.schedules import Schedule, bind_schedule
from seewhy.train.world import World
from seewhy.wording import counted


@dataclass(frozen=True, eq=False)
class BoundRecipe:
    """A recipe with its names replaced by functions."""

    recipe: Recipe
    build_model: Callable[[int, Split], nn.Module]  # (number of classes, sample of the images)
    sampler: Sampler
    build_optimizers: OptimizerFactory
    lr_schedule: Schedule
    momentum_schedule: Schedule
    resolution_schedule: Schedule
    augment: Augmentation
    build_scaler: ScalerFactory
    frozen_after: dict[str, float]  # epoch by name of a parameter or module
    tta: Callable[[Predict, Tensor], Tensor]
    probe: Probe | None


@dataclass(frozen=True, eq=False)
class TrainingPlan(BoundRecipe):
    """Everything about a run that follows from recipe, data, and machine; immutable."""

    data: Dataset
    train_split: Split  # on the GPU if it fits
    objective: Objective  # of the labels of the data
    class_weights: Tensor | None  # (K,) float
    device: torch.device
    precision: str  # bf16, fp16 or fp32
    world: World
    batch_size: int  # images per step, over all processes; the last of an epoch may have fewer
    images_per_epoch: int
    steps_per_epoch: int
    steps: int  # in all
    grad_accum_steps: int  # steps per update; the last update of an epoch may have fewer

    @property
    def lr(self) -> float:
        """Peak learning rate. Raises SeewhyError if it is "find"."""
        if isinstance(self.recipe.lr, str):
            raise SeewhyError(
                "lr is 'find', which only fit() resolves; set a number, such as find_lr(recipe, "
                "data).suggestion"
            )
        return self.recipe.lr

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.data.classes)

    @property
    def train_center(self) -> Split:
        """The training images as in an evaluation: the center crop of those with a margin."""
        return self.train_split.center_crop(self.data.margin)

    @property
    def eval_split(self) -> Split:
        """The split that epochs are evaluated on: validation, or test if there is none."""
        return self.data.test if self.data.validation is None else self.data.validation

    @property
    def has_held_out(self) -> bool:
        """Whether the run does not train on `eval_split`, as the last one of folds does."""
        return self.data.folds is None

    @property
    def watched_split(self) -> str:
        """The split whose loss the schedules watch: "validation", "train" or "test"."""
        chosen = {schedule.on for schedule in self.schedules} - {"auto"}
        if chosen:
            return min(chosen)  # _check_data allows only one
        return "train" if self.data.validation is None else "validation"

    @property
    def test_used_by(self) -> str:
        """The settings that read the test loss during training; empty if there are none."""
        names = ("schedule", "momentum_schedule", "resolution")
        return ", ".join(
            f"{name} {getattr(self.recipe, name)}"
            for name, schedule in zip(names, self.schedules, strict=True)
            if schedule.on == "test"
        )

    @property
    def updates(self) -> int:
        """Total number of updates."""
        epochs, remaining = divmod(self.steps, self.steps_per_epoch)
        return epochs * self._updates_in(self.steps_per_epoch) + self._updates_in(remaining)

    @property
    def resolution_factors(self) -> list[float]:
        """Factors of the image size by epoch, for schedules that do not depend on the loss."""
        return [self.resolution_factor(epoch, ()) for epoch in range(max(1, self.num_epochs))]

    @property
    def num_epochs(self) -> int:
        """Number of epochs; the last one may be partial."""
        return -(-self.steps // self.steps_per_epoch)

    def images_before(self, step: int) -> int:
        """Number of images in the first `step` steps, over all processes."""
        epochs, remaining = divmod(step, self.steps_per_epoch)
        in_last_epoch = min(remaining * self.batch_size, self.images_per_epoch)
        return epochs * self.images_per_epoch + in_last_epoch

    def images_in(self, steps: range) -> int:
        """Number of images in consecutive steps, over all processes."""
        return self.images_before(steps.stop) - self.images_before(steps.start)

    def lr_factor(self, step: int, losses: Sequence[float]) -> float:
        """Factor of the learning rate in a step (from 0), given the watched losses so far."""
        return self.lr_schedule(self._progress_of(self.lr_schedule, step), losses)

    def momentum_factor(self, step: int, losses: Sequence[float]) -> float:
        """Factor of the momentum in a step (from 0), given the watched losses so far."""
        return self.momentum_schedule(self._progress_of(self.momentum_schedule, step), losses)

    def resolution_factor(self, epoch: int, losses: Sequence[float]) -> float:
        """Factor of the image size in an epoch (from 0), given the watched losses so far."""
        return self.resolution_schedule(self.epoch_progress(epoch), losses)

    def epoch_progress(self, epoch: int) -> float:
        """Progress at the start of an epoch (from 0): fraction of the run."""
        return epoch * self.steps_per_epoch / max(1, self.steps)

    def epoch_steps(self, epoch: int) -> range:
        """The steps (from 0) of an epoch (from 0)."""
        start = epoch * self.steps_per_epoch
        return range(start, min(start + self.steps_per_epoch, self.steps))

    def update_steps(self, step: int) -> range:
        """The steps of the update that contains `step`; an update ends with its epoch."""
        epoch = self.epoch_steps(step // self.steps_per_epoch)
        first = step - (step - epoch.start) % self.grad_accum_steps
        return range(first, min(first + self.grad_accum_steps, epoch.stop))

    def progress(self, step: int) -> float:
        """Progress of the update that contains `step`: 0 for the first update, 1 for the last."""
        last = self.update_steps(self.steps - 1).start
        return self.update_steps(step).start / max(1, last)

    def steps_for(self, updates: int) -> int:
        """Number of steps in the first `updates` updates."""
        epochs, remaining = divmod(updates, self._updates_in(self.steps_per_epoch))
        in_last_epoch = min(remaining * self.grad_accum_steps, self.steps_per_epoch)
        return epochs * self.steps_per_epoch + in_last_epoch

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """The schedules of learning rate, momentum, and image size."""
        return self.lr_schedule, self.momentum_schedule, self.resolution_schedule

    def _progress_of(self, schedule: Schedule, step: int) -> float:
        if schedule.per_epoch:
            return self.epoch_progress(step // self.steps_per_epoch)
        return self.progress(step)

    def _updates_in(self, steps: int) -> int:
        return -(-steps // self.grad_accum_steps)


def check_recipe(recipe: Recipe) -> None:
    """Check the names of a recipe and their settings, without data.

    Raises:
        SeewhyError: For an unknown name or setting.
    """
    _bind(recipe)


def make_plan(
    recipe: Recipe,
    data: Dataset,
    device: torch.device | str = "auto",
    world: World | None = None,
) -> TrainingPlan:
    """Bind the names of a recipe and check it against data and machine.

    Args:
        recipe: What to train and how.
        data: Data to train and evaluate on.
        device: Device to train on, such as "cpu" or "cuda"; "auto" uses a GPU if available.
        world: The processes that train one model together; by default only this one.

    Returns:
        The plan, for `new_state` and `train`.

    Raises:
        SeewhyError: If the recipe has an unknown name, or does not fit the data or the machine.
            `new_state` checks the model.
    """
    if not len(data.train):
        raise SeewhyError(f"{data.name} has no training images; load data with a training split")
    bound, world = _bind(recipe), world or World()
    device = device if isinstance(device, torch.device) else find_device(device)
    cut = equal_batches if recipe.drop_last else full_batches
    steps_per_epoch, batch_size = cut(len(data.train), recipe.batch_size)
    objective = find_objective(data)
    weights = objective.class_weights(data.train, len(data.classes)).to(device)
    full_batch = uses_full_batch(bound.build_optimizers)
    plan = TrainingPlan(
        **vars(bound),
        data=data,
        train_split=move_to_gpu(data.train, device),
        objective=objective,
        class_weights=weights if recipe.class_weights else None,
        device=device,
        precision=find_precision(recipe.precision, device),
        world=world,
        batch_size=batch_size,
        images_per_epoch=min(steps_per_epoch * batch_size, len(data.train)),
        steps_per_epoch=steps_per_epoch,
        steps=max(1, round(recipe.epochs * steps_per_epoch)) if recipe.epochs else 0,
        grad_accum_steps=steps_per_epoch if full_batch else recipe.grad_accum_steps,
    )
    _check_data(plan)
    _check_machine(plan)
    return plan


def check_model(plan: TrainingPlan, model: nn.Module, optimizers: list[Optimizer]) -> None:
    """Check a plan against the model and optimizers.

    Raises:
        SeewhyError: If `freeze` matches no parameter, all are frozen at some time, the momentum
        reaches 1, or the model does not accept the smallest images of the run.
    """
    training_spans(model, plan.train_center.images, plan.recipe, plan.frozen_after)
    _check_momentum(plan, optimizers)
    _check_resolution(plan, model)


def _bind(recipe: Recipe) -> BoundRecipe:
    """Look up every name of a recipe."""
    return BoundRecipe(
        recipe=recipe,
        build_model=bind_model(recipe.model),
        sampler=bind_sampler(recipe.sampler),
        build_optimizers=bind_optimizer(recipe.optimizer),
        lr_schedule=bind_schedule(recipe.schedule),
        momentum_schedule=bind_schedule(recipe.momentum_schedule),
        resolution_schedule=bind_schedule(recipe.resolution),
        augment=bind_augmentations(recipe.augment),
        build_scaler=bind_loss_scale(recipe.loss_scale),
        frozen_after=frozen_after(recipe.freeze),
        tta=bind_tta(recipe.tta),
        probe=bind_probe(recipe.probe),
    )


def _check_data(plan: TrainingPlan) -> None:
    recipe, data = plan.recipe, plan.data
    if plan.steps == 0 and recipe.needs_lr:
        raise SeewhyError(
            "lr is 'find', but epochs 0 trains only the head, by a probe; set epochs above 0, or "
            "leave lr out"
        )
    plan.tta(lambda images: torch.zeros(len(images), plan.num_classes), data.test.images[:1])
    if recipe.patience and recipe.eval_every == 0:
        raise SeewhyError(
            f"patience {recipe.patience} needs evaluations, but eval_every is 0; "
            "set it to 1 to evaluate after every epoch"
        )
    if recipe.patience and data.validation is None:
        raise SeewhyError(
            f"patience {recipe.patience} needs a validation split, such as "
            "load(..., validation=0.1); the test split must not be used for selection"
        )
    if recipe.class_weights and recipe.sampler.startswith("balanced"):
        raise SeewhyError(
            f"class_weights and sampler {recipe.sampler} both make up for uneven classes, which "
            "would favor the rare ones; use one of them"
        )
    plan.sampler(data.train.labels, recipe.seed, 0)  # checks its settings
    _check_watched(plan)
    if recipe.lookahead > plan.updates:
        raise SeewhyError(
            f"lookahead {recipe.lookahead} is more than the updates of this run, {plan.updates}"
        )


def _check_watched(plan: TrainingPlan) -> None:
    """Check that the loss that the schedules watch is measured."""
    chosen = sorted({schedule.on for schedule in plan.schedules} - {"auto"})
    if len(chosen) > 1:
        raise SeewhyError(
            f"the schedules watch different losses ({', '.join(chosen)}); give all the same `on`"
        )
    if chosen == ["validation"] and plan.data.validation is None:
        raise SeewhyError(
            "a schedule with on=validation needs a validation split, such as "
            "load(..., validation=0.1), or use on=train"
        )
    if chosen == ["test"] and not plan.has_held_out:
        raise SeewhyError(
            "a schedule with on=test would read the images that the folds hold out; use on=train"
        )
    if chosen and chosen != ["train"] and plan.recipe.eval_every == 0:
        raise SeewhyError(
            f"a schedule with on={chosen[0]} needs evaluations, but eval_every is 0; "
            "set it to 1 to evaluate after every epoch"
        )


def _check_machine(plan: TrainingPlan) -> None:
    smallest = plan.images_per_epoch - (plan.steps_per_epoch - 1) * plan.batch_size
    if smallest < max(2, plan.world.size) and smallest < plan.batch_size:
        too_small_for = "BatchNorm" if smallest == 1 else f"{plan.world.size} processes"
        raise SeewhyError(
            f"drop_last=false leaves a last batch of {counted(smallest, 'image')}, too small for "
            f"{too_small_for}; use another batch_size, or drop_last=true"
        )
    if plan.batch_size < plan.world.size:
        raise SeewhyError(
            f"batches of {plan.batch_size} images are too small for {plan.world.size} processes; "
            "use fewer processes, or a larger batch_size"
        )
    compilers = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    on_posix_cpu = plan.device.type == "cpu" and os.name == "posix"
    if plan.recipe.compile and on_posix_cpu and not any(map(shutil.which, compilers)):
        raise SeewhyError(
            "compile needs a C++ compiler, such as g++, found none; install one, or leave "
            "compile out"
        )


def _check_momentum(plan: TrainingPlan, optimizers: list[Optimizer]) -> None:
    """With a momentum of 1 or more the weights diverge."""
    factor = max(plan.momentum_schedule(percent / 100, ()) for percent in range(101))
    peak = max(peak_momentum(group) for each in optimizers for group in each.param_groups)
    if peak * factor >= 1:
        raise SeewhyError(
            f"momentum_schedule {plan.recipe.momentum_schedule} raises the momentum from {peak:g} "
            f"to {peak * factor:.3g}; it must stay below 1"
        )


def _check_resolution(plan: TrainingPlan, model: nn.Module) -> None:
    """Run the model on the smallest images of the run."""
    images = plan.train_center.images[:2].to(device_of(model)).float() / 255
    smallest = resize_images(images, min(plan.resolution_factors))
    if smallest.shape == images.shape:
        return
    try:
        with evaluating(model), torch.no_grad():
            model(smallest)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        size = "x".join(map(str, smallest.shape[2:]))
        raise SeewhyError(
            f"resolution {plan.recipe.resolution} makes images of {size}, which "
            f"{plan.recipe.model} does not accept ({first_line(error)})"
        ) from error
