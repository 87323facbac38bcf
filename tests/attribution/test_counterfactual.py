"""Counterfactual regions: planted evidence that has to go for the prediction to change."""

import pytest
import torch
from torch import Tensor, nn

from seewhy.attribution import counterfactual_regions
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier


class Votes(nn.Module):
    """Logits: the mean red, green and blue of a square image, and a bias."""

    def __init__(self, bias: tuple[float, ...] = (0.0, 0.0, 0.0)) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) + self.bias


def two_patches() -> Tensor:
    """Black 8x8 images with red in cells 0 and 5 of 4x4, a little blue in 10, less green in 15."""
    image = torch.zeros(1, 3, 8, 8)
    image[:, 0, 0:2, 0:2] = 0.8
    image[:, 0, 2:4, 2:4] = 0.8
    image[:, 2, 4:6, 4:6] = 0.5
    image[:, 1, 6:8, 6:8] = 0.2
    return image


def cells_of(region: Tensor) -> set[int]:  # of (8, 8) bool
    return set(region[::2, ::2].flatten().nonzero().flatten().tolist())


def test_the_region_holds_the_evidence_and_nothing_else() -> None:
    found = counterfactual_regions(Votes().eval(), two_patches(), grid=4, replacement="black")
    # red has 1.6, blue has 0.5 of a cell: both red cells must go
    assert cells_of(found.regions[0]) == {0, 5}
    assert found.area.tolist() == [2 / 16]
    assert (found.predicted.item(), found.changed.item()) == (0, 2)
    torch.testing.assert_close(found.images, two_patches() * ~found.regions[:, None])
    # 2 of 16 cells at random are these two once in 120 times
    assert found.chance.item() <= 0.1
    assert found.found.tolist() == [True]


def test_a_target_needs_its_own_region() -> None:
    found = counterfactual_regions(
        Classifier(Votes().eval(), ("red", "green", "blue")),
        two_patches(),
        "green",
        grid=4,
        replacement="black",
    )
    assert cells_of(found.regions[0]) == {0, 5, 10}  # blue would win without the third
    assert found.changed.item() == 1


def test_no_cell_of_the_region_can_be_left_out() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    images = torch.rand(4, 3, 8, 8, generator=generator)
    found = counterfactual_regions(model.eval(), images, grid=4, replacement="gray")
    assert found.found.any()
    for image, region, predicted in zip(images, found.regions, found.predicted, strict=True):
        for cell in cells_of(region):
            fewer = region.clone()
            row, column = 2 * (cell // 4), 2 * (cell % 4)
            fewer[row : row + 2, column : column + 2] = False
            changed = torch.where(fewer, torch.tensor(0.5), image)
            assert model(changed[None]).argmax() == predicted


def test_nothing_is_found_where_no_region_changes_the_prediction() -> None:
    sure = Votes((9.0, 0.0, 0.0)).eval()
    found = counterfactual_regions(sure, two_patches(), grid=4)
    assert not found.regions.any()
    assert found.changed.tolist() == found.predicted.tolist() == [0]
    assert found.area.isnan().all()
    assert found.chance.isnan().all()
    # nor where the prediction is the target
    assert not counterfactual_regions(Votes().eval(), two_patches(), 0, grid=4).found.any()


def test_arguments_that_do_not_fit() -> None:
    model, images = Votes().eval(), two_patches()
    with pytest.raises(SeewhyError, match=r"an integer from 2 to 8 cells per side .* found 9"):
        counterfactual_regions(model, images, grid=9)
    with pytest.raises(SeewhyError, match="`to` must be one class for each image"):
        counterfactual_regions(model, images, (0, 1))
    with pytest.raises(SeewhyError, match="can only change to another class"):
        counterfactual_regions(model, images, "predicted")
    with pytest.raises(SeewhyError, match="found None and 1 in the logits"):
        counterfactual_regions(nn.Sequential(nn.Flatten(), nn.Linear(192, 1)).eval(), images)
    with pytest.raises(SeewhyError, match="unknown replacement 'blurr'"):
        counterfactual_regions(model, images, replacement="blurr")
