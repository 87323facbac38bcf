"""A diagnosis within its time: fewer images for each question, and the numbers recorded."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from seewhy.data.dataset import Dataset, Split
from seewhy.diagnosis import budget as budget_module
from seewhy.diagnosis.budget import Budget, affordable, images_within, surely_within
from seewhy.diagnosis.diagnosis import diagnose
from seewhy.errors import SeewhyError
from seewhy.models.batching import batch_size
from seewhy.models.classifier import Classifier
from seewhy.models.inference import compute_logits


class Clock:
    """Time that passes when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(budget_module, "time", SimpleNamespace(monotonic=lambda: self.now))


def test_budget_gives_what_a_step_leaves_to_the_later_ones(monkeypatch):
    clock = Clock(monkeypatch)
    budget = Budget(100, {"a": 50, "b": 25, "c": 25})
    assert budget.begin("a") == 50
    clock.now = 20  # 80 seconds are left for two equal shares
    assert budget.begin("b") == 40
    clock.now = 90
    assert budget.begin("c") == 10
    assert Budget(math.inf, {"a": 1}).begin("a") == math.inf
    clock.now = 200
    assert Budget(10, {"a": 1, "b": 1}).begin("a") == 5


@pytest.mark.parametrize(
    ("seconds", "per_image", "expected"),
    [
        (math.inf, 1.0, [100]),
        (2000, 1.0, [1, 8, 72, 19]),
        (30, 1.0, [1, 8, 21]),
        (5, 1.0, [1, 4]),
        (0, 1.0, [1]),
        (20, 0.0, [1, 8, 72, 19]),
    ],
)
def test_images_within_follows_the_pace(monkeypatch, seconds, per_image, expected):
    clock = Clock(monkeypatch)
    sizes = []
    for rows in images_within(seconds, 100):
        sizes.append(rows.stop - rows.start)
        clock.now += per_image * sizes[-1]
    assert sizes == expected


def test_images_within_follows_images_that_take_longer(monkeypatch):
    clock, sizes = Clock(monkeypatch), []
    for rows in images_within(100, 500, most=40):
        sizes.append(rows.stop - rows.start)
        clock.now += sum(0.1 if row == 0 else 2.0 for row in range(rows.start, rows.stop))
    assert sizes == [1, 8, 40, 1]  # 96.1 seconds after 49 images, 1.96 each
    assert list(images_within(math.inf, 90, most=40)) == [
        slice(0, 40),
        slice(40, 80),
        slice(80, 90),
    ]


def test_images_that_surely_fit_are_taken_at_once(monkeypatch, images_per_batch):
    clock, images = Clock(monkeypatch), noise(100).test.images
    images_per_batch(8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()

    def pass_time(module: nn.Module, inputs: object, output: Tensor) -> None:
        clock.now += len(output)

    batch_size(model, images)  # takes a pass, the first time
    model.register_forward_hook(pass_time)
    assert surely_within(10_000, model, images, passes=10) == 100
    assert surely_within(1000, model, images, passes=10) == 50
    assert surely_within(1, model, images, passes=10) == 1
    assert clock.now == 3 * 8
    assert surely_within(math.inf, model, images, passes=10) == 100
    assert next(images_within(1000, 100, first=50)) == slice(0, 50)


def test_affordable():
    assert affordable(10, 3, 100) == 3
    assert affordable(10, 3, 2) == 2
    assert affordable(-1, 3, 100, least=2) == 2
    assert affordable(10, 0, 100) == 100


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


def noise(count: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(count) % 3, [f"{index}.png" for index in range(count)])
    return Dataset("noise", ("a", "b", "c"), split, split, None, "0" * 32)


@pytest.mark.slow
@pytest.mark.parametrize(("pace", "slower"), [(12, 1), (80, 4)], ids=["steady", "busy"])
@pytest.mark.parametrize("easy", [False, True], ids=["correct", "mistaken"])
def test_diagnosis_of_a_slow_network_stays_within_its_time(
    monkeypatch, images_per_batch, easy, pace, slower
):
    """At the pace of a ResNet-50 on two cores: 12 images/s at 224 pixels.

    Or a faster one, on a machine that is four times slower once the pace has been measured.
    """
    images_per_batch(8)
    clock = Clock(monkeypatch)
    for module in ("diagnosis.diagnosis", "diagnosis.saliency", "attribution.scores"):
        path = f"seewhy.{module}.time"
        monkeypatch.setattr(path, SimpleNamespace(monotonic=lambda: clock.now))
    model, data = net(), noise(153)
    labels = compute_logits(model, data.test.images).argmax(1)
    if not easy:  # attacks of images that are classified correctly take many times as long
        data = replace(data, test=replace(data.test, labels=labels))

    def pass_time(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seconds = (1 if clock.now < 5 else slower) / pace
        clock.now += seconds * len(output)
        if output.requires_grad:
            output.register_hook(
                lambda _: setattr(clock, "now", clock.now + 2 * seconds * len(output))
            )

    model.register_forward_hook(pass_time)
    found = diagnose(Classifier(model, data.classes), data, quiet=True)
    assert 60 < found.seconds < (125 if slower == 1 else 150)
    assert found.limited


@pytest.mark.slow
def test_diagnosis_with_little_time_takes_few_images(images_per_batch) -> None:
    images_per_batch(8)
    data = noise(60)
    classifier = Classifier(net(), data.classes)
    little = diagnose(classifier, data, quiet=True, minutes=1e-9)
    assert little.saliency is not None
    assert (little.saliency.images, len(little.errors)) == (2, 1)
    assert {score.layer for score in little.saliency.scores} == {little.saliency.maps.layers[-1]}
    assert {curve.images for curve in (*little.attacks, *little.corruptions)} == {1}
    assert little.slice_images == 16
    assert little.limited
    assert little.minutes == pytest.approx(1e-9)
    with pytest.raises(SeewhyError, match="minutes must be above 0, found 0"):
        diagnose(classifier, data, minutes=0)
