"""The training loop: a generator of events for display and recording."""

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seewhy._torch_compat import recompile_limit
from seewhy.data.augment import encode_labels
from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.folding import folded_for_training
from seewhy.models.inference import autocasting, compute_logits
from seewhy.train.averaging import clone_weights, swap_weights
from seewhy.train.batches import batches, resize_images
from seewhy.train.device import retain_freed_memory
from seewhy.train.distributed import all_reduce_sum, sync_batch_norm
from seewhy.train.freezing import freeze_batch_norms, training_spans
from seewhy.train.objective import average_precision
from seewhy.train.optimizers import momentum_of, set_lr_and_momentum
from seewhy.train.plan import TrainingPlan
from seewhy.train.probe import FeatureStats, ProbeStats, head_logits, set_head
from seewhy.train.state import TrainState
from seewhy.train.update import MIN_LOSS_SCALE, update
from seewhy.wording import counted


@dataclass(frozen=True)
class StepStats:
    """Progress after a step. Loss and accuracy are means over the epoch so far."""

    step: int  # steps completed
    steps: int  # total number
    epoch: float  # epochs completed
    lr: float  # of the first parameter group
    train_loss: float
    train_accuracy: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class EpochStats:
    """One row of the history. The evaluation is on the validation split, or on test without one."""

    epoch: float  # epochs completed
    step: int  # steps completed
    lr: float  # of the last step, of the first parameter group
    momentum: float  # same; beta1 for Adam; 0 for an optimizer without momentum
    seconds: float  # training time since the start, without evaluation
    images_per_second: float  # of this epoch, training only
    train_loss: float  # the criterion: cross entropy of smoothed and weighted labels, in nats; of
    # any number of labels, their mean binary cross entropy
    train_accuracy: float  # in [0, 1], on augmented images and labels; of any number of labels, the
    # fraction of images that have all of them right at a threshold of 0.5 (subset accuracy)
    eval_loss: float | None  # the same criterion; None if this epoch was not evaluated
    eval_accuracy: float | None
    eval_nll: float | None = None  # negative log-likelihood of the labels, in nats
    loss_scale: float | None = None  # at the end of the epoch; None unless in fp16
    skipped_updates: int | None = None  # of this epoch, because of an overflow in fp16
    eval_average_precision: float | None = None  # macro average, of any number of labels only

    @property
    def eval_score(self) -> float | None:
        """What epochs are compared by: accuracy, or average precision of any number of labels."""
        if self.eval_average_precision is None:
            return self.eval_accuracy
        return self.eval_average_precision


Event = FeatureStats | ProbeStats | StepStats | EpochStats


class NonFiniteError(SeewhyError):
    """A loss or a gradient is not finite; the weights are those before the failed step."""


@dataclass(frozen=True)
class _Run:
    """Values that `train` derives from the state and plan once."""

    state: TrainState
    plan: TrainingPlan
    forward: Callable[[Tensor], Tensor]  # the model, compiled if requested
    spans: dict[nn.Parameter, tuple[float, float]]  # epochs from and until which each is trained


