"""The paired test and Holm's correction, against scipy and their definitions."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from scipy.stats import false_discovery_control

from seewhy.significance import holm, paired_t


def test_paired_t_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 9))
    interval, p_value = paired_t((one - other).tolist())
    expected = stats.ttest_rel(one, other)
    assert p_value == pytest.approx(expected.pvalue)
    assert interval == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_paired_t_without_variance() -> None:
    assert paired_t([0.5, 0.5, 0.5]) == ((0.5, 0.5), 0.0)
    assert paired_t([0.0, 0.0]) == ((0.0, 0.0), 1.0)
    (low, high), p_value = paired_t([0.5, 0.5, 0.5], rounding=0.1)
    assert (low + high) / 2 == pytest.approx(0.5)
    assert p_value == pytest.approx(2 * stats.t.sf(0.5 / (0.1 / math.sqrt(3)), 2))
    assert all(map(math.isnan, (*paired_t([0.5])[0], paired_t([])[1])))


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    """Reject the smallest p-value while it is at most level / (number of those left)."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = (rng.random(8) ** 4).round(3).tolist()
        corrected = holm(values)
        for level in (0.01, 0.05, 0.2, 0.7):
            rejected, order = set(), sorted(range(8), key=lambda i: values[i])
            for rank, index in enumerate(order):
                if values[index] > level / (8 - rank):
                    break
                rejected.add(index)
            assert {i for i in range(8) if corrected[i] <= level + 1e-12} == rejected
        assert all(low <= high for low, high in pairwise(sorted(corrected)))
        never_stricter = false_discovery_control(values)
        assert all(corrected[i] >= never_stricter[i] - 1e-12 for i in range(8))
