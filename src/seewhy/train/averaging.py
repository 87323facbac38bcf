"""Averages of the weights: an exponential moving average, and lookahead."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from seewhy._torch_compat import foreach_copy_, foreach_lerp_

Weights = dict[str, Tensor]  # the tensors of a model's state dict, by name

LOOKAHEAD_STEP = 0.5  # step size of lookahead's slow weights


def clone_weights(model: nn.Module) -> Weights:
    """A copy of the model's state dict."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def update_ema(average: Weights, model: nn.Module, decay: float, updates: int) -> None:
    """Update an exponential moving average in place.

    The decay grows to `decay` over the first updates, so that the average soon forgets the initial
    weights. Running statistics are averaged too; counters are copied.

    Args:
        average: The average, as from `clone_weights`.
        model: The model with the new weights.
        decay: Weight of the old average, in [0, 1).
        updates: Number of updates so far.
    """
    state = model.state_dict()
    names = [name for name, tensor in state.items() if tensor.is_floating_point()]
    decay = min(decay, (1 + updates) / (10 + updates))
    foreach_lerp_([average[name] for name in names], [state[name] for name in names], 1 - decay)
    _copy(average, state, state.keys() - set(names))


@torch.no_grad()
def look_ahead(slow: Weights, model: nn.Module) -> None:
    """Take a lookahead step (Zhang et al. 2019), in place.

    The slow weights move halfway to the model's weights, and the model continues from there.
    Running statistics and counters are copied.
    """
    fast = {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    foreach_lerp_([slow[name] for name in fast], list(fast.values()), LOOKAHEAD_STEP)
    foreach_copy_(list(fast.values()), [slow[name] for name in fast])
    state = model.state_dict()
    _copy(slow, state, state.keys() - fast.keys())


def _copy(target: Weights, source: Weights, names: Iterable[str]) -> None:
    names = sorted(names)
    foreach_copy_([target[name] for name in names], [source[name] for name in names])


@contextmanager
def swap_weights(weights: Weights | None, model: nn.Module) -> Iterator[None]:
    """Load `weights` into the model inside the block; None keeps the model's weights."""
    if weights is None:
        yield
        return
    previous = clone_weights(model)
    model.load_state_dict(weights)
    try:
        yield
    finally:
        model.load_state_dict(previous)