def train(state: TrainState, plan: TrainingPlan) -> Generator[Event]:
    """Train `state.model` in place, from the current step of `state` to the end of the plan.

    Steps do not synchronize with the device. The state may be saved between two events; a run
    resumed from it ends with the same weights.

    Args:
        state: The state, from `new_state`; changed in place.
        plan: The plan, from `make_plan`.

    Yields:
        FeatureStats and ProbeStats of a probe, and EpochStats of its evaluation; StepStats after
        every step, EpochStats after every epoch.

    Raises:
        NonFiniteError: If a loss or a gradient is not finite; raised before it affects a weight.
    """
    model, recipe = state.model, plan.recipe
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    forward = torch.compile(model, dynamic=False) if recipe.compile else model
    spans = training_spans(model, plan.train_center.images, recipe, plan.frozen_after)
    run = _Run(state, plan, forward, spans)
    # one graph per image size and batch size, and another one after a freeze or a stage
    stages = 1 + recipe.unfreeze_epochs
    graphs = 4 * stages * len(set(plan.resolution_factors)) if recipe.compile else 0
    try:
        with (
            sync_batch_norm(model, plan.world),
            retain_freed_memory(plan.device),
            recompile_limit(graphs) if graphs else nullcontext(),
        ):
            if plan.probe is not None and state.probe is None and state.step == 0:
                yield from _probe(state, plan)
            while state.step < plan.steps or state.epoch * plan.steps_per_epoch < state.step:
                yield from _train_epoch(run)
                yield _end_epoch(state, plan)
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _probe(state: TrainState, plan: TrainingPlan) -> Iterator[Event]:
    """Set the head; the evaluation is row 0 of the history."""
    stats = yield from set_head(state.model, plan)
    yield stats
    for average in (state.ema, state.slow):
        if average is not None:
            average.update(clone_weights(state.model))
    state.seconds += stats.seconds
    state.probe = stats
    train = _evaluate(state, plan, plan.train_center)
    measured = _evaluate(state, plan, plan.eval_split) if plan.has_held_out else None
    yield EpochStats(
        epoch=0.0,
        step=0,
        lr=0.0,
        momentum=0.0,
        seconds=state.seconds,
        images_per_second=stats.images * stats.views / stats.seconds,
        train_loss=train.loss,
        train_accuracy=train.accuracy,
        eval_loss=None if measured is None else measured.loss,
        eval_accuracy=None if measured is None else measured.accuracy,
        eval_nll=None if measured is None else measured.nll,
        eval_average_precision=None if measured is None else measured.average_precision,
    )


def _train_epoch(run: _Run) -> Iterator[StepStats]:
    """Train for the remaining steps of the current epoch."""
    state, plan, recipe, model = run.state, run.plan, run.plan.recipe, run.state.model
    steps = plan.epoch_steps(state.epoch)
    order = plan.sampler(plan.data.train.labels, recipe.seed, state.epoch)
    done = state.step - steps.start
    remaining = order[done * plan.batch_size : len(steps) * plan.batch_size]
    factor = plan.resolution_factor(state.epoch, state.watched_losses)
    earlier_seconds, start_time = state.epoch_seconds, time.perf_counter()
    if plan.world.size > 1:  # otherwise dropout would be the same in all processes
        seed = recipe.seed * 1_000_003 + state.epoch
        torch.manual_seed(seed * plan.world.size + plan.world.rank)
    model.train()
    if recipe.freeze_bn:
        freeze_batch_norms(model)
        if not recipe.compile:  # a compiler fuses them itself
            run = replace(run, forward=folded_for_training(model))
    for images, labels in batches(
        plan.train_split,
        plan.num_classes,
        plan.batch_size,
        remaining,
        state.epoch,
        plan.augment,
        state.generator,
        plan.device,
        plan.data.margin,
    ):
        _freeze(run.spans, state.step / plan.steps_per_epoch)
        lr_factor, momentum_factor = _factors(state, plan)
        set_lr_and_momentum(state.optimizers, lr_factor, momentum_factor)
        shard = plan.world.shard(len(images))
        outputs = _forward(run, resize_images(images[shard], factor), labels[shard])
        loss, weight = _criterion(outputs.float(), labels[shard], plan)
        update_steps = plan.update_steps(state.step)
        # `update` divides by the mean weight, which is known when all images of it are drawn
        per_image = plan.world.size / plan.images_in(update_steps)
        state.scaler.scale(loss * per_image).backward()  # type: ignore[no-untyped-call]
        correct = plan.objective.count_correct(outputs, labels[shard])
        state.totals.add(loss, weight, correct, len(outputs))
        ends_update = state.step == update_steps[-1]
        if ends_update:
            update(state, plan)
        else:
            state.totals.mark_failure(loss.isfinite(), state.step + 1)
        state.step += 1
        state.epoch_seconds = earlier_seconds + time.perf_counter() - start_time
        # an update shares failures between processes
        if plan.world.size == 1 or ends_update:
            _check_finite(state, plan, state.totals.first_failure())
        yield _step_stats(state, plan)


