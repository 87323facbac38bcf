"""The learning-rate range test: the loss while the rate grows from update to update, and the rates that it suggests."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.train.batches import equal_batches
from seewhy.train.loop import EpochStats, NotFinite, train
from seewhy.train.optimizers import by_batch, wants_full_batch
from seewhy.train.state import TrainState, load_state_dict, state_dict

DIVERGED = 4.0  # times the smallest smoothed loss: from there on nothing is learned from going on
FEWEST = 10  # updates from which a slope can be told


@dataclass(frozen=True)
class RangeTest:
    """The loss at each learning rate of a range test (Smith 2017), as far as it did not diverge."""

    rates: tuple[float, ...]  # the peak learning rate of each update, as `Recipe.lr` would set it
    losses: tuple[float, ...]  # mean over the batches of that update, in nats
    smoothed: tuple[float, ...]  # exponentially, without the bias of the start
    ended: str  # "at the end of the range", "diverged" or "not finite"

    @property
    def suggestions(self) -> dict[str, float]:
        """A learning rate by each entry of SUGGESTIONS."""
        return {name: suggest(self.rates, self.smoothed) for name, suggest in SUGGESTIONS.items()}

    @property
    def suggestion(self) -> float:
        """The one to train at."""
        return self.suggestions[DEFAULT]


def range_test(
    state: TrainState, data: Dataset, start: float = 1e-7, end: float = 10.0, steps: int = 100, beta: float = 0.98
) -> RangeTest:
    """Train for `steps` updates while the learning rate grows exponentially from `start` to `end`, and forget it all.

    The rates are those of `Recipe.lr`; every parameter group keeps its ratio to it, and gradient descent on the full batch, which
    would take an epoch for each update, is tried on single batches. Losses are smoothed by `beta` in [0, 1). The
    test ends where the smoothed loss passes 4 times its minimum, or a loss or gradient is not finite. Model, optimizers,
    averages, scaler, random generators and counters are afterwards as they were, also after an exception. Raises SeewhyError
    for a range upside down, for fewer than 10 updates, and where fewer than 10 went well.
    """
    _check(start, end, steps, beta)
    recipe, lr = state.recipe, float(state.recipe.lr)
    per_epoch, _ = equal_batches(len(data.train), recipe.batch_size)
    accumulate = 1 if wants_full_batch(state.optimizers) else recipe.accumulate
    batches = steps * accumulate
    growth = (end / start) ** (1 / (accumulate * (steps - 1)))  # from batch to batch
    first, beyond = start / growth ** (accumulate - 1), end * growth
    trial = replace(
        state,
        recipe=replace(
            recipe,
            epochs=(batches + 1) / per_epoch,  # a batch more than is used: at its end a training is evaluated
            schedule=f"exponential:start={first / lr!r},end={beyond / lr!r}",
            momentum_schedule="constant",
            eval_every=0,
        ),
        step=0,
        updates=0,
        epoch=0,
        spent=0.0,
    )
    rates: list[float] = []
    losses: list[float] = []
    ended = "at the end of the range"
    with unchanged(state):
        by_batch(state.optimizers)
        try:
            for rate, loss in islice(_updates(trial, data), steps):
                if _diverged(smoothed([*losses, loss], beta)):
                    ended = "diverged"
                    break
                rates.append(rate)
                losses.append(loss)
        except NotFinite:
            ended = "not finite"
    if len(losses) < FEWEST:
        raise SeewhyError(f"the loss was {ended} after {len(losses)} updates, fewer than {FEWEST}; begin lower than {start:g}")
    return RangeTest(tuple(rates), tuple(losses), tuple(smoothed(losses, beta)), ended)


@contextmanager
def unchanged(state: TrainState) -> Iterator[None]:
    """Put a training back, after the block, to what it was before it, its model's modes included."""
    kept = copy.deepcopy(state_dict(state))
    modes = {module: module.training for module in state.model.modules()}
    try:
        yield
    finally:
        load_state_dict(state, kept)
        for module, mode in modes.items():
            module.training = mode


def smoothed(losses: Sequence[float], beta: float) -> list[float]:
    """Exponential moving average, divided by 1 - beta^k (Kingma & Ba 2015, section 3), so that a constant stays one."""
    average, result = 0.0, []
    for count, loss in enumerate(losses, 1):
        average = beta * average + (1 - beta) * loss
        result.append(average / (1 - beta**count))
    return result


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Where the loss falls most per decade of the rate, before its minimum."""
    slopes = np.gradient(np.array(losses), np.log10(rates))
    return rates[int(slopes[: int(np.argmin(losses)) + 1].argmin())]


def minimum_tenth(rates: Sequence[float], losses: Sequence[float]) -> float:
    """A tenth of the rate with the smallest loss."""
    return rates[int(np.argmin(losses))] / 10


def valley(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Two thirds of the way down the longest valley: the longest subsequence of ever smaller losses."""
    longest, before = np.ones(len(losses), dtype=int), np.full(len(losses), -1)
    for place, loss in enumerate(losses):
        higher = np.flatnonzero(np.array(losses[:place]) > loss)
        if len(higher):
            before[place] = higher[longest[higher].argmax()]
            longest[place] = longest[before[place]] + 1
    down = [int(longest.argmax())]
    while before[down[-1]] >= 0:
        down.append(int(before[down[-1]]))
    return rates[down[-1] + round(2 / 3 * (down[0] - down[-1]))]


DEFAULT = "valley"
SUGGESTIONS: dict[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    "steepest": steepest,
    "minimum / 10": minimum_tenth,
    "valley": valley,
}


def _updates(trial: TrainState, data: Dataset) -> Iterator[tuple[float, float]]:
    """The peak learning rate of each update, and the mean loss over its batches."""
    group = trial.optimizers[0].param_groups[0]
    peak = group.get("peak_lr", group["lr"])
    updates, before = 0, (0.0, 0.0)
    for event in train(trial, data):
        if isinstance(event, EpochStats):  # the sums begin anew
            before = (0.0, 0.0)
        elif trial.updates > updates:
            loss, _, count = trial.totals.device_sums[:3].tolist()
            yield float(trial.recipe.lr) * event.lr / peak, (loss - before[0]) / (count - before[1])
            updates, before = trial.updates, (loss, count)


def _diverged(averages: Sequence[float]) -> bool:
    return averages[-1] > DIVERGED * min(averages)


def _check(start: float, end: float, steps: int, beta: float) -> None:
    if not 0 < start < end < math.inf:
        raise SeewhyError(f"a range test goes from a lower to a higher rate, both above 0, found {start:g} to {end:g}")
    if steps < FEWEST:
        raise SeewhyError(f"a range test needs at least {FEWEST} updates, found {steps}")
    if not 0 <= beta < 1:
        raise SeewhyError(f"beta must be in [0, 1), found {beta:g}")
