"""Statistics of experiments against scipy, brute force and simulated experiments."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from seewhy.experiments.experiment import Experiment
from seewhy.experiments.statistics import (
    METRICS,
    metric_summary,
    pairwise_tests,
    rank_recipes,
    summarize,
)
from seewhy.significance import holm

Make = Callable[..., Experiment]


def drawn(
    rng: np.random.Generator, recipes: int, seeds: int, spread: float = 0.02
) -> dict[str, dict[int, float]]:
    """Values of recipes that are equal in truth, some of their luck shared by the seed."""
    shared = rng.normal(0.5, 0.05, seeds)
    return {
        f"r{place}": dict(enumerate(shared + rng.normal(0, spread, seeds)))
        for place in range(recipes)
    }


def column(values: Mapping[int, float]) -> list[float]:
    return [values[seed] for seed in sorted(values)]


def closed(p_values: Sequence[float]) -> list[float]:
    """The largest of all sets' corrected p-values, over the sets that hold it, for each p-value."""
    places = range(len(p_values))
    sets = list(
        chain.from_iterable(combinations(places, size) for size in range(1, len(places) + 1))
    )
    return [
        max(
            min(1.0, len(chosen) * min(p_values[place] for place in chosen))
            for chosen in sets
            if mine in chosen
        )
        for mine in places
    ]


@pytest.mark.parametrize("count", range(1, 8))
@pytest.mark.parametrize("seed", range(3))
def test_holm_is_the_closed_test_of_bonferroni(count: int, seed: int) -> None:
    """Holm's method is the closed test (Marcus et al. 1976) of Bonferroni tests of subsets."""
    p_values = (
        np.random.default_rng(seed).uniform(0, 0.5, count).round(2).tolist()
    )  # rounded: some are equal
    assert holm(p_values) == pytest.approx(closed(p_values))


def test_holm_of_none_and_of_one() -> None:
    assert holm([]) == []
    assert holm([0.3]) == [0.3]


def test_metric_summary_equals_scipy(make: Make) -> None:
    values = drawn(np.random.default_rng(0), 1, 6)["r0"]
    found = metric_summary(make({"a": values}), "a", "test_nll")
    low, high = stats.t.interval(
        0.95, 5, loc=np.mean(column(values)), scale=stats.sem(column(values))
    )
    assert found.values == tuple(column(values))
    assert (found.mean, found.std) == pytest.approx(
        (np.mean(column(values)), np.std(column(values), ddof=1))
    )
    assert found.interval == pytest.approx((low, high))


def test_metric_summary_of_one_value_and_of_none(make: Make) -> None:
    experiment = make({"a": {0: 0.4}, "b": {0: None}})
    one, none = (
        metric_summary(experiment, "a", "test_nll"),
        metric_summary(experiment, "b", "test_nll"),
    )
    assert one.mean == 0.4
    assert all(map(math.isnan, (one.std, *one.interval, none.mean, none.std, *none.interval)))
    assert none.values == ()


def test_pairwise_tests_equal_scipy(make: Make) -> None:
    values = drawn(np.random.default_rng(1), 4, 5)
    found = pairwise_tests(make(values), "test_nll")
    assert {frozenset((row.better, row.worse)) for row in found} == set(
        map(frozenset, combinations(values, 2))
    )
    assert len(found) == 6
    for row in found:
        expected = stats.ttest_rel(column(values[row.better]), column(values[row.worse]))
        assert row.p_value == pytest.approx(expected.pvalue)
        assert row.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
        assert row.difference == pytest.approx(
            np.mean(column(values[row.better])) - np.mean(column(values[row.worse]))
        )
        assert row.difference <= 0  # the better one loses less
        assert row.seeds == 5
    assert [row.adjusted_p_value for row in found] == pytest.approx(
        holm([row.p_value for row in found])
    )
    assert [row.p_value for row in found] == sorted(row.p_value for row in found)


