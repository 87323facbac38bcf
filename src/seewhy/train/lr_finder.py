"""The learning-rate range test: the loss while the rate grows from update to update, and the rates that it suggests."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.train.batches import equal_batches
from seewhy.train.loop import EpochStats, NotFinite, train
from seewhy.train.optimizers import disable_full_batch, needs_full_batch
from seewhy.train.state import TrainState, load_state_dict, state_dict

DIVERGED = 4.0  # times the smallest smoothed loss: from there on nothing is learned from going on
FEWEST = 10  # updates from which a slope can be told
BLOCK = 10  # updates whose losses are read at once
WIDTH = 0.3  # decades of the rate, of the Gaussian that smooths to both sides
FALL = 0.8  # share of the loss's fall after which the rate is high enough; chosen on trainings, see benchmarks/NOTES.md
LEAST_FALL = 0.01  # share of the loss, below which a fall is noise
SURE_FALL = 0.1  # below which suggestions were too low, see there


@dataclass(frozen=True)
class LRRangeTest:
    """The loss at each learning rate of a range test (Smith 2017), as far as it did not diverge."""

    rates: tuple[float, ...]  # the peak learning rate of each update, as `Recipe.lr` would set it
    losses: tuple[float, ...]  # mean over the batches of that update, in nats
    smoothed: tuple[float, ...]  # exponentially, without the bias of the start
    ended: str  # "at the end of the range", "diverged" or "not finite"

    @property
    def suggestions(self) -> dict[str, float]:
        """A learning rate by each entry of SUGGESTIONS."""
        return {name: suggest(self) for name, suggest in LR_SUGGESTIONS.items()}

    @cached_property
    def centered(self) -> tuple[float, ...]:
        """The losses smoothed to both sides, by a Gaussian of 0.3 decades: unlike a running average this does not lag behind."""
        places = np.log10(self.rates)
        weights = np.exp(-0.5 * ((places[:, None] - places) / WIDTH) ** 2)
        return tuple((weights @ np.array(self.losses) / weights.sum(1)).tolist())

    @property
    def fall(self) -> tuple[float, float]:
        """From where the centered loss falls, the median of the first third of what comes before its minimum, and that minimum."""
        curve = self.centered
        lowest = int(np.argmin(curve))
        return float(np.median(curve[: max(1, lowest // 3)])), curve[lowest]

    @property
    def doubt(self) -> str:
        """Why the suggestions may be too low; empty where the loss fell by a tenth or more."""
        high, low = self.fall
        return (
            ""
            if low <= (1 - SURE_FALL) * high
            else f"the loss fell from {high:.3g} to {low:.3g} only, so rates may be too low"
        )

    @property
    def suggestion(self) -> float:
        """The one to train at. Raises SeewhyError where the loss hardly fell at any rate: there is nothing to choose by."""
        high, low = self.fall
        if not low < (1 - LEAST_FALL) * high:
            tried = f"{self.rates[0]:.2g} to {self.rates[-1]:.2g}"
            raise SeewhyError(
                f"the loss fell from {high:.3g} to {low:.3g} only at rates from {tried}; give lr, or try others"
            )
        return self.suggestions[DEFAULT_SUGGESTION]


def lr_range_test(
    state: TrainState,
    data: Dataset,
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
    beta: float = 0.98,
) -> LRRangeTest:
    """Train for `steps` updates while the learning rate grows exponentially from `start` to `end`, and forget it all.

    The rates are those of `Recipe.lr`; every parameter group keeps its ratio to it. Full-batch gradient descent, which would take
    an epoch for each update, is tried on single batches, and images have their full size. Losses are smoothed by `beta` in
    [0, 1). The test ends where the smoothed loss passes 4 times its minimum, or a loss or gradient is not finite. Model,
    optimizers, averages, scaler, random generators and counters are afterwards as they were, also after an exception. Raises
    SeewhyError for a range upside down, for fewer than 10 updates, and where fewer than 10 went well.
    """
    _check(start, end, steps, beta)
    recipe, lr = state.recipe, float(state.recipe.lr)
    per_epoch, _ = equal_batches(len(data.train), recipe.batch_size)
    accumulate = 1 if needs_full_batch(state.optimizers) else recipe.accumulate
    epochs, rest = divmod(
        steps, -(-per_epoch // accumulate)
    )  # an epoch's last update may be of fewer batches
    batches = epochs * per_epoch + min(rest * accumulate, per_epoch)
    last = (batches - 1) - (
        batches - 1
    ) % per_epoch % accumulate  # the batch with which the last update begins
    beyond = start * (end / start) ** (batches / last)  # at the batch after it
    trial = replace(
        state,
        recipe=replace(
            recipe,
            epochs=(batches + 1)
            / per_epoch,  # a batch more than is used: at its end a training is evaluated
            accumulate=accumulate,
            schedule=f"exponential:start={start / lr!r},end={beyond / lr!r}",
            momentum_schedule="constant",
            resolution="constant",  # or the loss would change with the size of the images
            lookahead=min(recipe.lookahead, steps),
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
    with preserving_state(state):
        disable_full_batch(state.optimizers)
        state.model.zero_grad(set_to_none=True)  # of an update that is half done
        try:
            for rate, loss in islice(_updates(trial, data, steps), steps):
                if _diverged(exponential_average([*losses, loss], beta)):
                    ended = "diverged"
                    break
                rates.append(rate)
                losses.append(loss)
        except NotFinite:
            ended = "not finite"
    if len(losses) < FEWEST:
        raise SeewhyError(
            f"the range test ended after {len(losses)} updates ({ended}), fewer than {FEWEST}; begin lower than {start:g}"
        )
    return LRRangeTest(tuple(rates), tuple(losses), tuple(exponential_average(losses, beta)), ended)


@contextmanager
def preserving_state(state: TrainState) -> Iterator[None]:
    """Put a training back, after the block, to what it was before it, its model's modes included."""
    kept = copy.deepcopy(state_dict(state))
    modes = {module: module.training for module in state.model.modules()}
    try:
        yield
    finally:
        load_state_dict(state, kept)
        for module, mode in modes.items():
            module.training = mode


