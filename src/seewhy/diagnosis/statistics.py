"""Confidence intervals and tests of proportions."""

import math
from collections.abc import Sequence

_Z = 1.959963984540054  # 97.5% point of the standard normal distribution


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95% score interval of a proportion, in [0, 1] (Wilson 1927).

    Args:
        successes: Number of successes, from 0 to `trials`.
        trials: Number of trials, at least 1.
    """
    # In closed form: scipy's binomtest(...).proportion_ci takes milliseconds, and a report on a
    # thousand classes needs thousands of intervals.
    share, z2 = successes / trials, _Z**2
    center = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    variance = share * (1 - share) / trials + z2 / (4 * trials**2)
    half = _Z / (1 + z2 / trials) * math.sqrt(variance)
    return max(0.0, center - half), min(1.0, center + half)


def paired_interval(both: int, fixed: int, broken: int, neither: int) -> tuple[float, float]:
    """95% interval of the change of accuracy between two models on the same images, in [-1, 1].

    Method 10 of Newcombe 1998 (Statistics in Medicine 17, 2635): the Wilson intervals of both
    accuracies, combined by their correlation, with a continuity correction if it is positive.

    Args:
        both: Number of images that both models classify correctly.
        fixed: Number that only the second model classifies correctly.
        broken: Number that only the first model classifies correctly.
        neither: Number that neither classifies correctly.
    """
    images = both + fixed + broken + neither
    before, after = (both + broken) / images, (both + fixed) / images
    low_before, high_before = wilson_interval(both + broken, images)
    low_after, high_after = wilson_interval(both + fixed, images)
    product = (both + fixed) * (broken + neither) * (both + broken) * (fixed + neither)
    covariance = float(both * neither - fixed * broken)
    if covariance > 0:
        covariance = max(0.0, covariance - images / 2)
    correlation = covariance / math.sqrt(product) if product else 0.0
    below = _combine(after - low_after, high_before - before, correlation)
    above = _combine(high_after - after, before - low_before, correlation)
    return after - before - below, after - before + above


def _combine(one: float, other: float, correlation: float) -> float:
    """Standard deviation of the difference of two correlated quantities."""
    return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))


def mcnemar(fixed: int, broken: int) -> float:
    """p-value of the exact two-sided McNemar test, in [0, 1] (McNemar 1947).

    The null hypothesis is that an image on which two models disagree is as likely to be fixed as to
    be broken.

    Args:
        fixed: Number of images that only the second model classifies correctly.
        broken: Number of images that only the first model classifies correctly.
    """
    from scipy.special import bdtr  # scipy.stats takes seconds to import

    return min(1.0, 2 * float(bdtr(min(fixed, broken), fixed + broken, 0.5)))


def hypergeometric_tail(
    population: int, errors: int, draws: Sequence[int], at_least: Sequence[int]
) -> list[float]:
    """p-values of the one-sided Fisher test, in [0, 1] (Fisher 1935), one per sample.

    Args:
        population: Number of images.
        errors: Number of errors among them.
        draws: Size of each sample that is drawn without replacement.
        at_least: Errors observed in each sample; the p-value is the probability of as many or more.
    """
    tails = []
    for size, least in zip(draws, at_least, strict=True):
        counts = range(max(least, size + errors - population), min(size, errors) + 1)
        samples = _log_binomial(population, size)
        logs = (
            _log_binomial(errors, drawn) + _log_binomial(population - errors, size - drawn)
            for drawn in counts
        )
        tails.append(min(1.0, math.fsum(math.exp(each - samples) for each in logs)))
    return tails


def _log_binomial(items: int, chosen: int) -> float:
    """The logarithm of a binomial coefficient."""
    return math.lgamma(items + 1) - math.lgamma(chosen + 1) - math.lgamma(items - chosen + 1)
