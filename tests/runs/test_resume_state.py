"""The state of training: saved and loaded at any step, training ends the same, to the last bit."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from seewhy.data.dataset import Dataset, Split
from seewhy.models.registry import MODELS
from seewhy.train.loop import StepStats, train
from seewhy.train.optimizers import OPTIMIZERS
from seewhy.train.plan import TrainingPlan, make_plan
from seewhy.train.recipe import Recipe
from seewhy.train.schedules import SCHEDULES
from seewhy.train.state import TrainState, load_state_dict, new_state, state_dict


def begin(recipe: Recipe, data: Dataset) -> tuple[TrainState, TrainingPlan]:
    torch.manual_seed(recipe.seed)
    plan = make_plan(recipe, data, "cpu")
    return new_state(plan), plan


def is_equal(one: Any, other: Any) -> bool:
    """Equal to the last bit, through lists, tuples and dicts."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_equal, one, other))
    return bool(one == other)


def assert_resumes(recipe: Recipe, data: Dataset, stops: Iterable[int], tmp_path: Path) -> None:
    """Train to the end, saving the state at `stops`; then train on from each saved state."""
    state, plan = begin(recipe, data)
    for event in train(state, plan):
        if isinstance(event, StepStats) and event.step in stops:
            torch.save(state_dict(state), tmp_path / f"{event.step}.pt")
    expected = state_dict(state)
    for stop in stops:
        resumed, plan = begin(recipe, data)
        torch.rand(3)  # the random state is that of the checkpoint
        load_state_dict(resumed, torch.load(tmp_path / f"{stop}.pt", weights_only=True))
        for _ in train(resumed, plan):
            pass
        values = state_dict(resumed)
        different = [name for name in expected if not is_equal(expected[name], values[name])]
        assert set(different) <= {"seconds", "epoch_seconds"}, f"stopped at step {stop}"


def model_with_dropout(num_classes: int, sample: Split) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8, num_classes),
    )


@pytest.fixture
def small(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Two epochs of three steps, with dropout, random augmentations, and averaged weights."""
    monkeypatch.setitem(MODELS, "with-dropout", model_with_dropout)
    return replace(
        recipe,
        model="with-dropout",
        epochs=2,
        batch_size=80,
        lr=0.02,
        augment=("crop:1", "flip", "cutout:3", "mixup"),
        ema=0.9,
        lookahead=2,
        label_smoothing=0.1,
    )


@pytest.mark.slow
def test_everything_with_a_state_resumes(small: Recipe, data: Dataset, tmp_path: Path) -> None:
    """The stops are within an update, at the end of an epoch, and after a freeze."""
    rich = replace(
        small,
        precision="fp16",
        grad_accum_steps=2,
        freeze=("3:1",),
        resolution="linear:warmup=0.6,start=0.5,end=1",
        momentum_schedule="dip",
        clip_grad_norm=0.1,
        l1=1e-4,
        class_weights=True,
    )
    assert_resumes(rich, data, (1, 3, 4), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_resumes(name: str, small: Recipe, data: Dataset, tmp_path: Path) -> None:
    assert_resumes(replace(small, optimizer=name), data, (4,), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_resumes(name: str, small: Recipe, data: Dataset, tmp_path: Path) -> None:
    spec = "plateau:patience=0,threshold=0.9" if name == "plateau" else name
    changed = replace(small, epochs=3, schedule=spec, momentum_schedule="dip")
    assert_resumes(changed, data, (7,), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "fp16"},
        {"precision": "bf16"},
        {"grad_accum_steps": 2},
        {"freeze": ("3:1",)},
        {"resolution": "linear:warmup=0.6,start=0.5,end=1"},
        {"clip_grad_norm": 0.1, "l1": 1e-4, "class_weights": True},
    ],
    ids=str,
)
def test_field_resumes(
    changes: dict[str, Any], small: Recipe, data: Dataset, tmp_path: Path
) -> None:
    assert_resumes(replace(small, **changes), data, (1, 3, 4), tmp_path)
