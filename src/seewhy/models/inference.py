"""Logits of stored images."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from seewhy.errors import SeewhyError, describe_value
from seewhy.models.batching import batches
from seewhy.models.classifier import Classifier, ClassifierLike, as_classifier
from seewhy.models.folding import folded
from seewhy.models.inspection import evaluating, input_dtype, naming_images
from seewhy.models.outputs import logits_of, other_images, returns_probabilities
from seewhy.models.tta import bind_tta
from seewhy.models.tta import none as no_tta
from seewhy.wording import counted

_FOLDED_PIXELS = 2**16  # in a pass for which a model is folded: 64 images of 32x32


def compute_logits(
    classifier: ClassifierLike,
    images: Tensor,
    *,
    batch_size: int | None = None,
    reproducible: bool = False,
    device: torch.device | str | None = None,
    check_finite: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Compute the logits of images in evaluation mode.

    The classifier's precision, test-time augmentation and temperature apply. The model's mode is
    restored. Only one batch at a time is converted to floats. On a CPU, BatchNorm is folded into
    the convolutions before it for larger passes in fp32.

    Args:
        classifier: A Classifier, a Run, or a module.
        images: (N, C, H, W) uint8, in memory or memory-mapped.
        batch_size: Images per forward pass; by default a size that is fast for the model. On a CPU
            it fits in the cache, and a pass of several seconds measures others.
        reproducible: Whether the default depends on the model and the image shape only, so that
            the logits are bitwise the same in every run on a CPU.
        device: Device to send the batches to; by default that of the model's parameters.
        check_finite: Whether to raise an error for logits that are not finite.
        progress: Called with the number of images after each batch.

    Returns:
        Logits (N, K), float32 on the CPU; the logarithms of a model's probabilities.

    Raises:
        SeewhyError: If the images are not (N, C, H, W) uint8, if N is 0, if the model cannot take
            them, and if a logit is not finite.
    """
    if images.ndim != 4 or images.dtype != torch.uint8 or len(images) == 0:
        raise SeewhyError(
            "compute_logits() needs images (N, C, H, W) uint8 with values 0 to 255 and N of at "
            f"least 1, found {describe_value(images)}"
        )
    if batch_size is not None and batch_size < 1:
        raise SeewhyError(f"batch_size must be at least 1, found {batch_size}")
    classifier = as_classifier(classifier)
    original, precision = classifier.model, classifier.precision
    # divided after the augmentation, which depends on the confidence of the model itself
    undivided = replace(classifier, temperature=1.0)
    device = classifier.device if device is None else torch.device(device)
    dtype = input_dtype(original) or torch.float32
    augmented = no_tta if classifier.tta == "none" else bind_tta(classifier.tta)

    def predict(batch: Tensor) -> Tensor:
        pixels = _to_floats(batch, device, dtype)
        with naming_images(pixels):
            return undivided.extract_logits(model(pixels)).float()

    with evaluating(original), torch.inference_mode(), autocasting(precision, device):
        model = for_outputs(classifier, images)
        rows = batches(original, images, batch_size, measured=not reproducible)
        parts = []
        for each in rows:
            parts.append(augmented(predict, images[each]))
            if progress is not None:
                progress(len(parts[-1]))
        probabilities = returns_probabilities(
            torch.cat(parts),
            classifier.activation,
            classifier.returns,
            lambda: predict(other_images(images)),
        )
    # outside inference_mode, so that they may enter a graph
    logits = torch.cat(parts).cpu()
    if probabilities:
        logits = logits_of(logits, classifier.activation)
    if classifier.temperature != 1:
        logits = logits / classifier.temperature
    if check_finite:
        check_finite_logits(logits)
    return logits


def decided(classifier: Classifier, images: Tensor, logits: Tensor) -> Classifier:
    """The classifier with what its model returns, which "auto" leaves open.

    Args:
        classifier: Its model is in evaluation mode.
        images: (N, C, H, W) uint8 or float.
        logits: (N, K) of these images, as from `extract_logits`.
    """
    undivided = replace(classifier, returns="logits", temperature=1.0, tta="none")
    probabilities = returns_probabilities(
        logits * classifier.temperature,
        classifier.activation,
        classifier.returns,
        lambda: compute_logits(undivided, other_images(images), check_finite=False),
    )
    return replace(classifier, returns="probabilities" if probabilities else "logits")


def for_outputs(classifier: Classifier, images: Tensor) -> nn.Module:
    """The classifier's model for passes over images (N, C, H, W) that only want its outputs.

    It is folded if this is exact up to rounding, and there are enough images to pay for it.
    """
    if classifier.precision != "fp32" or images[:, 0].numel() < _FOLDED_PIXELS:
        return classifier.model
    return folded(classifier.model, images)


def check_finite_logits(logits: Tensor) -> None:
    """Raise SeewhyError if the logits (N, K) of an image are not finite."""
    broken = int((~logits.isfinite()).any(1).sum())
    if broken:
        raise SeewhyError(
            f"the logits of {broken} of {counted(len(logits), 'image')} are not finite; check the "
            "weights, or predict with precision 'fp32'"
        )


def autocasting(precision: str, device: torch.device) -> torch.autocast:
    """Context in which a model computes in "fp32", "bf16", or "fp16"."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def _to_floats(batch: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """uint8 to floats in [0, 1], moved to the device as uint8, a quarter of the size."""
    moved = batch.to(device, non_blocking=True)
    return moved.to(dtype, memory_format=torch.channels_last).div_(255)
