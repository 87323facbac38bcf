"""Concepts: parts of the activation that were planted, and what the model loses without them."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from sklearn.decomposition import non_negative_factorization
from torch import Tensor, nn

from seewhy.attribution import concept_maps, find_concepts
from seewhy.attribution.concepts import factorize, project
from seewhy.errors import SeewhyError

WEIGHTS = torch.tensor([3.0, 1.0, 2.0])  # of red, green and blue in the first logit


class Colors(nn.Module):
    """The first logit is a weighted sum of the mean red, green and blue, the second one is 0."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(3)[:, :, None, None])
            self.layer.bias.fill_(offset)

    def forward(self, images: Tensor) -> Tensor:
        score = self.layer(images).mean((2, 3)) @ WEIGHTS
        return torch.stack([score, torch.zeros_like(score)], 1)


def patches(count: int = 12) -> Tensor:
    """Black images (N, 3, 8, 8) with a red and a teal patch of random places and sizes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(count, 3, 8, 8)
    for image in images:
        top, left, side = torch.randint(1, 4, (3,), generator=generator).tolist()
        image[0, top : top + side, left : left + side] = 0.8
        row, width = torch.randint(1, 4, (2,), generator=generator).tolist()
        image[1, 7, row : row + width] = 0.3
        image[2, 7, row : row + width] = 0.4
    return images


def test_planted_parts_are_found_with_their_places_and_what_the_score_loses_without_them() -> None:
    images = patches()
    concepts = find_concepts(Colors().eval(), images, "layer", 2, target=0)
    # the lengths of (0.8, 0, 0) and (0, 0.3, 0.4) are 0.8 and 0.5
    planted = torch.tensor([[1.0, 0, 0], [0, 0.6, 0.8]])
    torch.testing.assert_close(concepts.directions, planted, rtol=0, atol=0.02)
    red = images[:, 0] == 0.8
    teal = images[:, 2] > 0
    torch.testing.assert_close(concepts.maps[:, 0], 0.8 * red, rtol=0, atol=0.03)
    torch.testing.assert_close(concepts.maps[:, 1], 0.5 * teal, rtol=0, atol=0.03)
    # red counts 3, green 1, blue 2; without a patch, the mean over 64 places loses its part
    lost = red.sum((1, 2)) * 0.8 * 3 / 64, teal.sum((1, 2)) * (0.3 * 1 + 0.4 * 2) / 64
    for drop, expected in zip(concepts.importance, lost, strict=True):
        assert drop.mean == pytest.approx(float(expected.mean()), abs=0.01)
        assert drop.interval[0] < drop.mean < drop.interval[1]
    assert concepts.explained > 0.999
    assert (concepts.stability > 0.98).all()


def test_maps_of_other_images() -> None:
    images = patches()
    model = Colors().eval()
    concepts = find_concepts(model, images, "layer", 2, target=0)
    torch.testing.assert_close(
        concept_maps(model, images, concepts), concepts.maps, atol=0.02, rtol=0
    )
    shifted = images.roll(1, 3)
    torch.testing.assert_close(
        concept_maps(model, shifted, concepts), concepts.maps.roll(1, 3), atol=0.02, rtol=0
    )


def test_noise_is_neither_stable_nor_explained() -> None:
    noise = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    concepts = find_concepts(Colors().eval(), noise, "layer", 1, target=0)
    assert concepts.explained < 0.9  # of three independent channels
    with pytest.raises(SeewhyError, match="from 1 to 3, for 512 positions and 3 channels; found 4"):
        find_concepts(Colors().eval(), noise, "layer", 4)


def test_negative_activation_counts_as_zero() -> None:
    """Without the part that stays negative, the score is the same; it is not explained either."""
    images = patches()
    concepts = find_concepts(Colors(offset=-0.2).eval(), images, "layer", 2, target=0)
    assert (concepts.directions >= 0).all()
    assert (concepts.maps >= 0).all()
    assert concepts.explained < 0.8
    with pytest.raises(SeewhyError, match="no positive activation on these images"):
        find_concepts(Colors(offset=-2).eval(), images, "layer", 2)


def test_arguments_that_do_not_fit() -> None:
    model, images = Colors().eval(), patches()
    with pytest.raises(SeewhyError, match="at least 4 images, found 3"):
        find_concepts(model, images[:3], "layer")
    with pytest.raises(SeewhyError, match="found at one layer, found 2 layers"):
        find_concepts(nn.Sequential(model.layer, model).eval(), images, ["0", "1.layer"])
    wide = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    concepts = find_concepts(wide.eval(), images, "1", 2)
    narrow = nn.Sequential(model.layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(SeewhyError, match="have 5 channels, layer '1' of this model has 3"):
        concept_maps(narrow.eval(), images, concepts)


def noisy_product() -> Tensor:
    """A matrix (300, 20) that is nearly a product without negative values of rank 4."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.rand(*shape, generator=generator) ** 4 for shape in ((300, 4), (4, 20)))
    return left @ right + 0.05 * torch.rand(300, 20, generator=generator)


def test_the_factorization_is_as_close_as_that_of_scikit_learn() -> None:
    matrix = noisy_product()
    strengths, directions = factorize(matrix, 4)
    left, right, _ = non_negative_factorization(
        matrix.numpy(), n_components=4, init="nndsvda", tol=1e-4, max_iter=2000
    )
    error = (matrix - strengths @ directions).square().sum().item()
    assert error <= 1.01 * np.square(matrix.numpy() - left @ right).sum()
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(4))


def test_strengths_are_the_least_squares_solution_without_negative_values() -> None:
    matrix = noisy_product()[:40]
    directions = torch.rand(4, 20, generator=torch.Generator().manual_seed(1))
    expected = np.stack([nnls(directions.T.double().numpy(), row)[0] for row in matrix.numpy()])
    torch.testing.assert_close(
        project(matrix, directions), torch.from_numpy(expected).float(), rtol=0, atol=2e-3
    )
