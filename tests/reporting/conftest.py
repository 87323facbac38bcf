"""One training that all tests of the report share, small networks for odd cases, and equality of what was found out."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import cache as kept
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.data.dataset import Dataset, Split
from seewhy.diagnosis.diagnosis import diagnose
from seewhy.diagnosis.predictions import Predictions, predict_split
from seewhy.models.classifier import Classifier
from seewhy.models.normalization import Normalize
from seewhy.reporting.context import ReportContext, make_context
from seewhy.reporting.page import Page, page
from seewhy.runs.run import Run
from seewhy.runs.training import fit
from seewhy.train.recipe import Recipe

CLASSES = ("upright", "level <&> flat", "$x^2$", 'the "rest"')


def bars(
    count: int, classes: int = 4, shape: tuple[int, int, int] = (3, 12, 12), seed: int = 0
) -> Split:
    """`count` noisy images (C, H, W), each with a bright bar, upright, level or slanting, or a square; at most 4 classes."""
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


@pytest.fixture(scope="session")
def data() -> Dataset:
    """Four classes of bars; some test images have a wrong label, and one is in both splits."""
    train, test = bars(240, seed=1), bars(120, seed=2)
    wrong = torch.arange(0, 120, 9)
    labels = test.labels.index_copy(0, wrong, (test.labels[wrong] + 1 + wrong // 9 % 3) % 4)
    images = test.images.index_copy(0, torch.tensor([5]), train.images[7:8])
    return Dataset(
        "bars", CLASSES, train, replace(test, labels=labels, images=images), None, "5" * 32
    )


@pytest.fixture(scope="session")
def small_recipe() -> Recipe:
    """Learns them in a second, but not all of them."""
    return Recipe(
        name="small",
        model="speednet:width=0.125",
        epochs=3,
        batch_size=40,
        lr=0.5,
        optimizer="sgd:momentum=0.85",
        precision="fp32",
    )


@pytest.fixture(scope="session")
def run(small_recipe: Recipe, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(small_recipe, data, tmp_path_factory.mktemp("runs") / "run", quiet=True)


@pytest.fixture(scope="session")
def later(small_recipe: Recipe, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same from other weights, for an epoch longer."""
    return fit(
        replace(small_recipe, seed=1, epochs=4),
        data,
        tmp_path_factory.mktemp("runs") / "later",
        quiet=True,
    )


@pytest.fixture(scope="session")
def asked(run: Run, data: Dataset) -> ReportContext:
    """The study of the run, which is kept in its directory."""
    return make_context(run, data=data, quiet=True)


@pytest.fixture(scope="session")
def made(asked: ReportContext) -> Page:
    return page(asked)


def network(channels: int = 3, classes: int = 4, convolutions: int = 2) -> nn.Module:
    """A random one, of so many layers that can be explained; with none of them a linear one."""
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
    """The same with another bias, so that no class is predicted for all images."""
    logits = model(images.float() / 255)
    head = list(model.modules())[-1]
    assert isinstance(head, nn.Linear)
    head.weight.mul_(3 / logits.std(0)[:, None])
    head.bias.copy_(3 * (head.bias - logits.mean(0)) / logits.std(0))
    return model


Case = tuple[nn.Module, Dataset, Predictions]

SHAPES = {"grayscale": (1, 12, 12), "oblong": (3, 96, 64)}
COUNTS = {"thirty": 30, "oblong": 4}
CONVOLUTIONS = {"one layer": 1, "no layer": 0}
CASES = (
    "two classes",
    "absent class",
    "perfect",
    "all wrong",
    "one mistake",
    "grayscale",
    "oblong",
    "thirty",
    "validation",
    "one layer",
    "no layer",
)


@kept
def case(name: str) -> Case:
    """A network and data with what the name says; where it says nothing of the labels, some of them are mistakes."""
    shape, classes = SHAPES.get(name, (3, 12, 12)), 2 if name == "two classes" else 4
    train, test = (bars(COUNTS.get(name, 24), classes, shape, seed) for seed in (1, 2))
    model = balanced(network(shape[0], classes, CONVOLUTIONS.get(name, 2)), test.images)
    predicted = predict_split(model, test).predicted
    labels = test.labels
    if name == "absent class":
        labels = labels.clamp(max=2)
    elif name in ("perfect", "one mistake"):
        labels = predicted.clone()
        labels[7] = (predicted[7] + (name == "one mistake")) % classes
    elif name == "all wrong":
        labels = (predicted + 1 + torch.arange(len(predicted)) % 3) % classes
    test = replace(test, labels=labels, masks=None if name == "thirty" else test.masks)
    held_out = bars(20, classes, shape, 3) if name == "validation" else None
    data = Dataset(name, CLASSES[:classes], train, test, held_out, "c" * 32)
    return model, data, predict_split(Classifier(model, data.classes), test)


@pytest.fixture(scope="session")
def make_case() -> Callable[[str], Case]:
    return case


@pytest.fixture(scope="session", params=CASES)
def odd(request: pytest.FixtureRequest, run: Run) -> ReportContext:
    """A study of each odd case, as if the network were that of a run."""
    model, data, result = case(request.param)
    found = diagnose(model, data, result, quiet=True)
    assert run.result is not None
    summary = replace(
        run.result, accuracy=result.accuracy, interval=result.interval, images=len(result.labels)
    )
    like = replace(
        run, model=model, classes=data.classes, test=result, result=summary, directory=None
    )
    return ReportContext(like, summary, result, found)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal down to their tensors, except for how many seconds they took; NaN equals NaN."""
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
def same_() -> Callable[[Any, Any], bool]:
    return same
