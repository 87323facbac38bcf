"""A model with its classes, image shape, and precision, for `predict`, `explain`, and others."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass, replace
from operator import index
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from seewhy.data.decode import DEFAULT_PREPROCESSING, Preprocessing
from seewhy.data.pixel_range import check_range
from seewhy.errors import SeewhyError, check_type, lookup
from seewhy.models.inspection import device_of, unwrap_model
from seewhy.models.normalization import Normalize, Preprocessed
from seewhy.models.outputs import (
    ACTIVATIONS,
    RETURNED,
    TWO_LOGITS,
    Output,
    extract_logits,
    logits_of,
)
from seewhy.models.pretrained import pretrained_info, split_weights
from seewhy.models.published import PretrainedInfo
from seewhy.models.registry import blank_sample, build_model
from seewhy.notation import parse
from seewhy.wording import counted

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, eq=False, repr=False)
class Classifier:
    """A trained model with everything needed to use it; change fields with `dataclasses.replace`.

    A bare module is accepted wherever a classifier is; its classes are numbered, and it runs in
    fp32.

    Args:
        model: Maps images (N, C, H, W), float in [0, 1], to logits (N, K), or to a tuple, dict, or
            object that holds them.
        classes: The K class names; if empty, classes are numbered.
        image_shape: (C, H, W) of its images; None if it takes any.
        precision: Format to compute in: "fp32", or "bf16" or "fp16" under autocast.
        tta: Test-time augmentation of predictions, an entry of TTA such as "flip".
        preprocessing: How an image file becomes pixels.
        output: Key, field, or index of the logits among several outputs of the model, or a function
            from what the model returns to them; by default `logits`, or the only tensor (N, K).
        temperature: Divides the logits, as in temperature scaling (Guo et al. 2017); above 0.
        name: Name of the model in reports; by default that of its class.
        activation: What makes probabilities of the logits: "softmax", "sigmoid" for labels that are
            independent of each other, or "none" for scores such as those of a regression.
        thresholds: Probability of each of K independent labels from which it is predicted; 0.5 if
            empty.
        returns: What the model returns: "logits", "probabilities"; or "auto", which takes values
            that look like probabilities, all in [0, 1] and for "softmax" with a sum of 1, for
            probabilities, if those of eight images of noise look so too.
        preprocess: Maps pixels (N, C, H, W) float in [0, 1] to the input of `model`, such as
            torchvision's `Normalize`; None if the model takes pixels. It becomes part of `model`.
        inputs: Maps these images to the arguments of a model that takes others than images: a dict
            of keyword arguments such as `{"pixel_values": images}`, a tuple of positional ones, or
            a single one. It becomes part of `model`, too.

    Raises:
        SeewhyError: For an unknown precision, an impossible image shape or temperature.
    """

    model: nn.Module
    classes: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    precision: str = "fp32"
    tta: str = "none"
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING
    output: Output = None
    temperature: float = 1.0
    name: str = ""
    activation: str = "softmax"
    thresholds: tuple[float, ...] = ()
    returns: str = "auto"
    preprocess: InitVar[Callable[[Tensor], Tensor] | None] = None
    inputs: InitVar[Callable[[Tensor], Any] | None] = None

    def __post_init__(
        self,
        preprocess: Callable[[Tensor], Tensor] | None,
        inputs: Callable[[Tensor], Any] | None,
    ) -> None:
        for name, function in {"preprocess": preprocess, "inputs": inputs}.items():
            if function is not None and not callable(function):
                raise SeewhyError(
                    f"{name} must be a function of images, found {type(function).__name__}; pass "
                    f"{name}=lambda images: …"
                )
        if preprocess is not None or inputs is not None:
            object.__setattr__(self, "model", Preprocessed(self.model, preprocess, inputs))
        if not self.name:
            inner = unwrap_model(self.model)
            inner = getattr(inner, getattr(inner, "wrapped_child", ""), inner)
            object.__setattr__(self, "name", type(inner).__name__)
        object.__setattr__(self, "classes", _class_names(self.classes))
        check_type(self.preprocessing, Preprocessing, "pass seewhy.data.Preprocessing(crop=0.875)")
        check_type(self.tta, str, "pass an entry of seewhy.TTA, such as 'flip'")
        if self.precision not in PRECISIONS:
            raise SeewhyError(
                f"unknown precision {self.precision!r}; possible: {', '.join(PRECISIONS)}"
            )
        lookup(ACTIVATIONS, self.activation, "activation")
        lookup(RETURNED, self.returns, "returns")
        if self.thresholds and (
            self.activation != "sigmoid" or len(self.thresholds) != len(self.classes)
        ):
            raise SeewhyError(
                f"thresholds are for the activation 'sigmoid', one for each of the classes; found "
                f"{len(self.thresholds)} for {len(self.classes)} and {self.activation!r}"
            )
        if self.image_shape is not None:
            object.__setattr__(self, "image_shape", _image_shape(self.image_shape))
        check_type(self.temperature, (int, float), "pass a number, such as 1.5")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise SeewhyError(f"temperature must be above 0, found {self.temperature}")

    def __repr__(self) -> str:
        parts = [self.name]
        if self.classes:
            first = ", ".join(self.classes[:3]) + (", …" if len(self.classes) > 3 else "")
            parts.append(f"{counted(len(self.classes), 'class')} ({first})")
        if self.image_shape is not None:
            parts.append(f"images {'x'.join(map(str, self.image_shape))}")
        parts.append(self.precision)
        if self.tta != "none":
            parts.append(f"tta {self.tta}")
        if self.output is not None:
            shown = getattr(self.output, "__name__", None) or repr(self.output)
            parts.append(f"output {shown}")
        if self.activation != "softmax":
            parts.append(f"activation {self.activation}")
        if self.temperature != 1:
            parts.append(f"temperature {self.temperature:.3g}")
        if self.preprocessing.crop != 1:
            parts.append(f"crop {self.preprocessing.crop:.3g}")
        if self.preprocessing.resize != "crop":
            parts.append(self.preprocessing.resize)
        return f"Classifier({', '.join(parts)}, on {self.device})"

    @property
    def device(self) -> torch.device:
        """Device of the model's parameters."""
        return device_of(self.model)

    def extract_logits(self, output: object) -> Tensor:
        """The logits (N, K) in an output of the model, divided by the temperature.

        Args:
            output: The value that the model returned.

        Raises:
            SeewhyError: If it holds no logits, or several tensors that could be the logits.
        """
        logits = extract_logits(output, len(self.classes) or None, self.output)
        return logits if self.temperature == 1 else logits / self.temperature

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (N, K) by the activation; the scores themselves without one.

        Args:
            logits: (N, K) float.
        """
        return ACTIVATIONS[self.activation](logits)

    def extracted_probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (N, K), as from `probabilities`, but also of a model that returns them.

        Args:
            logits: (N, K) float, as from `extract_logits`. With `returns` "auto", they are logits.
        """
        if self.returns == "probabilities":
            outputs = logits * self.temperature
            logits = logits_of(outputs, self.activation) / self.temperature
        return self.probabilities(logits)

    def predicted_labels(self, logits: Tensor) -> Tensor:
        """Whether each of K independent labels is predicted, (N, K) bool.

        Args:
            logits: (N, K) float.
        """
        probabilities = self.probabilities(logits).double()
        return probabilities >= torch.tensor(self.thresholds or 0.5, device=logits.device).double()

    def class_names(self, num_classes: int) -> tuple[str, ...]:
        """Names of the model's classes, or numbers if it has no names.

        Args:
            num_classes: Number of logits that the model returns, K.

        Raises:
            SeewhyError: If the number of names differs.
        """
        if num_classes == 1 and len(self.classes) == 2:
            raise SeewhyError(f"the model returns a single number per image; {TWO_LOGITS}")
        if self.classes and len(self.classes) != num_classes:
            raise SeewhyError(
                f"the model has {counted(num_classes, 'class')}, but the classifier has "
                f"{counted(len(self.classes), 'class name')}; give one name per class"
            )
        return self.classes or tuple(map(str, range(num_classes)))


