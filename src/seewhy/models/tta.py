"""Test-time augmentation: the logits of an image, averaged over views of it."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import SeewhyError
from seewhy.notation import bind

Predict = Callable[[Tensor], Tensor]  # images (N, C, H, W) uint8 to logits (N, K)
View = Callable[[Tensor], Tensor]  # images (N, C, H, W) uint8 to images of the same shape


def bind_tta(spec: str) -> Callable[[Predict, Tensor], Tensor]:
    """Bind a test-time augmentation with settings, such as `flip-shift:confidence_below=0.6`."""
    return bind(TTA, spec, "test-time augmentation", n_supplied=2)


def none(predict: Predict, images: Tensor) -> Tensor:
    """No augmentation."""
    return predict(images)


def flip(predict: Predict, images: Tensor, confidence_below: float = 1.0) -> Tensor:
    """Mean over an image and its mirror image.

    Images with a confidence of at least `confidence_below` are predicted only once.
    """
    views: list[tuple[float, View]] = [(0.5, lambda batch: batch.flip(3))]
    return _average(predict, images, confidence_below, 0.5, views)


def flip_shift(
    predict: Predict, images: Tensor, confidence_below: float = 1.0, pixels: int = 1
) -> Tensor:
    """Mean over mirror images and shifts, the "multi-crop" of Jordan 2024 (arXiv 2404.00498).

    Half the weight is on the image and its mirror image, half on both of them shifted by `pixels`
    to the upper left and the lower right; borders are reflected. `confidence_below` as in flip.
    """
    if not 1 <= pixels < min(images.shape[2:]):
        raise SeewhyError(
            f"flip-shift: pixels must be at least 1 and below the image's side, found {pixels}"
        )
    height, width = images.shape[2:]

    def shift(batch: Tensor, offset: int) -> Tensor:
        padded = F.pad(batch.float(), [pixels] * 4, mode="reflect").to(batch.dtype)
        return padded[:, :, pixels + offset :, pixels + offset :][:, :, :height, :width]

    views: list[tuple[float, View]] = [
        (0.25, lambda batch: batch.flip(3)),
        (0.125, lambda batch: shift(batch, -pixels)),
        (0.125, lambda batch: shift(batch, pixels)),
        (0.125, lambda batch: shift(batch, -pixels).flip(3)),
        (0.125, lambda batch: shift(batch, pixels).flip(3)),
    ]
    return _average(predict, images, confidence_below, 0.25, views)


def _average(
    predict: Predict,
    images: Tensor,
    confidence_below: float,
    weight: float,
    views: Sequence[tuple[float, View]],
) -> Tensor:
    """Weighted sum of the logits of the images and of their views, for images of low confidence."""
    if not 0 < confidence_below <= 1:
        raise SeewhyError(
            "test-time augmentation: confidence_below must be above 0 and at most 1, found "
            f"{confidence_below}"
        )
    logits = predict(images)
    if confidence_below == 1:
        rows = torch.arange(len(logits))
    else:
        rows = (logits.softmax(1).amax(1) < confidence_below).nonzero().flatten().cpu()
    if len(rows):
        batch = images[rows.to(images.device)]
        # one batch per view, so that none is larger than the first
        augmented = sum(view_weight * predict(view(batch)) for view_weight, view in views)
        rows = rows.to(logits.device)
        logits[rows] = weight * logits[rows] + augmented
    return logits


TTA: dict[str, Callable[..., Tensor]] = {"flip": flip, "flip-shift": flip_shift, "none": none}