@pytest.mark.parametrize("metric", METRICS)
def test_rank_recipes_puts_the_best_first(metric: str, make: Make) -> None:
    values = {
        "middle": {0: 0.2, 1: 0.4},
        "high": {0: 0.5, 1: 0.7},
        "none": {0: None, 1: None},
        "low": {0: 0.1, 1: None},
    }
    order = ["low", "middle", "high"]
    if metric == "accuracy":
        order.reverse()
    assert [row.recipe for row in rank_recipes(make(values, metric), metric)] == order
    first = pairwise_tests(make(values, metric), metric)
    assert all(order.index(row.better) < order.index(row.worse) for row in first)
    assert all((row.difference > 0) == (metric == "accuracy") for row in first)


def test_pairwise_tests_pair_common_seeds(make: Make) -> None:
    values: dict[str, dict[int, Any]] = {
        "a": {0: 9.0, 1: 0.10, 2: 0.12, 3: 0.11, 4: None},
        "b": {0: None, 1: 0.20, 2: 0.23, 3: 0.22, 4: 0.9},
    }
    (row,) = pairwise_tests(make(values), "test_nll")
    ours, theirs = ([values[name][seed] for seed in (1, 2, 3)] for name in (row.better, row.worse))
    assert row.seeds == 3
    assert row.p_value == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert row.difference == pytest.approx(np.mean(ours) - np.mean(theirs))


def test_pairwise_tests_order_by_common_seeds(make: Make) -> None:
    """b has the better mean, because it failed on two hard seeds; on common seeds a is better."""
    values: dict[str, dict[int, Any]] = {
        "a": {0: 0.70, 1: 0.71, 2: 0.90, 3: 0.905, 4: 0.902},
        "b": {0: None, 1: None, 2: 0.88, 3: 0.886, 4: 0.881},
    }
    experiment = make(values, "accuracy", images=100_000)
    (row,) = pairwise_tests(experiment, "accuracy")
    assert (row.better, row.worse, row.seeds, row.significant) == ("a", "b", 3, True)
    assert row.difference == pytest.approx((0.02 + 0.019 + 0.021) / 3)
    assert row.interval[0] > 0
    assert summarize(experiment, "accuracy") == (
        "b has the highest test accuracy: 88.23 ± 0.32% (3 of 5 seeds). "
        "It is significantly worse than a on the seeds that both finished."
    )


def test_pairwise_tests_ignore_nan(make: Make) -> None:
    values = {
        "a": {0: 0.1, 1: 0.11, 2: 0.12},
        "b": {0: 0.2, 1: 0.211, 2: 0.22},
        "c": {0: math.nan, 1: math.nan, 2: math.nan},
    }
    (row,) = pairwise_tests(make(values), "test_nll")
    assert (row.better, row.worse, row.significant) == ("a", "b", True)
    assert [each.recipe for each in rank_recipes(make(values), "test_nll")] == ["a", "b"]


def test_summarize_recipes_without_a_common_seed(make: Make) -> None:
    sentence = summarize(make({"a": {0: 0.1, 1: None}, "b": {0: None, 1: 0.9}}), "test_nll")
    assert (
        sentence == "a has the lowest test NLL: 0.100 (1 of 2 seeds). "
        "It is not tested against b (no common seed)."
    )


def test_summarize_warns_of_different_training_losses(make: Make) -> None:
    experiment = make({"a": around(0.1), "b": around(0.9, (1, 0, 2))}, "train_loss")
    recipes = {
        "a": experiment.recipes["a"],
        "b": replace(experiment.recipes["b"], label_smoothing=0.1),
    }
    sentence = summarize(replace(experiment, recipes=recipes), "train_loss")
    assert sentence.endswith(
        "than b. Training losses are not comparable: the recipes differ in label_smoothing."
    )


