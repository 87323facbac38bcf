"""Significance of differences: a paired test, and the correction for multiple tests."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

LEVEL = 0.05  # a corrected p-value below it is significant


def paired_t(
    differences: Sequence[float], rounding: float = 0.0
) -> tuple[tuple[float, float], float]:
    """95% interval of the mean difference, and the p-value of the two-sided paired t-test.

    Args:
        differences: One for each pair; for fewer than two, all results are nan.
        rounding: Standard deviation of the rounding error of a difference. The standard deviation
            is at least this, because equal differences of rounded values do not imply none.
    """
    from scipy.special import stdtr, stdtrit  # scipy.stats takes a second to import

    if len(differences) < 2:
        return (math.nan, math.nan), math.nan
    mean, freedom = fmean(differences), len(differences) - 1
    error = max(stdev(differences), rounding) / math.sqrt(len(differences))
    half = float(stdtrit(freedom, 0.975)) * error
    if error == 0:
        return (mean, mean), 1.0 if mean == 0 else 0.0
    return (mean - half, mean + half), 2 * float(stdtr(freedom, -abs(mean) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for multiple tests, in the same order (Holm 1979).

    If every null hypothesis is true, the probability that any corrected p-value is below α is at
    most α.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
