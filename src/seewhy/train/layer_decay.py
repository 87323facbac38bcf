"""Learning rates that decay from the last layer of a model to the first."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seewhy.models.inspection import device_of, evaluating


def decay_by_depth(
    optimizers: Iterable[Optimizer], model: nn.Module, images: Tensor, decay: float
) -> None:
    """Multiply the learning rate of each layer by `decay` once for every layer behind it.

    The last layer keeps its rate (Bao et al. 2022, "BEiT"; Clark et al. 2020, "ELECTRA", section
    3.1). For layers see `layer_depths`. Parameter groups are split in place; those of the last
    layer come first.

    Args:
        optimizers: Optimizers of `model`, before their first step.
        model: The model.
        images: (N, C, H, W) uint8; the first ones pass through the model.
        decay: In (0, 1]; 1 changes nothing.
    """
    if decay == 1:
        return
    depths = layer_depths(model, images)
    last = max(depths.values())
    for optimizer in optimizers:
        groups: dict[tuple[int, int], dict[str, Any]] = {}
        for index, group in enumerate(optimizer.param_groups):
            for parameter in group["params"]:
                behind = last - depths[parameter]
                key = (behind, index)
                if key not in groups:
                    groups[key] = {**group, "params": [], "lr": group["lr"] * decay**behind}
                groups[key]["params"].append(parameter)
        optimizer.param_groups[:] = [groups[key] for key in sorted(groups)]


def layer_depths(model: nn.Module, images: Tensor) -> dict[nn.Parameter, int]:
    """The layer of each parameter, counted from 0 in the order of the forward pass.

    An item of a list or sequence of modules is one layer, such as a residual block or an encoder
    layer, as in timm. Outside of them, every module with a weight begins a layer, and norms, biases
    and embeddings belong to the layer before them, or else to the first one.

    Args:
        model: The model.
        images: (N, C, H, W) uint8; the first ones pass through the model.
    """
    names = {module: name for name, module in model.named_modules()}
    called: dict[nn.Module, None] = {}
    handles = [
        module.register_forward_pre_hook(lambda module, _: called.setdefault(module))
        for module in names
    ]
    try:
        with evaluating(model), torch.no_grad():
            model(images[:2].to(device_of(model)).float() / 255)
    finally:
        for handle in handles:
            handle.remove()
    layer, current = -1, ""
    layers: dict[str, int] = {}  # by name of a module
    for module in called:
        item = _list_item(model, names[module])
        if item:
            # all of its weights: in evaluation mode torch does not call the parts of its encoder
            begins = item != current and _has_weight(module, recurse=True)
        else:
            is_leaf = not any(True for _ in module.children())
            begins = is_leaf and _has_weight(module, recurse=False)
        if begins:
            layer, current = layer + 1, item
        layers[names[module]] = max(layer, 0)
    depths: dict[nn.Parameter, int] = {}
    for name, parameter in model.named_parameters():
        # a module that is not called, such as the projection of nn.MultiheadAttention, is part of
        # one that is
        parents = _parents(name)
        depths[parameter] = next((layers[each] for each in parents if each in layers), 0)
    return depths


def _list_item(model: nn.Module, name: str) -> str:
    """The name of the outermost item of a list or sequence, none itself, that `name` is part of."""
    parts = name.split(".") if name else []
    parent = model
    for end, part in enumerate(parts, start=1):
        module = parent.get_submodule(part)
        if type(parent) in _LISTS and type(module) not in _LISTS:
            return ".".join(parts[:end])
        parent = module
    return ""


def _has_weight(module: nn.Module, recurse: bool) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters(recurse))


def _parents(name: str) -> Iterable[str]:
    """`a.b`, `a` and the empty name for `a.b.c`."""
    parts = name.split(".")
    return chain((".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)), [""])


_LISTS = (nn.Sequential, nn.ModuleList)
