import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.models.registry import build_model
from seewhy.train.freezing import freezable, frozen_after
from seewhy.train.layer_decay import layer_depths
from seewhy.train.loop import EpochStats, train
from seewhy.train.plan import make_plan
from seewhy.train.recipe import Recipe
from seewhy.train.state import load_state_dict, new_state, state_dict


@pytest.mark.slow
def test_frozen_parameter_does_not_change(recipe: Recipe, data: Dataset) -> None:
    """Though momentum is still in the optimizer, and weight decay would pull."""
    torch.manual_seed(0)
    model = build_model(recipe.model, 3, data.train)
    recipe = replace(recipe, epochs=3, freeze=("linear:1.5", "whiten.bias:0"))
    plan = make_plan(recipe, data, "cpu")
    state = new_state(plan, model)
    seen = {}
    for _ in train(state, plan):
        seen[state.step] = (
            model.linear.weight.detach().clone(),
            model.whiten.bias.detach().clone(),
        )
    assert not torch.equal(seen[8][0], seen[9][0])
    assert all(torch.equal(seen[9][0], seen[step][0]) for step in range(10, 19))
    assert all(torch.equal(torch.zeros_like(bias), bias) for _, bias in seen.values())
    assert all(parameter.requires_grad for parameter in (model.linear.weight, model.whiten.bias))
    assert not model.whiten.weight.requires_grad  # which never was trained


def test_something_is_trained_from_the_start(recipe: Recipe, data: Dataset) -> None:
    """The last layer alone is to train first, but it is frozen."""
    recipe = replace(recipe, freeze=("linear:0",), unfreeze_epochs=2)
    message = "freeze linear:0 with unfreeze_epochs 2 leaves no parameter to train at epoch 0;"
    with pytest.raises(SeewhyError, match=message):
        new_state(make_plan(recipe, data, "cpu"))


def test_freezable_matches_whole_names() -> None:
    net = nn.ModuleDict({"conv": nn.Linear(2, 2), "conv2": nn.Linear(2, 2)})
    assert [
        p is q
        for (p, _), q in zip(freezable(net, {"conv": 1}), net["conv"].parameters(), strict=True)
    ] == [True, True]
    ((result, epoch),) = freezable(net, {"conv2.bias": 2.5})
    assert result is net["conv2"].bias
    assert epoch == 2.5
    with pytest.raises(
        SeewhyError,
        match=r"no trainable parameter 'conv3' .did you mean.*possible: conv, conv2",
    ):
        freezable(net, {"conv3": 1})


@pytest.mark.parametrize(
    "entry",
    [
        "whiten",
        "whiten:",
        "whiten:-1",
        "whiten:soon",
        ":3",
        "whiten:1,2",
        "whiten:epoch=3",
        "a:inf",
    ],
)
def test_frozen_after_rejects_other_entries(entry: str) -> None:
    with pytest.raises(SeewhyError, match=r"freeze takes names with an epoch, as in whiten:3"):
        frozen_after((entry,))


@pytest.mark.slow
def test_freezing_keeps_the_history_complete(recipe: Recipe, data: Dataset) -> None:
    plan = make_plan(replace(recipe, epochs=2, freeze=("group1:1", "group2:1")), data, "cpu")
    state = new_state(plan)
    assert len([event for event in train(state, plan) if isinstance(event, EpochStats)]) == 2


@pytest.mark.parametrize("freeze_bn", [False, True])
def test_freeze_bn_keeps_the_statistics_and_trains_the_rest(
    recipe: Recipe, data: Dataset, freeze_bn: bool
) -> None:
    recipe = replace(recipe, epochs=1 / 6, schedule="constant", freeze_bn=freeze_bn)
    plan = make_plan(recipe, data, "cpu")
    state = new_state(plan)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    list(train(state, plan))
    changed = {
        name.rpartition(".")[2]
        for name, tensor in state.model.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert changed & statistics == (set() if freeze_bn else statistics)
    assert {"weight", "bias"} <= changed


@pytest.mark.slow
def test_freeze_layers_trains_the_last_layers_only(recipe: Recipe, data: Dataset) -> None:
    recipe = replace(recipe, epochs=1 / 6, schedule="constant", freeze_layers=0.35)
    plan = make_plan(recipe, data, "cpu")
    state = new_state(plan)
    before = {name: each.detach().clone() for name, each in state.model.named_parameters()}
    list(train(state, plan))
    changed = {
        name
        for name, parameter in state.model.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    depths = layer_depths(state.model, data.train.images)
    parameters = dict(state.model.named_parameters())
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    first = {name for name, parameter in parameters.items() if depths[parameter] < 2}
    assert int(0.35 * (1 + max(depths.values()))) == 2
    assert changed == trained - first
    assert trained & first  # again, after the training


def test_gradual_unfreezing_begins_with_the_last_layer(recipe: Recipe, data: Dataset) -> None:
    """Layers 0 to L in two epochs: the first half waits two epochs, the last layer none."""
    recipe = replace(recipe, epochs=3, schedule="constant", unfreeze_epochs=2, freeze=("linear:2",))
    plan = make_plan(recipe, data, "cpu")
    state = new_state(plan)
    names = [name for name, each in state.model.named_parameters() if each.requires_grad]
    depths = layer_depths(state.model, data.train.images)
    weights = [{name: each.detach().clone() for name, each in state.model.named_parameters()}]
    weights += [
        {name: each.detach().clone() for name, each in state.model.named_parameters()}
        for event in train(state, plan)
        if isinstance(event, EpochStats)
    ]
    changed = [
        {name for name in names if not torch.equal(before[name], after[name])}
        for before, after in pairwise(weights)
    ]
    depth = {name: depths[each] for name, each in state.model.named_parameters()}
    last = max(depth.values())
    head = {name for name in names if depth[name] == last}
    assert changed[0] == head
    assert changed[1] == {name for name in names if 2 * depth[name] >= last}
    assert changed[2] == set(names) - {"linear.weight"}  # frozen after two epochs
    assert head == {"linear.weight"}
    assert all(dict(state.model.named_parameters())[name].requires_grad for name in names)


@pytest.mark.parametrize("optimizer", ["sgd:momentum=0.9", "adamw", "muon"])
def test_gradual_unfreezing_resumes_with_the_same_weights(
    recipe: Recipe, data: Dataset, optimizer: str
) -> None:
    recipe = replace(recipe, epochs=2, optimizer=optimizer, lr=0.01, unfreeze_epochs=2)
    plan = make_plan(recipe, data, "cpu")
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        states.append(new_state(plan))
    whole, stopped = states
    list(train(whole, plan))
    for _ in train(stopped, plan):
        if stopped.step == plan.steps_per_epoch + 1:  # in the second of three stages
            break
    resumed = new_state(plan)
    load_state_dict(resumed, copy.deepcopy(state_dict(stopped)))
    list(train(resumed, plan))
    for ours, theirs in zip(
        whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)
