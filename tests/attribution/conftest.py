"""Bilinear interpolation of its own, for tests of maps."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage


@pytest.fixture
def bilinear() -> Callable[..., np.ndarray]:
    """`bilinear(grid, size)`: a grid (h, w) resized to (H, W); edge values extend outwards."""

    def resized(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        centers = [
            np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
            for old, new in zip(grid.shape, size, strict=True)
        ]
        return ndimage.map_coordinates(grid, np.meshgrid(*centers, indexing="ij"), order=1)

    return resized
