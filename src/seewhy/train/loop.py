"""The training loop: a generator that trains and reports; whoever consumes it shows, writes and decides."""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.inference import autocasting, compute_logits
from seewhy.models.inspection import device_of
from seewhy.train.averaging import swap_weights
from seewhy.train.batches import batches, epoch_order, resize_images
from seewhy.train.device import retain_freed_memory
from seewhy.train.distributed import all_reduce_sum, sync_batch_norm
from seewhy.train.optimizers import momentum_of, set_lr_and_momentum
from seewhy.train.plan import TrainingPlan, compiling, make_plan
from seewhy.train.state import TrainState
from seewhy.train.update import LOST_SCALE, update
from seewhy.train.world import World


@dataclass(frozen=True)
class Progress:
    """Where a run stands within an epoch. Loss and accuracy are means over the epoch so far."""

    step: int
    steps: int
    epoch: float
    lr: float
    train_loss: float
    train_accuracy: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class EpochStats:
    """One row of history. Evaluation is on the validation split where there is one, else on the test split."""

    epoch: float  # epochs completed
    step: int  # steps completed
    lr: float  # of the last step, of the first parameter group
    momentum: float  # likewise; Adam's beta1, 0 where there is none
    seconds: float  # training time since the start, without evaluation
    images_per_second: float  # of training, over this epoch
    train_loss: float
    train_accuracy: float  # in [0, 1], against the augmented labels
    eval_loss: float | None  # None where this epoch was not evaluated
    eval_accuracy: float | None


Event = Progress | EpochStats


class NotFinite(SeewhyError):
    """A loss or a gradient was not finite, and the weights were left as they were before."""


def train(state: TrainState, data: Dataset, world: World | None = None) -> Generator[Event]:
    """Train the model of `state` in place on `data.train`, from where `state` is to the end of its recipe.

    Yields Progress after every step and EpochStats after every epoch; between two steps nothing waits for the device. Between
    two events `state` is whole: it may be kept, and a training that starts from what was kept goes on as if it had not stopped.
    Raises SeewhyError as soon as a loss or a gradient is not finite, before it reaches a weight.
    """
    course = make_plan(state, data, world or World())
    trainable = [parameter for parameter in state.model.parameters() if parameter.requires_grad]
    try:
        with (
            sync_batch_norm(state.model, course.world),
            retain_freed_memory(device_of(state.model)),
            compiling(course, state.recipe.compile),
        ):
            while state.step < course.steps or state.epoch * course.per_epoch < state.step:
                yield from _epoch(state, course)
                yield _row(state, course)
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _epoch(state: TrainState, course: TrainingPlan) -> Iterator[Progress]:
    """What is left of the epoch that `state` is in."""
    recipe, model, device = state.recipe, state.model, device_of(state.model)
    start = state.epoch * course.per_epoch
    end = min(start + course.per_epoch, course.steps)
    order = epoch_order(len(course.split), recipe.seed, state.epoch)
    left = order[(state.step - start) * course.batch_size : (end - start) * course.batch_size]
    factor = course.schedules[2](start / course.steps, state.losses)
    before, began = state.spent, time.perf_counter()
    if course.world.size > 1:  # or dropout would be the same everywhere
        torch.manual_seed(
            (recipe.seed * 1_000_003 + state.epoch) * course.world.size + course.world.rank
        )
    model.train()
    for images, labels in batches(
        course.split,
        course.classes,
        course.batch_size,
        left,
        state.epoch,
        course.augment,
        state.generator,
        device,
    ):
        _freeze(course.freezing, state.step / course.per_epoch)
        progress = course.progress(state.step)
        set_lr_and_momentum(
            state.optimizers,
            *(schedule(progress, state.losses) for schedule in course.schedules[:2]),
        )
        part = course.world.shard(len(images))
        loss, outputs = _loss(resize_images(images[part], factor), labels[part], state, course)
        place = (state.step - start) % course.accumulate
        pieces = min(course.accumulate, end - (state.step - place))
        share = len(outputs) * course.world.size / (len(images) * pieces)
        state.scaler.scale(loss * share + _penalty(model, recipe.l1) / pieces).backward()  # type: ignore[no-untyped-call]
        state.totals.add(loss, outputs, labels[part])
        if place + 1 == pieces:
            update(state, course.world)
        else:
            state.totals.fail(loss.isfinite(), state.step + 1)
        state.step += 1
        state.spent = before + time.perf_counter() - began
        if (
            course.world.size == 1 or place + 1 == pieces
        ):  # processes know of each other's failures once they have exchanged
            _check(state, course, state.totals.failed())
        yield _progress(state, course, state.step - start)


