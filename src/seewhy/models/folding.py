"""BatchNorm folded into the convolutions before it, for passes that only want outputs."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from seewhy.models.inspection import device_of, evaluating, is_program, prepare_images, unwrap_model

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]  # the BatchNorm alone reads the output of the convolution
Modules = dict[nn.Module, nn.Module]  # what takes the place of each module

TOLERANCE = 1e-4  # of the largest logit; more is no rounding


def folded(model: nn.Module, images: Tensor) -> nn.Module:
    """The model for passes without gradients of weights or layers, at least as fast.

    Each BatchNorm that follows a convolution and is the only reader of its output becomes part of
    the convolution. The result shares all other modules and weights with `model`, which is not
    changed. The folded convolutions are kept until the weights change.

    Args:
        model: A model in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1]; one of them is computed both ways.

    Returns:
        The folded model; `model` itself on a GPU, for a program or a compiled model, if a module
        has a hook, if there is nothing to fold, and if the results differ.
    """
    if device_of(model).type != "cpu" or unwrap_model(model) is not model or _has_hooks(model):
        return model
    known = _FOLDED.get(model)
    structure = tuple(map(id, model.modules()))
    if known is None or known.structure != structure:
        known = _FOLDED[model] = _Folded(structure, tuple(_find_pairs(model)))
    if not known.pairs:
        return model
    state = _state(known.pairs)
    if known.state != state:
        known.state, known.replaced = state, _fold(model, known.pairs, images[:1])
    # replaced anew: an attribute of a module may have changed, such as a factor of the logits
    return _replace_modules(model, dict(known.replaced))


def folded_for_training(model: nn.Module) -> nn.Module:
    """The model for training with the running statistics of BatchNorm, without a pass for each.

    A BatchNorm in evaluation mode that alone reads the output of a convolution becomes a factor of
    its weights, and gradients flow through it. All weights are shared with `model`, which is not
    changed. A model on a GPU, or with a hook, is returned as it is.
    """
    if device_of(model).type != "cpu" or unwrap_model(model) is not model or _has_hooks(model):
        return model
    replaced: Modules = {}
    for conv, norm in _find_pairs(model):
        if norm.affine and conv.padding_mode == "zeros":
            replaced[conv], replaced[norm] = _ScaledConv(conv, norm), nn.Identity()
    return _replace_modules(model, replaced)


class _ScaledConv(nn.Module):
    """A convolution and the BatchNorm behind it, in evaluation mode, as one convolution."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self.conv, self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        mean = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
        weight, bias = conv.weight * scale.view(-1, 1, 1, 1), norm.bias - scale * mean
        return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


@dataclass(eq=False)
class _Folded:
    """What is known about a model."""

    structure: tuple[int, ...]  # ids of its modules
    pairs: tuple[Pair, ...]
    state: tuple[Any, ...] = ()  # of the weights that were folded
    replaced: Modules = field(default_factory=dict)  # empty if folding changes the outputs


_FOLDED: WeakKeyDictionary[nn.Module, _Folded] = WeakKeyDictionary()


def _find_pairs(model: nn.Module) -> list[Pair]:
    """The pairs in the code of every module that has both as children."""
    if is_program(model):
        return []
    uses = Counter(child for module in model.modules() for child in module.children())
    pairs = []
    for module in model.modules():
        if {nn.Conv2d, nn.BatchNorm2d} <= set(map(type, module.children())):
            pairs += [pair for pair in _pairs_of(module) if uses[pair[0]] == uses[pair[1]] == 1]
    return pairs


class _ChildTracer(fx.Tracer):
    """Records the code of one module; its children are called, not entered."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _pairs_of(module: nn.Module) -> list[Pair]:
    try:
        graph = _ChildTracer().trace(module)
    except Exception:  # code that depends on values cannot be traced; it may raise anything
        return []
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    pairs = []
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv, norm = (module.get_submodule(str(each.target)) for each in (before, node))
        if (
            type(conv) is nn.Conv2d  # not of a derived class, which may do something else
            and type(norm) is nn.BatchNorm2d
            and calls[before.target] == calls[node.target] == 1
            and norm.running_mean is not None
            and not norm.training
        ):
            pairs.append((conv, norm))
    return pairs


def _fold(model: nn.Module, pairs: tuple[Pair, ...], image: Tensor) -> Modules:
    """What replaces the pairs; empty if the output for an image (1, C, H, W) is then another."""
    replaced: Modules = {}
    with torch.inference_mode(False), torch.no_grad():  # weights for passes outside of it too
        for conv, norm in pairs:
            fused = fuse_conv_bn_eval(conv, norm).requires_grad_(False)
            fused.weight.data = fused.weight.contiguous(memory_format=torch.channels_last)
            replaced[conv], replaced[norm] = fused, nn.Identity()
    result = _replace_modules(model, dict(replaced))
    pixels = prepare_images(image, model) if image.dtype == torch.uint8 else image
    with torch.no_grad(), evaluating(model), torch.random.fork_rng([]):
        # clone: the first layer may work in place
        expected, found = (_tensors(each(pixels.clone())) for each in (model, result))
    same = all(
        one.shape == other.shape
        and (one - other).abs().amax() <= TOLERANCE * one.abs().amax()  # False for NaN
        for one, other in zip(expected, found, strict=True)
    )
    return replaced if same else {}


def _replace_modules(module: nn.Module, replaced: Modules) -> nn.Module:
    """The module with others inside it; modules without any of them are shared.

    The copies that are made of modules around them are added to `replaced`.
    """
    if module in replaced:
        return replaced[module]
    if is_program(module):
        return module
    children = {
        name: None if child is None else _replace_modules(child, replaced)
        for name, child in module._modules.items()
    }
    if any(child is not module._modules[name] for name, child in children.items()):
        clone = module.__new__(type(module))
        clone.__dict__ = module.__dict__ | {"_modules": children}
        replaced[module] = clone
        return clone
    return module


def _tensors(output: object) -> list[Tensor]:
    """Float tensors in an output of a model."""
    if isinstance(output, Tensor):
        return [output.float()] if output.is_floating_point() and output.numel() else []
    if isinstance(output, dict):
        return _tensors(list(output.values()))
    if isinstance(output, tuple | list):
        return [tensor for part in output for tensor in _tensors(part)]
    return _tensors(vars(output)) if hasattr(output, "__dict__") else []


def _state(pairs: tuple[Pair, ...]) -> tuple[Any, ...]:
    """What changes when a weight of the pairs does, also when it is written through `.data`."""
    tensors = [
        tensor
        for pair in pairs
        for module in pair
        for tensor in (*module.parameters(), *module.buffers())
    ]
    return tuple(
        (tensor.data_ptr(), tensor.dtype, float(tensor.detach().sum(dtype=torch.float64)))
        + (() if tensor.is_inference() else (tensor._version,))
        for tensor in tensors
    )


def _has_hooks(model: nn.Module) -> bool:
    """Whether a hook watches or changes a module, which may be one that is folded."""
    return any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
        for module in model.modules()
    )
