import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, OneCycleLR, ReduceLROnPlateau

from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.train.optimizers import SGD
from seewhy.train.plan import make_plan
from seewhy.train.recipe import Recipe
from seewhy.train.schedules import SCHEDULES, bind_schedule


@pytest.mark.parametrize(("anneal", "torch_name"), [("linear", "linear"), ("cosine", "cos")])
def test_one_cycle_equals_torch(anneal: str, torch_name: str) -> None:
    steps = 101
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    settings = {"pct_start": 0.31, "div_factor": 20.0, "final_div_factor": 50.0}
    theirs = OneCycleLR(
        optimizer, max_lr=1.0, total_steps=steps, anneal_strategy=torch_name, **settings
    )  # type: ignore[arg-type]
    ours = bind_schedule(
        f"one-cycle:pct_start=0.31,div_factor=20,final_div_factor=50,anneal={anneal}"
    )
    expected, result = [], []
    for step in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        result.append(ours(step / (steps - 1), ()))
        optimizer.step()
        if step < steps - 1:
            theirs.step()
    # torch has the peak at step pct_start * steps - 1, ours is at pct_start: within one step
    slope = max(abs(a - b) for a, b in pairwise(expected))
    assert max(abs(a - b) for a, b in zip(expected, result, strict=True)) < slope
    assert result[0] == pytest.approx(1 / 20)
    assert result[-1] == pytest.approx(1 / 1000)


@pytest.mark.parametrize(("anneal", "torch_name"), [("linear", "linear"), ("cosine", "cos")])
def test_one_cycle_three_phases_equal_torch(anneal: str, torch_name: str) -> None:
    steps = 1001
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    settings = {"pct_start": 0.3, "div_factor": 20.0, "final_div_factor": 50.0, "three_phase": True}
    theirs = OneCycleLR(
        optimizer, max_lr=1.0, total_steps=steps, anneal_strategy=torch_name, **settings
    )  # type: ignore[arg-type]
    ours = bind_schedule(
        f"one-cycle:pct_start=0.3,div_factor=20,final_div_factor=50,anneal={anneal},three_phase=true"
    )
    for step in range(steps):
        assert ours(step / (steps - 1), ()) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=0.01
        )
        optimizer.step()
        if step < steps - 1:
            theirs.step()


def test_dip_equals_momentum_of_torch() -> None:
    steps = 1001
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    theirs = OneCycleLR(
        optimizer, max_lr=1.0, total_steps=steps, anneal_strategy="linear", pct_start=0.3
    )
    ours = bind_schedule("dip:pct_start=0.3")
    for step in range(steps):
        assert 0.95 * ours(step / (steps - 1), ()) == pytest.approx(
            optimizer.param_groups[0]["momentum"], abs=1e-3
        )
        optimizer.step()
        if step < steps - 1:
            theirs.step()


def test_multi_step_equals_torch() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = MultiStepLR(optimizer, [30, 60, 90], gamma=0.2)
    ours = bind_schedule("multi-step:[0.3,0.6,0.9],factor=0.2")
    for step in range(100):
        assert ours(step / 100, ()) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(("patience", "threshold"), [(0, 0.0), (2, 0.1), (4, 0.1)])
def test_plateau_equals_torch(patience: int, threshold: float) -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, threshold=threshold, eps=0)
    ours = bind_schedule(f"plateau:factor=0.5,patience={patience},threshold={threshold}")
    losses = (
        3 * torch.rand(60, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 0.2, 60)
    ).tolist()
    result = []
    for epoch, loss in enumerate(losses):
        theirs.step(loss)
        result.append(ours(epoch / 60, losses[: epoch + 1]))
        assert result[-1] == pytest.approx(optimizer.param_groups[0]["lr"])
    assert len(set(result)) > 3


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("constant", {0.0: 1.0, 0.5: 1.0, 1.0: 1.0}),
        ("linear", {0.0: 1.0, 0.25: 0.75, 1.0: 0.0}),
        (
            "linear:warmup=0.2,start=0.5,end=0.1",
            {0.0: 0.5, 0.1: 0.75, 0.2: 1.0, 0.6: 0.55, 1.0: 0.1},
        ),
        ("cosine", {0.0: 1.0, 0.5: 0.5, 1 / 3: 0.75, 1.0: 0.0}),
        ("cosine:warmup=0.5,end=0.2", {0.0: 0.0, 0.25: 0.5, 0.5: 1.0, 0.75: 0.6, 1.0: 0.2}),
        ("step", {0.0: 1.0, 0.33: 1.0, 0.34: 0.1, 0.67: 0.01, 1.0: 0.01}),
        ("step:stages=2,factor=0.5", {0.49: 1.0, 0.5: 0.5, 1.0: 0.5}),
        (
            "one-cycle:pct_start=0.5,div_factor=10,final_div_factor=10",
            {0.0: 0.1, 0.5: 1.0, 1.0: 0.01},
        ),
    ],
)
def test_schedule_points(text: str, points: dict[float, float]) -> None:
    schedule = bind_schedule(text)
    for progress, factor in points.items():
        assert schedule(progress, ()) == pytest.approx(factor, abs=1e-12), progress


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_stays_between_zero_and_peak(name: str) -> None:
    schedule = bind_schedule(name)
    factors = [schedule(step / 1000, ()) for step in range(1001)]
    assert all(0 <= factor <= 1 and math.isfinite(factor) for factor in factors)
    assert max(factors) == pytest.approx(1.0, abs=5e-3)


