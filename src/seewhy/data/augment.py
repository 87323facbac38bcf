"""Augmentations of batches on the device, with independent random parameters per image.

An augmentation takes a Batch and a seeded generator on the batch's device, and returns a new Batch
with images of the same dtype and memory format, and of the same shape or that of `Batch.size`. No
entry of AUGMENTATIONS loops over images or synchronizes with the device.
"""

import inspect
import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn

from seewhy.data.batch import Batch, per_image, require, uniform, with_images
from seewhy.data.geometry import alternating_flip, center_crop, crop, flip, resized_crop, rotate
from seewhy.data.operations import STRENGTHS, rand_augment, trivial_augment
from seewhy.data.pixels import (
    box_mask,
    boxes_anywhere,
    centered_boxes,
    random_pixels,
    symmetric_beta,
    where_uint8,
)
from seewhy.errors import SeewhyError, describe_value
from seewhy.notation import bind

Augmentation = Callable[[Batch, Generator], Batch]


def bind_augmentations(steps: Sequence[str | Callable[..., Any]]) -> Augmentation:
    """Combine augmentations into one function of a batch and a generator on its device.

    Args:
        steps: Applied in this order. Each is one of

            - an entry of AUGMENTATIONS with its settings: "crop:4,mode=constant";
            - a function with two required positional parameters, `(batch, generator) -> batch`;
            - any other callable on the whole tensor, `images -> images`, (B, C, H, W) uint8; the
              generator does not seed it;
            - an Albumentations transform or pipeline, applied image by image on the CPU and seeded
              by the generator.

    Returns:
        `(batch, generator) -> batch`. What is left of a margin is cropped at the end. It raises
        SeewhyError if a step changes dtype, device, or the shape to another than that of
        `Batch.size`.

    Raises:
        SeewhyError: A step is of none of these types.
    """
    steps = [steps] if isinstance(steps, str) else steps
    functions = [(augmentation_name(step), _as_function(step)) for step in steps]

    def augment(batch: Batch, generator: Generator) -> Batch:
        batch = replace(batch, originals=batch.images)
        for name, function in functions:
            batch = _check_batch(name, batch, function(batch, generator))
        return center_crop(batch)

    return augment


def encode_labels(labels: Tensor, num_classes: int) -> Tensor:
    """Labels as rows (B, num_classes) float32: one-hot for class indices (B,) int64.

    Several labels per image, (B, num_classes) bool, become 0 and 1.
    """
    if labels.ndim == 2:
        return labels.float()
    # scatter_, not F.one_hot, which synchronizes with the device to check the labels
    return torch.zeros(len(labels), num_classes, device=labels.device).scatter_(
        1, labels[:, None], 1.0
    )


def cutout(
    batch: Batch,
    generator: Generator,
    size: int = 16,
    fill: float | str = "mean",
    where: Literal["centered", "anywhere"] = "centered",
    padding: int = 0,
    min_size: int = 0,
) -> Batch:
    """Fill a random square of `size` pixels (DeVries & Taylor 2017).

    `fill` is a pixel value from 0 to 255, or "mean": each channel's mean over the batch before any
    augmentation, an estimate of the mean of the dataset. `where` is "centered", around any pixel of
    the image and clipped at its borders; or "anywhere", any position inside the image padded by
    `padding` pixels, whose padding is cropped afterwards. With `min_size` the sides have random
    lengths from `min_size` to `size`, so that the square becomes a rectangle.
    """
    images = batch.images
    require(size >= 1, "cutout: size must be 1 or more", size)
    require(0 <= min_size <= size, "cutout: min_size must be between 0 and size", min_size)
    require(padding >= 0, "cutout: padding must be 0 or more", padding)
    require(where == "anywhere" or padding == 0, "cutout: padding needs where=anywhere", padding)
    if isinstance(fill, str):
        require(fill == "mean", "cutout: fill must be mean or a number from 0 to 255", fill)
        originals = images if batch.originals is None else batch.originals
        color = originals.mean((0, 2, 3), keepdim=True, dtype=torch.float32).round().byte()
    else:
        require(0 <= fill <= 255, "cutout: fill must be mean or a number from 0 to 255", fill)
        color = torch.full((), round(fill), dtype=torch.uint8, device=images.device)
    lengths = torch.full((2, len(images)), size, device=images.device)
    if min_size:
        lengths.random_(min_size, size + 1, generator=generator)
    if where == "centered":
        covered = centered_boxes(lengths, images.shape[2:], generator)
    else:
        covered = boxes_anywhere(lengths, images.shape[2:], padding, generator)
    return with_images(batch, where_uint8(covered, color, images))


