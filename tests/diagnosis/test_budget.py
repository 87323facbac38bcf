"""A diagnosis within its time: fewer images for each question, and the numbers recorded."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from seewhy.data.dataset import Dataset, Split
from seewhy.diagnosis import budget as budget_module
from seewhy.diagnosis.budget import Budget, affordable, images_within
from seewhy.diagnosis.diagnosis import diagnose
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier


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
        (1000, 1.0, [8, 92]),
        (30, 1.0, [8, 22]),  # 8 of 30 seconds are gone after the first batch
        (5, 1.0, [8]),
        (20, 0.0, [8, 92]),
    ],
)
def test_images_within_follows_the_pace(
    monkeypatch, images_per_batch, seconds, per_image, expected
):
    clock = Clock(monkeypatch)
    images_per_batch(8)
    model, images = nn.Flatten().eval(), torch.zeros(100, 1, 4, 4)
    sizes = []
    for rows in images_within(seconds, model, images):
        sizes.append(len(images[rows]))
        clock.now += per_image * sizes[-1]
    assert sizes == expected


def test_affordable():
    assert affordable(10, 3, 100) == 3
    assert affordable(10, 3, 2) == 2
    assert affordable(-1, 3, 100, least=2) == 2
    assert affordable(10, 0, 100) == 100


@pytest.mark.slow
def test_diagnosis_with_little_time_takes_few_images(images_per_batch) -> None:
    images_per_batch(8)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 8, 8), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(60) % 3, [f"{index}.png" for index in range(60)])
    data = Dataset("noise", ("a", "b", "c"), split, split, None, "0" * 32)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    classifier = Classifier(net.eval(), data.classes)
    little = diagnose(classifier, data, quiet=True, minutes=1e-9)
    assert little.saliency is not None
    assert (little.saliency.images, len(little.errors)) == (2, 1)
    assert {score.layer for score in little.saliency.scores} == {little.saliency.maps.layers[-1]}
    assert {curve.images for curve in (*little.attacks, *little.corruptions)} == {8}
    assert little.slice_images == 32
    assert little.limited
    assert little.minutes == pytest.approx(1e-9)
    with pytest.raises(SeewhyError, match="minutes must be above 0, found 0"):
        diagnose(classifier, data, minutes=0)