def _class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Names as a tuple; lists and arrays are accepted too."""
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise SeewhyError(f"classes must be a tuple of names, found {classes!r:.60}")
    names = tuple(classes)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise SeewhyError(
            f"the names of classes must be text, found {wrong[0]!r:.60} of type "
            f"{type(wrong[0]).__name__}; pass tuple(map(str, classes))"
        )
    return tuple(map(str, names))  # NumPy's text has a type of its own


def _image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) as integers; lists and arrays are accepted too."""
    try:
        channels, height, width = map(index, shape)
    except (TypeError, ValueError):
        channels = height = width = 0
    if min(channels, height, width) < 1:
        raise SeewhyError(f"image_shape must be (channels, height, width), found {shape!r:.60}")
    return channels, height, width


class HasClassifier(Protocol):
    """A run, or any other value with a classifier."""

    @property
    def classifier(self) -> Classifier: ...


ClassifierLike = Classifier | nn.Module | HasClassifier


def as_classifier(value: ClassifierLike) -> Classifier:
    """The classifier of `value`: itself, that of a run, or one made from a bare module.

    Raises:
        SeewhyError: For any other value.
    """
    if isinstance(value, Classifier):
        return value
    if isinstance(value, nn.Module):  # first, because a module may have a layer called `classifier`
        return Classifier(value)
    classifier = getattr(value, "classifier", None)
    if isinstance(classifier, Classifier):
        return classifier
    if isinstance(value, torch.export.ExportedProgram):
        raise SeewhyError(
            "a torch.export program has no layers to observe; pass the nn.Module from which it was "
            "exported, or program.module(), which gradients, rise and occlusion can explain"
        )
    raise SeewhyError(
        f"expected a Classifier, a Run, or a torch.nn.Module, found {type(value).__name__}"
    )


