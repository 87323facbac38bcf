"""A network that can be asked: the one value that predicting, explaining and diagnosing take."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import nn

from seewhy.errors import SeewhyError
from seewhy.models.inference import device_of


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained network and everything needed to ask it about images."""

    model: nn.Module  # images (N, C, H, W) float in [0, 1] to logits (N, K), in evaluation mode
    classes: tuple[str, ...] = ()  # K names; empty where they are unknown: classes are numbered
    image_shape: tuple[int, int, int] | None = None  # (C, H, W); None where any is taken
    precision: str = "fp32"  # fp32, bf16 or fp16, the format to compute in
    tta: str = "none"  # test-time augmentation of predictions, an entry of TTA

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return device_of(self.model)

    def class_names(self, count: int) -> tuple[str, ...]:
        """The names of `count` classes. Raises SeewhyError where the classifier has another number of them."""
        if self.classes and len(self.classes) != count:
            raise SeewhyError(
                f"the model has {count} classes, but {len(self.classes)} names were given"
            )
        return self.classes or tuple(map(str, range(count)))


class HasClassifier(Protocol):
    """A run, or another value that holds a classifier."""

    @property
    def classifier(self) -> Classifier: ...


ClassifierLike = Classifier | nn.Module | HasClassifier


def as_classifier(value: ClassifierLike, classes: Sequence[str] | None = None) -> Classifier:
    """The classifier in `value`: itself, that of a run, or one made of a bare module.

    `classes` replaces the names. Raises SeewhyError for any other value.
    """
    if isinstance(value, Classifier):
        found = value
    elif isinstance(value, nn.Module):
        found = Classifier(value)
    elif isinstance(getattr(value, "classifier", None), Classifier):
        found = value.classifier
    else:
        raise SeewhyError(
            f"expected a Classifier, a Run or a torch.nn.Module, found {type(value).__name__}"
        )
    return found if classes is None else replace(found, classes=tuple(classes))
