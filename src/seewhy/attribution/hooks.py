"""Forward hooks that record the outputs of layers and make them nodes of the autograd graph."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy

import torch
from torch import Tensor, nn

from seewhy.errors import SeewhyError, first_line
from seewhy.models.inspection import named_layers
from seewhy.models.memory import is_out_of_memory

WITHOUT_GRADIENT = (
    "eigen-cam, score-cam, ablation-cam, rise, lime and occlusion need no gradient of the model"
)


def no_gradient_to(where: str) -> str:
    """The reason why no gradient of the logits reaches something."""
    return (
        f"no gradient flows from the logits to {where}: the model detaches a tensor, is quantized, "
        "or runs under torch.no_grad or reentrant checkpointing, or a function given as target is "
        f"not differentiable; remove that, or use another method: {WITHOUT_GRADIENT}"
    )


Hook = Callable[[str, nn.Module, object], object]  # name, module, output -> other output or None


@contextmanager
def record_outputs(
    model: nn.Module, names: Sequence[str], count: int
) -> Iterator[dict[str, Tensor]]:
    """Outputs of the named layers in a forward pass of `count` images inside the block.

    The graph begins at the first of them. Each recorded tensor is a separate graph node between the
    layer and the next one. It shares no memory with them, so an in-place ReLU cannot overwrite it.
    It is also distinct from the input of an identity layer, because the gradient of this input
    includes other paths.
    """
    outputs: dict[str, Tensor] = {}

    def record(name: str, module: nn.Module, output: object) -> object:
        tensor = main_tensor(output, count)
        if tensor is None:
            return output
        node = tensor.clone() if tensor.requires_grad else tensor.detach().clone().requires_grad_()
        outputs[name] = node
        return replace_tensor(output, tensor, node.clone())

    with forward_hooks({name: model.get_submodule(name) for name in names}, record):
        yield outputs


@contextmanager
def forward_hooks(modules: Mapping[str, nn.Module], hook: Hook) -> Iterator[None]:
    """Call `hook(name, module, output)` after each of the modules; it may return another output."""
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


def main_tensor(output: object, count: int) -> Tensor | None:
    """A layer's output, or one of the floating-point tensors of a tuple, list or dict.

    The first with an entry for each of `count` images, as of the patches in TNT, which also returns
    the pixels of each patch; else the first.
    """
    parts: tuple[object, ...] = (output,)
    if isinstance(output, dict):
        parts = tuple(output.values())
    elif isinstance(output, tuple | list):
        parts = tuple(output)
    tensors = [part for part in parts if isinstance(part, Tensor) and part.is_floating_point()]
    per_image = (tensor for tensor in tensors if tensor.ndim and len(tensor) == count)
    return next(per_image, tensors[0] if tensors else None)


def named_parts(model: nn.Module) -> dict[str, nn.Module]:
    """The submodules that hooks can observe, by their `layer_path`."""
    layers = named_layers(model).items()
    return {
        path: layer
        for path, layer in layers
        if path and not isinstance(layer, torch.jit.ScriptModule)
    }


def replace_tensor(output: object, old: Tensor, new: Tensor) -> object:
    """A layer's output with `new` in place of `old`."""
    if output is old:
        return new
    if isinstance(output, dict):
        changed = copy(output)  # a copy keeps the type, whatever its constructor takes
        for key, part in output.items():
            if part is old:
                changed[key] = new
        return changed
    if isinstance(output, tuple | list):
        parts = [new if part is old else part for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return output


def gradients_at(
    score: Tensor,
    outputs: Sequence[Tensor],
    vector: Tensor | None = None,
    *,
    create_graph: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of a score () at recorded outputs; None for outputs that it does not use.

    Every gradient of the package is taken here, so that an error of torch becomes a SeewhyError.
    With `vector`, of the shape of `score`, it is that of their product.
    """
    try:
        if vector is not None:
            # a scalar, because torch.autograd.grad imports sympy for a vector, which takes a second
            with torch.enable_grad():
                score = (score * vector).sum()
        return torch.autograd.grad(
            score, list(outputs), create_graph=create_graph, allow_unused=True
        )
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise SeewhyError(
            f"the backward pass of this model fails: {first_line(error)}; {WITHOUT_GRADIENT}"
        ) from error
