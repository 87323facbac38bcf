"""The plan: its arithmetic, and that every name of a recipe is looked up once."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

import seewhy.data.augment
import seewhy.models.registry
import seewhy.models.tta
import seewhy.train.optimizers
import seewhy.train.schedules
from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.notation import bind
from seewhy.runs.training import fit
from seewhy.train.loop import train
from seewhy.train.lr_finder import lr_range_test
from seewhy.train.plan import TrainingPlan, check_recipe, make_plan
from seewhy.train.recipe import Recipe
from seewhy.train.state import new_state
from seewhy.train.world import World


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each text of a recipe has been looked up."""
    counts: Counter[str] = Counter()

    def counting(table: Any, text: str, *arguments: Any, **settings: Any) -> Any:
        counts[text] += 1
        return bind(table, text, *arguments, **settings)

    for module in (
        seewhy.data.augment,
        seewhy.models.registry,
        seewhy.models.tta,
        seewhy.train.optimizers,
        seewhy.train.schedules,
    ):
        monkeypatch.setattr(module, "bind", counting)
    return counts


NAMES = Recipe(
    name="tiny",
    model="speednet:width=0.125",
    epochs=2,
    batch_size=40,
    lr=0.1,
    optimizer="momentum:momentum=0.8",
    schedule="linear:warmup=0.2",
    momentum_schedule="dip:low=0.9",
    resolution="constant",
    freeze=("whiten:1",),
    augment=("crop:1", "flip"),
    precision="fp32",
)
ONCE = Counter(
    [
        NAMES.model,
        NAMES.optimizer,
        NAMES.schedule,
        NAMES.momentum_schedule,
        NAMES.resolution,
        *NAMES.augment,
        NAMES.tta,
    ]
)


@pytest.mark.train
def test_fit_binds_every_name_once(bound: Counter[str], data: Dataset) -> None:
    fit(NAMES, data, quiet=True)
    assert bound == ONCE


@pytest.mark.train
def test_train_and_range_test_bind_no_name(bound: Counter[str], data: Dataset) -> None:
    plan = make_plan(NAMES, data, "cpu")
    state = new_state(plan)
    assert bound == ONCE
    lr_range_test(state, plan, 1e-5, 1e-2, 10)
    list(train(state, plan))
    assert bound == ONCE


def test_check_recipe_needs_no_data(bound: Counter[str]) -> None:
    check_recipe(NAMES)
    assert bound == ONCE


def test_recipe_binds_no_name(bound: Counter[str]) -> None:
    assert replace(NAMES, model="nosuch").model == "nosuch"
    assert not bound


def plan_of(data: Dataset, epochs: float, grad_accum_steps: int, **changes: Any) -> TrainingPlan:
    changes = {"epochs": epochs, "grad_accum_steps": grad_accum_steps} | changes
    return make_plan(replace(NAMES, **changes), data, "cpu")


@pytest.mark.parametrize("grad_accum_steps", [1, 2, 4, 8])
@pytest.mark.parametrize("epochs", [0.5, 1, 2.5])
def test_plan_cuts_steps_into_updates(epochs: float, grad_accum_steps: int, data: Dataset) -> None:
    """Counted one by one: an update ends after so many steps, with its epoch, or the run."""
    plan = plan_of(data, epochs, grad_accum_steps)
    assert (plan.steps_per_epoch, plan.steps) == (6, round(6 * epochs))
    updates: list[list[int]] = []
    for step in range(plan.steps):
        if step % 6 == 0 or len(updates[-1]) == grad_accum_steps:
            updates.append([])
        updates[-1].append(step)
    assert plan.updates == len(updates)
    for number, update in enumerate(updates):
        for step in update:
            assert list(plan.update_steps(step)) == update
            assert plan.progress(step) == update[0] / max(1, updates[-1][0])
        if update[-1] < plan.steps - 1:  # the run may end within an update
            assert plan.steps_for(number + 1) == update[-1] + 1


def test_plan_of_gd_has_an_update_per_epoch(data: Dataset) -> None:
    plan = plan_of(data, 3, 2, optimizer="gd:momentum=0.5")
    assert (plan.grad_accum_steps, plan.updates) == (6, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patience": 2}, "patience 2 needs a validation split"),
        ({"patience": 2, "eval_every": 0}, "patience 2 needs evaluations, but eval_every is 0"),
        ({"lookahead": 13}, "lookahead 13 is more than the updates of this run, 12"),
        ({"tta": "flip-shift:pixels=40"}, "pixels must be at least 1 and below the image's side"),
        ({"model": "resnet81"}, "unknown model 'resnet81'"),
    ],
)
def test_make_plan_errors(changes: dict[str, Any], message: str, data: Dataset) -> None:
    with pytest.raises(SeewhyError, match=message):
        make_plan(replace(NAMES, **changes), data, "cpu")


def test_make_plan_needs_an_image_per_process(data: Dataset) -> None:
    with pytest.raises(SeewhyError, match="batches of 2 images are too small for 3 processes"):
        make_plan(replace(NAMES, batch_size=2), data, "cpu", World(0, 3))


def test_make_plan_needs_a_compiler(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.train.plan.shutil.which", lambda name: None)
    with pytest.raises(SeewhyError, match=r"compile needs a C\+\+ compiler"):
        make_plan(replace(NAMES, compile=True), data, "cpu")


def test_new_state_takes_a_model(data: Dataset) -> None:
    plan = make_plan(replace(NAMES, freeze=()), data, "cpu")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    assert new_state(plan, model).model is model


def test_new_state_needs_a_learning_rate(data: Dataset) -> None:
    plan = make_plan(replace(NAMES, lr="find"), data, "cpu")
    with pytest.raises(SeewhyError, match="lr is 'find', which only"):
        new_state(plan)
