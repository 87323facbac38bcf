import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.models.registry import build_model
from seewhy.train.batches import epoch_order
from seewhy.train.device import find_precision
from seewhy.train.loop import EpochStats, StepStats, train
from seewhy.train.plan import make_plan
from seewhy.train.recipe import Recipe
from seewhy.train.state import RunningTotals, new_state


def trained(recipe: Recipe, data: Dataset) -> tuple[nn.Module, list[EpochStats]]:
    torch.manual_seed(recipe.seed)
    plan = make_plan(recipe, data, "cpu")
    state = new_state(plan)
    events = list(train(state, plan))
    return state.model, [event for event in events if isinstance(event, EpochStats)]


@pytest.mark.train
def test_train_learns_the_bars(recipe: Recipe, data: Dataset) -> None:
    _, history = trained(recipe, data)
    assert history[-1].eval_accuracy is not None
    assert history[-1].eval_accuracy > 0.95
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert [row.epoch for row in history] == [1, 2, 3, 4]
    assert [row.step for row in history] == [6, 12, 18, 24]


@pytest.mark.slow
def test_train_equals_a_plain_loop(data: Dataset) -> None:
    recipe = Recipe(
        model="speednet:width=0.125",
        epochs=2,
        batch_size=60,
        lr=0.1,
        optimizer="sgd:momentum=0.9,decay_all=true",
        weight_decay=0.01,
        schedule="linear:end=0.5",
        augment=(),
        label_smoothing=0.1,
        precision="fp32",
    )
    ours, _ = trained(recipe, data)
    torch.manual_seed(recipe.seed)
    theirs = build_model(recipe.model, 3, data.train).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    theirs.train()
    parameters = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01)
    for step in range(8):
        if step % 4 == 0:
            order = epoch_order(240, 0, step // 4)
        chosen = order[step % 4 * 60 :][:60]
        images = data.train.images[chosen].float().div(255).to(memory_format=torch.channels_last)
        loss = F.cross_entropy(theirs(images), data.train.labels[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - 0.5 * step / 7)
        optimizer.step()
    for (name, mine), other in zip(
        ours.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.train
def test_train_is_reproducible_by_seed(recipe: Recipe, data: Dataset) -> None:
    weights = [
        trained(replace(recipe, seed=seed, epochs=1), data)[0].state_dict()["linear.weight"]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_train_yields_an_event_per_step(recipe: Recipe, data: Dataset) -> None:
    torch.manual_seed(0)
    model = build_model(recipe.model, 3, data.train)
    plan = make_plan(replace(recipe, epochs=1), data, "cpu")
    events = list(train(new_state(plan, model), plan))
    steps = [event for event in events if isinstance(event, StepStats)]
    (stats,) = (event for event in events if isinstance(event, EpochStats))
    assert [event.step for event in steps] == [1, 2, 3, 4, 5, 6]
    assert {event.steps for event in steps} == {6}
    assert steps[-1].train_loss == stats.train_loss
    assert steps[-1].train_accuracy == stats.train_accuracy
    assert steps[-1].seconds_left == 0
    assert all(event.images_per_second > 0 for event in steps)


@pytest.mark.train
def test_train_for_a_fraction_of_an_epoch(recipe: Recipe, data: Dataset) -> None:
    _, history = trained(replace(recipe, epochs=1.5), data)
    assert [row.epoch for row in history] == [1, 1.5]
    assert [row.step for row in history] == [6, 9]


@pytest.mark.parametrize(
    ("every", "evaluated"), [(1, [True] * 3), (2, [False, True, True]), (0, [False, False, True])]
)
@pytest.mark.train
def test_train_evaluates_as_requested_and_at_the_end(
    every: int, evaluated: list[bool], recipe: Recipe, data: Dataset
) -> None:
    _, history = trained(replace(recipe, epochs=3, eval_every=every), data)
    assert [row.eval_loss is not None for row in history] == evaluated


@pytest.mark.train
def test_train_evaluates_on_the_validation_split(recipe: Recipe, data: Dataset) -> None:
    wrong = replace(data.test, labels=(data.test.labels + 1) % 3)
    _, history = trained(recipe, replace(data, validation=wrong))
    assert history[-1].eval_accuracy is not None
    assert history[-1].eval_accuracy < 0.05  # it learnt the bars, and these labels are all wrong


@pytest.mark.train
def test_train_in_bf16(recipe: Recipe, data: Dataset) -> None:
    _, history = trained(replace(recipe, precision="bf16"), data)
    assert history[-1].eval_accuracy is not None
    assert history[-1].eval_accuracy > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_train_uses_precision_and_channels_last(
    precision: str, recipe: Recipe, data: Dataset
) -> None:
    model = build_model(recipe.model, 3, data.train)
    seen = set()

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.add((output.dtype, output.is_contiguous(memory_format=torch.channels_last)))

    conv = next(
        module for module in reversed(list(model.modules())) if isinstance(module, nn.Conv2d)
    )
    conv.register_forward_hook(look)
    plan = make_plan(replace(recipe, precision=precision, epochs=1, eval_every=0), data, "cpu")
    list(train(new_state(plan, model), plan))
    assert seen == {(torch.bfloat16 if precision == "bf16" else torch.float32, True)}
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("name", "capabilities", "expected"),
    [
        ("auto", {"avx512_bf16": True}, "bf16"),
        ("auto", {"amx_bf16": True, "avx512_bf16": False}, "bf16"),
        ("auto", {"avx2": True}, "fp32"),
        ("fp32", {"avx512_bf16": True}, "fp32"),
        ("bf16", {}, "bf16"),
    ],
)
def test_find_precision_auto(
    name: str, capabilities: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert find_precision(name, torch.device("cpu")) == expected


def test_train_reports_divergence_in_one_line(recipe: Recipe, data: Dataset) -> None:
    with pytest.raises(
        SeewhyError,
        match=r"not finite at step \d \(epoch 0\..*at a learning rate of .*try an lr below 1e",
    ):
        trained(replace(recipe, lr=1e30), data)


def test_running_totals_are_weighted_means() -> None:
    totals = RunningTotals(torch.device("cpu"))
    assert all(math.isnan(value) for value in totals.latest())
    totals.add(torch.tensor(3.0), torch.tensor(6.0), torch.tensor(3), 3)
    totals.add(torch.tensor(4.0), torch.tensor(2.0), torch.tensor(0), 1)
    assert totals.latest() == ((3 + 4) / (6 + 2), 3 / 4)
    assert totals.take_update_weight() == 6 + 2
    assert totals.take_update_weight() == 0
    assert totals.latest() == ((3 + 4) / (6 + 2), 3 / 4)
