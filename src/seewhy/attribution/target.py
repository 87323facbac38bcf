"""Which score of a network is explained: a class, or why one class rather than another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import SupportsIndex

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.errors import SeewhyError, did_you_mean
from seewhy.models.classifier import ClassifierLike, as_classifier
from seewhy.models.inference import autocasting
from seewhy.models.inspection import (
    extract_logits,
    inspecting,
    memory_format_of,
    prepare_images,
    unwrap_model,
)

Target = int | str | Tensor

RELATIVE = ("predicted", "true", "runner-up")  # which class these mean depends on the image

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def target_weights(
    target: Target,
    logits: Tensor,
    labels: Tensor | None = None,
    classes: Sequence[str] | None = None,
) -> Tensor:  # (N, K) in the dtype of the logits
    """Weights with which the logits (N, K) of each image are summed to the score that is explained.

    `target` is "predicted", "true" (needs `labels` (N,) int64), "runner-up" (second most probable), a class by index or by its
    name in `classes`; two of these with a hyphen between them, as in "predicted-true" or "cat-dog", for logit A minus logit B,
    which is nothing where both are one class; indices (N,) int64, one an image; or weights (N, K). Raises SeewhyError for a
    class that there is not, and for names with hyphens that can be read in two ways.
    """
    if isinstance(target, Tensor):
        return _given(target.detach().to(logits.device), logits)
    if isinstance(target, SupportsIndex):
        target = index(target)  # also numpy's integers
    if isinstance(target, int) or _is_class(target, classes):
        return _one_hot(_class_of(target, logits, labels, classes), logits)
    pairs = _pairs(str(target), classes)
    if len(pairs) == 1:
        one, other = (
            _one_hot(_class_of(part, logits, labels, classes), logits) for part in pairs[0]
        )
        return one - other
    if pairs:
        readings = " or ".join(f"{one!r} minus {other!r}" for one, other in pairs)
        raise SeewhyError(
            f"target {target!r} means {readings}; name the classes by index, as in 0-1, or give weights (N, K)"
        )
    known = (*RELATIVE, *(classes or ()))
    listed = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    raise SeewhyError(
        f"unknown target {target!r}{did_you_mean(str(target), known)}; possible: {listed}, an index from 0 to "
        f"{logits.shape[1] - 1}, or two of them as in predicted-runner-up"
    )


def check_rows(target: Target, labels: Tensor | None, count: int) -> None:
    """Raise SeewhyError for tensors that have no entry for each of `count` images."""
    for name, given in {"target": target, "labels": labels}.items():
        if isinstance(given, Tensor) and given.shape[:1] != (count,):
            raise SeewhyError(
                f"{name} must have an entry for each of the {count} images, found shape {tuple(given.shape)}"
            )


def _pairs(text: str, classes: Sequence[str] | None) -> list[tuple[str, str]]:
    """Every reading of `text` as two classes with a hyphen between them; names may hold hyphens themselves."""
    parts = text.split("-")
    pairs = [("-".join(parts[:cut]), "-".join(parts[cut:])) for cut in range(1, len(parts))]
    return [pair for pair in pairs if all(_is_class(part, classes) for part in pair)]


def _is_class(text: object, classes: Sequence[str] | None) -> bool:
    return (
        text in RELATIVE or text in (classes or ()) or (isinstance(text, str) and text.isdecimal())
    )


def _class_of(
    target: int | str, logits: Tensor, labels: Tensor | None, classes: Sequence[str] | None
) -> Tensor:  # (N,) int64
    """The class that `target` means for each image."""
    count = logits.shape[1]
    if target == "predicted":
        return logits.argmax(1)
    if target == "runner-up":
        if count < 2:
            raise SeewhyError("target 'runner-up' needs a model of at least two classes, found one")
        first = logits.argmax(1, keepdim=True)
        return logits.scatter(1, first, -torch.inf).argmax(
            1
        )  # topk may count "predicted" as the second of equals
    if target == "true":
        if labels is None:
            raise SeewhyError("target 'true' needs the true classes: give labels (N,)")
        return _checked(labels, logits)
    index = list(classes).index(str(target)) if classes and target in classes else int(target)
    return _checked(torch.full((len(logits),), index), logits)


def _given(target: Tensor, logits: Tensor) -> Tensor:
    if target.shape == logits.shape and target.is_floating_point():
        return target.to(logits.dtype)
    return _one_hot(_checked(target, logits), logits)


def _checked(indices: Tensor, logits: Tensor) -> Tensor:  # (N,) int64 on the device of the logits
    if (
        not isinstance(indices, Tensor)
        or indices.shape != (len(logits),)
        or indices.dtype not in _INTEGERS
    ):
        found = (
            f"{tuple(indices.shape)} {indices.dtype}"
            if isinstance(indices, Tensor)
            else type(indices).__name__
        )
        raise SeewhyError(
            f"a target or labels must be class indices ({len(logits)},) int64, or a target weights {tuple(logits.shape)} float; "
            f"found {found.replace('torch.', '')}"
        )
    wrong = indices[(indices < 0) | (indices >= logits.shape[1])]
    if len(wrong):
        raise SeewhyError(
            f"class {int(wrong[0])} does not exist: the model has {logits.shape[1]} classes, 0 to {logits.shape[1] - 1}"
        )
    return indices.to(logits.device, torch.int64)


def _one_hot(indices: Tensor, logits: Tensor) -> Tensor:
    return F.one_hot(indices, logits.shape[1]).to(logits.dtype)


BATCH_PIXELS = {
    "cpu": 2**15,
    "cuda": 2**22,
}  # of images that go through a network at once; more would leave a CPU's caches


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """Images, the model's logits for them, and which sum of the logits is to be explained."""

    model: nn.Module  # in evaluation mode, without what torch.compile or DDP wrap around it
    images: Tensor  # (N, C, H, W) float in [0, 1], on the model's device
    weights: Tensor  # (N, K): the score of image n is (logits[n] * weights[n]).sum()
    logits: Tensor  # (N, K) float32 or float64
    precision: str = "fp32"

    @property
    def scores(self) -> Tensor:  # (N,)
        """What is explained: for a single class its logit."""
        return (self.logits * self.weights).sum(1)

    @property
    def target(self) -> Tensor:  # (N,) int64
        """The class that is explained; of a contrast, the one argued for."""
        return self.weights.argmax(1)

    def take(self, index: slice | Tensor) -> "ForwardPass":
        """The question for some of the images."""
        return replace(
            self, images=self.images[index], weights=self.weights[index], logits=self.logits[index]
        )


