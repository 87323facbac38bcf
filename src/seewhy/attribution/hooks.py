"""Hooks that see what goes through the layers of a network, and make their outputs nodes of the graph."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import SeewhyError


@contextmanager
def record_outputs(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of the layers in a forward pass inside the block, by name; the graph begins at the first of them.

    What is kept is a node of its own between the layer and what comes next. It shares no memory with either: an in-place ReLU
    would overwrite it. Nor is it the layer's input, as an identity's output is, whose gradient has those of other ways in it.
    """
    seen: dict[str, Tensor] = {}

    def watch(name: str, module: nn.Module, output: object) -> object:
        tensor = main_tensor(output)
        if tensor is None:
            return output
        seen[name] = (
            tensor.clone() if tensor.requires_grad else tensor.detach().clone().requires_grad_()
        )
        return replace_tensor(output, tensor, seen[name].clone())

    with forward_hooks({name: model.get_submodule(name) for name in names}, watch):
        yield seen


@contextmanager
def forward_hooks(modules: dict[str, nn.Module], hook: Any) -> Iterator[None]:
    """`hook(name, module, output)` runs after each of the modules, and may return another output."""
    handles = []
    try:
        for name, module in modules.items():
            handles.append(
                module.register_forward_hook(
                    lambda module, _, output, name=name: hook(name, module, output)
                )
            )
        yield
    finally:
        for handle in handles:
            handle.remove()


def main_tensor(output: object) -> Tensor | None:
    """The tensor that a layer's output is about: itself, or the first of a tuple, list or dict."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    parts = (
        output.values()
        if isinstance(output, dict)
        else output
        if isinstance(output, tuple | list)
        else ()
    )
    return next(
        (part for part in parts if isinstance(part, Tensor) and part.is_floating_point()), None
    )


def named_parts(model: nn.Module) -> dict[str, nn.Module]:
    """The modules inside `model` by name, without the step that torch.compile puts into the names of what it wraps."""
    parts: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if name:
            parts.setdefault(
                ".".join(step for step in name.split(".") if step != "_orig_mod"), module
            )
    return parts


def replace_tensor(output: object, old: Tensor, new: Tensor) -> object:
    """A layer's output with `new` where `old` was."""
    if output is old:
        return new
    if isinstance(output, dict):
        changed = copy(output)  # of the same type, whatever its constructor takes
        for key, part in output.items():
            if part is old:
                changed[key] = new
        return changed
    if isinstance(output, tuple | list):
        parts = [new if part is old else part for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return output


def gradients_at(score: Tensor, layers: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients of `score` () at layers that are `watched`, None where it does not depend on one."""
    try:
        return torch.autograd.grad(score, layers, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        first = str(error).strip().partition("\n")[0]
        raise SeewhyError(
            f"no gradient can go back through this model, so it could not be trained either: {first}"
        ) from error