def _factors(state: TrainState, plan: TrainingPlan) -> tuple[float, float]:
    """Factors of learning rate and momentum in the next step."""
    return (
        plan.lr_factor(state.step, state.watched_losses),
        plan.momentum_factor(state.step, state.watched_losses),
    )


def _forward(run: _Run, images: Tensor, labels: Tensor) -> Tensor:
    """The outputs (B, K) for a batch."""
    plan = run.plan
    with autocasting(plan.precision, images.device):
        outputs = run.forward(images)
    if not isinstance(outputs, Tensor) or outputs.shape != labels.shape:
        result = (
            tuple(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        )
        raise SeewhyError(
            f"{plan.recipe.model} must map images (N, C, H, W) to logits (N, {plan.num_classes}), "
            f"one per class; {counted(len(images), 'image')} gave {result}"
        )
    return outputs


def _criterion(outputs: Tensor, labels: Tensor, plan: TrainingPlan) -> tuple[Tensor, Tensor]:
    """Sums over a batch, whose quotient is the loss: see `Objective`."""
    smoothing = plan.recipe.label_smoothing
    return plan.objective.criterion(outputs, labels, smoothing, plan.class_weights)


def _freeze(spans: dict[nn.Parameter, tuple[float, float]], epoch: float) -> None:
    for parameter, (begin, end) in spans.items():
        if parameter.requires_grad != (begin <= epoch < end):
            parameter.requires_grad_(begin <= epoch < end)
            parameter.grad = None  # optimizers skip parameters without a gradient


def _check_finite(state: TrainState, plan: TrainingPlan, failed_step: int) -> None:
    """Raise NonFiniteError if a step has failed; 0 is none."""
    if failed_step == 0:
        return
    factor = plan.lr_factor(failed_step - 1, state.watched_losses)
    lr = factor * state.optimizers[0].param_groups[0]["peak_lr"]
    raise NonFiniteError(
        f"the loss or a gradient was not finite at step {failed_step} (epoch "
        f"{failed_step / plan.steps_per_epoch:.2f}), at a learning rate of {lr:.3g}; the weights "
        f"before this step were kept; try an lr below {plan.lr:g}"
    )


def _step_stats(state: TrainState, plan: TrainingPlan) -> StepStats:
    seconds = state.seconds + state.epoch_seconds
    probing = 0.0 if state.probe is None else state.probe.seconds
    images = plan.images_in(range(plan.epoch_steps(state.epoch).start, state.step))
    train_loss, train_accuracy = state.totals.latest()
    return StepStats(
        step=state.step,
        steps=plan.steps,
        epoch=state.step / plan.steps_per_epoch,
        lr=state.optimizers[0].param_groups[0]["lr"],
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        images_per_second=images / state.epoch_seconds,
        seconds_left=(seconds - probing) / state.step * (plan.steps - state.step),
    )


def _end_epoch(state: TrainState, plan: TrainingPlan) -> EpochStats:
    """Check and evaluate an epoch, and prepare the next one."""
    start_time = time.perf_counter()
    sums = all_reduce_sum(state.totals.device_sums, plan.world)
    loss, weight, correct, count, failed_step, skipped, _ = sums.tolist()  # waits for the device
    state.epoch_seconds += time.perf_counter() - start_time
    _check_finite(state, plan, int(failed_step) // plan.world.size)
    in_fp16 = state.scaler.is_enabled()
    loss_scale = state.scaler.get_scale() if in_fp16 else None
    if loss_scale is not None and loss_scale < MIN_LOSS_SCALE:
        _check_finite(state, plan, state.step)
    images = plan.images_in(range(plan.epoch_steps(state.epoch).start, state.step))
    images_per_second = images / state.epoch_seconds
    state.epoch += 1
    state.seconds += state.epoch_seconds
    state.epoch_seconds = 0.0
    state.totals.reset()
    every = plan.recipe.eval_every
    evaluated = state.step == plan.steps or (every > 0 and state.epoch % every == 0)
    evaluated = evaluated and plan.has_held_out
    measured = _evaluate(state, plan, plan.eval_split) if evaluated else None
    group = state.optimizers[0].param_groups[0]
    row = EpochStats(
        epoch=state.step / plan.steps_per_epoch,
        step=state.step,
        lr=group["lr"],
        momentum=momentum_of(group),
        seconds=state.seconds,
        images_per_second=images_per_second,
        train_loss=loss / weight,
        train_accuracy=correct / count,
        eval_loss=None if measured is None else measured.loss,
        eval_accuracy=None if measured is None else measured.accuracy,
        eval_nll=None if measured is None else measured.nll,
        loss_scale=loss_scale,
        skipped_updates=int(skipped) // plan.world.size if in_fp16 else None,
        eval_average_precision=None if measured is None else measured.average_precision,
    )
    watched = _watched_loss(state, plan, row)
    if watched is not None:
        state.watched_losses.append(watched)
    return row


def _watched_loss(state: TrainState, plan: TrainingPlan, row: EpochStats) -> float | None:
    """The loss of an epoch that schedules watch; never the test loss unless one asks for it."""
    if plan.watched_split == "train":
        return row.train_loss
    evaluated, validated = row.eval_loss is not None, plan.data.validation is not None
    if plan.watched_split == "test" and evaluated and validated:
        return _evaluate(state, plan, plan.data.test).loss
    return row.eval_loss


class _Evaluation(NamedTuple):
    """Means over a split."""

    loss: float  # the criterion of the training
    nll: float
    accuracy: float
    average_precision: float | None  # of any number of labels only; None if no label has any


def _evaluate(state: TrainState, plan: TrainingPlan, split: Split) -> _Evaluation:
    """Evaluate a split; each process evaluates a shard."""
    shard = plan.world.shard(len(split))
    images, labels = split.images[shard], split.labels[shard]
    sums = torch.zeros(4, dtype=state.totals.device_sums.dtype)
    scores = torch.zeros(len(split), plan.num_classes) if plan.data.multi_label else None
    if len(images):
        with swap_weights(state.averaged, state.model):
            classifier = Classifier(
                state.model,
                precision=plan.precision,
                activation=plan.objective.activation,
                returns="logits",
            )
            if state.probe is not None and state.step == 0 and plan.world.size == 1:
                logits = head_logits(state.model, plan, state.probe, images)
            else:
                logits = compute_logits(classifier, images, reproducible=True, check_finite=False)
        encoded = encode_labels(labels, plan.num_classes)
        loss, weight = _criterion(logits, encoded, plan)
        nll = plan.objective.nll(logits, labels)
        correct = plan.objective.count_correct(logits, encoded)
        sums += torch.stack([loss, weight, nll, correct])
        if scores is not None:
            scores[shard] = logits
    total, weights, nll_sum, right = all_reduce_sum(sums.to(plan.device), plan.world).tolist()
    if not math.isfinite(total + nll_sum):
        raise NonFiniteError(
            f"the loss was finite in training, but not in the evaluation after epoch "
            f"{state.step / plan.steps_per_epoch:.2f}: in evaluation mode the model overflows, for "
            f"example by BatchNorm's statistics; use precision fp32, or try an lr below {plan.lr:g}"
        )
    precision = None
    if scores is not None:
        scores = all_reduce_sum(scores.to(plan.device), plan.world).cpu()
        precision = average_precision(scores, split.labels.cpu())
    return _Evaluation(
        total / weights,
        nll_sum / len(split),
        right / len(split),
        None if precision is None or math.isnan(precision) else precision,
    )
