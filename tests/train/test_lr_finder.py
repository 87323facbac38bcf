"""The range test: its rates, its smoothing, its end, and that nothing is left of it."""

import copy
import math
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from seewhy.data.batch import Batch
from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.train import loop
from seewhy.train.lr_finder import (
    DEFAULT_SUGGESTION,
    LR_SUGGESTIONS,
    LRRangeTest,
    exponential_average,
    lr_range_test,
    minimum_10,
    steepest,
    valley,
)
from seewhy.train.plan import TrainingPlan, make_plan
from seewhy.train.recipe import Recipe
from seewhy.train.state import TrainState, new_state, state_dict

RECIPE = Recipe(
    name="small",
    model="speednet:width=0.125",
    epochs=2,
    batch_size=40,
    lr=0.2,
    optimizer="sgd:momentum=0.9",
    precision="fp32",
)


def begin(data: Dataset, recipe: Recipe = RECIPE) -> tuple[TrainState, TrainingPlan]:
    torch.manual_seed(0)
    plan = make_plan(recipe, data, "cpu")
    return new_state(plan), plan


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return (
            isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        )
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("optimizer", ["sgd", "sgd:bias_lr_factor=8", "muon", "adamw"])
@pytest.mark.train
def test_range_test_keeps_the_ratios_of_groups(
    data: Dataset, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[float]] = []
    true = loop.set_lr_and_momentum

    def spy(optimizers: list[torch.optim.Optimizer], *factors: float) -> None:
        true(optimizers, *factors)
        seen.append([group["lr"] for each in optimizers for group in each.param_groups])

    state, plan = begin(data, replace(RECIPE, optimizer=optimizer))
    ratios = [group["lr"] / 0.2 for each in state.optimizers for group in each.param_groups]
    monkeypatch.setattr(loop, "set_lr_and_momentum", spy)
    result = lr_range_test(state, plan, 1e-6, 1e-2, 20)
    assert result.ended == "at the end of the range"
    assert result.lrs == pytest.approx([1e-6 * 1e4 ** (index / 19) for index in range(20)])
    for rates, rate in zip(seen, result.lrs, strict=False):
        assert rates == pytest.approx([rate * ratio for ratio in ratios])


@pytest.mark.train
def test_range_test_losses_are_training_losses(data: Dataset) -> None:
    """At a learning rate near 0 the weights are constant: a run has the mean of these losses."""
    recipe = replace(RECIPE, augment=())
    per_epoch = math.ceil(len(data.train) / 40)
    result = lr_range_test(*begin(data, recipe), 1e-12, 2e-12, max(10, 2 * per_epoch))
    still = replace(recipe, lr=1e-12, epochs=1, schedule="constant")
    rows = [
        event for event in loop.train(*begin(data, still)) if isinstance(event, loop.EpochStats)
    ]
    assert np.mean(result.losses[:per_epoch]) == pytest.approx(rows[0].train_loss, rel=1e-4)


@pytest.mark.parametrize("grad_accum_steps", [1, 2])
@pytest.mark.train
def test_range_test_has_one_point_per_update(data: Dataset, grad_accum_steps: int) -> None:
    result = lr_range_test(
        *begin(data, replace(RECIPE, grad_accum_steps=grad_accum_steps)), 1e-6, 1e-3, 12
    )
    assert len(result.lrs) == len(result.losses) == len(result.smoothed) == 12
    assert all(low < high for low, high in pairwise(result.lrs))


@pytest.mark.train
def test_range_test_averages_the_batches_of_an_update(data: Dataset) -> None:
    """At a learning rate near 0 an update has the mean loss of its three batches."""
    recipe = replace(RECIPE, augment=(), epochs=5)
    alone = lr_range_test(*begin(data, recipe), 1e-12, 2e-12, 30).losses
    result = lr_range_test(
        *begin(data, replace(recipe, grad_accum_steps=3)), 1e-12, 2e-12, 10
    ).losses
    assert result == pytest.approx(np.reshape(alone, (10, 3)).mean(1), rel=1e-5)