def check_one_class(classifier: Classifier) -> None:
    """Raise SeewhyError for a model that does not choose one class for each image."""
    if classifier.activation != "softmax":
        raise SeewhyError(
            f"{classifier.name} has the activation {classifier.activation!r}, so it does not "
            "choose one class for each image; explain and trust take such a model, and "
            "seewhy.runs.evaluate_multi_label and seewhy.reporting.report_multi_label one with "
            "the activation 'sigmoid'"
        )


def pretrained_classifier(
    name: str,
    device: torch.device | str = "cpu",
    image_size: int | None = None,
    *,
    classes: Sequence[str] = (),
    crop: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Classifier:
    """A model with published weights, in evaluation mode.

    Args:
        name: `timm:NAME` or `torchvision:NAME`, such as "timm:resnet50", which need the extra
            `zoo`; or a file of published weights for `vgg16`, `vgg16-bn`, `resnet18` or `resnet34`
            in torchvision's layout, such as "vgg16:weights=vgg16.pth".
        device: Device to put the model on.
        image_size: Height and width of its images; by default those of the weights.
        classes: Class names; by default those of the package, or numbers.
        crop: Fraction of an image's shorter side to keep, in (0, 1]; by default that of the
            weights.
        mean: Mean of each channel of pixels in [0, 1], for weights in a file; by default
            ImageNet's.
        std: Standard deviation of each channel, likewise.

    Raises:
        SeewhyError: For a model without published weights, if the package is missing, and if a
            file does not have the published layout.
    """
    if image_size is not None and image_size < 1:
        raise SeewhyError(f"image_size must be at least 1, found {image_size}")
    _, path = split_weights(name)
    if path is None and (mean is not None or std is not None):
        raise SeewhyError(f"mean and std are for weights in a file; leave them out for {name}")
    info = pretrained_info(name)
    settings = parse(name)[2]
    if info is None or settings.get("pretrained", "true").lower() != "true":
        raise SeewhyError(
            f"{name} has no trained weights; pass the directory of a run, timm:NAME, "
            "torchvision:NAME, or a file, as in vgg16:weights=vgg16.pth"
        )
    size = image_size or info.image_size
    shown = name if path is None else parse(name)[0]
    setting = "pretrained=true" if path is None else next(iter(info.settings), "")
    if setting and setting.partition("=")[0] not in settings:
        name = f"{name},{setting}"
    with torch.random.fork_rng(devices=[]):  # new weights are drawn before those are loaded
        model = build_model(name, len(info.classes), blank_sample(info.channels, size, size))
    if path is not None:
        _set_statistics(model, info, mean, std)
    classifier = Classifier(
        model.to(device).eval(),
        tuple(classes) or info.classes,
        (info.channels, size, size),
        preprocessing=info.preprocessing,
        name=shown,
    )
    classifier.class_names(len(info.classes))
    return _with_crop(classifier, crop)


def _set_statistics(
    model: nn.Module,
    info: PretrainedInfo,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> None:
    """Put mean and std of each channel into the model, if they are given."""
    if mean is None and std is None and info.mean is not None:
        return
    if mean is None or std is None:
        raise SeewhyError(
            "these weights need the mean and std of their training images: pass both, as in "
            "--mean 0.4914 0.4822 0.4465 --std 0.247 0.2435 0.2616"
        )
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != info.channels:
            raise SeewhyError(
                f"{name} must be {counted(info.channels, 'number')}, one per channel, found "
                f"{len(values)}"
            )
    if not min(std) > 0:
        raise SeewhyError(f"std must be above 0, found {min(std):g}")
    model.normalize = Normalize(mean, std)


def with_range(classifier: Classifier, value_range: object) -> Classifier:
    """The classifier with the range of `Preprocessing`; None and "dataset" keep its own.

    Raises SeewhyError for another value.
    """
    chosen = check_range(value_range)
    if chosen is None:
        return classifier
    return replace(classifier, preprocessing=replace(classifier.preprocessing, value_range=chosen))


def _with_crop(classifier: Classifier, crop: float | None) -> Classifier:
    if crop is None:
        return classifier
    return replace(classifier, preprocessing=replace(classifier.preprocessing, crop=crop))
