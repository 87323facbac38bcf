"""Models of one's own: what they are called with, what is checked, and what is replaced."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.models.own import own_builder, qualified_name, using_model
from seewhy.models.registry import MODELS, blank_sample, build_model

SAMPLE = blank_sample(3, 6, 6)


class Net(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.head = nn.Linear(108, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(pixels.flatten(1))
        return logits


def without_arguments() -> nn.Module:
    return Net()


def with_classes(classes: int) -> nn.Module:
    return Net(classes)


def with_keyword(width: int = 3, num_classes: int = 7) -> nn.Module:
    return Net(num_classes)


def entry(num_classes: int, sample: Split, width: int = 4) -> nn.Module:
    return Net(num_classes)


@pytest.mark.parametrize("model", [Net, without_arguments, with_classes, with_keyword, entry])
def test_own_builder_calls_any_function(model: Callable[..., nn.Module]) -> None:
    built = own_builder(model, "mine")(4, SAMPLE)
    assert built(torch.zeros(2, 3, 6, 6)).shape == (2, 4)


def test_using_model_copies_and_forgets() -> None:
    torch.manual_seed(0)
    net = Net(5)
    weights = copy.deepcopy(net.state_dict())
    with using_model(net) as name:
        assert name == qualified_name(net) == f"{__name__}.Net"
        fitting, replaced = build_model(name, 5, SAMPLE), build_model(name, 3, SAMPLE)
        with (
            pytest.raises(SeewhyError, match=r"the model .*\.Net is registered in"),
            using_model(net),
        ):
            pass
    assert name not in MODELS
    assert replaced.head.out_features == 3
    assert torch.equal(fitting.head.weight, net.head.weight)
    fitting.head.weight.data.zero_()
    assert all(torch.equal(weights[key], value) for key, value in net.state_dict().items())
    with using_model(entry) as name:
        assert build_model(f"{name}:width=3", 3, SAMPLE).head.out_features == 3
        with pytest.raises(SeewhyError, match=r"has no argument 'with' .*; it takes width"):
            build_model(f"{name}:with=3", 3, SAMPLE)


class Fixed(nn.Module):
    """Four sums of pixels, not from a layer."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1)[:, :4]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (3, "model must be a torch.nn.Module or a function that returns one, found int"),
        (dict, r"builtins\.dict must return a torch\.nn\.Module, found dict"),
        (lambda: 1 / 0, "fails: ZeroDivisionError: division by zero"),
        (Fixed(), "has 4 outputs, but the data has 3 classes: the logits of Fixed are not"),
        (nn.Sequential(Net(3), nn.Softmax(1)), "returns probabilities, but the loss needs logits"),
        (nn.Conv2d(3, 4, 1), r"must return logits \(N, K\) for training, .* found \(2, 4, 6, 6\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), "cannot take images of 3x6x6: mat1 and"),
        (Net(3).double(), "has weights in float64, .* call model.float()"),
        (Net(3).to("meta"), r"has no weights yet, only their shapes \(device meta\)"),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta")), "has no weights yet"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_own_model_errors(model: Any, message: str) -> None:
    with pytest.raises(SeewhyError, match=message) as caught, using_model(model) as name:
        MODELS[name](3, SAMPLE)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
