"""LIME against a weighted least-squares fit in NumPy, and against models that are linear."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.attribution.imputation import blur, gray
from seewhy.attribution.perturbation import lime
from seewhy.attribution.target import forward_pass
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier


def images(height: int = 8, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, height, width, generator=generator, dtype=torch.float64)


def network(height: int = 8, width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * height * width, 4)).double().eval()


def test_lime_equals_weighted_least_squares() -> None:
    """Ribeiro et al. 2016: the rows of the fit are weighted, and the ridge is rows of its own."""
    model, pixels, samples, ridge = network(), images(), 60, 0.7
    found = lime(forward_pass(model, pixels, target=2), samples, 4, "gray", ridge).numpy()
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(2, (samples, 16), generator=generator).double().numpy()
    shown = torch.from_numpy(np.kron(cells.reshape(samples, 1, 4, 4), np.ones((2, 2))))
    cosine = cells.sum(1) / np.sqrt(cells.sum(1) * 16)
    weights = np.exp(-(((1 - cosine) / 0.25) ** 2))
    rows = np.concatenate((cells, np.ones((samples, 1))), 1) * np.sqrt(weights)[:, None]
    penalty = np.sqrt(ridge) * np.eye(17)[:16]
    for image, coefficients in zip(pixels, found, strict=True):
        mixed = image * shown + gray(image[None]) * (1 - shown)
        with torch.no_grad():
            values = model(mixed).softmax(1)[:, 2].numpy()
        targets = np.concatenate((values * np.sqrt(weights), np.zeros(16)))
        expected = np.linalg.lstsq(np.concatenate((rows, penalty)), targets, rcond=None)[0]
        np.testing.assert_allclose(coefficients.flatten(), expected[:16], rtol=1e-8, atol=1e-12)


def test_lime_of_a_linear_score_is_what_each_cell_adds() -> None:
    """Cells of an oblong image are squares; the score is no probability, so it is linear."""
    pixels = images(4, 8)
    weights = torch.linspace(-1, 1, 96, dtype=torch.float64).view(3, 4, 8)

    def score(outputs: Tensor) -> Tensor:
        return outputs

    classifier = Classifier(Linear(weights).eval())
    forward = forward_pass(classifier, pixels, target=score)
    found = lime(forward, samples=200, grid=2, ridge=1e-9)
    assert found.shape == (2, 2, 4)
    added = (weights * (pixels - blur(pixels))).sum(1)
    expected = added.unfold(1, 2, 2).unfold(2, 2, 2).sum((3, 4))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


class Linear(nn.Module):
    """The sum of weighted pixels."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, pixels: Tensor) -> Tensor:
        return (self.weights * pixels).sum((1, 2, 3))


def test_lime_does_not_depend_on_the_batch() -> None:
    model, pixels = network(), images()
    whole = lime(forward_pass(model, pixels), 40, 4)
    alone = lime(forward_pass(model, pixels[1:]), 40, 4)
    torch.testing.assert_close(alone[0], whole[1])
    other = lime(forward_pass(model, pixels), 40, 4, seed=1)
    assert not torch.allclose(whole, other)


@pytest.mark.parametrize("settings", [{"samples": 0}, {"grid": 9}, {"grid": 0}, {"ridge": 0}])
def test_lime_errors(settings: dict[str, int]) -> None:
    with pytest.raises(SeewhyError, match="lime of images of 8x8 needs samples of at least 1"):
        lime(forward_pass(network(), images()), **settings)


def test_lime_refuses_an_unknown_baseline() -> None:
    with pytest.raises(SeewhyError, match="baseline"):
        lime(forward_pass(network(), images()), baseline="pink")
