"""The learning rate range test: the loss at increasing learning rates, and suggestions."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from seewhy.errors import SeewhyError
from seewhy.train.loop import EpochStats, NonFiniteError, StepStats, train
from seewhy.train.optimizers import uses_full_batch
from seewhy.train.plan import TrainingPlan
from seewhy.train.schedules import Schedule, constant, exponential
from seewhy.train.state import TrainState, load_state_dict, state_dict
from seewhy.train.world import World
from seewhy.wording import counted

DIVERGENCE = 4.0  # the test ends when the smoothed loss exceeds this multiple of its minimum
MIN_UPDATES = 10  # fewer are too few for a slope
READ_EVERY = 10  # updates; reading losses waits for the device
SMOOTHING_WIDTH = 0.3  # standard deviation in decades, of the Gaussian of `centered`
SLOPE_WIDTH = 0.5  # standard deviation in decades, of the Gaussian of `steepest`
AT_THE_END = "at the end of the range"
DROP = 0.8  # fraction of the loss decrease at the default suggestion; see benchmarks/NOTES.md
MIN_DECREASE = 0.01  # fraction of the loss; a smaller decrease is noise
SAFE_DECREASE = 0.1  # fraction of the loss; after a smaller decrease, suggestions were too low


@dataclass(frozen=True)
class LRRangeTest:
    """The losses of a range test (Smith 2017), until the loss diverged."""

    lrs: tuple[float, ...]  # peak learning rate of each update, as in `Recipe.lr`
    losses: tuple[float, ...]  # mean over the batches of each update, in nats
    smoothed: tuple[float, ...]  # moving average of the losses, bias-corrected
    ended: str  # AT_THE_END, "diverged" or "not finite"

    def __repr__(self) -> str:
        low, high = self.lrs[0], self.lrs[-1]
        suggested = self.suggestions.get(DEFAULT_SUGGESTION)
        result = "no suggestion" if suggested is None else f"{DEFAULT_SUGGESTION} {suggested:.3g}"
        return (
            f"LRRangeTest({counted(len(self.lrs), 'update')} from {low:.2g} to {high:.2g}, "
            f"{self.ended}; {result})"
        )

    @property
    def suggestions(self) -> dict[str, float]:
        """A learning rate by each entry of LR_SUGGESTIONS; none if there is a `refusal`."""
        if self.refusal:
            return {}
        return {name: suggest(self) for name, suggest in LR_SUGGESTIONS.items()}

    @cached_property
    def centered(self) -> tuple[float, ...]:
        """The losses smoothed by a Gaussian over log lr; unlike `smoothed`, without lag."""
        decades = np.log10(self.lrs)
        weights = np.exp(-0.5 * ((decades[:, None] - decades) / SMOOTHING_WIDTH) ** 2)
        return tuple((weights @ np.array(self.losses) / weights.sum(1)).tolist())

    @property
    def decrease(self) -> tuple[float, float]:
        """The loss before and after its decrease.

        Before is the median over the first third of the updates up to the minimum of `centered`;
        after is this minimum.
        """
        lowest = int(np.argmin(self.centered))
        before = float(np.median(self.centered[: max(1, lowest // 3)]))
        return before, self.centered[lowest]

    @property
    def warning(self) -> str:
        """Why the suggestions may be too low; empty without a reason."""
        high, low = self.decrease
        if low > (1 - SAFE_DECREASE) * high:
            return (
                f"the loss decreased only from {high:.3g} to {low:.3g}, so suggestions may be too "
                "low"
            )
        if self._is_lowest_at_the_end:
            near_end = (
                loss
                for lr, loss in zip(self.lrs, self.centered, strict=True)
                if self._to_end(lr) < SLOPE_WIDTH
            )
            if next(near_end) - low > SAFE_DECREASE * (high - low):
                return (
                    "the loss still decreased at the end of the range, so suggestions may be too "
                    "low"
                )
        return ""

    @cached_property
    def refusal(self) -> str:
        """Why no learning rate can be suggested; empty if one can.

        The loss must decrease by at least 1%. The suggestion must not be the end of the test: an
        untested higher rate may be better, or the next one may diverge.
        """
        high, low = self.decrease
        tested = f"at learning rates from {self.lrs[0]:.2g} to {self.lrs[-1]:.2g}"
        if not low < (1 - MIN_DECREASE) * high:
            return (
                f"the loss decreased only from {high:.3g} to {low:.3g} {tested}; set lr, or test "
                "another range"
            )
        suggested = LR_SUGGESTIONS[DEFAULT_SUGGESTION](self)
        if self._is_lowest_at_the_end and self._to_end(suggested) < SMOOTHING_WIDTH:
            return (
                f"the loss still decreased at the end of the range, {tested}; set lr, or test up "
                "to a higher end or with more updates (`seewhy find-lr`)"
            )
        if suggested == self.lrs[-1]:
            return (
                f"the loss decreased until the test ended ({self.ended}), {tested}; set lr, or "
                "test with more updates (`seewhy find-lr`)"
            )
        return ""

    @property
    def _is_lowest_at_the_end(self) -> bool:
        lowest = int(np.argmin(self.centered))
        return self.ended == AT_THE_END and self._to_end(self.lrs[lowest]) < SMOOTHING_WIDTH

    def _to_end(self, lr: float) -> float:
        """Decades from a learning rate to the last one."""
        return math.log10(self.lrs[-1] / lr)

    @property
    def suggestion(self) -> float:
        """The default suggestion. Raises SeewhyError if there is a `refusal`."""
        if self.refusal:
            raise SeewhyError(self.refusal)
        return self.suggestions[DEFAULT_SUGGESTION]


def lr_range_test(
    state: TrainState,
    plan: TrainingPlan,
    start: float = 1e-7,
    end: float = 10.0,
    updates: int = 100,
    beta: float = 0.98,
) -> LRRangeTest:
    """Train with an exponentially increasing learning rate, then restore the state.

    Every parameter group keeps its ratio to the learning rate. Full-batch gradient descent is
    tested on single batches, and images are at full size. The test ends early if the smoothed loss
    exceeds 4 times its minimum, or if a loss or gradient is not finite.

    Args:
        state: The initial state, from `new_state` or in the middle of a run. Everything in it is
            restored, also after an exception: model, optimizers, averages, counters, and the global
            random generators.
        plan: The plan, from `make_plan`.
        start: First learning rate.
        end: Last learning rate.
        updates: Number of updates.
        beta: Smoothing factor of the loss, in [0, 1).

    Raises:
        SeewhyError: For an invalid range or number of updates, and if fewer than 10 updates have a
        finite loss.
    """
    _check_range(start, end, updates, beta)
    test_plan = _range_test_plan(plan, start, end, updates)
    lrs: list[float] = []
    losses: list[float] = []
    ended = AT_THE_END
    with preserving_state(state):
        state.model.zero_grad(set_to_none=True)  # of an unfinished update
        state.totals.reset()
        trial = replace(state, step=0, updates=0, epoch=0, epoch_seconds=0.0)
        try:
            for lr, loss in islice(_losses_by_update(trial, test_plan, updates), updates):
                if _diverged(exponential_average([*losses, loss], beta)):
                    ended = "diverged"
                    break
                lrs.append(lr)
                losses.append(loss)
        except NonFiniteError:
            ended = "not finite"
    if len(losses) < MIN_UPDATES:
        raise SeewhyError(
            f"the range test ended after {counted(len(losses), 'update')} ({ended}), fewer than "
            f"{MIN_UPDATES}; start below {start:g}"
        )
    return LRRangeTest(tuple(lrs), tuple(losses), tuple(exponential_average(losses, beta)), ended)


def _range_test_plan(plan: TrainingPlan, start: float, end: float, updates: int) -> TrainingPlan:
    """`plan` with `updates` updates and learning rates from `start` to `end`."""
    single_batches = uses_full_batch(plan.build_optimizers)
    test_plan = replace(
        plan,
        recipe=replace(plan.recipe, eval_every=0),
        momentum_schedule=Schedule(constant),
        resolution_schedule=Schedule(constant),  # the loss depends on the image size
        grad_accum_steps=1 if single_batches else plan.grad_accum_steps,
        world=World(),
    )
    steps = test_plan.steps_for(updates)
    # one extra step that is not taken, because an evaluation follows the last step of a run
    test_plan = replace(test_plan, steps=steps + 1)
    first_step_of_last_update = test_plan.update_steps(steps - 1).start
    beyond = start * (end / start) ** (steps / first_step_of_last_update)  # of that step
    return replace(
        test_plan,
        lr_schedule=Schedule(partial(exponential, start=start / plan.lr, end=beyond / plan.lr)),
    )


@contextmanager
def preserving_state(state: TrainState) -> Iterator[None]:
    """Restore a state, and the modes of its modules, after the block."""
    values = copy.deepcopy(state_dict(state))
    modes = {module: module.training for module in state.model.modules()}
    try:
        yield
    finally:
        load_state_dict(state, values)
        for module, mode in modes.items():
            module.training = mode


def exponential_average(losses: Sequence[float], beta: float) -> list[float]:
    """Bias-corrected exponential moving average (Kingma & Ba 2015, section 3)."""
    average, result = 0.0, []
    for count, loss in enumerate(losses, 1):
        average = beta * average + (1 - beta) * loss
        result.append(average / (1 - beta**count))
    return result


def drop_80(test: LRRangeTest) -> float:
    """The lowest learning rate at 80% of the total decrease of the centered loss."""
    high, low = test.decrease
    return next(
        lr
        for lr, loss in zip(test.lrs, test.centered, strict=True)
        if loss <= high - DROP * (high - low)
    )


def steepest(test: LRRangeTest) -> float:
    """The learning rate with the steepest decrease of the loss, before its minimum.

    The slopes are those of lines fitted to the losses by weighted least squares, with a Gaussian
    over log lr. The moving average has its steepest slope in the noise of its first updates.
    """
    x, y = np.log10(test.lrs), np.array(test.losses)
    weights = np.exp(-0.5 * ((x[:, None] - x) / SLOPE_WIDTH) ** 2)
    weights /= weights.sum(1, keepdims=True)
    mean_x, mean_y = weights @ x, weights @ y
    slopes = (weights @ (x * y) - mean_x * mean_y) / (weights @ x**2 - mean_x**2)
    return test.lrs[int(slopes[: int(np.argmin(test.centered)) + 1].argmin())]


def minimum_10(test: LRRangeTest) -> float:
    """A tenth of the learning rate with the smallest smoothed loss."""
    return test.lrs[int(np.argmin(test.smoothed))] / 10


def valley(test: LRRangeTest) -> float:
    """Two thirds down the longest valley: the longest decreasing subsequence of smoothed losses."""
    losses = np.array(test.smoothed)
    lengths, previous = np.ones(len(losses), dtype=int), np.full(len(losses), -1)
    for index, loss in enumerate(losses):
        higher = np.flatnonzero(losses[:index] > loss)
        if len(higher):
            previous[index] = higher[lengths[higher].argmax()]
            lengths[index] = lengths[previous[index]] + 1
    last = first = int(lengths.argmax())
    while previous[first] >= 0:
        first = int(previous[first])
    return test.lrs[first + round(2 / 3 * (last - first))]


DEFAULT_SUGGESTION = "drop-80"
LR_SUGGESTIONS: dict[str, Callable[[LRRangeTest], float]] = {
    DEFAULT_SUGGESTION: drop_80,
    "steepest": steepest,
    "minimum-10": minimum_10,
    "valley": valley,
}


def _losses_by_update(
    trial: TrainState, plan: TrainingPlan, count: int
) -> Iterator[tuple[float, float]]:
    """The peak learning rate and mean loss of each of `count` updates, read in blocks."""
    group = trial.optimizers[0].param_groups[0]
    peak_lr = group.get("peak_lr", group["lr"])
    updates, lrs, sums = 0, list[float](), [trial.totals.device_sums.clone()]
    try:
        for event in train(trial, plan):
            ends_epoch = isinstance(event, EpochStats)
            if trial.updates > updates and isinstance(event, StepStats):
                updates = trial.updates
                lrs.append(plan.lr * event.lr / peak_lr)
                sums.append(trial.totals.device_sums.clone())
            if len(lrs) == READ_EVERY or updates == count or ends_epoch:
                yield from _mean_losses(lrs, sums)
                # each epoch restarts the sums
                lrs, sums = [], [trial.totals.device_sums.clone()]
    except NonFiniteError:
        yield from _mean_losses(lrs, sums)
        raise


def _mean_losses(lrs: Sequence[float], sums: Sequence[Tensor]) -> Iterator[tuple[float, float]]:
    """Each learning rate with the mean loss between two sums, up to the first non-finite one."""
    differences = torch.stack(list(sums)).diff(dim=0).tolist()
    for lr, (loss, weight, *_) in zip(lrs, differences, strict=True):
        if not math.isfinite(loss):
            return
        yield lr, loss / weight


def _diverged(averages: Sequence[float]) -> bool:
    return averages[-1] > DIVERGENCE * min(averages)


def _check_range(start: float, end: float, updates: int, beta: float) -> None:
    if not 0 < start < end < math.inf:
        raise SeewhyError(
            f"a range test needs 0 < start < end, found start {start:g} and end {end:g}"
        )
    if updates < MIN_UPDATES:
        raise SeewhyError(f"a range test needs at least {MIN_UPDATES} updates, found {updates}")
    if not 0 <= beta < 1:
        raise SeewhyError(f"beta must be in [0, 1), found {beta:g}")
