"""Training of a linear model, and the same by hand."""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.data.dataset import Dataset
from seewhy.train.batches import epoch_order
from seewhy.train.loop import train
from seewhy.train.plan import TrainingPlan, make_plan
from seewhy.train.recipe import Recipe
from seewhy.train.state import TrainState, new_state

PLAIN = Recipe(
    epochs=1,
    batch_size=40,
    lr=0.1,
    optimizer="sgd",
    weight_decay=0,
    schedule="constant",
    augment=(),
    precision="fp32",
)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))


def begin(
    recipe: Recipe, data: Dataset, model: nn.Module | None = None
) -> tuple[TrainState, TrainingPlan]:
    plan = make_plan(recipe, data, "cpu")
    return new_state(plan, model or linear()), plan


def trained(
    recipe: Recipe, data: Dataset, model: nn.Module | None = None
) -> tuple[TrainState, list[Any]]:
    state, plan = begin(recipe, data, model)
    return state, list(train(state, plan))


def batch(data: Dataset, start: int, stop: int) -> tuple[Tensor, Tensor]:
    chosen = epoch_order(240, 0, 0)[start:stop]
    return data.train.images[chosen].float() / 255, data.train.labels[chosen]


def by_hand(
    data: Dataset, loss: Any, edges: list[int], lr: float = 0.1, clip: float = 0.0
) -> nn.Module:
    """Plain gradient descent over the batches between `edges` of the first epoch's order."""
    net = linear()
    for start, stop in pairwise(edges):
        net.zero_grad()
        images, labels = batch(data, start, stop)
        loss(net, images, labels).backward()
        norm = sum(p.grad.square().sum() for p in net.parameters() if p.grad is not None) ** 0.5
        with torch.no_grad():
            for p in net.parameters():
                assert p.grad is not None
                p -= lr * p.grad * (min(1.0, clip / float(norm)) if clip else 1.0)
    return net


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def entropy(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(net(images), labels)
