"""Test-time augmentation: the logits of an image averaged over views of it."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import SeewhyError
from seewhy.notation import bind

Predict = Callable[[Tensor], Tensor]  # images (N, C, H, W) uint8 to logits (N, K)


def bind_tta(text: str) -> Callable[[Predict, Tensor], Tensor]:
    """The test-time augmentation that `text` names, such as `flip-shift:below=0.6`."""
    return bind(TTA, text, "test-time augmentation", n_supplied=2)


def none(predict: Predict, images: Tensor) -> Tensor:
    """Every image as it is."""
    return predict(images)


def flip(predict: Predict, images: Tensor, below: float = 1.0) -> Tensor:
    """The mean over an image and its mirror image.

    Only images whose highest probability is under `below` get another look than the first.
    """
    return _averaged(predict, images, below, 0.5, [(0.5, lambda some: some.flip(3))])


def flip_shift(predict: Predict, images: Tensor, below: float = 1.0, pixels: int = 1) -> Tensor:
    """Half the mean over an image and its mirror image, half that over both moved by `pixels` up left and down right.

    That is the "multi-crop" of Jordan 2024 (arXiv 2404.00498). Borders are mirrored. `below` as in flip.
    """
    if not 1 <= pixels < min(images.shape[2:]):
        raise SeewhyError(
            f"flip-shift: pixels must be at least 1 and below the images' side, found {pixels}"
        )
    height, width = images.shape[2:]

    def moved(some: Tensor, by: int) -> Tensor:
        padded = F.pad(some.float(), [pixels] * 4, mode="reflect").to(some.dtype)
        return padded[:, :, pixels + by :, pixels + by :][:, :, :height, :width]

    views: list[tuple[float, Callable[[Tensor], Tensor]]] = [
        (0.25, lambda some: some.flip(3)),
        (0.125, lambda some: moved(some, -pixels)),
        (0.125, lambda some: moved(some, pixels)),
        (0.125, lambda some: moved(some, -pixels).flip(3)),
        (0.125, lambda some: moved(some, pixels).flip(3)),
    ]
    return _averaged(predict, images, below, 0.25, views)


def _averaged(
    predict: Predict,
    images: Tensor,
    below: float,
    share: float,
    views: Sequence[tuple[float, Callable[[Tensor], Tensor]]],
) -> Tensor:
    """`share` of the logits of the images themselves plus those of the `views` times theirs, where confidence is low."""
    if not 0 < below <= 1:
        raise SeewhyError(
            f"test-time augmentation: below is a probability, in (0, 1], found {below}"
        )
    outputs = predict(images)
    unsure = (
        torch.arange(len(outputs))
        if below == 1
        else (outputs.softmax(1).amax(1) < below).nonzero().flatten().cpu()
    )
    if len(unsure):
        chosen = images[unsure.to(images.device)]
        # one batch for each view: the batches stay as large as the first, and no larger
        average = share * outputs[unsure.to(outputs.device)] + sum(
            weight * predict(view(chosen)) for weight, view in views
        )
        outputs[unsure.to(outputs.device)] = average
    return outputs


TTA: dict[str, Callable[..., Tensor]] = {"flip": flip, "flip-shift": flip_shift, "none": none}
