"""The state of a run: everything that changes from step to step."""

import math
import random
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from seewhy.errors import SeewhyError, describe_value
from seewhy.models.inspection import device_of
from seewhy.serialization import from_plain
from seewhy.train.averaging import Weights, clone_weights
from seewhy.train.layer_decay import decay_by_depth
from seewhy.train.memory import check_memory
from seewhy.train.plan import TrainingPlan, check_model
from seewhy.train.probe import ProbeStats


class RunningTotals:
    """Sums over an epoch and over an update, and the first non-finite step, on the device.

    Steps do not wait for them. On a GPU they reach the host a few steps later, through pinned
    memory.
    """

    def __init__(self, device: torch.device) -> None:
        dtype = torch.float64 if device.type != "mps" else torch.float32
        # of the epoch: losses times weights, weights, correct predictions, images; first non-finite
        # step; skipped updates; weights of the unfinished update
        self.device_sums = torch.zeros(7, dtype=dtype, device=device)
        self.host_sums = self.device_sums
        if device.type == "cuda":
            self.host_sums = torch.zeros(7, dtype=dtype, pin_memory=True)

    def add(self, loss: Tensor, weight: Tensor, correct: Tensor, images: int) -> None:
        """Add a batch: sums of its weighted losses () and weights (), correct predictions ()."""
        count = torch.full_like(loss, images)
        self.device_sums[:4] += torch.stack([loss.detach(), weight, correct, count])
        self.device_sums[6] += weight
        if self.host_sums is not self.device_sums:
            self.host_sums.copy_(self.device_sums, non_blocking=True)

    def mark_failure(self, finite: Tensor, step: int) -> Tensor:
        """Mark `step` as failed if `finite` () is False and no earlier one failed.

        Returns whether no step has failed, as a tensor () bool.
        """
        failed = self.device_sums[4]
        failed.copy_(torch.where((failed == 0) & ~finite, step, failed))
        return failed == 0

    def count_skipped(self, overflow: Tensor) -> None:
        """Count an update as skipped if its gradient overflows: `overflow` () bool."""
        self.device_sums[5].add_(overflow)

    def take_update_weight(self) -> Tensor:
        """The sum of the weights () since the last call, for the update that ends."""
        weight = self.device_sums[6].clone()
        self.device_sums[6].zero_()
        return weight

    def latest(self) -> tuple[float, float]:
        """Mean loss and accuracy on the host; nan before the first copy arrives."""
        loss, weight, correct, count, *_ = self.host_sums.tolist()
        return (loss / weight, correct / count) if count else (math.nan, math.nan)

    def first_failure(self) -> int:
        """The first failed step on the host; 0 if none."""
        return int(self.host_sums[4])

    def all_finite(self) -> bool:
        """Whether no step has failed; waits for the device."""
        return bool(self.device_sums.isfinite().all()) and int(self.device_sums[4]) == 0

    def reset(self) -> None:
        """Start a new epoch."""
        self.device_sums.zero_()
        self.host_sums.zero_()


@dataclass
class TrainState:
    """State of a run. `train` changes it in place; it may be saved between two events."""

    model: nn.Module
    optimizers: list[Optimizer]
    scaler: GradScaler  # of the loss, in fp16
    generator: Generator  # of the augmentations
    totals: RunningTotals  # of the current epoch
    ema: Weights | None  # moving average of the weights
    slow: Weights | None  # lookahead's weights
    step: int = 0  # steps done
    updates: int = 0  # updates done
    epoch: int = 0  # epochs done and evaluated
    seconds: float = 0.0  # training time of those epochs
    epoch_seconds: float = 0.0  # training time of the current epoch
    watched_losses: list[float] = field(default_factory=list)  # per epoch, for plateau schedules
    probe: ProbeStats | None = None  # once the head has been set

    @property
    def averaged(self) -> Weights | None:
        """The average that is evaluated instead of the model's weights, if any."""
        return self.slow if self.ema is None else self.ema


def new_state(plan: TrainingPlan, model: nn.Module | None = None) -> TrainState:
    """The state before the first step.

    Args:
        plan: The plan, from `make_plan`.
        model: The model to train, moved to the plan's device; by default a new one, with weights
            from torch's global generator.

    Raises:
        SeewhyError: If the plan does not fit the model, or its learning rate is "find".
    """
    lr, recipe, device = plan.lr, plan.recipe, plan.device
    if model is None:
        model = plan.build_model(plan.num_classes, plan.data.splits["train"])
    model.to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizers = plan.build_optimizers(model, lr, recipe.weight_decay)
    decay_by_depth(optimizers, model, plan.train_center.images, recipe.layer_decay)
    check_model(plan, model, optimizers)
    if plan.steps:
        check_memory(plan, model, optimizers)
    return TrainState(
        model,
        optimizers,
        plan.build_scaler(device, plan.precision == "fp16"),
        Generator(device).manual_seed(recipe.seed),
        RunningTotals(device),
        clone_weights(model) if recipe.ema else None,
        clone_weights(model) if recipe.lookahead else None,
    )


