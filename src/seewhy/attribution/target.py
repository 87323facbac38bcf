"""The explained score: a target, a forward pass of the model, and the logits' weights."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import index
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.errors import SeewhyError, describe_value, did_you_mean
from seewhy.models.batching import batches
from seewhy.models.classifier import Classifier, ClassifierLike, as_classifier
from seewhy.models.inference import autocasting, decided, for_outputs
from seewhy.models.inspection import (
    inspecting,
    memory_format_of,
    naming_images,
    prepare_images,
    unwrap_model,
)
from seewhy.models.outputs import applied, batch_sizes, describe_output
from seewhy.wording import counted

ClassTarget = int | str  # a Relative, a class name, or a class index
ScoreFunction = Callable[[Any], Tensor]  # from what the model returns to a score per image (N,)
Target = ClassTarget | tuple[ClassTarget, ClassTarget] | Tensor | ScoreFunction


class Relative(StrEnum):
    """A class that depends on the image; unlike its text, never confused with a class name."""

    PREDICTED = "predicted"
    TRUE = "true"
    RUNNER_UP = "runner-up"


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True, eq=False)
class TargetSpec:
    """Which score of the model is explained.

    Args:
        target: "predicted", "true", "runner-up" (the second most probable class), a class name, or
            a class index; a pair of these for a difference of logits, as in ("cat", "dog"); class
            indices (N,) int64, one per image; or weights of the logits (N, K).
        labels: True classes (N,) int64, which "true" needs.
        classes: Names of the K classes. A text such as "3" is an index only if no class name is a
            number.
    """

    target: Target = Relative.PREDICTED
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("target", "labels"):
            value = getattr(self, name)
            if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "iuf":
                wide = np.float32 if value.dtype.kind == "f" else np.int64
                object.__setattr__(self, name, torch.from_numpy(value.astype(wide)))

    def check(self, count: int) -> None:
        """Raise SeewhyError unless tensors have one entry per image."""
        for name, value in {"target": self.target, "labels": self.labels}.items():
            if isinstance(value, Tensor) and value.shape[:1] != (count,):
                raise SeewhyError(
                    f"{name} must have an entry for each of the {counted(count, 'image')}, found "
                    f"shape {tuple(value.shape)}"
                )

    def take(self, rows: slice) -> "TargetSpec":
        """The target of some images."""
        target = self.target[rows] if isinstance(self.target, Tensor) else self.target
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, target=target, labels=labels)

    def weights(self, logits: Tensor) -> Tensor:
        """Weights of the logits in the explained score, their weighted sum.

        Args:
            logits: (N, K) float.

        Returns:
            (N, K) in the dtype of the logits: one-hot for a class, 1 and -1 for a pair, all zero
            where both of a pair are the same class.

        Raises:
            SeewhyError: For an unknown or ambiguous class, for a pair of the same class, and for
                tensors of the wrong shape or type.
        """
        target = self.target
        if isinstance(target, Tensor):
            return _weights_of_tensor(target.detach().to(logits.device), logits)
        count = logits.shape[1]
        if isinstance(target, tuple) and len(target) == 2:
            first, second = (self._resolve(each, count) for each in target)
            if first == second:
                raise SeewhyError(
                    f"target {target!r} is the difference of a class and itself, which is 0 for "
                    "every image; choose two classes"
                )
            return self._one_hot(first, logits) - self._one_hot(second, logits)
        return self._one_hot(self._resolve(target, count), logits)

    def _one_hot(self, target: Relative | int, logits: Tensor) -> Tensor:  # (N, K)
        if target == Relative.PREDICTED:
            indices = logits.argmax(1)
        elif target == Relative.RUNNER_UP:
            indices = _runner_up(logits)
        elif target == Relative.TRUE:
            if self.labels is None:
                raise SeewhyError(
                    "target 'true' needs the true classes, which are not known for these images "
                    "(in Python pass labels (N,)); choose another target"
                )
            indices = self.labels
        else:
            _check_index(int(target), logits.shape[1])  # also those that no tensor can hold
            indices = torch.full((len(logits),), int(target))
        return _one_hot(_checked(indices, logits), logits)

    def _resolve(self, target: object, num_classes: int) -> Relative | int:
        """The meaning of a target that is not a pair or a tensor.

        Raises SeewhyError if it has none or several.
        """
        if isinstance(target, Relative):
            return target
        if isinstance(target, SupportsIndex) and not isinstance(target, bool):
            with suppress(TypeError):  # of an array of several
                return index(target)  # also NumPy's integers
        if not isinstance(target, str):
            raise self._unknown(target, num_classes)
        indices = [number for number, name in enumerate(self.classes) if name == target]
        meanings: list[Relative | int] = [each for each in Relative if each == target]
        meanings += indices
        if len(meanings) > 1:
            described = [
                f"the {each} class of each image" if isinstance(each, Relative) else f"class {each}"
                for each in meanings
            ]
            raise SeewhyError(
                f"target {target!r} is ambiguous: {' or '.join(described)}; pass a class index, "
                f"such as {indices[0]}"
            )
        if meanings:
            return meanings[0]
        if not target.isdecimal():
            raise self._unknown(target, num_classes)
        numbers = [name for name in self.classes if name.isdecimal()]
        if numbers:
            raise SeewhyError(
                f"no class is named {target!r}; it is not taken as an index, because classes have "
                f"numbers as names, such as {numbers[0]!r}; pass a name, or the index as an int"
            )
        return int(target)

    def _unknown(self, target: object, num_classes: int) -> SeewhyError:
        known = (*map(str, Relative), *self.classes)
        listed = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
        return SeewhyError(
            f"unknown target {target!r}{did_you_mean(str(target), known)}; possible: {listed}, an "
            f"index from 0 to {num_classes - 1}, or two of these"
        )


def _runner_up(logits: Tensor) -> Tensor:  # (N,) int64
    if logits.shape[1] < 2:
        raise SeewhyError("target 'runner-up' needs a model with at least two classes, found one")
    # Not topk: of two equal logits, its second may be the predicted class.
    return logits.scatter(1, logits.argmax(1, keepdim=True), -torch.inf).argmax(1)


def _weights_of_tensor(target: Tensor, logits: Tensor) -> Tensor:
    if target.shape == logits.shape and target.is_floating_point():
        # clone: a tensor made under inference_mode cannot enter a graph
        return (target.clone() if target.is_inference() else target).to(logits.dtype)
    return _one_hot(_checked(target, logits), logits)


def _checked(indices: Tensor, logits: Tensor) -> Tensor:  # (N,) int64 on the device of the logits
    if (
        not isinstance(indices, Tensor)
        or indices.shape != (len(logits),)
        or indices.dtype not in _INTEGERS
    ):
        raise SeewhyError(
            f"a target or labels must be class indices ({len(logits)},) int64, or the target "
            f"weights {tuple(logits.shape)} float; found {describe_value(indices)}"
        )
    num_classes = logits.shape[1]
    wrong = indices[(indices < 0) | (indices >= num_classes)]
    if len(wrong):
        _check_index(int(wrong[0]), num_classes)
    return indices.to(logits.device, torch.int64)


def _check_index(index: int, num_classes: int) -> None:
    if not 0 <= index < num_classes:
        raise SeewhyError(
            f"class {index} does not exist: the model has {counted(num_classes, 'class')}, 0 to "
            f"{num_classes - 1}"
        )


def _one_hot(indices: Tensor, logits: Tensor) -> Tensor:
    return F.one_hot(indices, logits.shape[1]).to(logits.dtype)


@dataclass(frozen=True, eq=False)
class PreparedInputs:
    """Model, images and target, checked and prepared once by the public function."""

    classifier: Classifier  # its model is in evaluation mode, without wrappers such as DDP
    images: Tensor  # (N, C, H, W) float in [0, 1], on the model's device
    target: TargetSpec

    @property
    def model(self) -> nn.Module:
        return self.classifier.model

    def take(self, rows: slice) -> "PreparedInputs":
        """The inputs of some images."""
        return replace(self, images=self.images[rows], target=self.target.take(rows))

    def batches(self) -> Iterator["PreparedInputs"]:
        """The images in batches."""
        return map(self.take, batches(self.model, self.images))


def prepare(
    classifier: ClassifierLike,
    images: Tensor,
    target: Target = Relative.PREDICTED,
    labels: Tensor | None = None,
) -> PreparedInputs:
    """Unwrap the model, move the images to its device as floats, and check all of them.

    With a function as target, the model's only output is the score, whose weight is 1.
    """
    classifier = as_classifier(classifier)
    if callable(target):
        if labels is not None:
            raise SeewhyError(
                "labels are for a target that is a class; leave them out, or put them into the "
                "function"
            )
        classifier, target = _scoring(classifier, target), 0
    model = unwrap_model(classifier.model)
    with inspecting(model):
        pixels = prepare_images(images, model)
    spec = TargetSpec(target, labels, classifier.classes)
    spec.check(len(pixels))
    return PreparedInputs(replace(classifier, model=model), pixels, spec)


def _scoring(classifier: Classifier, function: ScoreFunction) -> Classifier:
    """The classifier with the score of a function as its only logit (N, 1)."""
    name = getattr(function, "__name__", type(function).__name__)
    name = "score" if name == "<lambda>" else name

    def score(output: object) -> Tensor:  # (N, 1)
        scores = applied(function, output, "target")
        if (
            not isinstance(scores, Tensor)
            or not scores.is_floating_point()
            or scores.ndim != 1
            or len(scores) not in batch_sizes(output)
        ):
            raise SeewhyError(
                "a function given as target must return one score per image, a float tensor (N,), "
                f"found {describe_value(scores)}; the model returns {describe_output(output)}"
            )
        if not scores.isfinite().all():
            raise SeewhyError(
                f"the function given as target returns {scores[~scores.isfinite()][0]:g} for "
                f"{int((~scores.isfinite()).sum())} of {counted(len(scores), 'image')}; scores "
                "must be finite"
            )
        return scores[:, None]

    return replace(classifier, output=score, classes=(name,), temperature=1.0, activation="none")


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """The logits of images, and the explained score, a weighted sum of the logits.

    Args:
        classifier: Its model is in evaluation mode, without the wrappers of torch.compile or DDP.
        images: (N, C, H, W) float in [0, 1], on the model's device.
        weights: (N, K): the score of image n is `(logits[n] * weights[n]).sum()`.
        logits: (N, K) float32 or float64.
    """

    classifier: Classifier
    images: Tensor
    weights: Tensor
    logits: Tensor

    @property
    def model(self) -> nn.Module:
        """The model of the classifier."""
        return self.classifier.model

    @property
    def precision(self) -> str:
        """The format to compute in: "fp32", or "bf16" or "fp16" under autocast."""
        return self.classifier.precision

    @property
    def scores(self) -> Tensor:  # (N,)
        """The explained scores (N,); for a single class its logits."""
        return (self.logits * self.weights).sum(1)

    @property
    def target(self) -> Tensor:  # (N,) int64
        """The explained class of each image (N,) int64; the first one of a pair."""
        return self.weights.argmax(1)

    def confidences(self, logits: Tensor) -> Tensor:  # (N,) of logits (N, K)
        """The explained probability: of each class, times the weights.

        The score itself if the target is a function.
        """
        return (self.classifier.extracted_probabilities(logits) * self.weights).sum(1)

    def take(self, rows: slice | Tensor) -> "ForwardPass":
        """The forward pass of some images."""
        return replace(
            self, images=self.images[rows], weights=self.weights[rows], logits=self.logits[rows]
        )


def forward_pass(
    classifier: ClassifierLike,
    images: Tensor,
    target: Target = Relative.PREDICTED,
    *,
    labels: Tensor | None = None,
) -> ForwardPass:
    """Run the model once, without gradients, and fix the explained score.

    Args:
        classifier: A Classifier, a Run, or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1].
        target: Explained class or classes, see `explain`.
        labels: True classes (N,) int64, for the target "true".

    Raises:
        SeewhyError: For a model in training mode, and for images or a target that do not fit it.
    """
    return run_forward(prepare(classifier, images, target, labels))


def run_forward(inputs: PreparedInputs) -> ForwardPass:
    """`forward_pass` for prepared inputs."""
    classifier, images = inputs.classifier, inputs.images
    with inspecting(classifier.model):
        logits = _logits_in_batches(classifier, images)
        weights = inputs.target.weights(logits)
    return ForwardPass(decided(classifier, images, logits), images, weights, logits)


def predict_logits(forward: ForwardPass, images: Tensor) -> Tensor:  # (M, K) float32 or float64
    """Logits (M, K) of the same model for other images (M, C, H, W), without gradients."""
    with inspecting(forward.model):
        images = images.clone() if images.is_inference() else images
        return _logits_in_batches(forward.classifier, images)


@torch.no_grad()
def _logits_in_batches(classifier: Classifier, images: Tensor) -> Tensor:
    fast = replace(classifier, model=for_outputs(classifier, images))
    with autocasting(classifier.precision, images.device):
        return torch.cat(
            [run_model(fast, images[rows]) for rows in batches(classifier.model, images)]
        )


def run_model(classifier: ClassifierLike, images: Tensor) -> Tensor:  # (N, K) float32 or float64
    """The model's logits in at least float32; an error of torch becomes a SeewhyError."""
    classifier = as_classifier(classifier)
    with naming_images(images):
        # clone: the first layer may work in place, and the images are the caller's
        pixels = images.clone(memory_format=memory_format_of(classifier.model))
        logits = classifier.extract_logits(classifier.model(pixels))
    return logits if logits.dtype == torch.float64 else logits.float()
