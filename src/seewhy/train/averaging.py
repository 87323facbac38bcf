"""Averages of weights beside those that are trained: an exponential moving average, and lookahead."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]

TOWARDS = 0.5  # how far lookahead's slow weights go


def clone_weights(model: nn.Module) -> Weights:
    """A copy of everything in the model's state."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def update_ema(average: Weights, model: nn.Module, decay: float, updates: int) -> None:
    """Move the average towards the model by 1 - `decay`, by more in the first of the `updates`, which know little of the end.

    Running statistics are averaged like weights; counters are copied.
    """
    state = model.state_dict()
    names = [name for name, tensor in state.items() if tensor.is_floating_point()]
    warmed_up = min(decay, (1 + updates) / (10 + updates))
    torch._foreach_lerp_(
        [average[name] for name in names], [state[name] for name in names], 1 - warmed_up
    )
    _copy(average, state, state.keys() - set(names))


@torch.no_grad()
def look_ahead(slow: Weights, model: nn.Module) -> None:
    """Move the slow weights half of the way to the model's, and the model's to them (Zhang et al. 2019).

    Whatever else is in the model's state, running statistics above all, is copied.
    """
    parameters = {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    kept = [slow[name] for name in parameters]
    torch._foreach_lerp_(kept, list(parameters.values()), TOWARDS)
    torch._foreach_copy_(list(parameters.values()), kept)
    state = model.state_dict()
    _copy(slow, state, state.keys() - parameters.keys())


def _copy(kept: Weights, state: Weights, names: Iterable[str]) -> None:
    if chosen := sorted(names):  # torch takes no empty list
        torch._foreach_copy_([kept[name] for name in chosen], [state[name] for name in chosen])


@contextmanager
def swap_weights(weights: Weights | None, model: nn.Module) -> Iterator[None]:
    """`model` with these weights inside the block, and with its own again after it; None changes nothing."""
    if weights is None:
        yield
        return
    before = clone_weights(model)
    model.load_state_dict(weights)
    try:
        yield
    finally:
        model.load_state_dict(before)