def brightness_contrast(
    batch: Batch, generator: Generator, brightness: float = 0.2, contrast: float = 0.2
) -> Batch:
    """Scale pixels by up to 1 ± `brightness`, and their contrast by up to 1 ± `contrast`.

    The contrast is the difference from the image's mean.
    """
    require(
        0 <= brightness <= 1, "brightness-contrast: brightness must be between 0 and 1", brightness
    )
    require(0 <= contrast <= 1, "brightness-contrast: contrast must be between 0 and 1", contrast)
    gain = per_image(1 + brightness * (2 * uniform(batch, generator) - 1))
    spread = per_image(1 + contrast * (2 * uniform(batch, generator) - 1))
    mean = batch.images.mean((1, 2, 3), keepdim=True, dtype=torch.float32)
    pixels = batch.images * (gain * spread) + mean * gain * (1 - spread)
    return with_images(batch, pixels.round_().clamp_(0, 255).byte())


def random_erasing(
    batch: Batch,
    generator: Generator,
    p: float = 0.5,
    min_area: float = 0.02,
    max_area: float = 0.33,
    min_aspect: float = 0.3,
) -> Batch:
    """With probability `p`, fill a box with random pixels (Zhong et al. 2020).

    The box covers `min_area` to `max_area` of the image. Its aspect ratio (height / width) is drawn
    on a log scale between `min_aspect` and 1 / `min_aspect`, limited so that the box fits.
    """
    images = batch.images
    height, width = images.shape[2:]
    require(0 <= p <= 1, "random-erasing: p must be between 0 and 1", p)
    areas_in_order = 0 < min_area <= max_area <= 1
    require(
        areas_in_order,
        "random-erasing: areas must be 0 < min_area <= max_area <= 1",
        (min_area, max_area),
    )
    require(
        0 < min_aspect <= 1, "random-erasing: min_aspect must be above 0 and at most 1", min_aspect
    )
    area = height * width * (min_area + (max_area - min_area) * uniform(batch, generator))
    lowest = (area / width**2).clamp(min_aspect, 1 / min_aspect).log()
    highest = (height**2 / area).clamp(min_aspect, 1 / min_aspect).log()
    aspect = torch.lerp(lowest, highest, uniform(batch, generator)).exp()
    box_height = (area * aspect).sqrt().round().clamp(1, height).long()
    box_width = (area / aspect).sqrt().round().clamp(1, width).long()
    top = (uniform(batch, generator) * (height - box_height + 1)).long()
    left = (uniform(batch, generator) * (width - box_width + 1)).long()
    erased = box_mask(top, box_height, left, box_width, (height, width)) & per_image(
        uniform(batch, generator) < p
    )
    return with_images(batch, where_uint8(erased, random_pixels(images, generator), images))


def mixup(batch: Batch, generator: Generator, alpha: float = 0.2) -> Batch:
    """Blend each image and label with another of the batch (Zhang et al. 2018).

    The weight is drawn from Beta(alpha, alpha).
    """
    require(alpha > 0, "mixup: alpha must be above 0", alpha)
    share = symmetric_beta(alpha, len(batch.images), batch.images.device, generator)
    partner = torch.randperm(len(batch.images), device=batch.images.device, generator=generator)
    pixels = batch.images[partner].float()
    # not lerp: slow on CPU with a broadcast weight
    pixels += per_image(share) * (batch.images - pixels)
    return replace(
        with_images(batch, pixels.round_().byte()),
        labels=torch.lerp(batch.labels[partner], batch.labels, share[:, None]),
    )


def cutmix(batch: Batch, generator: Generator, alpha: float = 1.0) -> Batch:
    """Paste a box of another image of the batch (Yun et al. 2019).

    Its area is drawn from Beta(alpha, alpha), and it is clipped at the borders. Labels are mixed by
    the area of the clipped box.
    """
    require(alpha > 0, "cutmix: alpha must be above 0", alpha)
    images = batch.images
    side = symmetric_beta(alpha, len(images), images.device, generator).sqrt()
    partner = torch.randperm(len(images), device=images.device, generator=generator)
    lengths = torch.stack([(side * length).long() for length in images.shape[2:]])
    pasted = centered_boxes(lengths, images.shape[2:], generator)
    share = pasted.flatten(1).float().mean(1, keepdim=True)
    mixed = where_uint8(pasted, images[partner], images)
    return replace(
        with_images(batch, mixed), labels=torch.lerp(batch.labels, batch.labels[partner], share)
    )


