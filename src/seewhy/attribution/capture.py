"""Activations and gradients of layers and attention: one forward and one backward pass for all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

import torch
from torch import Tensor, nn

from seewhy.attribution.attention import (
    AttentionCapture,
    attention_capture,
    record_attention,
)
from seewhy.attribution.hooks import gradients_at, no_gradient_to, record_outputs
from seewhy.attribution.layers import Layers, layer_names
from seewhy.attribution.layouts import Layout, token_order
from seewhy.attribution.target import (
    ForwardPass,
    PreparedInputs,
    Relative,
    Target,
    prepare,
    run_model,
)
from seewhy.errors import SeewhyError
from seewhy.models.classifier import ClassifierLike
from seewhy.models.inference import autocasting, decided
from seewhy.models.inspection import inspecting, passes_gradient
from seewhy.models.memory import saved_bytes
from seewhy.wording import counted

FIRST_PIXELS = 8 * 224 * 224  # size of the first chunk, which measures the memory of the graph
MEMORY = 2**30  # maximum bytes of a chunk's graph


@dataclass(frozen=True, eq=False)
class Capture:
    """Activation and gradient of one layer, from which gradient-based CAMs are made.

    Args:
        forward: The forward pass of the capture.
        layer: Name of the layer.
        layout: Layout of the layer's output before it became (N, C, h, w).
        activation: (N, C, h, w) float32 or float64.
        derivative: (N, C, h, w), `gradient`; or the reason why there is none.
        reads_prefix: Whether the score depends on the tokens before the grid, such as a class
            token.
    """

    forward: ForwardPass
    layer: str
    layout: Layout
    activation: Tensor
    derivative: Tensor | str
    reads_prefix: bool = False

    @property
    def gradient(self) -> Tensor:
        """Gradient (N, C, h, w) of each image's score with respect to the activation.

        Raises:
            SeewhyError: If there is none, as in a quantized model.
        """
        if isinstance(self.derivative, str):
            raise SeewhyError(self.derivative)
        return self.derivative


Captures = dict[str, Capture]  # by layer


class Attention(Enum):
    """What is captured of a transformer's attention."""

    NOTHING = 0
    PROBABILITIES = 1
    GRADIENTS = 2  # and the probabilities


@dataclass(frozen=True, eq=False)
class SharedPass:
    """What one forward and one backward pass capture of a chunk of images.

    Args:
        forward: The forward pass.
        captures: By layer.
        attention: Of all layers; or the reason why the model has none.
    """

    forward: ForwardPass
    captures: Captures
    attention: AttentionCapture | str


def capture_layers(
    classifier: ClassifierLike,
    images: Tensor,
    layers: Layers = "auto",
    target: Target = Relative.PREDICTED,
    *,
    labels: Tensor | None = None,
    memory: int = MEMORY,
) -> Captures:
    """Activation and gradient of each layer for every image.

    The backward pass stops at the first of the layers and computes no gradients of weights. The
    model is left unchanged. If a layer runs several times in a pass, its last output is captured.

    Args:
        classifier: A Classifier, a Run, or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1].
        layers: Names of layers, modules, or "auto", see `list_layers`.
        target: Explained class or classes, see `explain`.
        labels: True classes (N,) int64, for the target "true".
        memory: Maximum bytes that autograd saves; images are processed in chunks that fit.

    Returns:
        Captures by layer name, in the order of `layers`.

    Raises:
        SeewhyError: For a layer that does not exist, never runs, has no spatial output, or gets no
            gradient, and for images or a target that do not fit the model.
    """
    inputs = prepare(classifier, images, target, labels)
    captures = capture_prepared(inputs, layer_names(inputs, layers), memory)
    for capture in captures.values():
        _ = capture.gradient  # raises
    return captures


def capture_prepared(
    inputs: PreparedInputs, names: Sequence[str], memory: int = MEMORY
) -> Captures:
    """`capture_layers` for prepared inputs."""
    chunks = capture_chunks(inputs, names, len(inputs.images), memory=memory)
    parts = [chunk.captures for chunk in chunks]
    if len(parts) == 1:
        return parts[0]
    return {name: _concatenate([part[name] for part in parts], inputs.images) for name in names}


def capture_chunks(
    inputs: PreparedInputs,
    names: Sequence[str],
    max_images: int,
    attention: Attention = Attention.NOTHING,
    memory: int = MEMORY,
) -> Iterator[SharedPass]:
    """Captures of at most `max_images` images at a time, with graphs of at most `memory` bytes."""

    def capture(rows: slice) -> SharedPass:
        return capture_batch(inputs.take(rows), names, attention)

    return in_chunks(capture, inputs.model, inputs.images, max_images, memory)


T = TypeVar("T")


