"""k-means against exhaustive search, and against scikit-learn's objective."""

import itertools

import pytest
import torch
from sklearn.cluster import KMeans

from seewhy.diagnosis.clustering import k_means


def inertia(points: torch.Tensor, clusters: torch.Tensor) -> float:
    """The sum of squared distances to the mean of each cluster."""
    members = (points[clusters == cluster] for cluster in clusters.unique())
    return sum(float((each - each.mean(0)).square().sum()) for each in members)


@pytest.mark.slow
def test_k_means_finds_the_best_partition_of_few_points() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(8, 2, generator=generator).double()
    partitions = (torch.tensor(each) for each in itertools.product(range(3), repeat=8))
    best = min(inertia(points, partition) for partition in partitions)
    assert inertia(points, k_means(points, 3)) == pytest.approx(best)


def test_k_means_is_as_good_as_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(1)
    centers = torch.randn(12, 5, generator=generator)
    points = centers.repeat(40, 1) + 0.4 * torch.randn(480, 5, generator=generator)
    clusters = k_means(points, 12)
    expected = KMeans(12, n_init=4, random_state=0).fit(points.numpy()).inertia_
    assert inertia(points, clusters) < 1.1 * expected
    assert clusters.unique().tolist() == list(range(12))
    assert torch.equal(clusters, k_means(points, 12))
    assert torch.equal(k_means(torch.eye(4), 4).sort().values, torch.arange(4))
