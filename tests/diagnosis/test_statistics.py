"""Intervals against scipy and published examples, tests against exact counting."""

import itertools
import math
from fractions import Fraction

import pytest
from scipy.stats import binomtest, fisher_exact

from seewhy.diagnosis.statistics import (
    hypergeometric_tail,
    mcnemar,
    paired_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "trials"), [(0, 10), (10, 10), (1, 3), (9411, 10_000), (50, 100)]
)
def test_wilson_interval_equals_scipy(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx(
        (expected.low, expected.high), abs=1e-12
    )


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ((14, 5, 0, 22), (0.011, 0.226)),  # Altman et al. 2000, Statistics with Confidence, p. 52
        ((36, 12, 2, 0), (0.0569, 0.3404)),  # Newcombe 1998, method 10
        ((1, 1, 7, 12), (-0.507, -0.026)),  # Fagerland, Lydersen & Laake 2017, chapter 8
    ],
)
def test_paired_interval_of_published_examples(
    table: tuple[int, int, int, int], expected: tuple[float, float]
) -> None:
    assert paired_interval(*table) == pytest.approx(expected, abs=6e-4)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "shares", [(0.4, 0.3, 0.1, 0.2), (0.55, 0.2, 0.15, 0.1), (0.2, 0.25, 0.25, 0.3)]
)
def test_paired_interval_coverage(shares: tuple[float, float, float, float]) -> None:
    """Every table of 40 images, weighted by its multinomial probability."""
    images, change = 40, shares[1] - shares[2]
    covered = total = 0.0
    for both, fixed, broken in itertools.product(range(images + 1), repeat=3):
        counts = (both, fixed, broken, images - both - fixed - broken)
        if counts[3] < 0:
            continue
        ways = math.factorial(images) / math.prod(map(math.factorial, counts))
        probability = ways * math.prod(
            share**count for share, count in zip(shares, counts, strict=True)
        )
        low, high = paired_interval(*counts)
        total += probability
        covered += probability * (low <= change <= high)
    assert total == pytest.approx(1)
    assert 0.94 < covered < 0.98


def test_paired_interval_is_antisymmetric_and_in_range() -> None:
    low, high = paired_interval(70, 3, 9, 18)
    assert paired_interval(70, 9, 3, 18) == pytest.approx((-high, -low))
    for counts in itertools.product((0, 1, 5), repeat=4):
        if sum(counts):
            low, high = paired_interval(*counts)
            assert -1 <= low <= (counts[1] - counts[2]) / sum(counts) <= high <= 1


@pytest.mark.parametrize(
    ("fixed", "broken"),
    [(0, 0), (1, 0), (0, 8), (5, 5), (7, 1), (238, 252), (900, 1100), (10_000, 10_150)],
)
def test_mcnemar_equals_exact_counting(fixed: int, broken: int) -> None:
    changed = fixed + broken
    term = tail = 1  # binomial coefficients, one from the other
    for count in range(min(fixed, broken)):
        term = term * (changed - count) // (count + 1)
        tail += term
    expected = min(1.0, float(Fraction(2 * tail, 2**changed)))
    assert mcnemar(fixed, broken) == pytest.approx(expected, rel=1e-8)
    assert mcnemar(broken, fixed) == mcnemar(fixed, broken)


TABLES = [  # population, errors, draws, errors among them
    (10, 3, 4, 2),
    (10_000, 910, 250, 98),
    (500, 500, 20, 20),
    (500, 0, 20, 0),
    (60, 50, 30, 25),
    (100, 10, 20, 11),
    (7, 4, 5, 0),
]


@pytest.mark.parametrize(("population", "errors", "draws", "bad"), TABLES)
def test_hypergeometric_tail_equals_exact_counting_and_fisher(
    population: int, errors: int, draws: int, bad: int
) -> None:
    [p_value] = hypergeometric_tail(population, errors, [draws], [bad])
    ways = sum(
        math.comb(errors, count) * math.comb(population - errors, draws - count)
        for count in range(bad, min(errors, draws) + 1)
    )
    expected = float(Fraction(ways, math.comb(population, draws)))
    assert p_value == pytest.approx(expected, rel=1e-8, abs=1e-300)
    table = [[bad, draws - bad], [errors - bad, population - draws - errors + bad]]
    if min(map(min, table)) >= 0:
        fisher = fisher_exact(table, alternative="greater").pvalue
        assert p_value == pytest.approx(fisher, rel=1e-8, abs=1e-300)


def test_hypergeometric_tail_of_several_samples() -> None:
    tails = hypergeometric_tail(60, 50, [30, 12], [25, 11])
    assert tails == [
        *hypergeometric_tail(60, 50, [30], [25]),
        *hypergeometric_tail(60, 50, [12], [11]),
    ]
    assert hypergeometric_tail(60, 50, [], []) == []
