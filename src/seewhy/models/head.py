"""The classification head of a model: the layer whose outputs are the logits."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from seewhy.errors import SeewhyError
from seewhy.models.inspection import (
    evaluating,
    inspecting,
    naming_images,
    prepare_images,
    unwrap_model,
)
from seewhy.models.outputs import extract_logits
from seewhy.wording import counted

Layer = nn.Linear | nn.Conv2d


def find_head(model: nn.Module, images: Tensor | None = None) -> str:
    """Find the layer that computes the logits, by what its outputs flow into and not by its name.

    Only operations without weights of their own, such as pooling or a scale, may follow it.

    Args:
        model: Maps images to logits (N, K), or to a value that holds them.
        images: (N, C, H, W) uint8, or float in [0, 1]; the first one passes through the model.
            Without images, the head is the last linear layer or convolution in the order of
            definition.

    Returns:
        The name of the module, a linear layer or a convolution, as in `model.named_modules()`.

    Raises:
        SeewhyError: If no such layer computes the logits, or if several do.
    """
    if images is None:
        names = [name for name, part in _named_layers(unwrap_model(model))][-1:]
    else:
        names = find_heads(model, images)
    kind = type(unwrap_model(model)).__name__
    if not names:
        raise SeewhyError(
            f"the logits of {kind} are not the outputs of a linear layer or a convolution, so it "
            "has no head to find or to replace; give it such a layer, with one output per class"
        )
    if len(names) > 1:
        raise SeewhyError(
            f"the logits of {kind} come from {counted(len(names), 'layer')}: {', '.join(names)}; a "
            "head is found and replaced only if it is one layer"
        )
    return names[0]


def find_heads(
    model: nn.Module, images: Tensor, logits_of: Callable[[object], Tensor] = extract_logits
) -> list[str]:
    """The layers with K outputs between which and the logits (N, K) no other layer lies.

    `logits_of` takes the logits from the output of the model. None, one, or several names, in the
    order in which the layers are run.
    """
    model = unwrap_model(model)
    names = {part: name for name, part in _named_layers(model)}
    nodes: dict[Node, nn.Module] = {}  # of the autograd graph, which the layers' outputs leave
    run: list[nn.Module] = []

    def record(module: nn.Module, _: object, output: object) -> None:
        run.append(module)
        if isinstance(output, Tensor) and output.grad_fn is not None:
            nodes[output.grad_fn] = module

    handles = [part.register_forward_hook(record) for part in names]
    try:
        with evaluating(model), inspecting(model):
            pixels = prepare_images(images[:1], model).requires_grad_()
            with naming_images(pixels):
                logits = logits_of(model(pixels))
    finally:
        for handle in handles:
            handle.remove()
    fitting = [part for part in dict.fromkeys(run) if num_outputs(part) == logits.shape[1]]
    if logits.grad_fn is None:  # a part of the model computes without gradients
        return [names[part] for part in fitting[-1:]]
    last = _nearest(logits.grad_fn, nodes)
    return [names[part] for part in fitting if part in last]


def replace_head(model: nn.Module, num_classes: int, images: Tensor | None = None) -> bool:
    """Replace the head in place by a new one for another number of classes.

    Its weights are drawn from torch's global generator, as those of a new layer of torch.

    Args:
        model: A model as for `find_head`.
        num_classes: Number of outputs of the head, K.
        images: As for `find_head`.

    Returns:
        Whether it was replaced; False if the head has `num_classes` outputs already.

    Raises:
        SeewhyError: If the head cannot be found.
    """
    name = find_head(model, images)
    head = unwrap_model(model).get_submodule(name)
    if num_outputs(head) == num_classes:
        return False
    unwrap_model(model).set_submodule(name, new_layer(head, num_classes))
    return True


def new_layer(
    layer: nn.Module, outputs: int, device: torch.device | str | None = None
) -> nn.Module:
    """A linear layer or convolution like `layer` with other outputs, by default on its device."""
    assert isinstance(layer, Layer)
    bias, dtype = layer.bias is not None, layer.weight.dtype
    device = layer.weight.device if device is None else device
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, outputs, bias, device, dtype)
    kernel, stride, padding = layer.kernel_size, layer.stride, layer.padding
    return nn.Conv2d(
        layer.in_channels,
        outputs,
        kernel,  # type: ignore[arg-type]
        stride,  # type: ignore[arg-type]
        padding,  # type: ignore[arg-type]
        bias=bias,
        device=device,
        dtype=dtype,
    )


def _named_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, part) for name, part in model.named_modules() if isinstance(part, Layer)]


def num_outputs(layer: nn.Module) -> int:
    """Number of outputs of a linear layer or convolution."""
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels  # type: ignore[return-value]


def _nearest(end: Node, nodes: dict[Node, nn.Module]) -> set[nn.Module]:
    """The modules that are reached from `end` backwards before any other of them."""
    found, seen, waiting = set(), {end}, [end]
    while waiting:
        node = waiting.pop()
        if node in nodes:
            found.add(nodes[node])
            continue
        for source, _ in node.next_functions:
            if source is not None and source not in seen:
                seen.add(source)
                waiting.append(source)
    return found