@pytest.mark.parametrize("shared", [0, 1])
def test_pairwise_tests_need_two_common_seeds(shared: int, make: Make) -> None:
    experiment = make(
        {"a": {0: 0.1, 1: 0.1, 2: None}, "b": {0: 0.9 if shared else None, 1: None, 2: 0.9}}
    )
    (row,) = pairwise_tests(experiment, "test_nll")
    assert (row.seeds, row.tested, row.significant) == (shared, False, False)
    assert math.isnan(row.p_value)
    assert math.isnan(row.adjusted_p_value)
    assert all(map(math.isnan, row.interval))
    assert math.isnan(row.difference) if shared == 0 else row.difference == pytest.approx(-0.8)


def test_pairwise_tests_allow_for_rounding(make: Make) -> None:
    """The accuracy of 100 images is rounded to 0.01; a difference of two has variance 0.01² / 6."""
    values = {"a": dict.fromkeys(range(3), 0.91), "b": dict.fromkeys(range(3), 0.9)}
    (row,) = pairwise_tests(make(values, "accuracy", images=100), "accuracy")
    error = 0.01 * math.sqrt(2 / 12) / math.sqrt(3)
    assert row.p_value == pytest.approx(2 * stats.t.sf(0.01 / error, 2))
    assert row.p_value > 0.05
    assert row.interval == pytest.approx(stats.t.interval(0.95, 2, loc=0.01, scale=error))
    (row,) = pairwise_tests(
        make(values, "accuracy", images=10_000), "accuracy"
    )  # a hundred images more are more than rounding
    assert row.significant


def test_pairwise_tests_keep_a_spread_above_rounding(make: Make) -> None:
    ours, theirs = [0.91, 0.95, 0.89, 0.93], [0.90, 0.88, 0.91, 0.87]
    experiment = make(
        {"a": dict(enumerate(ours)), "b": dict(enumerate(theirs))}, "accuracy", images=100
    )
    (row,) = pairwise_tests(experiment, "accuracy")
    assert row.p_value == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)


def test_pairwise_tests_of_constant_differences(
    make: Make,
) -> None:
    experiment = make(
        {"a": {0: 0.25, 1: 0.5}, "b": {0: 0.5, 1: 0.75}, "c": {0: 0.25, 1: 0.5}}, "train_loss"
    )
    found = {
        frozenset((row.better, row.worse)): row.p_value
        for row in pairwise_tests(experiment, "train_loss")
    }
    assert found == {frozenset("ab"): 0.0, frozenset("bc"): 0.0, frozenset("ac"): 1.0}


@pytest.mark.slow
def test_pairwise_tests_control_the_error_rate(make: Make) -> None:
    """Of 300 experiments with 6 equal recipes, at most 5% have a significant difference."""
    rng = np.random.default_rng(0)
    fooled = sum(
        any(row.significant for row in pairwise_tests(make(drawn(rng, 6, 5)), "test_nll"))
        for _ in range(300)
    )
    assert fooled <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)
    naive = np.random.default_rng(
        0
    )  # what the same experiments show where pairs are not corrected for
    uncorrected = sum(
        any(row.p_value < 0.05 for row in pairwise_tests(make(drawn(naive, 6, 5)), "test_nll"))
        for _ in range(100)
    )
    assert uncorrected > 20


def test_pairwise_tests_find_a_large_difference(make: Make) -> None:
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(20):
        values = drawn(rng, 6, 5)
        values["r3"] = {seed: value - 0.2 for seed, value in values["r3"].items()}
        found += sum(
            row.significant
            for row in pairwise_tests(make(values), "test_nll")
            if row.better == "r3"
        )
    assert found == 20 * 5


BEST = "a has the highest test accuracy: 90.00 ± 1.00%."
SPREAD = {0: -0.01, 1: 0.0, 2: 0.01}


def around(mean: float, order: tuple[int, int, int] = (0, 1, 2)) -> dict[int, float]:
    """Three seeds with a standard deviation of 0.01, in an order."""
    return {seed: mean + SPREAD[place] for seed, place in enumerate(order)}


FIVE = {
    "c": around(0.50, (1, 0, 2)),
    "d": around(0.40, (0, 2, 1)),
    "b": around(0.89, (2, 0, 1)),
    "a": around(0.90),
    "e": around(0.885, (2, 1, 0)),
}


