"""From a spec to a model: names, settings, errors, and models without data."""

import copy

import pytest
import torch
from torch import nn

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.models.registry import MODELS, blank_sample, build_model, untrained_spec

MODEL_SPECS = [
    "davidnet:dropout=0.1",
    "resnet18",
    "speednet",
    "speednet:depth=3",
    pytest.param("resnet34", marks=pytest.mark.slow),
]


SHAPES = [(3, 32, 32), (1, 28, 28), (1, 8, 8), (4, 17, 24)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "shape"),
    [
        *(("speednet", shape) for shape in SHAPES),
        ("davidnet", (1, 8, 8)),
        ("efficientnet-lite0", (1, 33, 47)),
        ("davidnet", (4, 17, 24)),
        ("resnet18", (1, 8, 8)),
        ("resnet18", (4, 17, 24)),
        pytest.param("resnet34", (1, 8, 8), marks=pytest.mark.slow),
        pytest.param("davidnet", (3, 32, 32), marks=pytest.mark.slow),
        pytest.param("resnet18", (3, 32, 32), marks=pytest.mark.slow),
        ("speednet:depth=3", (4, 17, 24)),
        ("davidnet:dropout=0.1", (3, 32, 32)),
    ],
)
def test_build_model_finite_logits_and_gradients(text, shape):
    torch.manual_seed(0)
    model = build_model(text, 7, blank_sample(*shape)).train()
    logits = model(torch.rand(3, *shape))
    assert logits.shape == (3, 7)
    assert logits.isfinite().all()
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad or parameter.grad.isfinite().all(), name
    assert model.eval()(torch.zeros(2, *shape)).isfinite().all()
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.slow
@pytest.mark.parametrize("text", MODEL_SPECS)
def test_build_model_from_weights_and_blank_sample(text):
    images = torch.randint(
        0, 256, (16, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    sample = Split(images, torch.zeros(16, dtype=torch.int64), [""] * 16)
    trained = build_model(text, 5, sample).eval()
    rebuilt = build_model(text, 5, blank_sample(3, 16, 16)).eval()
    rebuilt.load_state_dict(trained.state_dict())
    with torch.no_grad():
        assert torch.equal(rebuilt(images / 255), trained(images / 255))


@pytest.mark.slow
@pytest.mark.parametrize("text", MODEL_SPECS)
def test_build_model_seed_and_copies(text):
    torch.manual_seed(3)
    first = build_model(text, 3, blank_sample(1, 8, 8))
    torch.manual_seed(3)
    second = build_model(text, 3, blank_sample(1, 8, 8))
    copied = copy.deepcopy(first)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])
        assert value.data_ptr() != copied.state_dict()[key].data_ptr()


@pytest.mark.parametrize("text", ["davidnet", "resnet18", "speednet", "vgg16", "vgg16-bn", "vit"])
def test_build_model_on_default_device(text):
    with torch.device("meta"):
        model = build_model(text, 10, blank_sample(3, 32, 32))
    assert {value.device.type for value in model.state_dict().values()} == {"meta"}


def test_build_model_of_an_extension(monkeypatch):
    def mine(num_classes: int, sample: Split, hidden: int = 3) -> nn.Module:
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(sample.images[0].numel(), hidden),
            nn.Linear(hidden, num_classes),
        )

    monkeypatch.setitem(MODELS, "mine", mine)
    model = build_model("mine:hidden=6", 4, blank_sample(2, 5, 5))
    assert model[1].weight.shape == (6, 50)
    assert model(torch.zeros(2, 2, 5, 5)).shape == (2, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet81", "did you mean 'resnet18'"),
        ("davidnet:droput=0.1", "did you mean 'dropout'"),
        ("davidnet:dropout=1.5", "dropout must be at least 0 and below 1, found 1.5"),
        ("davidnet:dropout=much", "dropout must be float"),
        ("vgg16:dropout=-1", "vgg16: dropout must be"),
        ("speednet:depth=4", "depth must be 2 or 3"),
        ("speednet:width=0.001", "width multiplies"),
        ("speednet:width=inf", "width must be a finite number, found inf"),
        ("davidnet:dropout=nan", "dropout must be a finite number, found nan"),
        ("resnet18:depth=3", "resnet18 has no argument 'depth'"),
    ],
)
def test_build_model_wrong_spec(text, message):
    with pytest.raises(SeewhyError, match=message):
        build_model(text, 10, blank_sample(3, 32, 32))


@pytest.mark.parametrize("num_classes", [-1, 0, 1])
def test_build_model_needs_two_classes(num_classes):
    with pytest.raises(SeewhyError, match=f"at least 2 classes, found {num_classes}"):
        build_model("resnet18", num_classes, blank_sample(3, 32, 32))


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(0, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(2, 3, 8, 8),
        torch.zeros(2, 8, 8, dtype=torch.uint8),
    ],
)
def test_build_model_wrong_sample(images):
    sample = Split(images, torch.zeros(len(images), dtype=torch.int64), [""] * len(images))
    with pytest.raises(SeewhyError, match=r"must be \(N, C, H, W\) uint8"):
        build_model("resnet18", 10, sample)


def test_untrained_spec() -> None:
    assert untrained_spec("timm:resnet50,pretrained=true") == "timm:resnet50"
    assert untrained_spec("davidnet:dropout=0.1") == "davidnet:dropout=0.1"
    assert untrained_spec("torchvision:vgg16,true") == "torchvision:vgg16"
    assert untrained_spec("timm:pretrained=true,name=007") == "timm:name=007"
    assert untrained_spec("speednet:0.50,depth=3") == "speednet:0.50,depth=3"
