"""Features: what enters the head, whatever the model is made of."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.features import extract_features, linear_head, predict_with_features
from seewhy.models.inference import compute_logits
from seewhy.models.onnx_file import FileModel
from seewhy.models.registry import blank_sample, build_model
from seewhy.models.tta import TTA


def images_of(count: int, channels: int = 3, side: int = 12) -> Tensor:
    return torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (count, channels, side, side), dtype=np.uint8)
    )


def test_features_are_the_input_of_the_last_linear_layer() -> None:
    torch.manual_seed(0)
    model, images = (
        build_model("speednet:width=0.25", 5, blank_sample(3, 12, 12)).train(),
        images_of(7),
    )
    found = extract_features(model, images, batch_size=3)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert found.dtype == torch.float32
    with torch.no_grad():
        outputs = found @ model.linear.weight.T * model.scale  # type: ignore[union-attr, operator]
    torch.testing.assert_close(outputs, compute_logits(model, images), atol=1e-5, rtol=1e-4)
    assert extract_features(Classifier(model, precision="bf16"), images).dtype == torch.float32


class Squeezed(nn.Module):
    """A linear layer in the middle, and a convolution as the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Conv2d(3, 6, 3), nn.Linear(6, 6), nn.Conv2d(6, 4, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.first(pixels)
        gated = maps * self.gate(maps.mean((2, 3)))[:, :, None, None]
        return self.last(gated).mean((2, 3))


class Spread(nn.Module):
    """No layer with weights: a map, and logits from it."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.pool(pixels).amax((2, 3))


def test_features_of_models_without_a_last_linear_layer() -> None:
    torch.manual_seed(1)
    images = images_of(5)
    model = Squeezed().eval()
    found = extract_features(model, images)
    with torch.no_grad():
        expected = found @ model.last.weight[:, :, 0, 0].T + model.last.bias
    torch.testing.assert_close(expected, compute_logits(model, images), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        extract_features(Spread(), images), images.float().mean((2, 3)) / 255
    )
    plain = nn.Sequential(nn.Flatten(), nn.Tanh()).eval()
    torch.testing.assert_close(extract_features(plain, images), compute_logits(plain, images))


class Tokens(nn.Module):
    """A linear layer for every place, and then their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(pixels.flatten(2).transpose(1, 2)).mean(1)


def test_features_are_averaged_over_positions() -> None:
    images = images_of(4)
    torch.testing.assert_close(
        extract_features(Tokens().eval(), images), images.float().mean((2, 3)) / 255
    )


def test_extract_features_removes_hooks_after_an_error() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(5, 2)).eval()
    with pytest.raises(SeewhyError, match="cannot take images of 3x12x12"):
        extract_features(model, images_of(2))
    assert not any(module._forward_hooks for module in model.modules())


def test_features_of_floats_are_those_of_bytes() -> None:
    model, images = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(576, 2)), images_of(5)
    floats = extract_features(model, images.float() / 255, batch_size=2)
    torch.testing.assert_close(floats, extract_features(model, images))
    assert not floats.is_inference()
    with torch.no_grad():
        torch.testing.assert_close(floats, model[:2](images / 255))


@pytest.mark.parametrize(("tta", "passes"), [("none", 1), ("flip", 2), ("mirrored", 2)])
def test_predict_with_features_runs_the_network_once_for_each_view(
    monkeypatch: pytest.MonkeyPatch, tta: str, passes: int
) -> None:
    # without the images themselves, whose features then need a pass
    monkeypatch.setitem(TTA, "mirrored", lambda predict, images: predict(images.flip(3)))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 2)).eval()
    classifier, images, seen = Classifier(model, tta=tta), images_of(9), []
    expected = compute_logits(classifier, images), extract_features(classifier, images)
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    found = predict_with_features(classifier, images)
    assert sum(seen) == passes * len(images) + 1  # one image, to find the head
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_predict_with_features_rejects_logits_that_are_not_finite() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(432, 2)).eval()
    nn.init.constant_(model[1].bias, float("nan"))
    with pytest.raises(SeewhyError, match="the logits of 2 of 2 images are not finite"):
        predict_with_features(model, images_of(2))


def test_extract_features_rejects_features_that_are_not_finite() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(576, 2)).eval()
    nn.init.constant_(model[0].bias, float("inf"))
    with pytest.raises(SeewhyError, match="features are not finite; check the model"):
        extract_features(model, images_of(2))


def test_an_exported_file_has_no_features() -> None:
    exported = FileModel(lambda pixels: pixels.flatten(1)[:, :10])
    with pytest.raises(SeewhyError, match=r"in an exported file has no layers.*use the run"):
        extract_features(exported.eval(), images_of(2))


def head_case(kind: str) -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    ends = {
        "linear": [pooled, nn.Linear(6, 4)],
        "no bias, a factor": [pooled, nn.Linear(6, 4, bias=False), Scaled(0.3)],
        "convolution, then pooling": [nn.Conv2d(6, 4, 1), pooled],
        "probabilities": [pooled, nn.Linear(6, 4), nn.Softmax(1)],
        "another function": [pooled, nn.Linear(6, 4), Scaled(50), nn.Tanh(), Scaled(9)],
        "a wide convolution": [nn.Conv2d(6, 4, 2), pooled],
        "no layer": [pooled],
    }
    return nn.Sequential(body, *ends[kind]).eval()


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


@pytest.mark.parametrize(
    ("kind", "linear"),
    [
        ("linear", True),
        ("no bias, a factor", True),
        ("convolution, then pooling", True),
        ("probabilities", True),
        ("another function", False),
        ("a wide convolution", False),
        ("no layer", False),
    ],
)
def test_a_linear_head_makes_the_features_the_logits(kind: str, linear: bool) -> None:
    classifier = Classifier(head_case(kind), tta="flip", temperature=3.0)
    levels = torch.linspace(0, 1, 12)[:, None, None, None]
    images = (images_of(12) * levels).byte()
    head = linear_head(classifier, images)
    assert (head is not None) == linear
    if head is None:
        return
    found = (extract_features(classifier, images) @ head[0].T + head[1]).softmax(1)
    expected = compute_logits(replace(classifier, tta="none", temperature=1.0), images).softmax(1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