@pytest.mark.parametrize(
    "text",
    [
        "one-cycle:pct_start=0.5,three_phase=true",
        "dip:pct_start=1",
        "multi-step:0.5+0.7",
        "multi-step:[0.7,0.5]",
        "multi-step:[1.5]",
        "multi-step:[]",
        "plateau:factor=1",
        "plateau:patience=-1",
        "one-cycle:pct_start=0",
        "one-cycle:anneal=square",
        "linear:warmup=1",
        "cosine:start=-1",
        "step:stages=0",
        "linear:end=-5",
    ],
)
def test_schedule_rejects_settings_out_of_range(text: str) -> None:
    with pytest.raises(SeewhyError):
        bind_schedule(text)


def test_exponential_grows_by_one_factor() -> None:
    schedule = bind_schedule("exponential:start=1e-4,end=10")
    values = [schedule(index / 50, ()) for index in range(51)]
    assert values[0] == pytest.approx(1e-4)
    assert values[-1] == pytest.approx(10)
    assert [after / before for before, after in pairwise(values)] == pytest.approx(
        [1e5 ** (1 / 50)] * 50
    )
    with pytest.raises(SeewhyError, match="start and end above 0"):
        bind_schedule("exponential:start=0")


@pytest.mark.parametrize("epochs", [1, 4, 24])
def test_per_epoch_equals_torch_stepped_once_an_epoch(epochs: int, data: Dataset) -> None:
    recipe = Recipe(
        model="speednet:width=0.125",
        epochs=epochs,
        batch_size=60,
        lr=0.3,
        schedule="cosine:per_epoch=true",
        momentum_schedule="constant",
    )
    plan = make_plan(recipe, data, "cpu")
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = CosineAnnealingLR(optimizer, T_max=epochs)
    for epoch in range(epochs):
        steps = plan.epoch_steps(epoch)
        assert len(steps) == 4
        for step in steps:
            assert 0.3 * plan.lr_factor(step, ()) == pytest.approx(theirs.get_last_lr()[0])
            assert plan.momentum_factor(step, ()) == 1.0
        optimizer.step()
        theirs.step()


def test_per_epoch_is_a_setting_of_every_schedule() -> None:
    for name in SCHEDULES:
        assert bind_schedule(f"{name}:per_epoch=true").per_epoch
        assert not bind_schedule(name).per_epoch
    assert not bind_schedule("one-cycle:0.3,per_epoch=false,anneal=cosine").per_epoch
    assert bind_schedule("one-cycle:0.3,per_epoch=true,anneal=cosine")(0.3, ()) == 1.0
    with pytest.raises(SeewhyError, match="per_epoch must be true or false, found 'yes'"):
        bind_schedule("linear:per_epoch=yes")


def test_plateau_watches_the_split_of_its_setting(data: Dataset) -> None:
    validated = replace(data, validation=data.test)

    def watched(data: Dataset, on: str = "", **changes: object) -> str:
        schedule = f"plateau{on and f':on={on}'}"
        recipe = Recipe(model="speednet:width=0.125", schedule=schedule, **changes)  # type: ignore[arg-type]
        return make_plan(recipe, data, "cpu").watched_split

    assert [watched(data, on) for on in ("", "train", "test")] == ["train", "train", "test"]
    assert [watched(validated, on) for on in ("", "train", "test", "validation")] == [
        *("validation", "train", "test", "validation")
    ]
    with pytest.raises(SeewhyError, match="on=validation needs a validation split"):
        watched(data, "validation")
    with pytest.raises(SeewhyError, match="on=test needs evaluations, but eval_every is 0"):
        watched(data, "test", eval_every=0)
    with pytest.raises(SeewhyError, match=r"watch different losses \(test, train\)"):
        watched(data, "test", resolution="plateau:on=train")
    with pytest.raises(SeewhyError, match="unknown on 'tset'"):
        watched(data, "tset")
