import numpy as np
import pytest
import torch
from scipy.stats import median_abs_deviation
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
    similarities = np.array([each.similarity for each in unusual_images(features, 60)])
    spread = median_abs_deviation(similarities, scale="normal")
    expected = (np.median(similarities) - similarities[0]) / spread
    assert first.deviations == pytest.approx(expected, rel=0.05)  # torch takes the lower median


def test_unusual_images_rejects_other_input() -> None:
    with pytest.raises(SeewhyError, match=r"features must be \(N, D\)"):
        unusual_images(torch.zeros(3, 4, 4))
    with pytest.raises(SeewhyError, match="must be at least 1, found 0 and 5"):
        unusual_images(torch.zeros(3, 4), count=0)
    assert len(unusual_images(torch.eye(3), neighbors=9)) == 3
