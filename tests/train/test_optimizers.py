import pytest
import torch
from torch import nn

from seewhy.errors import SeewhyError
from seewhy.train.optimizers import OPTIMIZERS, bind_optimizer, set_learning_rate
from seewhy.train.recipe import Recipe


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net[2].bias.requires_grad_(False)
    return net


def test_groups_leave_out_frozen_parameters_and_do_not_decay_biases_and_norms() -> None:
    net = network()
    (optimizer,) = bind_optimizer("sgd:bias_lr=8")(net, Recipe(lr=0.5, weight_decay=0.01))
    weights, biases = optimizer.param_groups
    assert [parameter is wanted for parameter, wanted in zip(weights["params"], [net[0].weight, net[2].weight], strict=True)]
    assert {id(parameter) for parameter in biases["params"]} == {id(net[0].bias), id(net[1].weight), id(net[1].bias)}
    assert (weights["lr"], weights["weight_decay"]) == (0.5, 0.01)
    assert (biases["lr"], biases["weight_decay"]) == (4.0, 0.0)


def test_decay_all_decays_all() -> None:
    (optimizer,) = bind_optimizer("adamw:decay_all=true")(network(), Recipe(weight_decay=0.01))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.01]


def test_the_schedule_scales_every_group_from_its_own_peak() -> None:
    optimizers = bind_optimizer("sgd:bias_lr=2")(network(), Recipe(lr=0.5))
    for factor in (0.1, 0.5):
        set_learning_rate(optimizers, factor)
        assert [group["lr"] for group in optimizers[0].param_groups] == [0.5 * factor, 1.0 * factor]


def test_sgd_is_heavy_ball_momentum() -> None:
    weight = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        weight.weight.fill_(1.0)
    (optimizer,) = bind_optimizer("sgd:momentum=0.5")(weight, Recipe(lr=0.1, weight_decay=0.2))
    value, velocity = 1.0, 0.0
    for gradient in (3.0, -1.0, 2.0):
        weight.weight.grad = torch.full_like(weight.weight, gradient)
        optimizer.step()
        velocity = 0.5 * velocity + gradient + 0.2 * value
        value -= 0.1 * velocity
        assert weight.weight.item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_and_adamw_follow_their_papers(decoupled: bool) -> None:
    weight = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        weight.weight.fill_(1.0)
    name = "adamw" if decoupled else "adam"
    (optimizer,) = bind_optimizer(f"{name}:beta1=0.8,beta2=0.9,eps=1e-3")(weight, Recipe(lr=0.1, weight_decay=0.2))
    value, first, second = 1.0, 0.0, 0.0
    for step, raw in enumerate((3.0, -1.0, 2.0), start=1):
        weight.weight.grad = torch.full_like(weight.weight, raw)
        optimizer.step()
        gradient = raw if decoupled else raw + 0.2 * value
        if decoupled:
            value *= 1 - 0.1 * 0.2
        first = 0.8 * first + 0.2 * gradient
        second = 0.9 * second + 0.1 * gradient**2
        value -= 0.1 * (first / (1 - 0.8**step)) / ((second / (1 - 0.9**step)) ** 0.5 + 1e-3)
        assert weight.weight.item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("text", ["sgd:momentum=1", "sgd:bias_lr=0", "adam:beta1=1.5", "adamw:eps=0"])
def test_settings_out_of_range(text: str) -> None:
    with pytest.raises(SeewhyError, match=r"optimizer setting"):
        bind_optimizer(text)(network(), Recipe())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_lowers_a_loss(name: str) -> None:
    net, inputs = network(), torch.randn(32, 3, generator=torch.Generator().manual_seed(1))
    targets = (inputs[:, 0] > 0).long()
    optimizers = bind_optimizer(name)(net, Recipe(lr=0.05))
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(net(inputs), targets)
        losses.append(loss.item())
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
    assert losses[-1] < 0.6 * losses[0]
