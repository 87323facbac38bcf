"""Principal components, of more images than features and the other way round."""

import numpy as np
import pytest
import torch
from torch import Tensor

from seewhy.diagnosis import components
from seewhy.diagnosis.components import principal_components


def decaying(images: int, dimensions: int) -> Tensor:
    """Features with variances that fall from the first to the last."""
    generator = torch.Generator().manual_seed(0)
    scales = 0.97 ** torch.arange(dimensions)
    return 5 + scales * torch.randn(images, dimensions, generator=generator)


@pytest.mark.parametrize("most", [2048, 20])
@pytest.mark.parametrize("shape", [(150, 40), (40, 150), (60, 60)])
def test_components_are_the_singular_vectors(
    shape: tuple[int, int], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components, "_EXACT", most)
    features = decaying(*shape)
    found, variances = principal_components(features, 6)
    centered = features.double().numpy() - features.double().numpy().mean(0)
    left, lengths, _ = np.linalg.svd(centered, full_matrices=False)
    np.testing.assert_allclose(variances, lengths[:6] ** 2 / (shape[0] - 1), rtol=1e-4)
    expected = torch.from_numpy(left * lengths)[:, :6]
    signs = (found * expected).sum(0).sign()
    torch.testing.assert_close(signs * found, expected, rtol=1e-3, atol=1e-3)


def test_there_are_as_many_components_as_images_and_features_allow() -> None:
    assert principal_components(decaying(12, 3), 6)[0].shape == (12, 3)
    assert principal_components(decaying(4, 30), 6)[0].shape == (4, 4)


def test_very_many_features_take_little_memory_and_time() -> None:
    """The matrix of their covariances would have 40 GB."""
    found, variances = principal_components(decaying(20, 70_000), 3)
    assert found.shape == (20, 3)
    assert (variances.diff() < 0).all()
