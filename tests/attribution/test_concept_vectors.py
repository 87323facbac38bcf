"""TCAV on models whose use of a color is known."""

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from seewhy.attribution import tcav
from seewhy.attribution.concept_vectors import concept_vector
from seewhy.errors import SeewhyError


def model_with(weights: list[float]) -> nn.Module:
    """The first logit is a weighted sum of mean red, green and blue; the second one is 0."""
    model = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(3)[:, :, None, None])
        model[0].bias.zero_()
        model[3].weight.copy_(torch.tensor([weights, [0.0, 0, 0]]))
        model[3].bias.zero_()
    return model.eval()


def noise(count: int, seed: int) -> Tensor:
    return 0.5 * torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def red(count: int, seed: int) -> Tensor:
    images = noise(count, seed)
    images[:, 0] += 0.3
    return images


@pytest.mark.parametrize(("weight", "expected"), [(2.0, 1.0), (-2.0, 0.0)])
def test_a_color_that_counts_for_or_against_the_class(weight: float, expected: float) -> None:
    result = tcav(model_with([weight, 0, 0]), noise(8, 0), red(20, 1), noise(40, 2), "0", 0)
    assert result.score == expected  # every derivative along red has the sign of its weight
    assert result.accuracy > 0.95
    assert result.layer == "0"


def test_noise_is_no_concept() -> None:
    """Images without a concept are separated by chance, and their score is one of many."""
    model = model_with([1.0, -1.0, 0.5])
    result = tcav(model, noise(8, 0), noise(20, 1), noise(40, 2), "0", 0, repeats=30)
    assert 0.3 < result.accuracy < 0.7
    assert result.p_value > 0.2
    assert result.random_scores.shape == (30,)


def test_the_vector_is_that_of_ridge_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    concept = torch.randn(12, 5, generator=generator, dtype=torch.float64) + 0.5
    others = torch.randn(30, 5, generator=generator, dtype=torch.float64)
    vector, offset = concept_vector(concept, others)
    middle = (concept.mean(0) + others.mean(0)) / 2
    rows = (torch.cat([concept, others]) - middle).numpy()
    weights = [1 / 12] * 12 + [1 / 30] * 30
    gram = (rows.T * weights) @ rows
    ridge = Ridge(alpha=0.01 * gram.diagonal().mean(), fit_intercept=False, solver="cholesky")
    ridge.fit(rows, [1.0] * 12 + [-1.0] * 30, sample_weight=weights)
    torch.testing.assert_close(vector, torch.from_numpy(ridge.coef_))
    assert offset == pytest.approx(float(middle @ vector))


def test_arguments_that_do_not_fit() -> None:
    model = model_with([1.0, 0, 0])
    with pytest.raises(SeewhyError, match=r"at least 10 images .* found 9, 20 and 50"):
        tcav(model, noise(2, 0), red(9, 1), noise(20, 2), "0")
    with pytest.raises(SeewhyError, match="tcav explains one layer, found 2"):
        tcav(model, noise(2, 0), red(10, 1), noise(20, 2), ["0", "1"])