COUNTERS = ("step", "updates", "epoch", "seconds", "epoch_seconds", "watched_losses")


def state_dict(state: TrainState) -> dict[str, Any]:
    """The state as tensors and plain values, as in a checkpoint. Tensors are not copied."""
    return {
        "model": state.model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
        "gradients": {  # of an unfinished update
            name: p.grad for name, p in state.model.named_parameters() if p.grad is not None
        },
        "scaler": state.scaler.state_dict(),
        "totals": state.totals.device_sums,
        "ema": state.ema,
        "slow": state.slow,
        "random": {
            "augmentation": state.generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if device_of(state.model).type == "cuda" else [],
            "python": random.getstate(),
            "numpy": _numpy_state(),
        },
        "probe": None if state.probe is None else asdict(state.probe),
        **{name: getattr(state, name) for name in COUNTERS},
    }


def load_state_dict(state: TrainState, values: dict[str, Any]) -> None:
    """Load `values` of `state_dict` into a state of the same recipe and model.

    The peaks of the learning rate stay those of the recipe, which may have another rate than the
    one that `values` were saved with. The global random generators are set too.
    """
    peaks = [
        [group.get("peak_lr", group["lr"]) for group in each.param_groups]
        for each in state.optimizers
    ]
    state.model.load_state_dict(values["model"])
    for optimizer, optimizer_state in zip(state.optimizers, values["optimizers"], strict=True):
        optimizer.load_state_dict(optimizer_state)
        _check_optimizer(optimizer)
    for optimizer, peaks_of_groups in zip(state.optimizers, peaks, strict=True):
        for group, peak in zip(optimizer.param_groups, peaks_of_groups, strict=True):
            group["peak_lr" if "peak_lr" in group else "lr"] = peak  # before the first step: lr
    for name, parameter in state.model.named_parameters():
        gradient = values["gradients"].get(name)
        parameter.grad = None if gradient is None else gradient.to(parameter)
    state.scaler.load_state_dict(values["scaler"])
    _require_shape("totals", values["totals"], state.totals.device_sums)
    state.totals.device_sums.copy_(values["totals"])
    # blocks, so that pending copies cannot overwrite it
    state.totals.host_sums.copy_(values["totals"])
    for average, loaded in ((state.ema, values["ema"]), (state.slow, values["slow"])):
        if average is not None:
            for name, tensor in average.items():
                _require_shape(name, loaded[name], tensor)
                tensor.copy_(loaded[name])
    for name in COUNTERS:
        setattr(state, name, values[name])
    probe = values.get("probe")
    state.probe = None if probe is None else from_plain(ProbeStats, probe)
    _load_generators(state, values["random"])


def check_progress(state: TrainState, plan: TrainingPlan) -> None:
    """Raise SeewhyError if the counters of a loaded state are none of the plan's."""
    counts = (state.step, state.updates, state.epoch)
    if not all(type(count) is int and count >= 0 for count in counts) or state.step > plan.steps:
        raise SeewhyError(
            f"step {counts[0]} of {plan.steps}, update {counts[1]}, epoch {counts[2]}"
        )
    seconds = (state.seconds, state.epoch_seconds, *state.watched_losses)
    if not all(isinstance(value, float | int) and math.isfinite(value) for value in seconds):
        raise SeewhyError("the training time or a watched loss is no number")


def _check_optimizer(optimizer: Optimizer) -> None:
    """Raise SeewhyError if a buffer, such as momentum, does not have its parameter's shape."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for name, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor) and value.numel() > 1:
                    _require_shape(name, value, parameter)


def _require_shape(name: str, found: Any, expected: Tensor) -> None:
    if getattr(found, "shape", None) != expected.shape:
        raise SeewhyError(
            f"{name} is {describe_value(found)} instead of {describe_value(expected)}"
        )


def _load_generators(state: TrainState, values: dict[str, Any]) -> None:
    torch.set_rng_state(values["torch"])
    on_gpu = device_of(state.model).type == "cuda"
    if on_gpu and len(values["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(values["cuda"])
    # the lengths differ if the state is from another kind of device
    if len(values["augmentation"]) == len(state.generator.get_state()):
        state.generator.set_state(values["augmentation"])
    version, words, gauss = values["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = values["numpy"]
    keys = np.array(keys, dtype=np.uint32)
    np.random.set_state((name, keys, position, has_gauss, cached))  # noqa: NPY002


def _numpy_state() -> tuple[Any, ...]:
    """NumPy's global generator as plain values, which torch loads with weights_only."""
    name, keys, *others = np.random.get_state(legacy=True)  # noqa: NPY002
    return (name, np.asarray(keys).tolist(), *others)
