"""One forward and one backward pass give the activation and the gradient of every layer that is asked for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor, nn

from seewhy.attribution.hooks import gradients_at, record_outputs
from seewhy.attribution.layers import Layers, Layout, layout_of, prefix_tokens, resolve_layers
from seewhy.attribution.target import (
    ForwardPass,
    Target,
    check_rows,
    outputs,
    target_weights,
)
from seewhy.errors import SeewhyError
from seewhy.models.classifier import ClassifierLike, as_classifier
from seewhy.models.inference import autocasting
from seewhy.models.inspection import inspecting, prepare_images, unwrap_model

FIRST_PIXELS = 8 * 224 * 224  # of the first chunk, which tells how much memory an image takes
MEMORY = 2**30  # bytes that the graph of a chunk may take


@dataclass(frozen=True, eq=False)
class Capture:
    """What one layer says of a question: all that a gradient-based class activation map needs."""

    question: ForwardPass
    layer: str
    layout: Layout
    activation: Tensor  # (N, C, h, w) float32 or float64
    gradient: Tensor  # (N, C, h, w), of the question's scores with respect to the activation


def capture_layers(
    classifier: ClassifierLike,
    images: Tensor,  # (N, C, H, W) uint8, or float in [0, 1]
    layers: Layers = "auto",
    target: Target = "predicted",
    *,
    labels: Tensor | None = None,
    memory: int = MEMORY,
) -> dict[str, Capture]:
    """The activation and gradient of each of `layers` for every image, by the layer's name.

    A pass keeps no gradient of a weight, and goes back no further than to the first of the layers. Images are taken in chunks
    whose graph fits into `memory` bytes. The model is left as it was (see `untouched`). Where a layer runs several times in a
    pass, it is its last output. Raises SeewhyError for a layer that does not exist, never runs, has no places or no gradient.
    """
    classifier = as_classifier(classifier)
    model = unwrap_model(classifier.model)
    parts: list[dict[str, Capture]] = []
    with inspecting(model):
        pixels = prepare_images(images, model)
        check_rows(target, labels, len(pixels))
        names = resolve_layers(model, pixels, layers)
        start, size = 0, max(1, FIRST_PIXELS // (pixels.shape[-1] * pixels.shape[-2]))
        while start < len(pixels):
            rows = slice(start, start + size)
            goal = target[rows] if isinstance(target, Tensor) else target
            truth = None if labels is None else labels[rows]
            with _graph_bytes(model) if size < len(pixels) else nullcontext([0]) as count:
                parts.append(
                    capture_chunk(
                        model,
                        pixels[rows],
                        names,
                        goal,
                        truth,
                        classifier.classes,
                        classifier.precision,
                    )
                )
            start, size = start + size, max(1, min(size * memory // max(count[0], 1), len(pixels)))
    return (
        parts[0]
        if len(parts) == 1
        else {name: _joined([part[name] for part in parts], pixels) for name in names}
    )


def capture_chunk(
    model: nn.Module,
    pixels: Tensor,
    names: Sequence[str],
    target: Target,
    labels: Tensor | None,
    classes: Sequence[str] | None,
    precision: str,
) -> dict[str, Capture]:
    """`capture` of images that fit into memory at once, inside `untouched`."""
    with record_outputs(
        model, names
    ) as seen:  # also on the way back, on which a checkpointed part runs again
        with autocasting(precision, pixels.device):
            logits = outputs(model, pixels)
        weights = target_weights(target, logits, labels, classes)
        _check_seen(names, seen, logits)
        layers = [seen[name] for name in names]
        gradients = gradients_at((logits * weights).sum(), layers)
    question = ForwardPass(model, pixels, weights, logits.detach(), precision)
    prefix = prefix_tokens(model)
    captures = {}
    for name, layer, gradient in zip(names, layers, gradients, strict=True):
        output = layer.detach()
        layout = layout_of(output.shape, pixels.shape, prefix)
        if layout is None:
            raise _no_places(name, output, pixels)
        if gradient is None:
            raise SeewhyError(
                f"no gradient reaches layer {name!r}: the logits do not depend on it; name a layer on their way"
            )
        captures[name] = Capture(
            question, name, layout, _full(layout.to_grid(output)), _full(layout.to_grid(gradient))
        )
    return captures


@contextmanager
def _graph_bytes(model: nn.Module) -> Iterator[list[int]]:
    """How many bytes the graphs of the block keep besides the weights, known when it ends, as the only entry of a list."""
    weights = {
        tensor.untyped_storage().data_ptr() for tensor in chain(model.parameters(), model.buffers())
    }
    sizes: dict[int, int] = {}
    total = [0]

    def note(tensor: Tensor) -> tuple[Tensor, int]:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return (
            tensor.detach(),
            tensor._version,
        )  # not the tensor itself, which would keep its own graph alive

    def back(noted: tuple[Tensor, int]) -> Tensor:
        tensor, version = noted
        if tensor._version != version:  # what autograd checks where there are no hooks
            raise RuntimeError(
                "a tensor that the gradient needs was modified by an in-place operation"
            )
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, back):
        yield total
    total[0] = sum(size for pointer, size in sizes.items() if pointer not in weights)


def _joined(parts: Sequence[Capture], pixels: Tensor) -> Capture:
    questions = [part.question for part in parts]
    weights, logits = (
        torch.cat([each.weights for each in questions]),
        torch.cat([each.logits for each in questions]),
    )
    return replace(
        parts[0],
        question=replace(questions[0], images=pixels, weights=weights, logits=logits),
        activation=torch.cat([part.activation for part in parts]),
        gradient=torch.cat([part.gradient for part in parts]),
    )


def _check_seen(names: Sequence[str], seen: dict[str, Tensor], logits: Tensor) -> None:
    for name in names:
        if name not in seen:
            raise SeewhyError(
                f"layer {name!r} did not run, or returned no tensor; name one that the images go through"
            )
    if not logits.requires_grad:
        listed = ", ".join(names)
        raise SeewhyError(
            f"no gradient goes from the logits back to {listed}: the model detaches its values or runs under torch.no_grad; "
            "remove that, or choose a method that needs no gradient, such as rise"
        )


def _no_places(name: str, output: Tensor, pixels: Tensor) -> SeewhyError:
    found, image = "x".join(map(str, output.shape[1:])), "x".join(map(str, pixels.shape[2:]))
    count = (
        "" if len(output) == len(pixels) else f" for {len(output)} parts of {len(pixels)} images"
    )
    return SeewhyError(
        f"layer {name!r} has an output of {found}{count}, which does not lie on an image of {image}: a map needs more than one "
        "place; `seewhy layers MODEL` and seewhy.find_layers(model, images) list layers that have them"
    )


def _full(values: Tensor) -> Tensor:
    """In at least float32: half precision is for the network, not for the sums over its channels."""
    return values if values.dtype == torch.float64 else values.float()
