"""The training loop: a generator that trains and reports; whoever consumes it shows, writes and decides."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.data.augment import augmentation
from seewhy.data.dataset import Dataset, Split
from seewhy.errors import SeewhyError
from seewhy.models.inference import logits
from seewhy.train.batches import batches, epoch_order, equal_batches, on_device
from seewhy.train.optimizers import bind_optimizer, set_learning_rate
from seewhy.train.precision import find_precision
from seewhy.train.recipe import Recipe
from seewhy.train.schedules import bind_schedule


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
    seconds: float  # training time since the start, without evaluation
    images_per_second: float  # of training, over this epoch
    train_loss: float
    train_accuracy: float  # in [0, 1], against the augmented labels
    eval_loss: float | None  # None where this epoch was not evaluated
    eval_accuracy: float | None


Event = Progress | EpochStats


def train(model: nn.Module, recipe: Recipe, data: Dataset) -> Iterator[Event]:
    """Train `model` in place on `data.train` as `recipe` says, on the device that holds its parameters.

    Yields Progress after every step and EpochStats after every epoch; between two steps nothing waits for the device.
    Dropout and the like draw from torch's global generators; data order and augmentation have their own.
    Raises SeewhyError when the training loss is no longer finite at the end of an epoch.
    """
    device = next(model.parameters()).device
    precision = find_precision(recipe.precision, device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    split = on_device(data.train, device)
    held_out = data.test if data.validation is None else data.validation
    optimizers = bind_optimizer(recipe.optimizer)(model, recipe)
    schedule = bind_schedule(recipe.schedule)
    augment = augmentation(recipe.augment)
    generator = torch.Generator(device).manual_seed(recipe.seed)
    per_epoch, batch_size = equal_batches(len(split), recipe.batch_size)
    steps = max(1, round(recipe.epochs * per_epoch))
    seconds, step = 0.0, 0
    for epoch in range(math.ceil(steps / per_epoch)):
        order = epoch_order(len(split), recipe.seed, epoch)
        totals = Totals(device)
        began, first = time.perf_counter(), step
        model.train()
        for images, labels in batches(split, len(data.classes), batch_size, order, epoch, augment, generator, device):
            factor = schedule(step / max(1, steps - 1))
            set_learning_rate(optimizers, factor)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                outputs = model(images)
            loss = F.cross_entropy(outputs.float(), labels, label_smoothing=recipe.label_smoothing)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step()
            totals.add(loss, outputs, labels)
            step += 1
            elapsed = time.perf_counter() - began
            speed = (step - first) * batch_size / elapsed
            left = (seconds + elapsed) / step * (steps - step)
            train_loss, train_accuracy = totals.latest()
            lr = optimizers[0].param_groups[0]["lr"]
            yield Progress(step, steps, step / per_epoch, lr, train_loss, train_accuracy, speed, left)
            if step == steps:
                break
        train_loss, train_accuracy = totals.final()
        spent = time.perf_counter() - began
        seconds += spent
        if not math.isfinite(train_loss):
            raise SeewhyError(
                f"the training loss became {train_loss} in epoch {epoch + 1}, at a learning rate of {lr:.3g}; "
                f"try a lower lr than {recipe.lr:g}"
            )
        done = step == steps
        evaluated = done or (recipe.eval_every > 0 and (epoch + 1) % recipe.eval_every == 0)
        eval_loss, eval_accuracy = _evaluate(model, held_out, precision) if evaluated else (None, None)
        speed = (step - first) * batch_size / spent
        yield EpochStats(step / per_epoch, step, lr, seconds, speed, train_loss, train_accuracy, eval_loss, eval_accuracy)


class Totals:
    """Running sums of loss and correct answers, kept on the device so that no step waits for it.

    On a GPU the host sees them a few steps late, through a copy into pinned memory that nothing waits for.
    """

    def __init__(self, device: torch.device) -> None:
        self.device_sums = torch.zeros(3, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
        pinned = device.type == "cuda"
        self.host_sums = torch.zeros(3, dtype=self.device_sums.dtype, pin_memory=pinned) if pinned else self.device_sums

    def add(self, loss: Tensor, outputs: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss (), outputs (B, K) and labels (B, K)."""
        count = torch.full_like(loss, len(outputs))
        correct = (outputs.argmax(1) == labels.argmax(1)).sum()
        self.device_sums += torch.stack([loss.detach() * count, correct, count])
        if self.host_sums is not self.device_sums:
            self.host_sums.copy_(self.device_sums, non_blocking=True)

    def latest(self) -> tuple[float, float]:
        """Mean loss and accuracy as far as the host knows them; nan before the first copy has arrived."""
        loss, correct, count = self.host_sums.tolist()
        return (loss / count, correct / count) if count else (math.nan, math.nan)

    def final(self) -> tuple[float, float]:
        """Mean loss and accuracy over everything added; waits for the device."""
        loss, correct, count = self.device_sums.tolist()
        return loss / count, correct / count


def _evaluate(model: nn.Module, split: Split, precision: str) -> tuple[float, float]:
    """Mean cross entropy and accuracy on a split."""
    outputs = logits(model, split.images, precision=precision)
    loss = F.cross_entropy(outputs, split.labels).item()
    return loss, (outputs.argmax(1) == split.labels).float().mean().item()