def _trivial_augment(batch: Batch, generator: Generator) -> Batch:
    """One random operation per image, such as a shear or a change of color (Müller & Hutter 2021).

    This is TrivialAugment with its wide ranges.
    """
    return with_images(batch, trivial_augment(batch.images, generator))


def _rand_augment(batch: Batch, generator: Generator, n: int = 2, magnitude: int = 9) -> Batch:
    """`n` random operations per image, of one magnitude from 0 to 30 (Cubuk et al. 2020)."""
    highest = STRENGTHS - 1
    require(n >= 1, "rand-augment: n must be 1 or more", n)
    in_range = 0 <= magnitude <= highest
    require(in_range, f"rand-augment: magnitude must be between 0 and {highest}", magnitude)
    return with_images(batch, rand_augment(batch.images, generator, n, magnitude / highest))


AUGMENTATIONS: dict[str, Callable[..., Batch]] = {
    "crop": crop,
    "resized-crop": resized_crop,
    "rotate": rotate,
    "flip": flip,
    "alternating-flip": alternating_flip,
    "cutout": cutout,
    "brightness-contrast": brightness_contrast,
    "random-erasing": random_erasing,
    "mixup": mixup,
    "cutmix": cutmix,
    "trivial-augment": _trivial_augment,
    "rand-augment": _rand_augment,
}


def augmentation_name(step: object) -> str:
    """The name of an augmentation step: its text, or the name of its function or type."""
    return step if isinstance(step, str) else getattr(step, "__name__", type(step).__name__)


def _as_function(step: str | Callable[..., Any]) -> Callable[..., Any]:
    if isinstance(step, str):
        return bind(AUGMENTATIONS, step, "augmentation", n_supplied=2)
    if any(base.__module__.partition(".")[0] == "albumentations" for base in type(step).__mro__):
        # deepcopy: the caller's transform keeps its random state
        return partial(_albumentations, deepcopy(step))
    if not callable(step):
        raise SeewhyError(f"an augmentation must be a string or a function, found {step!r}")
    required = _required_positional(step)
    if required > 2:
        raise SeewhyError(
            f"augmentation {augmentation_name(step)} must take (images) or (batch, generator), "
            f"found {required} required parameters"
        )
    return step if required == 2 else lambda batch, _: replace(batch, images=step(batch.images))


def _required_positional(function: Callable[..., Any]) -> int:
    try:
        signature = inspect.signature(
            function.forward if isinstance(function, nn.Module) else function
        )
    except ValueError:  # some functions of C extensions
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in signature.parameters.values())


def _albumentations(transform: Any, batch: Batch, generator: Generator) -> Batch:
    seed = int(torch.randint(2**62, (), device=batch.images.device, generator=generator))
    # set_random_seed would give each part of a pipeline the same seed, so draws would be correlated
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    before = batch.images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    after = [np.asarray(transform(image=image)["image"]) for image in before]
    for image in after:
        if image.shape != before.shape[1:] or image.dtype != np.uint8:
            raise SeewhyError(
                f"augmentation {augmentation_name(transform)} must return "
                f"{before.shape[1:]} uint8, found {describe_value(image)}; "
                "leave out Normalize, ToTensorV2 and transforms that change the size"
            )
    return with_images(
        batch, torch.from_numpy(np.stack(after)).permute(0, 3, 1, 2).to(batch.images.device)
    )


def _check_batch(name: str, before: Batch, after: object) -> Batch:
    if not isinstance(after, Batch):
        raise SeewhyError(f"augmentation {name} must return a Batch, found {type(after).__name__}")
    cropped = (*before.images.shape[:2], *before.target_size)
    for part, old, new, shapes in (
        ("images", before.images, after.images, (before.images.shape, cropped)),
        ("labels", before.labels, after.labels, (before.labels.shape,)),
    ):
        if (
            not isinstance(new, Tensor)
            or (new.dtype, new.device) != (old.dtype, old.device)
            or tuple(new.shape) not in shapes
        ):
            raise SeewhyError(
                f"augmentation {name} must keep {part} as {_describe(old)}, found {_describe(new)}"
            )
    return after


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{describe_value(value)} on {value.device}"
    return type(value).__name__
