"""Principal components of features, also of models with very many of them."""

import numpy as np
import torch
from torch import Tensor

_EXACT = 2048  # images or features up to which all components are computed, to keep the first


def principal_components(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The coordinates of images along the directions in which their features vary most.

    Args:
        features: (N, D) float, N of at least 2.
        count: Number of components; there are at most N or D.

    Returns:
        Coordinates (N, M) with a mean of 0, and their variances (M,), the largest first; float64.
    """
    images, dimensions = features.shape
    count = min(count, images, dimensions)
    if min(images, dimensions) > _EXACT:
        coordinates = _leading(features.float(), count)
        return coordinates, coordinates.square().sum(0) / (images - 1)
    centered = features.double() - features.double().mean(0)
    # the smaller of the two matrices: both have the same variances
    of_images = images < dimensions
    products = centered @ centered.T if of_images else centered.T @ centered
    values, vectors = torch.linalg.eigh(products / (images - 1))  # ascending
    values, vectors = values.flip(0)[:count].clamp(min=0), vectors.flip(1)[:, :count]
    if of_images:
        return vectors * (values * (images - 1)).sqrt(), values
    return centered @ vectors, values


def _leading(features: Tensor, count: int) -> Tensor:  # (N, count) float64
    """The first components alone, by an iteration (Lehoucq et al. 1998, ARPACK)."""
    from scipy.sparse.linalg import svds

    start = np.random.default_rng(0).standard_normal(min(features.shape)).astype(np.float32)
    left, lengths, _ = svds((features - features.mean(0)).numpy(), count, v0=start)
    order = lengths.argsort()[::-1]
    return torch.from_numpy((left * lengths)[:, order]).double()
