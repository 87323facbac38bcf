"""Bootstrap intervals of means over images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class BootstrapSummary:
    """Mean of a measure over images, with its 95% interval; NaN for a single image."""

    mean: float
    interval: tuple[float, float]


def bootstrap_summary(
    values: Mapping[str, Tensor], seed: int = 0, resamples: int = 1000
) -> dict[str, BootstrapSummary]:
    """Mean and 95% bootstrap percentile interval (Efron 1979) of each measure.

    Args:
        values: (N,) for each measure, of the same images; all are resampled alike.
        seed: Seed of the resampling.
        resamples: Number of resamples.
    """
    return {name: _bootstrap(each, seed, resamples) for name, each in values.items()}


def _bootstrap(values: Tensor, seed: int, resamples: int) -> BootstrapSummary:
    row = values.detach().double().cpu()
    mean = float(row.mean())
    if len(row) < 2 or not row.isfinite().all():
        return BootstrapSummary(mean, (float("nan"), float("nan")))
    # as scipy.stats.bootstrap, which takes seconds to import
    drawn = np.random.default_rng(seed).integers(0, len(row), (resamples, len(row)))
    low, high = np.percentile(row.numpy()[drawn].mean(1), [2.5, 97.5])
    return BootstrapSummary(mean, (float(low), float(high)))