def in_chunks(
    run: Callable[[slice], T],
    model: nn.Module,
    images: Tensor,
    max_images: int,
    memory: int = MEMORY,
) -> Iterator[T]:
    """Run a forward and backward pass on some rows of the images at a time; see `capture_chunks`.

    The graph of the first few images is measured.
    """
    start, size = 0, min(max_images, max(1, FIRST_PIXELS // (images.shape[-1] * images.shape[-2])))
    while start < len(images):
        measured = size < min(max_images, len(images))  # otherwise the size is final
        with saved_bytes(model) if measured else nullcontext([0]) as graph_bytes:
            result = run(slice(start, start + size))
        yield result
        start, size = start + size, max(1, min(size * memory // max(graph_bytes[0], 1), max_images))


def capture_batch(
    inputs: PreparedInputs, names: Sequence[str], attention: Attention = Attention.NOTHING
) -> SharedPass:
    """Captures of one chunk of images."""
    model, images, precision = inputs.model, inputs.images, inputs.classifier.precision
    with (
        inspecting(model),
        record_outputs(model, names, len(images)) as outputs,
        record_attention(attention is not Attention.NOTHING) as recorded,
    ):
        # The hooks stay for the backward pass, which reruns checkpointed parts of the model.
        with autocasting(precision, images.device):
            logits = run_model(inputs.classifier, images)
        weights = inputs.target.weights(logits)
        _check_outputs(names, outputs)
        probabilities = list(recorded)
        derived = probabilities if attention is Attention.GRADIENTS else probabilities[-1:]
        nodes = {name: outputs[name] for name in names}
        gradients, by_attention = _gradients(model, (logits * weights).sum(), nodes, derived)
    classifier = decided(inputs.classifier, images, logits.detach())
    forward = ForwardPass(classifier, images, weights, logits.detach())
    order = token_order(model)
    captures = {}
    for name, gradient in gradients.items():
        output = outputs[name].detach()
        layout = order.layout(name, output.shape, images.shape)
        if layout is None:
            raise _not_spatial(name, output, images)
        derivative = gradient if isinstance(gradient, str) else _widen(layout.to_grid(gradient))
        captures[name] = Capture(
            forward,
            name,
            layout,
            _widen(layout.to_grid(output)),
            derivative,
            isinstance(gradient, Tensor) and bool(gradient[:, : layout.prefix].any()),
        )
    captured = attention_capture(forward, order, probabilities, by_attention)
    return SharedPass(forward, captures, captured)


def _gradients(
    model: nn.Module, score: Tensor, outputs: Mapping[str, Tensor], attention: Sequence[Tensor]
) -> tuple[dict[str, Tensor | str], list[Tensor] | str]:
    """The gradient at each layer and each attention, or the reason why there is none."""
    if not passes_gradient(model, score):
        reason = no_gradient_to(", ".join(outputs) or "the attention")
        return dict.fromkeys(outputs, reason), reason
    try:
        gradients = gradients_at(score, [*outputs.values(), *attention])
    except SeewhyError as error:
        return dict.fromkeys(outputs, str(error)), str(error)
    at_outputs, at_attention = gradients[: len(outputs)], gradients[len(outputs) :]
    found = [gradient for gradient in at_attention if gradient is not None]
    without = "no gradient reaches the attention of some layers: the logits do not depend on it"
    return {
        name: f"no gradient reaches layer {name!r}: the logits do not depend on it; choose a layer "
        "between the images and the logits"
        if gradient is None
        else gradient
        for name, gradient in zip(outputs, at_outputs, strict=True)
    }, found if len(found) == len(attention) else without


def _concatenate(parts: Sequence[Capture], images: Tensor) -> Capture:
    """One capture of several chunks; `images` are those of all of them."""
    forwards = [part.forward for part in parts]
    derivatives = [part.derivative for part in parts]
    reasons = [each for each in derivatives if isinstance(each, str)]
    gradients = [each for each in derivatives if isinstance(each, Tensor)]
    forward = replace(
        forwards[0],
        images=images,
        weights=torch.cat([each.weights for each in forwards]),
        logits=torch.cat([each.logits for each in forwards]),
    )
    return replace(
        parts[0],
        forward=forward,
        activation=torch.cat([part.activation for part in parts]),
        derivative=reasons[0] if reasons else torch.cat(gradients),
        reads_prefix=any(part.reads_prefix for part in parts),
    )


def _check_outputs(names: Sequence[str], outputs: dict[str, Tensor]) -> None:
    for name in names:
        if name not in outputs:
            raise SeewhyError(
                f"layer {name!r} did not run, or returned no tensor; choose a layer that the "
                "forward pass uses"
            )


def _not_spatial(name: str, output: Tensor, images: Tensor) -> SeewhyError:
    shape, image = "x".join(map(str, output.shape[1:])), "x".join(map(str, images.shape[2:]))
    batch = f" and a batch of {len(output)} for {counted(len(images), 'image')}"
    return SeewhyError(
        f"layer {name!r} has an output of {shape}{batch if len(output) != len(images) else ''}, "
        f"which is not a spatial grid for images of {image}; `seewhy layers MODEL` lists "
        "the layers with spatial output (in Python list_layers(model, images))"
    )


def _widen(values: Tensor) -> Tensor:
    """Cast to at least float32: half precision is too coarse for sums over channels."""
    return values if values.dtype == torch.float64 else values.float()
