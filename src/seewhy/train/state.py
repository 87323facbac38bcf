"""Sums over an epoch, kept on the device."""

import math
import random
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from seewhy.errors import SeewhyError
from seewhy.models.inspection import device_of
from seewhy.train.averaging import Weights, clone_weights
from seewhy.train.device import find_precision
from seewhy.train.optimizers import Rates, bind_optimizer
from seewhy.train.recipe import Recipe


class RunningTotals:
    """Running sums of loss and correct answers, and the first step that was not finite, kept on the device.

    No step waits for them: on a GPU the host sees them a few steps late, through a copy into pinned memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device_sums = torch.zeros(
            4, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device
        )
        pinned = device.type == "cuda"
        self.host_sums = (
            torch.zeros(4, dtype=self.device_sums.dtype, pin_memory=pinned)
            if pinned
            else self.device_sums
        )

    def add(self, loss: Tensor, outputs: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss (), outputs (B, K) and labels (B, K)."""
        count = torch.full_like(loss, len(outputs))
        correct = (outputs.argmax(1) == labels.argmax(1)).sum()
        self.device_sums[:3] += torch.stack([loss.detach() * count, correct, count])
        if self.host_sums is not self.device_sums:
            self.host_sums.copy_(self.device_sums, non_blocking=True)

    def fail(self, finite: Tensor, step: int) -> Tensor:
        """Remember `step` where `finite` () is False, unless one failed before; returns whether none ever did."""
        failed = self.device_sums[3]
        failed.copy_(torch.where((failed == 0) & ~finite, step, failed))
        return failed == 0

    def latest(self) -> tuple[float, float]:
        """Mean loss and accuracy as far as the host knows them; nan before the first copy has arrived."""
        loss, correct, count, _ = self.host_sums.tolist()
        return (loss / count, correct / count) if count else (math.nan, math.nan)

    def failed(self) -> int:
        """The first step that was not finite, as far as the host knows; 0 for none."""
        return int(self.host_sums[3])

    def sound(self) -> bool:
        """Whether all was finite so far; this waits for the device."""
        return bool(self.device_sums.isfinite().all()) and int(self.device_sums[3]) == 0

    def reset(self) -> None:
        """Start a new epoch."""
        self.device_sums.zero_()
        self.host_sums.zero_()


@dataclass
class TrainState:
    """A training in progress. `train` advances it; between two events it may be kept, or be set to what was kept."""

    recipe: Recipe
    model: nn.Module
    optimizers: list[Optimizer]
    scaler: GradScaler  # of the loss, in fp16
    generator: Generator  # what augmentations draw from
    totals: RunningTotals  # of the epoch so far
    ema: Weights | None  # the moving average of the model's state
    slow: Weights | None  # lookahead's weights
    step: int = 0  # batches done
    updates: int = 0  # of the weights
    epoch: int = 0  # epochs whose row of history is written
    seconds: float = 0.0  # of training in those epochs
    spent: float = 0.0  # in the epoch so far
    losses: list[float] = field(
        default_factory=list
    )  # watched ones, which a plateau schedule looks at

    @property
    def averaged(self) -> Weights | None:
        """The weights that are evaluated and kept in place of the model's own, where there are such."""
        return self.slow if self.ema is None else self.ema


def new_state(model: nn.Module, recipe: Recipe) -> TrainState:
    """The state before the first step of training `model`, on the device that holds it; raises SeewhyError without a rate."""
    if recipe.lr == "find":
        raise SeewhyError(
            "lr is still to be found; `fit` does so itself, and find_lr(recipe, data).suggestion is a rate to train at"
        )
    device = device_of(model)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainState(
        recipe,
        model,
        bind_optimizer(recipe.optimizer)(model, cast(Rates, recipe)),
        GradScaler(device.type, enabled=find_precision(recipe.precision, device) == "fp16"),
        Generator(device).manual_seed(recipe.seed),
        RunningTotals(device),
        clone_weights(model) if recipe.ema else None,
        clone_weights(model) if recipe.lookahead else None,
    )


COUNTERS = ("step", "updates", "epoch", "seconds", "spent", "losses")


def state_dict(state: TrainState) -> dict[str, Any]:
    """The state as tensors and plain values, which a checkpoint holds; no copies are made."""
    return {
        "model": state.model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
        "gradients": {
            name: p.grad for name, p in state.model.named_parameters() if p.grad is not None
        },  # of a half-done update
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
        **{name: getattr(state, name) for name in COUNTERS},
    }


def load_state_dict(state: TrainState, kept: dict[str, Any]) -> None:
    """Set `state`, of the same recipe and model, to one that was kept, and the global generators with it."""
    state.model.load_state_dict(kept["model"])
    for optimizer, values in zip(state.optimizers, kept["optimizers"], strict=True):
        optimizer.load_state_dict(values)
    for name, parameter in state.model.named_parameters():
        gradient = kept["gradients"].get(name)
        parameter.grad = None if gradient is None else gradient.to(parameter)
    state.scaler.load_state_dict(kept["scaler"])
    state.totals.device_sums.copy_(kept["totals"])
    state.totals.host_sums.copy_(
        kept["totals"]
    )  # waits for copies that are under way: what they bring is of later
    for mine, theirs in ((state.ema, kept["ema"]), (state.slow, kept["slow"])):
        if mine is not None:
            for name, tensor in mine.items():
                tensor.copy_(theirs[name])
    for name in COUNTERS:
        setattr(state, name, kept[name])
    generators = kept["random"]
    torch.set_rng_state(generators["torch"])
    if (
        device_of(state.model).type == "cuda"
        and len(generators["cuda"]) == torch.cuda.device_count()
    ):
        torch.cuda.set_rng_state_all(generators["cuda"])
    if len(generators["augmentation"]) == len(
        state.generator.get_state()
    ):  # else it comes from another kind of device
        state.generator.set_state(generators["augmentation"])
    version, words, gauss = generators["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = generators["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002


def _numpy_state() -> tuple[Any, ...]:
    """NumPy's global generator as plain values, which a file can hold that is read with weights_only."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 (a user's augmentation may draw from it)
    return (name, np.asarray(keys).tolist(), *rest)
