"""k-means, without the seconds that scikit-learn takes to import."""

import torch
from torch import Tensor

RESTARTS = 4
MAX_STEPS = 300


def k_means(points: Tensor, count: int, seed: int = 0) -> Tensor:
    """Cluster points by k-means: Lloyd's algorithm (Lloyd 1982) from the seeds of k-means++.

    The seeds are drawn in proportion to the squared distance to the nearest seed so far (Arthur &
    Vassilvitskii 2007, section 2.2). Of four restarts, the one with the smallest sum of squared
    distances is kept.

    Args:
        points: (N, D) float.
        count: Number of clusters, from 1 to the number of distinct points.
        seed: Seed of the draws.

    Returns:
        The cluster of each point, (N,) int64 in [0, count).
    """
    generator = torch.Generator().manual_seed(seed)
    points = points.double()
    results = [_lloyd(points, _seeds(points, count, generator)) for _ in range(RESTARTS)]
    return min(results, key=lambda result: result[0])[1]


def _seeds(points: Tensor, count: int, generator: torch.Generator) -> Tensor:  # (count, D)
    first = torch.randint(len(points), (1,), generator=generator)
    chosen = points[first]
    distances = _squared_distances(points, chosen)[:, 0]
    while len(chosen) < count:
        added = points[torch.multinomial(distances, 1, generator=generator)]
        chosen = torch.cat([chosen, added])
        distances = torch.minimum(distances, _squared_distances(points, added)[:, 0])
    return chosen


def _lloyd(points: Tensor, centers: Tensor) -> tuple[float, Tensor]:
    """The sum of squared distances to the centers, and the nearest center of each point."""
    nearest = torch.full((len(points),), -1)
    for _ in range(MAX_STEPS):
        distances, moved = _squared_distances(points, centers).min(1)
        if torch.equal(moved, nearest):
            break
        nearest = moved
        sizes = nearest.bincount(minlength=len(centers))
        sums = torch.zeros_like(centers).index_add_(0, nearest, points)
        # a cluster without points keeps its center
        centers = torch.where(sizes[:, None] > 0, sums / sizes.clamp_min(1)[:, None], centers)
    return float(distances.sum()), nearest


def _squared_distances(points: Tensor, centers: Tensor) -> Tensor:  # (N, K)
    # rounding errors of the expanded square must not make a distance negative
    squares = points.square().sum(1, keepdim=True) + centers.square().sum(1)
    return (squares - 2 * points @ centers.T).clamp_min(0)
