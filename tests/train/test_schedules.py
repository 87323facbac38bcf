import math
from itertools import pairwise

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from seewhy.errors import SeewhyError
from seewhy.train.schedules import SCHEDULES, bind_schedule


@pytest.mark.parametrize(("anneal", "torch_name"), [("linear", "linear"), ("cosine", "cos")])
def test_one_cycle_is_the_one_of_torch(anneal: str, torch_name: str) -> None:
    steps = 101
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    settings = {"pct_start": 0.31, "div_factor": 20.0, "final_div_factor": 50.0}
    theirs = OneCycleLR(optimizer, max_lr=1.0, total_steps=steps, anneal_strategy=torch_name, **settings)  # type: ignore[arg-type]
    ours = bind_schedule(f"one-cycle:pct_start=0.31,div=20,final_div=50,anneal={anneal}")
    expected, found = [], []
    for step in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        found.append(ours(step / (steps - 1)))
        optimizer.step()
        if step < steps - 1:
            theirs.step()
    # torch puts the peak at the step pct_start * steps - 1, ours exactly at pct_start: less than one step apart
    slope = max(abs(a - b) for a, b in pairwise(expected))
    assert max(abs(a - b) for a, b in zip(expected, found, strict=True)) < slope
    assert found[0] == pytest.approx(1 / 20)
    assert found[-1] == pytest.approx(1 / 1000)


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("constant", {0.0: 1.0, 0.5: 1.0, 1.0: 1.0}),
        ("linear", {0.0: 1.0, 0.25: 0.75, 1.0: 0.0}),
        ("linear:warmup=0.2,start=0.5,end=0.1", {0.0: 0.5, 0.1: 0.75, 0.2: 1.0, 0.6: 0.55, 1.0: 0.1}),
        ("cosine", {0.0: 1.0, 0.5: 0.5, 1 / 3: 0.75, 1.0: 0.0}),
        ("cosine:warmup=0.5,end=0.2", {0.0: 0.0, 0.25: 0.5, 0.5: 1.0, 0.75: 0.6, 1.0: 0.2}),
        ("step", {0.0: 1.0, 0.33: 1.0, 0.34: 0.1, 0.67: 0.01, 1.0: 0.01}),
        ("step:stages=2,factor=0.5", {0.49: 1.0, 0.5: 0.5, 1.0: 0.5}),
        ("one-cycle:pct_start=0.5,div=10,final_div=10", {0.0: 0.1, 0.5: 1.0, 1.0: 0.01}),
    ],
)
def test_points(text: str, points: dict[float, float]) -> None:
    schedule = bind_schedule(text)
    for progress, factor in points.items():
        assert schedule(progress) == pytest.approx(factor, abs=1e-12), progress


@pytest.mark.parametrize("name", SCHEDULES)
def test_never_above_the_peak_nor_below_zero(name: str) -> None:
    schedule = bind_schedule(name)
    factors = [schedule(step / 1000) for step in range(1001)]
    assert all(0 <= factor <= 1 and math.isfinite(factor) for factor in factors)
    assert max(factors) == pytest.approx(1.0, abs=5e-3)


@pytest.mark.parametrize(
    "text",
    ["one-cycle:pct_start=0", "one-cycle:anneal=square", "linear:warmup=1", "cosine:start=-1", "step:stages=0", "linear:end=-5"],
)
def test_settings_out_of_range(text: str) -> None:
    with pytest.raises(SeewhyError):
        bind_schedule(text)