def exponential_average(losses: Sequence[float], beta: float) -> list[float]:
    """Exponential moving average, divided by 1 - beta^k (Kingma & Ba 2015, section 3), so that a constant stays one."""
    average, result = 0.0, []
    for count, loss in enumerate(losses, 1):
        average = beta * average + (1 - beta) * loss
        result.append(average / (1 - beta**count))
    return result


def most_of_the_fall(test: LRRangeTest) -> float:
    """The lowest rate at which the centered loss has done four fifths of its fall."""
    high, low = test.fall
    return next(
        rate
        for rate, loss in zip(test.rates, test.centered, strict=True)
        if loss <= high - FALL * (high - low)
    )


def steepest(test: LRRangeTest) -> float:
    """Where the smoothed loss falls most per decade of the rate, before its minimum."""
    slopes = np.gradient(np.array(test.smoothed), np.log10(test.rates))
    return test.rates[int(slopes[: int(np.argmin(test.smoothed)) + 1].argmin())]


def minimum_tenth(test: LRRangeTest) -> float:
    """A tenth of the rate with the smallest smoothed loss."""
    return test.rates[int(np.argmin(test.smoothed))] / 10


def valley(test: LRRangeTest) -> float:
    """Two thirds of the way down the longest valley: the longest subsequence of ever smaller smoothed losses."""
    losses = np.array(test.smoothed)
    longest, before = np.ones(len(losses), dtype=int), np.full(len(losses), -1)
    for place, loss in enumerate(losses):
        higher = np.flatnonzero(losses[:place] > loss)
        if len(higher):
            before[place] = higher[longest[higher].argmax()]
            longest[place] = longest[before[place]] + 1
    down = [int(longest.argmax())]
    while before[down[-1]] >= 0:
        down.append(int(before[down[-1]]))
    return test.rates[down[-1] + round(2 / 3 * (down[0] - down[-1]))]


DEFAULT_SUGGESTION = "80% of the fall"
LR_SUGGESTIONS: dict[str, Callable[[LRRangeTest], float]] = {
    DEFAULT_SUGGESTION: most_of_the_fall,
    "steepest": steepest,
    "minimum / 10": minimum_tenth,
    "valley": valley,
}


def _updates(trial: TrainState, data: Dataset, count: int) -> Iterator[tuple[float, float]]:
    """The peak learning rate of each of `count` updates, and the mean loss over its batches.

    The sums are read ten at a time, because reading waits for the device.
    """
    group = trial.optimizers[0].param_groups[0]
    peak = group.get("peak_lr", group["lr"])
    updates, rates, sums = 0, list[float](), [trial.totals.device_sums.clone()]
    try:
        for event in train(trial, data):
            if trial.updates > updates and not isinstance(event, EpochStats):
                updates = trial.updates
                rates.append(float(trial.recipe.lr) * event.lr / peak)
                sums.append(trial.totals.device_sums.clone())
            if len(rates) == BLOCK or updates == count or isinstance(event, EpochStats):
                yield from _losses(rates, sums)
                rates, sums = [], [trial.totals.device_sums.clone()]  # an epoch begins them anew
    except NotFinite:
        yield from _losses(rates, sums)
        raise


def _losses(rates: Sequence[float], sums: Sequence[Tensor]) -> Iterator[tuple[float, float]]:
    """Each rate with the mean loss between the sums before it and after it, as far as those are finite."""
    for rate, (loss, _, images, _) in zip(
        rates, torch.stack(list(sums)).diff(dim=0).tolist(), strict=True
    ):
        if not math.isfinite(loss):
            return
        yield rate, loss / images


def _diverged(averages: Sequence[float]) -> bool:
    return averages[-1] > DIVERGED * min(averages)


def _check(start: float, end: float, steps: int, beta: float) -> None:
    if not 0 < start < end < math.inf:
        raise SeewhyError(
            f"a range test goes from a lower to a higher rate, both above 0, found {start:g} to {end:g}"
        )
    if steps < FEWEST:
        raise SeewhyError(f"a range test needs at least {FEWEST} updates, found {steps}")
    if not 0 <= beta < 1:
        raise SeewhyError(f"beta must be in [0, 1), found {beta:g}")