def test_range_test_within_an_update_forgets_its_weights(data: Dataset) -> None:
    """The first batch of an unfinished update has no share in the gradients of the test."""
    uneven = replace(data, train=data.train.take(torch.arange(240)[data.train.labels > 0][4:]))
    recipe = replace(RECIPE, augment=(), grad_accum_steps=2, class_weights=True, optimizer="sgd")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    plan = make_plan(recipe, uneven, "cpu")
    expected = lr_range_test(new_state(plan, copy.deepcopy(model)), plan, 1e-3, 1, 10).losses
    state = new_state(plan, model)
    next(loop.train(state, plan))
    assert lr_range_test(state, plan, 1e-3, 1, 10).losses == expected


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.train
def test_range_test_lrs_do_not_depend_on_accumulation(data: Dataset, optimizer: str) -> None:
    once, thrice = (
        lr_range_test(
            *begin(data, replace(RECIPE, optimizer=optimizer, grad_accum_steps=count)),
            1e-6,
            1e-2,
            12,
        )
        for count in (1, 3)
    )
    assert thrice.lrs == pytest.approx(once.lrs)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.train
def test_range_test_of_gd_uses_single_batches(data: Dataset, fails: bool) -> None:
    """One update per batch: 20 points from 20 batches. Then full-batch mode is restored."""
    calls = 0

    def counts(batch: Batch, generator: torch.Generator) -> Batch:
        nonlocal calls
        calls += 1
        if fails and calls > 15:
            raise ZeroDivisionError
        return batch

    state, plan = begin(
        data, replace(RECIPE, optimizer="gd:momentum=0.5", augment=(counts,), grad_accum_steps=2)
    )
    kept = copy.deepcopy(state_dict(state))
    if fails:
        with pytest.raises(ZeroDivisionError):
            lr_range_test(state, plan, 1e-4, 1e-1, 20)
    else:
        result = lr_range_test(state, plan, 1e-4, 1e-1, 20)
        assert result.lrs == pytest.approx([1e-4 * 1e3 ** (index / 19) for index in range(20)])
        assert calls in (20, 21)  # the last one is only looked at
        likewise = replace(RECIPE, optimizer="sgd:momentum=0.5", augment=())
        assert result.losses == lr_range_test(*begin(data, likewise), 1e-4, 1e-1, 20).losses
    assert plan.grad_accum_steps == plan.steps_per_epoch
    assert same(state_dict(state), kept)


@pytest.mark.train
def test_range_test_restores_the_loss_scale(data: Dataset) -> None:
    state, plan = begin(data, replace(RECIPE, precision="fp16"))
    state.scaler = torch.amp.GradScaler(
        "cpu", init_scale=2.0**12, growth_interval=5, enabled=True
    )  # grows during the test
    training = loop.train(state, plan)
    for _ in range(3):
        next(training)
    training.close()
    kept = copy.deepcopy(state_dict(state))
    assert kept["scaler"]["_growth_tracker"] == 3
    scales = []

    def looks(batch: Batch, generator: torch.Generator) -> Batch:
        scales.append(state.scaler.get_scale())
        return batch

    plan = make_plan(replace(plan.recipe, augment=(looks,)), data, "cpu")
    lr_range_test(state, plan, 1e-6, 1e-3, 20)
    assert max(scales) > kept["scaler"]["scale"]
    assert state.scaler.state_dict() == kept["scaler"]
    assert same(state_dict(state), kept)


