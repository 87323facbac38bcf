import numpy as np
import pytest
import torch
from scipy.stats import median_abs_deviation, norm
from sklearn.neighbors import NearestNeighbors

from seewhy.diagnosis.outliers import unusual_images
from seewhy.errors import SeewhyError


@pytest.mark.parametrize("rows", [7, 1000])
def test_unusual_images_equal_scikit_learn(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.diagnosis.outliers._ROWS", rows)
    features = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    found = unusual_images(features, count=60, neighbors=4)
    distances, _ = NearestNeighbors(n_neighbors=4, metric="cosine").fit(features).kneighbors()
    expected = (1 - distances).mean(1)
    assert [each.index for each in found] == np.argsort(expected).tolist()
    similarities = [each.similarity for each in found]
    np.testing.assert_allclose(similarities, np.sort(expected), rtol=1e-5)


def test_unusual_images_finds_what_is_of_no_group() -> None:
    generator = torch.Generator().manual_seed(1)
    centers = torch.randn(3, 32, generator=generator)
    features = centers.repeat(20, 1) + 0.3 * torch.randn(60, 32, generator=generator)
    features[17] = torch.randn(32, generator=generator)
    [first, second] = unusual_images(features, count=2)
    assert first.index == 17
    assert first.similarity < 0.5 < second.similarity
    assert first.distinct
    assert not second.distinct


def test_deviations_are_those_of_a_normal_distribution_with_the_same_tail() -> None:
    angles = np.random.default_rng(0).exponential(0.1, 400) + 0.02
    found = unusual_images(_at_angles(angles), 800, neighbors=1)
    distances = -np.arctanh([each.similarity for each in found])
    above = distances - np.median(distances)
    tail = np.quantile(above, 0.9, method="lower") / norm.ppf(0.9)
    spread = max(tail, median_abs_deviation(distances, scale="normal"))
    deviations = [each.deviations for each in found]
    np.testing.assert_allclose(deviations, above / spread, atol=0.02)  # torch: the lower median
    [limit] = {each.limit for each in found}
    assert 1 - norm.cdf(limit) ** 800 == pytest.approx(0.05, abs=0.002)


def test_an_image_among_the_tail_of_learned_ones_is_not_unlike_all_others() -> None:
    angles = np.random.default_rng(1).lognormal(-2.5, 0.8, 400)
    found = unusual_images(_at_angles(angles), neighbors=1)
    assert np.cos(np.median(angles)) > 0.99
    assert not any(each.distinct for each in found)
    found = unusual_images(_at_angles(np.append(angles, 1.4)), neighbors=1)
    assert [each.index for each in found if each.distinct] == [400, 801]


def _at_angles(angles: np.ndarray) -> torch.Tensor:
    """Features (2N, 2N) in pairs at the angles; those of different pairs are at right angles."""
    size = len(angles)
    features = np.zeros((2 * size, 2 * size))
    rows = np.arange(size)
    features[rows, rows] = features[size + rows, rows] = 1
    features[size + rows, rows] = np.cos(angles)
    features[size + rows, size + rows] = np.sin(angles)
    return torch.from_numpy(features)


def test_unusual_images_rejects_other_input() -> None:
    with pytest.raises(SeewhyError, match=r"features must be \(N, D\)"):
        unusual_images(torch.zeros(3, 4, 4))
    with pytest.raises(SeewhyError, match="must be at least 1, found 0 and 5"):
        unusual_images(torch.zeros(3, 4), count=0)
    assert len(unusual_images(torch.eye(3), neighbors=9)) == 3