def forward_pass(
    classifier: ClassifierLike,
    images: Tensor,  # (N, C, H, W) uint8, or float in [0, 1]
    target: Target = "predicted",
    *,
    labels: Tensor | None = None,
) -> ForwardPass:
    """Run the model on the images once, without gradients, and fix what is to be explained (see `target_weights`).

    Raises SeewhyError for a model in training mode, for images or a target
    that do not fit it.
    """
    classifier = as_classifier(classifier)
    model = unwrap_model(classifier.model)
    with inspecting(model):
        pixels = prepare_images(images, model)
        logits = _batched(model, pixels, classifier.precision)
        weights = target_weights(target, logits, labels, classifier.classes)
        return ForwardPass(model, pixels, weights, logits, classifier.precision)


def predict_logits(question: ForwardPass, images: Tensor) -> Tensor:  # (M, K) float32 or float64
    """The logits of the question's model for other images (M, C, H, W), in batches, without gradients."""
    with inspecting(question.model):
        return _batched(
            question.model, images.clone() if images.is_inference() else images, question.precision
        )


def batch_size(images: Tensor) -> int:
    """How many images of this size go through a network at once."""
    return max(
        4, BATCH_PIXELS.get(images.device.type, 2**20) // (images.shape[-1] * images.shape[-2])
    )


@torch.no_grad()
def _batched(model: nn.Module, images: Tensor, precision: str) -> Tensor:
    with autocasting(precision, images.device):
        parts = [outputs(model, batch) for batch in torch.split(images, batch_size(images))]
    return torch.cat(parts)


def outputs(model: nn.Module, images: Tensor) -> Tensor:  # (N, K) float32 or float64
    """The model's logits, in at least float32, whatever it returns."""
    try:
        # clone: its first step may be in place, and the images are the caller's
        found = extract_logits(model(images.clone(memory_format=memory_format_of(model))))
    except (SeewhyError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        first = str(error).strip().partition("\n")[0]
        shape = "x".join(map(str, images.shape[1:]))
        raise SeewhyError(
            f"the model cannot take images of {shape} {str(images.dtype).removeprefix('torch.')}: {first}"
        ) from error
    return found if found.dtype == torch.float64 else found.float()