@pytest.mark.train
def test_suggestion_is_the_default_one(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    result = lr_range_test(*begin(data), 1e-5, 30.0, 30)
    assert result.suggestion == LR_SUGGESTIONS[DEFAULT_SUGGESTION](result)
    assert result.suggestions == {name: suggest(result) for name, suggest in LR_SUGGESTIONS.items()}
    monkeypatch.setitem(LR_SUGGESTIONS, DEFAULT_SUGGESTION, lambda test: 0.125)
    assert result.suggestion == 0.125


def test_exponential_average_is_a_weighted_mean() -> None:
    losses, beta = [3.0, 1.0, 4.0, 1.0, 5.0], 0.98
    for count, value in enumerate(exponential_average(losses, beta), 1):
        weights = [beta ** (count - index) for index in range(1, count + 1)]
        assert value == pytest.approx(np.average(losses[:count], weights=weights))
    assert exponential_average([0.7] * 200, 0.98) == pytest.approx([0.7] * 200)


@pytest.mark.train
def test_range_test_ends_at_divergence(data: Dataset) -> None:
    result = lr_range_test(*begin(data), 1e-4, 1e6, 60, beta=0.0)
    assert result.ended == "diverged"
    assert len(result.lrs) < 60
    least = list(np.minimum.accumulate(result.smoothed))
    assert all(loss <= 4 * low for loss, low in zip(result.smoothed, least, strict=True))


@pytest.mark.train
def test_range_test_ends_at_a_nonfinite_loss(data: Dataset) -> None:
    calls = 0

    def breaks(batch: Batch, generator: torch.Generator) -> Batch:
        nonlocal calls
        calls += 1
        return batch if calls <= 15 else replace(batch, labels=batch.labels * math.nan)

    result = lr_range_test(*begin(data, replace(RECIPE, augment=(breaks,))), 1e-5, 1.0, 40)
    assert result.ended == "not finite"
    assert len(result.lrs) == 15
    assert np.isfinite(result.losses).all()
    assert all(result.lrs[0] / 10 <= rate <= result.lrs[-1] for rate in result.suggestions.values())


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.train
def test_range_test_restores_everything(data: Dataset, fails: bool) -> None:
    """Weights, BatchNorm, optimizers, averages, counters and every generator, in mid-run."""
    calls = 0

    def sometimes(batch: Batch, generator: torch.Generator) -> Batch:
        nonlocal calls
        calls += 1
        torch.rand(1)
        if fails and calls > 20:
            raise ZeroDivisionError
        return batch

    recipe = replace(RECIPE, ema=0.9, lookahead=2, augment=("crop:1", sometimes), epochs=4)
    state, plan = begin(data, recipe)
    training = loop.train(state, plan)
    for _ in range(4):
        next(training)
    training.close()
    state.model.eval()
    kept = copy.deepcopy(state_dict(state))
    trained = [parameter.requires_grad for parameter in state.model.parameters()]
    if fails:
        with pytest.raises(ZeroDivisionError):
            lr_range_test(state, plan, 1e-4, 1.0, 30)
    else:
        lr_range_test(state, plan, 1e-4, 1.0, 12)
    assert same(state_dict(state), kept)
    assert not any(module.training for module in state.model.modules())
    assert [parameter.requires_grad for parameter in state.model.parameters()] == trained


@pytest.mark.parametrize("grad_accum_steps", [2, 4, 8])
@pytest.mark.train
def test_range_test_covers_the_range_with_accumulation(
    data: Dataset, grad_accum_steps: int
) -> None:
    recipe = replace(
        RECIPE,
        batch_size=35,
        grad_accum_steps=grad_accum_steps,
        resolution="linear:start=0.5,end=1,warmup=0.5",
        lookahead=50,
        epochs=60,
    )
    assert (
        len(data.train) % 35 > 0
    )  # the last update of an epoch is a smaller one for most of these
    result = lr_range_test(*begin(data, recipe), 1e-6, 1e-3, 20)
    assert len(result.lrs) == 20
    assert result.lrs[0] == pytest.approx(1e-6)
    assert result.lrs[-1] == pytest.approx(1e-3)
    assert all(before < after for before, after in pairwise(result.lrs))


def a_test(rates: np.ndarray, losses: np.ndarray) -> LRRangeTest:
    return LRRangeTest(
        tuple(rates.tolist()),
        tuple(losses.tolist()),
        tuple(losses.tolist()),
        "at the end of the range",
    )


@pytest.mark.parametrize("steps", [100, 400])
def test_drop_80_is_robust_to_noise(steps: int) -> None:
    rates = np.logspace(-6, 1, steps)
    decades = np.log10(rates)
    losses = (
        2.3 - 2 / (1 + np.exp(-3 * (decades + 2))) + 50 * np.maximum(decades, 0) ** 2
    )  # falls by 80% at log 4 / 3 decades past 0.01
    noisy = losses + 0.05 * np.random.default_rng(0).standard_normal(steps)
    for each in (losses, noisy):
        assert math.log10(a_test(rates, each).suggestion) == pytest.approx(
            -2 + math.log(4) / 3, abs=0.2
        )


def test_suggestion_needs_a_fall() -> None:
    rates = np.logspace(-6, 1, 50)
    with pytest.raises(
        SeewhyError,
        match=r"decreased only from 2.3\d* to 2.3\d* at learning rates from 1e-06 to 10; set lr",
    ):
        _ = a_test(rates, np.linspace(2.3, 3, 50)).suggestion
    with pytest.raises(SeewhyError, match=r"decreased only from 2 to 1.99"):
        _ = a_test(rates, np.linspace(2, 1.99, 50)).suggestion


def falling(decades: np.ndarray) -> np.ndarray:
    """A loss that falls most at a learning rate of 10, from 2.3 to 0.3."""
    losses: np.ndarray = 2.3 - 2 / (1 + np.exp(-4 * (decades - 1)))
    return losses


@pytest.mark.parametrize("updates", [10, 20, 100])
def test_suggestion_is_not_the_end_of_a_falling_loss(updates: int) -> None:
    decades = np.linspace(-7, 1, updates)
    test = a_test(10**decades, falling(decades))
    with pytest.raises(
        SeewhyError,
        match="the loss still decreased at the end of the range, at learning rates from 1e-07 to "
        "10; set lr, or test up to a higher end",
    ):
        _ = test.suggestion
    assert test.suggestions == {}
    assert "no suggestion" in repr(test)


def test_suggestion_is_not_the_last_update_before_a_failure() -> None:
    decades = np.linspace(-7, 1, 10)
    test = replace(a_test(10**decades, falling(decades)), ended="not finite")
    with pytest.raises(SeewhyError, match=r"until the test ended \(not finite\), .*more updates"):
        _ = test.suggestion


def test_suggestion_within_a_higher_range() -> None:
    """The same loss, tested to a higher end, where it rises."""
    decades = np.linspace(-7, 2, 100)
    rise = 20 * np.maximum(decades - 1.3, 0) ** 2
    test = a_test(10**decades, falling(decades) + rise)
    assert (test.refusal, test.warning) == ("", "")
    assert 0.8 < math.log10(test.suggestion) < 1.3


def test_warning_if_the_loss_falls_slowly_to_the_end() -> None:
    """By the same amount per decade, over two decades; then further, or no longer."""
    decades = np.linspace(-5, 1, 100)
    losses = 2 - 0.5 * np.clip(decades + 1, 0, 2)
    test = a_test(10**decades, losses)
    assert math.log10(test.suggestion) == pytest.approx(0.6, abs=0.15)
    assert test.warning == (
        "the loss still decreased at the end of the range, so suggestions may be too low"
    )
    assert a_test(10**decades, np.maximum(losses, 1.4)).warning == ""


def test_steepest_and_minimum_10() -> None:
    rates = np.logspace(-6, 1, 400)
    decades = np.log10(rates)
    losses = (
        2.3 - 2 / (1 + np.exp(-6 * (decades + 2))) + 50 * np.maximum(decades, 0) ** 2
    )  # falls most at 0.01, then rises
    assert math.log10(steepest(a_test(rates, losses))) == pytest.approx(-2, abs=0.02)
    assert minimum_10(a_test(rates, losses)) == pytest.approx(rates[losses.argmin()] / 10)


@pytest.mark.parametrize("seed", range(5))
def test_steepest_ignores_the_noise_of_the_first_updates(seed: int) -> None:
    """90 updates from 1e-6 to 1 with the noise of batches of 32 images, as Adam has it."""
    rates = np.logspace(-6, 0, 90)
    decades = np.log10(rates)
    losses = 2.4 - 0.3 / (1 + np.exp(-4 * (decades + 3))) + np.maximum(decades + 2, 0) ** 2
    noisy = losses + 0.08 * np.random.default_rng(seed).standard_normal(90)
    test = a_test(rates, noisy)
    averaged = replace(test, smoothed=tuple(exponential_average(noisy.tolist(), 0.98)))
    assert math.log10(steepest(averaged)) == pytest.approx(-3, abs=1)


@pytest.mark.parametrize("seed", range(8))
def test_valley_is_the_longest_descent(seed: int) -> None:
    losses = torch.rand(11, generator=torch.Generator().manual_seed(seed)).tolist()
    rates = [10.0**index for index in range(11)]

    def falls(indices: tuple[int, ...]) -> bool:
        return all(losses[a] > losses[b] for a, b in pairwise(indices))

    ways = [
        indices
        for size in range(1, 12)
        for indices in combinations(range(11), size)
        if falls(indices)
    ]
    longest = max(map(len, ways))
    possible = {
        rates[indices[0] + round(2 / 3 * (indices[-1] - indices[0]))]
        for indices in ways
        if len(indices) == longest
    }
    assert valley(a_test(np.array(rates), np.array(losses))) in possible


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"start": 1.0, "end": 0.1},
            "0 < start < end, found start 1 and end 0.1",
        ),
        ({"start": 0.0}, "0 < start < end, found start 0 and end 10"),
        ({"end": math.inf}, "found start 1e-07 and end inf"),
        ({"updates": 9}, "at least 10 updates, found 9"),
        ({"beta": 1.0}, "beta must be in [0, 1), found 1"),
        ({"start": 1e9, "end": 1e30}, "start below 1e+09"),
    ],
)
def test_range_test_rejects_bad_arguments(
    data: Dataset, arguments: dict[str, float], message: str
) -> None:
    with pytest.raises(SeewhyError) as raised:
        lr_range_test(*begin(data), **arguments)  # type: ignore[arg-type]
    assert message in str(raised.value)
