"""Maps of images, and the t-SNE behind them."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import Tensor

from seewhy.diagnosis import tsne
from seewhy.diagnosis.image_maps import image_map
from seewhy.errors import SeewhyError


def groups(images: int = 240, count: int = 4, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    """Features of groups, and the group of each image."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(count, 20, generator=generator)
    group = torch.arange(images) % count
    return centers[group] + spread * torch.randn(images, 20, generator=generator), group


def test_a_map_keeps_groups_together() -> None:
    features, group = groups()
    found = image_map(features)
    assert found.positions.dtype == torch.float32
    assert found.positions.min() >= 0
    assert found.positions.max() == 1
    distances = torch.cdist(found.positions, found.positions).fill_diagonal_(torch.inf)
    nearest = distances.topk(5, largest=False).indices
    assert (group[nearest] == group[:, None]).float().mean() > 0.98
    assert torch.equal(image_map(features).positions, found.positions)
    chosen = torch.arange(0, 480, 2)
    assert torch.equal(image_map(features, chosen).indices, chosen)


def test_neighbors_in_the_features_are_neighbors_on_the_map() -> None:
    """A ring in ten dimensions stays a ring: every image keeps its own neighbors."""
    angle = torch.linspace(0, 2 * torch.pi, 301)[:-1]
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    features = (
        circle
        @ torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(1))).Q[:2]
    )
    positions = image_map(features).positions
    distances = torch.cdist(positions, positions).fill_diagonal_(torch.inf)
    step = (distances.argmin(1) - torch.arange(300)).abs()
    assert (torch.minimum(step, 300 - step) <= 2).float().mean() > 0.95


@pytest.mark.parametrize(("spacing", "tolerance"), [(tsne.SPACING, 0.2), (0.1, 0.01)])
def test_the_gradient_is_that_of_the_divergence(
    spacing: float, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tends to the exact one, by automatic differentiation in float64, on finer grids."""
    monkeypatch.setattr(tsne, "SPACING", spacing)
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(60, 60, generator=generator, dtype=torch.float64)
    affinities = ((weights + weights.T) / 2).fill_diagonal_(0)
    affinities /= affinities.sum()
    plane = (4 * torch.randn(60, 2, generator=generator, dtype=torch.float64)).requires_grad_()
    kernel = 1 / (1 + torch.cdist(plane, plane).square())
    kernel = kernel - torch.diag(kernel.diag())
    divergence = -(affinities * (kernel / kernel.sum() + torch.eye(60)).log()).sum()
    (exact,) = torch.autograd.grad(divergence, plane)
    sparse = csr_array(affinities.float().numpy())
    found = tsne._gradient(plane.detach().float().numpy(), sparse, np.diff(sparse.indptr), 1.0, {})
    error = np.linalg.norm(found - exact.numpy()) / np.linalg.norm(exact.numpy())
    assert error < tolerance


def test_affinities_have_the_perplexity_and_a_sum_of_one() -> None:
    features, _ = groups(100)
    neighbors, distances = tsne._neighbors(features, 45)
    exact = torch.cdist(features.double(), features.double()).fill_diagonal_(torch.inf)
    torch.testing.assert_close(
        distances.double().sqrt(), exact.gather(1, neighbors), rtol=1e-3, atol=1e-3
    )
    nearest = exact.topk(45, largest=False).values
    torch.testing.assert_close(exact.gather(1, neighbors), nearest, rtol=1e-4, atol=0)
    affinities = tsne._affinities(neighbors, distances).toarray()
    np.testing.assert_allclose(affinities, affinities.T)
    assert affinities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "features", [torch.ones(30, 5), torch.zeros(30, 1), torch.arange(40.0)[:, None]]
)
def test_a_map_of_equal_or_few_images_is_finite(features: Tensor) -> None:
    assert image_map(features).positions.isfinite().all()


def test_a_map_needs_images_and_finite_features() -> None:
    with pytest.raises(SeewhyError, match="of at least 10 images"):
        image_map(torch.zeros(3, 2))
    with pytest.raises(SeewhyError, match="not finite"):
        image_map(torch.full((12, 2), torch.nan))