def p_value_text(values: Mapping[str, Mapping[int, float]], other: str) -> str:
    """The adjusted p-value of a against another recipe, as `summarize` writes it."""
    pairs = list(combinations(sorted(values), 2))
    p_values = [
        float(stats.ttest_rel(column(values[one]), column(values[two])).pvalue)
        for one, two in pairs
    ]
    return f"p = {closed(p_values)[pairs.index(('a', other))]:.2g}"


def some(names: str) -> dict[str, dict[int, float]]:
    return {name: FIVE[name] for name in names}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"a": {0: None}}, "No trial has finished yet."),
        ({"a": {0: 0.9}}, "a has the highest test accuracy: 90.00%."),
        (some("a"), "a has the highest test accuracy: 90.00 ± 1.00%."),
        (
            some("ca"),
            f"{BEST} It is significantly better than c.",
        ),
        (
            some("cda"),
            f"{BEST} It is significantly better than all others.",
        ),
        (
            some("ba"),
            f"{BEST} It is not significantly different from "
            f"b (+1.00, {p_value_text(some('ba'), 'b')}).",
        ),
        (
            some("bca"),
            f"{BEST} It is significantly better than c, "
            "but not significantly different from "
            f"b (+1.00, {p_value_text(some('bca'), 'b')}).",
        ),
        (
            FIVE,
            f"{BEST} It is significantly better than d and c, "
            "but not significantly different from "
            "b (+1.00, "
            f"{p_value_text(FIVE, 'b')}) and e (+1.50, {p_value_text(FIVE, 'e')}).",
        ),
    ],
    ids=[
        "none finished",
        "one seed",
        "alone",
        "one other",
        "all real",
        "none real",
        "one of each",
        "two of each",
    ],
)
def test_summarize(values: dict[str, dict[int, Any]], expected: str, make: Make) -> None:
    assert summarize(make(values, "accuracy", images=100_000), "accuracy") == expected


def test_summarize_says_that_one_seed_allows_no_test(make: Make) -> None:
    values = {"a": {0: 0.9}, "b": {0: 0.85}, "c": {0: 0.8}}
    sentence = summarize(make(values, "accuracy"), "accuracy")
    assert sentence == (
        "a has the highest test accuracy: 90.00%. It is not tested against b (+5.00) and "
        "c (+10.00): one seed allows no test."
    )


def test_pairwise_tests_correct_for_tested_pairs_only(make: Make) -> None:
    values = {"a": around(0.9), "b": around(0.85, (1, 0, 2)), "c": {0: 0.5, 1: None, 2: None}}
    experiment = make(values, "accuracy", images=100_000)
    first, *others = pairwise_tests(experiment, "accuracy")
    assert {first.better, first.worse} == {"a", "b"}
    assert first.adjusted_p_value == first.p_value
    assert [test.tested for test in others] == [False, False]
    sentence = summarize(experiment, "accuracy")
    assert sentence.endswith("than b, but not tested against c (+39.00).")


def test_summarize_names_the_closest(make: Make) -> None:
    orders = ((0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1), (2, 1, 0), (1, 0, 2))
    values = {
        name: around(0.9 - 0.0005 * place, order)
        for place, (name, order) in enumerate(zip("abcdef", orders, strict=True))
    }
    sentence = summarize(make(values, "accuracy", images=100_000), "accuracy")
    others = sentence.split(f"{BEST} It is not significantly different from ")[1]
    assert [name for name in "abcdef" if f"{name} (+" in others] == ["b", "c", "d"]
    assert others.endswith(" and 2 others.")


def test_summarize_a_loss(make: Make) -> None:
    far = around(0.8, (1, 0, 2))
    sentence = summarize(
        make({"a": around(0.1), "b": far, "c": around(0.11, (2, 0, 1))}), "test_nll"
    )
    assert sentence.startswith(
        "a has the lowest test NLL: 0.100 ± 0.010. It is significantly better than b, "
        "but not significantly different from c (-0.010,"
    )