def _loss(
    images: Tensor, labels: Tensor, state: TrainState, course: TrainingPlan
) -> tuple[Tensor, Tensor]:
    """The mean loss () of a batch and the outputs (B, K)."""
    with autocasting(course.precision, images.device):
        outputs = course.forward(images)
    if not isinstance(outputs, Tensor) or outputs.shape != labels.shape:
        found = (
            tuple(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        )
        raise SeewhyError(
            f"{state.recipe.model} must turn images (N, C, H, W) into logits (N, {course.classes}), one for each class; "
            f"{len(images)} images gave {found}"
        )
    smoothing = state.recipe.label_smoothing
    return F.cross_entropy(
        outputs.float(), labels, weight=course.weights, label_smoothing=smoothing
    ), outputs


def _penalty(model: nn.Module, l1: float) -> Tensor | float:
    """`l1` times the sum of the absolute weights."""
    if l1 == 0:
        return 0.0
    weights = [
        weight.abs().sum()
        for weight in model.parameters()
        if weight.requires_grad and weight.ndim > 1
    ]
    return l1 * torch.stack(weights).sum() if weights else 0.0


def _freeze(freezing: list[tuple[nn.Parameter, float]], epoch: float) -> None:
    for parameter, after in freezing:
        if epoch >= after and parameter.requires_grad:
            parameter.requires_grad_(False)
            parameter.grad = None  # optimizers pass over what has no gradient


def _check(state: TrainState, course: TrainingPlan, step: int) -> None:
    """Raise SeewhyError where a `step` was not finite; 0 is none."""
    if step == 0:
        return
    rate = (
        course.schedules[0](course.progress(step - 1), state.losses)
        * state.optimizers[0].param_groups[0]["peak_lr"]
    )
    raise NotFinite(
        f"the loss or a gradient was not finite at step {step} (epoch {step / course.per_epoch:.2f}), at a learning rate of "
        f"{rate:.3g}; the weights were left as they were before it; try a lower lr than {state.recipe.lr:g}"
    )


def _progress(state: TrainState, course: TrainingPlan, done: int) -> Progress:
    seconds = state.seconds + state.spent
    train_loss, train_accuracy = state.totals.latest()
    return Progress(
        step=state.step,
        steps=course.steps,
        epoch=state.step / course.per_epoch,
        lr=state.optimizers[0].param_groups[0]["lr"],
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        images_per_second=done * course.batch_size / state.spent,
        seconds_left=seconds / state.step * (course.steps - state.step),
    )


def _row(state: TrainState, course: TrainingPlan) -> EpochStats:
    """Evaluate, and begin the next epoch."""
    recipe, began = state.recipe, time.perf_counter()
    loss, correct, count, failed = all_reduce_sum(
        state.totals.device_sums, course.world
    ).tolist()  # this waits for the device
    state.spent += time.perf_counter() - began
    _check(state, course, int(failed) // course.world.size)
    if state.scaler.is_enabled() and state.scaler.get_scale() < LOST_SCALE:
        _check(state, course, state.step)
    done = state.step - state.epoch * course.per_epoch
    speed = done * course.batch_size / state.spent
    state.epoch += 1
    state.seconds += state.spent
    state.spent = 0.0
    state.totals.reset()
    evaluated = state.step == course.steps or (
        recipe.eval_every > 0 and state.epoch % recipe.eval_every == 0
    )
    eval_loss, eval_accuracy = _evaluate(state, course) if evaluated else (None, None)
    group = state.optimizers[0].param_groups[0]
    row = EpochStats(
        epoch=state.step / course.per_epoch,
        step=state.step,
        lr=group["lr"],
        momentum=momentum_of(group),
        seconds=state.seconds,
        images_per_second=speed,
        train_loss=loss / count,
        train_accuracy=correct / count,
        eval_loss=eval_loss,
        eval_accuracy=eval_accuracy,
    )
    watched = (
        eval_loss if course.validated else row.train_loss
    )  # never the test loss: nothing may be chosen by that
    if watched is not None:
        state.losses.append(watched)
    return row


def _evaluate(state: TrainState, course: TrainingPlan) -> tuple[float, float]:
    """Mean cross entropy and accuracy on the held-out split, each process looking at its part."""
    part = course.world.shard(len(course.held_out))
    images, labels = course.held_out.images[part], course.held_out.labels[part]
    sums = torch.zeros(2, dtype=state.totals.device_sums.dtype)
    if len(images):
        with swap_weights(state.averaged, state.model):
            classifier = Classifier(state.model, precision=course.precision)
            outputs = compute_logits(classifier, images)
        sums += torch.stack(
            [F.cross_entropy(outputs, labels, reduction="sum"), (outputs.argmax(1) == labels).sum()]
        )
    loss, correct = all_reduce_sum(sums.to(device_of(state.model)), course.world).tolist()
    return loss / len(course.held_out), correct / len(course.held_out)
