import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from seewhy._torch_compat import without_compiler
from seewhy.errors import SeewhyError
from seewhy.train.optimizers import (
    OPTIMIZERS,
    SGD,
    bind_optimizer,
    optimizer_state_bytes,
    set_lr_and_momentum,
)


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net[2].bias.requires_grad_(False)
    return net


def test_parameter_groups() -> None:
    net = network()
    (optimizer,) = bind_optimizer("sgd:bias_lr_factor=8")(net, 0.5, 0.01)
    weights, biases = optimizer.param_groups
    assert [
        parameter is expected
        for parameter, expected in zip(
            weights["params"], [net[0].weight, net[2].weight], strict=True
        )
    ]
    assert {id(parameter) for parameter in biases["params"]} == {
        id(net[0].bias),
        id(net[1].weight),
        id(net[1].bias),
    }
    assert (weights["lr"], weights["weight_decay"]) == (0.5, 0.01)
    assert (biases["lr"], biases["weight_decay"]) == (4.0, 0.0)


def test_parameter_groups_with_decay_all() -> None:
    (optimizer,) = bind_optimizer("adamw:decay_all=true")(network(), 0.1, 0.01)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.01]


def test_set_lr_of_a_custom_optimizer() -> None:
    optimizers = [without_compiler(torch.optim.Rprop)(network().parameters(), lr=0.3)]
    for factor in (0.1, 0.5):
        set_lr_and_momentum(optimizers, factor)
        assert optimizers[0].param_groups[0]["lr"] == pytest.approx(0.3 * factor)


def test_optimizer_needs_trainable_parameters() -> None:
    with pytest.raises(SeewhyError, match=r"the model has no trainable parameters"):
        bind_optimizer("sgd")(network().requires_grad_(False), 0.1, 5e-4)


def test_set_lr_scales_every_group_from_its_peak() -> None:
    optimizers = bind_optimizer("sgd:bias_lr_factor=2")(network(), 0.5, 5e-4)
    for factor in (0.1, 0.5):
        set_lr_and_momentum(optimizers, factor)
        assert [group["lr"] for group in optimizers[0].param_groups] == [0.5 * factor, 1.0 * factor]


GRADIENTS = (3.0, -1.0, 2.0, 0.5)
LR, DECAY = 0.1, 0.2


def heavy_ball(momentum: float, nesterov: bool = False) -> Iterator[float]:
    value, velocity = 1.0, 0.0
    for raw in GRADIENTS:
        gradient = raw + DECAY * value
        velocity = momentum * velocity + gradient
        value -= LR * (gradient + momentum * velocity if nesterov else velocity)
        yield value


def adam_by_hand(decoupled: bool) -> Iterator[float]:
    value, first, second = 1.0, 0.0, 0.0
    for step, raw in enumerate(GRADIENTS, start=1):
        gradient = raw if decoupled else raw + DECAY * value
        if decoupled:
            value *= 1 - LR * DECAY
        first = 0.8 * first + 0.2 * gradient
        second = 0.9 * second + 0.1 * gradient**2
        value -= LR * (first / (1 - 0.8**step)) / ((second / (1 - 0.9**step)) ** 0.5 + 1e-3)
        yield value


def nadam_by_hand() -> Iterator[float]:
    """Dozat 2016, algorithm 8; mu_t = beta1 (1 - 0.5 * 0.96^(0.004 t)) from section 3."""
    value, first, second, product = 1.0, 0.0, 0.0, 1.0
    for step, raw in enumerate(GRADIENTS, start=1):
        gradient = raw + DECAY * value
        now, after = (0.8 * (1 - 0.5 * 0.96 ** (0.004 * t)) for t in (step, step + 1))
        product *= now
        first = 0.8 * first + 0.2 * gradient
        second = 0.9 * second + 0.1 * gradient**2
        estimate = after * first / (1 - product * after) + (1 - now) * gradient / (1 - product)
        value -= LR * estimate / ((second / (1 - 0.9**step)) ** 0.5 + 1e-3)
        yield value


def adagrad_by_hand() -> Iterator[float]:
    value, total = 1.0, 0.0
    for raw in GRADIENTS:
        gradient = raw + DECAY * value
        total += gradient**2
        value -= LR * gradient / (total**0.5 + 1e-3)
        yield value


def rmsprop_by_hand() -> Iterator[float]:
    value, mean, velocity = 1.0, 0.0, 0.0
    for raw in GRADIENTS:
        gradient = raw + DECAY * value
        mean = 0.7 * mean + 0.3 * gradient**2
        velocity = 0.5 * velocity + gradient / (mean**0.5 + 1e-3)
        value -= LR * velocity
        yield value


def adadelta_by_hand() -> Iterator[float]:
    value, gradients, updates = 1.0, 0.0, 0.0
    for raw in GRADIENTS:
        gradient = raw + DECAY * value
        gradients = 0.7 * gradients + 0.3 * gradient**2
        update = ((updates + 1e-3) / (gradients + 1e-3)) ** 0.5 * gradient
        updates = 0.7 * updates + 0.3 * update**2
        value -= LR * update
        yield value


