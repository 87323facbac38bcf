"""The memory of a training step is estimated before the first one."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.models import MODELS
from seewhy.runs import training
from seewhy.runs.training import fit
from seewhy.train import memory
from seewhy.train.memory import OVERHEAD, activation_bytes, available_memory
from seewhy.train.plan import TrainingPlan, make_plan
from seewhy.train.recipe import Recipe
from seewhy.train.state import new_state

CPU = torch.device("cpu")


def plain(num_classes: int, sample: Any) -> torch.nn.Module:
    """A convolution of 10 channels and a linear layer."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 10, 3, padding=1),
        torch.nn.Tanh(),
        torch.nn.Flatten(),
        torch.nn.Linear(640, num_classes),
    )


@pytest.fixture
def plan(recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> TrainingPlan:
    monkeypatch.setitem(MODELS, "plain", plain)
    return make_plan(replace(recipe, model="plain", batch_size=60), data, CPU)


def test_activation_bytes_of_small_model(plan: TrainingPlan) -> None:
    """The pixels, the output of tanh, and its copy for the linear layer, not channels last."""
    model = new_state(plan).model.train()
    before = torch.get_rng_state()
    assert activation_bytes(plan, model) == 4 * (3 + 10 + 10) * 64
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_memory_is_checked_before_the_first_step(
    plan: TrainingPlan, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what to change; with that change the step fits."""
    weights = 2 * 4 * (3 * 10 * 9 + 10 + 640 * 3 + 3)
    per_image = OVERHEAD * 4 * 23 * 64
    available = weights + int(25 * per_image)
    monkeypatch.setattr(memory, "available_memory", lambda device: available)
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("too late"))
    with pytest.raises(SeewhyError) as error:
        fit(plan.recipe, data, tmp_path / "none", "cpu", quiet=True)
    text = str(error.value)
    assert re.match(r"a step of plain with a batch of 60 images of 3x8x8 needs about 0\.0 GB", text)
    assert (
        "use batch_size=16 and grad_accum_steps=4, so that an update still sees 64 images" in text
    )
    assert "\n" not in text
    assert not (tmp_path / "none").exists()
    for size, fits in ((16, True), (24, True), (30, False)):
        changed = make_plan(replace(plan.recipe, batch_size=size), data, CPU)
        if fits:
            new_state(changed)
        else:
            with pytest.raises(SeewhyError, match="use batch_size=16 and grad_accum_steps=2"):
                new_state(changed)
    monkeypatch.setattr(memory, "available_memory", lambda device: weights)
    with pytest.raises(SeewhyError, match="use a smaller model or smaller images"):
        new_state(plan)
    monkeypatch.setattr(memory, "available_memory", lambda device: None)
    new_state(plan)


def test_model_that_cannot_run_is_left_to_the_first_step(plan: TrainingPlan) -> None:
    assert activation_bytes(plan, torch.nn.Linear(7, 3)) == 0


def test_model_without_memory_for_two_images(plan: TrainingPlan) -> None:
    class Greedy(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    assert activation_bytes(plan, Greedy()) == math.inf


def test_available_memory_is_the_smallest_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = available_memory(CPU)
    assert everything is not None
    limit, use = tmp_path / "limit", tmp_path / "use"
    monkeypatch.setattr(memory, "_LIMITS", (str(limit),))
    monkeypatch.setattr(memory, "_USES", (str(use),))
    limit.write_text("3000000\n")
    use.write_text("1000000\n")
    assert available_memory(CPU) == 2_000_000
    limit.write_text("max\n")
    assert available_memory(CPU) != 2_000_000
    assert available_memory(torch.device("mps")) is None
