"""Small models and data, typical and odd, that the tests of diagnosis and of reporting share."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from seewhy.data.dataset import Dataset, Split
from seewhy.diagnosis.diagnosis import Diagnosis, diagnose
from seewhy.diagnosis.predictions import Predictions, predict_split
from seewhy.models.classifier import Classifier
from seewhy.models.normalization import Normalize

CLASSES = ("upright", "level <&> flat", "$x^2$", 'the "rest"')


class DiagnosisCase(NamedTuple):
    """A model, data, and predictions of the test split."""

    model: nn.Module
    data: Dataset
    predictions: Predictions


class DiagnosedCase(NamedTuple):
    """A case with its diagnosis."""

    model: nn.Module
    data: Dataset
    predictions: Predictions
    diagnosis: Diagnosis


def bars(
    count: int, classes: int = 4, shape: tuple[int, int, int] = (3, 12, 12), seed: int = 0
) -> Split:
    """Noisy images with a bright bar (upright, level, or slanting) or a square, up to 4 classes."""
    generator = torch.Generator().manual_seed(seed)
    _, height, width = shape
    labels = torch.arange(count) % classes
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    steps = torch.arange(6)
    for mask, label in zip(masks, labels.tolist(), strict=True):
        top, left = (
            int(torch.randint(0, side - 5, (), generator=generator)) for side in (height, width)
        )
        if label == 3:
            mask[top : top + 3, left : left + 3] = True
        else:
            mask[top + steps * (label != 1), left + steps * (label != 0)] = True
    images = torch.randint(0, 120, (count, *shape), generator=generator) + 90 * masks[:, None]
    return Split(
        images.byte(), labels, [f"photos/{seed}/bar-{index}.png" for index in range(count)], masks
    )


def network(channels: int = 3, classes: int = 4, convolutions: int = 2) -> nn.Module:
    """A random model with a number of layers that can be explained; a linear one without."""
    generator = torch.Generator().manual_seed(3)
    layers: list[nn.Module] = [Normalize([0.35] * channels, [0.2] * channels)]
    width = channels
    for place in range(convolutions):
        layers += [nn.MaxPool2d(2)] if place else []
        layers += [nn.Conv2d(width, 8, 3, padding=1), nn.ReLU()]
        width = 8
    layers += [nn.AdaptiveAvgPool2d(1)] if convolutions else [nn.AdaptiveAvgPool2d(4)]
    layers += [nn.Flatten(), nn.Linear(8 if convolutions else 16 * channels, classes)]
    model = nn.Sequential(*layers).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4
    return model


@torch.no_grad()
def balanced(model: nn.Module, images: Tensor) -> nn.Module:
    """The model with another head, so that no class is predicted for all images."""
    logits = model(images.float() / 255)
    head = list(model.modules())[-1]
    assert isinstance(head, nn.Linear)
    head.weight.mul_(3 / logits.std(0)[:, None])
    head.bias.copy_(3 * (head.bias - logits.mean(0)) / logits.std(0))
    return model


SHAPES = {"grayscale": (1, 12, 12), "oblong": (3, 96, 64)}
COUNTS = {"thirty": 30, "oblong": 4}
CONVOLUTIONS = {"one layer": 1, "no layer": 0}
CASES = (
    "two classes",
    "absent class",
    "perfect",
    "all wrong",
    "one error",
    "grayscale",
    "oblong",
    "thirty",
    "validation",
    "one layer",
    "no layer",
)


@cache
def case(name: str) -> DiagnosisCase:
    """The case of that name; some predictions are errors unless the name says otherwise."""
    shape, classes = SHAPES.get(name, (3, 12, 12)), 2 if name == "two classes" else 4
    train, test = (bars(COUNTS.get(name, 24), classes, shape, seed) for seed in (1, 2))
    model = balanced(network(shape[0], classes, CONVOLUTIONS.get(name, 2)), test.images)
    predicted = predict_split(model, test).predicted
    labels = test.labels
    if name == "absent class":
        labels = labels.clamp(max=2)
    elif name in ("perfect", "one error"):
        labels = predicted.clone()
        labels[7] = (predicted[7] + (name == "one error")) % classes
    elif name == "all wrong":
        labels = (predicted + 1 + torch.arange(len(predicted)) % 3) % classes
    test = replace(test, labels=labels, masks=None if name == "thirty" else test.masks)
    held_out = bars(20, classes, shape, 3) if name == "validation" else None
    data = Dataset(name, CLASSES[:classes], train, test, held_out, "c" * 32)
    predictions = predict_split(Classifier(model, data.classes), test)
    return DiagnosisCase(model, data, predictions)


@pytest.fixture(scope="session")
def make_case() -> Callable[[str], DiagnosisCase]:
    """`make_case(name)`: the case of CASES with that name."""
    return case


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(name, marks=() if name == "one error" else pytest.mark.slow) for name in CASES
    ],
)
def diagnosed_case(request: pytest.FixtureRequest) -> DiagnosedCase:
    """Each case with its diagnosis."""
    return diagnosed(request.param)


@cache
def diagnosed(name: str) -> DiagnosedCase:
    """The case of that name with its diagnosis."""
    model, data, predictions = case(name)
    return DiagnosedCase(
        model, data, predictions, diagnose(model, data, predictions, quiet=True, minutes=None)
    )


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal down to their tensors, apart from `seconds`; NaN equals NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and torch.equal(one.nan_to_num(7e7), other.nan_to_num(7e7))
        )
    if is_dataclass(one):
        return all(
            same(getattr(one, each.name), getattr(other, each.name))
            for each in fields(one)
            if each.name != "seconds"
        )
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other or (one != one and other != other))


@pytest.fixture(scope="session", name="same")
def same_fixture() -> Callable[[Any, Any], bool]:
    return same