@pytest.mark.parametrize(
    ("text", "by_hand"),
    [
        ("sgd", heavy_ball(0.0)),
        ("sgd:momentum=0.5", heavy_ball(0.5)),
        ("sgd:momentum=0.5,nesterov=true", heavy_ball(0.5, nesterov=True)),
        ("momentum", heavy_ball(0.9)),
        ("nesterov:momentum=0.6", heavy_ball(0.6, nesterov=True)),
        ("adam:beta1=0.8,beta2=0.9,eps=1e-3", adam_by_hand(decoupled=False)),
        ("adamw:beta1=0.8,beta2=0.9,eps=1e-3", adam_by_hand(decoupled=True)),
        ("nadam:beta1=0.8,beta2=0.9,eps=1e-3", nadam_by_hand()),
        ("adagrad:eps=1e-3", adagrad_by_hand()),
        ("rmsprop:alpha=0.7,eps=1e-3,momentum=0.5", rmsprop_by_hand()),
        ("adadelta:rho=0.7,eps=1e-3", adadelta_by_hand()),
    ],
)
def test_optimizer_follows_its_paper(text: str, by_hand: Iterator[float]) -> None:
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    (optimizer,) = bind_optimizer(text)(layer, LR, DECAY)
    for gradient, expected in zip(GRADIENTS, by_hand, strict=True):
        layer.weight.grad = torch.full_like(layer.weight, gradient)
        optimizer.step()
        assert layer.weight.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "of_each", "of_each_tensor"),
    [
        ("sgd", 0, 0),
        ("gd", 0, 0),
        ("sgd:momentum=0.9", 4, 0),
        ("nesterov", 4, 0),
        ("adagrad", 4, 4),
        ("adadelta", 8, 4),
        ("rmsprop", 4, 4),
        ("rmsprop:momentum=0.5", 8, 4),
        ("adam", 8, 4),
        ("adamw", 8, 4),
        ("nadam", 8, 8),  # the product of its momenta, too
    ],
)
def test_optimizer_state_bytes(text: str, of_each: int, of_each_tensor: int) -> None:
    """Four bytes per number and trained parameter, plus the step count of each tensor if any."""
    net = network()
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizers = bind_optimizer(text)(net, LR, 5e-4)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    for _ in range(2):
        for optimizer in optimizers:
            optimizer.step()
    numbers = 3 * 4 + 4 + 4 + 4 + 4 * 2  # of both layers and the norm; the last bias is frozen
    assert optimizer_state_bytes(optimizers) == of_each * numbers + of_each_tensor * len(trained)


def test_optimizer_state_bytes_of_several_optimizers() -> None:
    small, large = nn.Linear(3, 2, bias=False).bfloat16(), nn.Linear(5, 2, bias=False).double()
    optimizers = [SGD(part.parameters(), lr=LR, momentum=0.9) for part in (small, large)]
    for parameter in (small.weight, large.weight):
        parameter.grad = torch.ones_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
    assert optimizer_state_bytes(list(optimizers)) == 6 * 2 + 10 * 8


@pytest.mark.parametrize(
    "text",
    [
        "sgd:momentum=1",
        "sgd:nesterov=true",
        "sgd:bias_lr_factor=0",
        "adam:beta1=1.5",
        "adamw:eps=0",
        "rmsprop:alpha=1",
        "adadelta:rho=-1",
    ],
)
def test_optimizer_rejects_settings_out_of_range(text: str) -> None:
    with pytest.raises(SeewhyError, match=r"optimizer setting"):
        bind_optimizer(text)(network(), 0.1, 5e-4)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_lowers_a_loss(name: str) -> None:
    lr = 1.0 if name == "adadelta" else 0.05
    net, inputs = network(), torch.randn(32, 3, generator=torch.Generator().manual_seed(1))
    targets = (inputs[:, 0] > 0).long()
    optimizers = bind_optimizer(name)(net, lr, 5e-4)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(net(inputs), targets)
        losses.append(loss.item())
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_bias_lr(name: str) -> None:
    net = network()
    groups = [
        group
        for each in bind_optimizer(f"{name}:bias_lr_factor=3")(net, 0.5, 5e-4)
        for group in each.param_groups
    ]
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    assert [rates[id(parameter)] for parameter in trained] == [
        0.5 if parameter.ndim > 1 else 1.5 for parameter in trained
    ]


@pytest.mark.slow
def test_no_optimizer_imports_the_compiler() -> None:
    """Its import takes as long as that of torch."""
    code = """if True:
        import sys
        import torch
        from seewhy.train.optimizers import OPTIMIZERS
        for make in OPTIMIZERS.values():
            model = torch.nn.Linear(3, 3)
            for optimizer in make(model, 0.1, 0.0):
                model(torch.ones(2, 3)).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
                optimizer.load_state_dict(optimizer.state_dict())
        print("torch._dynamo" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
