"""The head is the layer that computes the logits, whatever the order and the names."""

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import SeewhyError
from seewhy.models.head import find_head, replace_head
from seewhy.models.registry import MODELS, blank_sample, build_model

IMAGES = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Shuffled(nn.Module):
    """The head is defined first, and the layer that is run last only makes a second output."""

    def __init__(self, kernel: int = 1) -> None:
        super().__init__()
        self.classify = nn.Conv2d(4, 5, kernel)
        self.body = nn.Conv2d(3, 4, 1)
        self.relu = nn.ReLU(inplace=True)
        self.embed = nn.Linear(4, 5)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        maps = self.relu(self.body(pixels))
        logits = self.relu(self.classify(maps)).mean((2, 3)) * 2
        return {"logits": logits, "embedding": self.embed(maps.mean((2, 3)))}


class TwoHeads(nn.Module):
    """The mean of two linear layers, as in a distilled transformer."""

    def __init__(self, outputs: int = 5) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(108, outputs), nn.Linear(108, outputs)

    def forward(self, pixels: Tensor) -> Tensor:
        flat: Tensor = pixels.flatten(1)
        return (self.first(flat) + self.second(flat)) / 2


class Frozen(Shuffled):
    """No part computes with gradients."""

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            return {"logits": self.classify(self.body(pixels)).mean((2, 3))}


class Distances(nn.Module):
    """Logits without a layer of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.centers = nn.Linear(108, 6), nn.Parameter(torch.zeros(5, 6))

    def forward(self, pixels: Tensor) -> Tensor:
        return -torch.cdist(self.body(pixels.flatten(1)), self.centers)


@pytest.mark.parametrize("make", [Shuffled, Frozen])
def test_head_is_the_layer_before_the_logits(make: type[nn.Module]) -> None:
    model = make()
    model.requires_grad_(False)
    assert model.training
    assert find_head(model, IMAGES) == "classify"
    assert model.training
    assert not any(part._forward_hooks for part in model.modules())
    assert find_head(model) == "embed"  # without images: the last one in the order of definition


@pytest.mark.parametrize(
    ("spec", "head"),
    [("davidnet", "linear"), ("resnet18", "linear"), ("speednet:width=0.25", "linear")],
)
def test_head_of_own_models(spec: str, head: str) -> None:
    model = build_model(spec, 5, blank_sample(3, 8, 8))
    assert find_head(model, blank_sample(3, 8, 8).images) == find_head(model) == head


@pytest.mark.slow
def test_head_of_vgg_without_memory() -> None:
    with torch.device("meta"):
        assert find_head(build_model("vgg16", 5, blank_sample(3, 32, 32))) == "classifier.6"
    assert "vgg16" in MODELS


def test_head_that_cannot_be_found() -> None:
    message = "logits of TwoHeads come from 2 layers: first, second"
    with pytest.raises(SeewhyError, match=message):
        find_head(TwoHeads(), IMAGES)
    with pytest.raises(SeewhyError, match="logits of Distances are not the outputs of a linear"):
        find_head(Distances(), IMAGES)
    with pytest.raises(SeewhyError, match="logits of Flatten are not the outputs of a linear"):
        find_head(nn.Flatten())


@pytest.mark.parametrize("kernel", [1, 3])
def test_replace_head_changes_only_the_number_of_outputs(kernel: int) -> None:
    model = Shuffled(kernel)
    body = model.body.weight.clone()
    kept = model.classify
    assert not replace_head(model, 5, IMAGES)
    assert model.classify is kept
    assert replace_head(model, 7, IMAGES)
    assert model.classify.weight.shape == (7, 4, kernel, kernel)
    assert model(IMAGES)["logits"].shape == (2, 7)
    assert torch.equal(model.body.weight, body)


def test_replace_head_keeps_bias_and_dtype() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 3, bias=False)).double()
    assert replace_head(model, 4)
    assert model[1].bias is None
    assert model[1].weight.dtype == torch.float64
    assert model[1].weight.shape == (4, 108)
