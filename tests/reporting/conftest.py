"""A run, its report, odd cases, and the equality of diagnoses, shared by the tests of the report."""

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
from seewhy.reporting.page import Page, render_page
from seewhy.runs.environment import current_environment
from seewhy.runs.result import RunResult
from seewhy.runs.run import Run
from seewhy.runs.training import fit
from seewhy.train.loop import EpochStats
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
    """Four classes of bars; some test labels are wrong, and one test image is also in training."""
    train, test = bars(240, seed=1), bars(120, seed=2)
    wrong = torch.arange(0, 120, 9)
    labels = test.labels.index_copy(0, wrong, (test.labels[wrong] + 1 + wrong // 9 % 3) % 4)
    images = test.images.index_copy(0, torch.tensor([5]), train.images[7:8])
    return Dataset(
        "bars", CLASSES, train, replace(test, labels=labels, images=images), None, "5" * 32
    )


@pytest.fixture(scope="session")
def small_recipe() -> Recipe:
    """Learns the bars in a second, with some errors."""
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
    """A run with another seed and an epoch more."""
    return fit(
        replace(small_recipe, seed=1, epochs=4),
        data,
        tmp_path_factory.mktemp("runs") / "later",
        quiet=True,
    )


@pytest.fixture(scope="session")
def context(run: Run, data: Dataset) -> ReportContext:
    """The context of the run, with its diagnosis in the run directory."""
    return make_context(run, data=data, quiet=True)


@pytest.fixture(scope="session")
def page(context: ReportContext) -> Page:
    return render_page(context)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that share the trained runs."""
    for item in items:
        if {"run", "later"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.train)


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


Case = tuple[nn.Module, Dataset, Predictions]

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


@kept
def case(name: str) -> Case:
    """A model, data and predictions as the name says; some predictions are errors unless it says otherwise."""
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
    return model, data, predict_split(Classifier(model, data.classes), test)


@pytest.fixture(scope="session")
def make_case() -> Callable[[str], Case]:
    return case


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(name, marks=() if name == "one error" else pytest.mark.slow) for name in CASES
    ],
)
def odd(request: pytest.FixtureRequest) -> ReportContext:
    """The context of each odd case, as if its model were that of a run."""
    model, data, predictions = case(request.param)
    run = run_of(model, data, predictions)
    assert run.result is not None
    return ReportContext(
        run, run.result, predictions, diagnose(model, data, predictions, quiet=True)
    )


def run_of(model: nn.Module, data: Dataset, predictions: Predictions) -> Run:
    """A run with this model, without training."""
    history = (EpochStats(1.0, 10, 0.1, 0.9, 1.0, 100.0, 2.0, 0.5, 1.0, 0.6),)
    result = RunResult(
        accuracy=predictions.accuracy,
        plain_accuracy=predictions.accuracy,
        interval=predictions.interval,
        test_images=len(predictions.labels),
        test_loss=1.0,
        calibration_error=0.1,
        selected_on="last epoch",
        selected_epoch=1.0,
        epochs=1.0,
        steps=10,
        train_seconds=1.0,
        images_per_second=100.0,
        parameters=1000,
        optimizer_bytes=4000,
    )
    return Run(
        recipe=Recipe(name="odd"),
        classifier=Classifier(model, data.classes),
        history=history,
        predictions=predictions,
        result=result,
        environment=current_environment(torch.device("cpu"), "fp32"),
        data=data.origin,
        directory=None,
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
def same_() -> Callable[[Any, Any], bool]:
    return same
