"""Augmentations: what a batch goes through on the device before the model sees it, each image by its own draw.

Every function here takes a Batch and a seeded generator on the batch's device, and returns a new Batch with as many images of
the same shape, uint8, in the memory order they came in. None of AUGMENTATIONS loops over images or waits for the device.
"""

import inspect
import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from seewhy.data.pixels import (
    box_mask,
    chosen,
    hash32,
    mirrored,
    random_pixels,
    rows_then_columns,
    symmetric_beta,
)
from seewhy.data.trivial_augment import trivial_augment
from seewhy.errors import SeewhyError
from seewhy.notation import bind


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images of a split on the device, and what an augmentation may want to know of them."""

    images: Tensor  # (B, C, H, W) uint8
    labels: Tensor  # (B, K) float32, one-hot until something mixes them
    indices: Tensor  # (B,) int64, place of each image in its split
    epoch: int
    stored: Tensor | None = (
        None  # (B, C, H, W) uint8, as the images were before the first of several augmentations
    )


Augmentation = Callable[[Batch, Generator], Batch]


def bind_augmentations(steps: Sequence[str | Callable[..., Any]]) -> Augmentation:
    """All `steps`, one after the other, as one function of a batch and a generator on the batch's device.

    A step is one of:
    - a string that names an entry of AUGMENTATIONS and sets its arguments: "crop:4,mode=constant";
    - a function with exactly two required positional parameters, `(batch, generator) -> batch`;
    - any other callable, `images -> images` on the whole (B, C, H, W) uint8 tensor; what it draws at random is its own affair;
    - an Albumentations transform or pipeline, applied image by image on the CPU and seeded from the generator.

    Raises SeewhyError where a step is none of these, and later where one returns another shape, dtype or device.
    """
    named = [steps] if isinstance(steps, str) else steps
    functions = [(step_name(step), _function(step)) for step in named]

    def augment(batch: Batch, generator: Generator) -> Batch:
        batch = replace(batch, stored=batch.images)
        for label, function in functions:
            batch = _checked(label, batch, function(batch, generator))
        return batch

    return augment


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """(B,) int64 class indices as (B, num_classes) float32: 1 at the class, 0 elsewhere."""
    # scatter_, not F.one_hot: that one reads the labels back from the device to check them
    return torch.zeros(len(labels), num_classes, device=labels.device).scatter_(
        1, labels[:, None], 1.0
    )


def crop(
    batch: Batch,
    generator: Generator,
    padding: int = 4,
    mode: Literal["reflect", "constant"] = "reflect",
) -> Batch:
    """Pad by `padding` pixels, mirrored ("reflect") or black ("constant"), and cut the image's size out anywhere."""
    images = batch.images
    height, width = images.shape[2:]
    _require(mode in ("reflect", "constant"), "crop: mode must be reflect or constant", mode)
    _require(padding >= 0, "crop: padding must be 0 or more", padding)
    fits = mode == "constant" or padding < min(height, width)
    _require(
        fits,
        f"crop: padding must be below {min(height, width)} to reflect images of {height}x{width}",
        padding,
    )
    top, left = torch.randint(
        2 * padding + 1, (2, len(images), 1), device=images.device, generator=generator
    )
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    if mode == "constant":
        return _with_images(batch, rows_then_columns(F.pad(images, [padding] * 4), rows, columns))
    rows, columns = mirrored(rows - padding, height), mirrored(columns - padding, width)
    return _with_images(batch, rows_then_columns(images, rows, columns))


def flip(batch: Batch, generator: Generator, p: float = 0.5) -> Batch:
    """Mirror each image left to right with probability `p`."""
    _require(0 <= p <= 1, "flip: p must be between 0 and 1", p)
    return _flipped(batch, _uniform(batch, generator) < p)


def alternating_flip(batch: Batch, generator: Generator) -> Batch:
    """Mirror every image in every other epoch, starting by a coin of its own (Jordan 2024, arXiv 2404.00498).

    The coin is a hash of the image's index and the generator's seed, so an image's turn depends on nothing else.
    """
    seed = generator.initial_seed()
    coin = hash32(hash32(batch.indices) ^ ((seed ^ seed >> 32) & 0xFFFFFFFF))
    return _flipped(batch, (coin + batch.epoch) % 2 == 1)


def cutout(batch: Batch, generator: Generator, size: int = 16, fill: float | str = "mean") -> Batch:
    """Cover a square of `size` pixels, centered anywhere and cut off at the borders (DeVries & Taylor 2017).

    `fill` is a pixel value from 0 to 255, or "mean": each channel's mean over this batch as it is stored, which estimates the
    data set's.
    """
    images = batch.images
    _require(size >= 1, "cutout: size must be 1 or more", size)
    if isinstance(fill, str):
        _require(fill == "mean", "cutout: fill must be mean or a number from 0 to 255", fill)
        stored = images if batch.stored is None else batch.stored
        color = stored.mean((0, 2, 3), keepdim=True, dtype=torch.float32).round().byte()
    else:
        _require(0 <= fill <= 255, "cutout: fill must be mean or a number from 0 to 255", fill)
        color = torch.full((), round(fill), dtype=torch.uint8, device=images.device)
    covered = _centered_box(
        batch, generator, torch.full((2, len(images)), size, device=images.device)
    )
    return _with_images(batch, chosen(covered, color, images))


def brightness_contrast(
    batch: Batch, generator: Generator, brightness: float = 0.2, contrast: float = 0.2
) -> Batch:
    """Scale each image's pixels by 1 ± `brightness`, then their distance from the image's mean by 1 ± `contrast`."""
    _require(
        0 <= brightness <= 1, "brightness-contrast: brightness must be between 0 and 1", brightness
    )
    _require(0 <= contrast <= 1, "brightness-contrast: contrast must be between 0 and 1", contrast)
    gain = _each(1 + brightness * (2 * _uniform(batch, generator) - 1))
    spread = _each(1 + contrast * (2 * _uniform(batch, generator) - 1))
    mean = batch.images.mean((1, 2, 3), keepdim=True, dtype=torch.float32)
    pixels = batch.images * (gain * spread) + mean * gain * (1 - spread)
    return _with_images(batch, pixels.round_().clamp_(0, 255).byte())


def random_erasing(
    batch: Batch,
    generator: Generator,
    p: float = 0.5,
    min_area: float = 0.02,
    max_area: float = 0.33,
    min_aspect: float = 0.3,
) -> Batch:
    """With probability `p`, put random pixels into a box of `min_area` to `max_area` of the image (Zhong et al. 2020).

    Height over width is drawn from `min_aspect` to 1 / `min_aspect`, as far as the box fits, and on a log scale, so that
    lying and standing boxes are equally likely.
    """
    images = batch.images
    height, width = images.shape[2:]
    _require(0 <= p <= 1, "random-erasing: p must be between 0 and 1", p)
    areas_in_order = 0 < min_area <= max_area <= 1
    _require(
        areas_in_order,
        "random-erasing: areas must be 0 < min_area <= max_area <= 1",
        (min_area, max_area),
    )
    _require(
        0 < min_aspect <= 1, "random-erasing: min_aspect must be above 0 and at most 1", min_aspect
    )
    area = height * width * (min_area + (max_area - min_area) * _uniform(batch, generator))
    lowest = (area / width**2).clamp(min_aspect, 1 / min_aspect).log()
    highest = (height**2 / area).clamp(min_aspect, 1 / min_aspect).log()
    aspect = torch.lerp(lowest, highest, _uniform(batch, generator)).exp()
    box_height = (area * aspect).sqrt().round().clamp(1, height).long()
    box_width = (area / aspect).sqrt().round().clamp(1, width).long()
    top = (_uniform(batch, generator) * (height - box_height + 1)).long()
    left = (_uniform(batch, generator) * (width - box_width + 1)).long()
    erased = box_mask(top, box_height, left, box_width, (height, width)) & _each(
        _uniform(batch, generator) < p
    )
    return _with_images(batch, chosen(erased, random_pixels(images, generator), images))


def mixup(batch: Batch, generator: Generator, alpha: float = 0.2) -> Batch:
    """Blend each image and label with another one's of the batch, by a share ~ Beta(alpha, alpha) (Zhang et al. 2018)."""
    _require(alpha > 0, "mixup: alpha must be above 0", alpha)
    share = symmetric_beta(alpha, len(batch.images), batch.images.device, generator)
    partner = torch.randperm(len(batch.images), device=batch.images.device, generator=generator)
    pixels = batch.images[partner].float()
    pixels += _each(share) * (
        batch.images - pixels
    )  # not lerp: on CPU it is slow where the weight is broadcast
    return replace(
        _with_images(batch, pixels.round_().byte()),
        labels=torch.lerp(batch.labels[partner], batch.labels, share[:, None]),
    )


def cutmix(batch: Batch, generator: Generator, alpha: float = 1.0) -> Batch:
    """Paste a box of another image of the batch, whose area is ~ Beta(alpha, alpha) before borders cut it (Yun et al. 2019).

    The labels are mixed by the area that was really pasted.
    """
    _require(alpha > 0, "cutmix: alpha must be above 0", alpha)
    images = batch.images
    side = symmetric_beta(alpha, len(images), images.device, generator).sqrt()
    partner = torch.randperm(len(images), device=images.device, generator=generator)
    pasted = _centered_box(
        batch, generator, torch.stack([(side * length).long() for length in images.shape[2:]])
    )
    share = pasted.flatten(1).float().mean(1, keepdim=True)
    mixed = chosen(pasted, images[partner], images)
    return replace(
        _with_images(batch, mixed), labels=torch.lerp(batch.labels, batch.labels[partner], share)
    )


def _trivial_augment(batch: Batch, generator: Generator) -> Batch:
    return _with_images(batch, trivial_augment(batch.images, generator))


AUGMENTATIONS: dict[str, Callable[..., Batch]] = {
    "crop": crop,
    "flip": flip,
    "alternating-flip": alternating_flip,
    "cutout": cutout,
    "brightness-contrast": brightness_contrast,
    "random-erasing": random_erasing,
    "mixup": mixup,
    "cutmix": cutmix,
    "trivial-augment": _trivial_augment,
}


def _uniform(batch: Batch, generator: Generator) -> Tensor:  # (B,) float32 in [0, 1)
    return torch.rand(len(batch.images), device=batch.images.device, generator=generator)


def _each(values: Tensor) -> Tensor:  # (B,) -> (B, 1, 1, 1)
    return values[:, None, None, None]


def _with_images(batch: Batch, images: Tensor) -> Batch:
    given = batch.images
    channels_last = (
        given.is_contiguous(memory_format=torch.channels_last) and not given.is_contiguous()
    )
    return replace(
        batch,
        images=images.contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        ),
    )


def _flipped(batch: Batch, which: Tensor) -> Batch:
    height, width = batch.images.shape[2:]
    rows, columns = (torch.arange(length, device=which.device) for length in (height, width))
    columns = torch.where(which[:, None], width - 1 - columns, columns)
    return _with_images(
        batch, rows_then_columns(batch.images, rows.expand(len(which), -1), columns)
    )


def _centered_box(batch: Batch, generator: Generator, lengths: Tensor) -> Tensor:
    """(B, 1, H, W) bool: boxes of `lengths` (2, B) int64, their centers uniform over the image, cut off at the borders."""
    count, _, *image_size = batch.images.shape
    device = batch.images.device
    centers = (
        torch.randint(length, (count,), device=device, generator=generator) for length in image_size
    )
    top, left = (center - length // 2 for center, length in zip(centers, lengths, strict=True))
    return box_mask(top, lengths[0], left, lengths[1], image_size)


def step_name(step: object) -> str:
    """What to call a step of `augmentation`: its text, or the name of its function or type."""
    return step if isinstance(step, str) else getattr(step, "__name__", type(step).__name__)


def _function(step: str | Callable[..., Any]) -> Callable[..., Any]:
    if isinstance(step, str):
        return bind(AUGMENTATIONS, step, "augmentation", n_supplied=2)
    if any(base.__module__.partition(".")[0] == "albumentations" for base in type(step).__mro__):
        return partial(
            _albumentations, deepcopy(step)
        )  # deepcopy: the caller's transform keeps its own random state
    if not callable(step):
        raise SeewhyError(f"an augmentation is a string or a function, found {step!r}")
    required = _required_positional(step)
    if required > 2:
        raise SeewhyError(
            f"augmentation {step_name(step)} must take (images) or (batch, generator); it requires {required} arguments"
        )
    return step if required == 2 else lambda batch, _: replace(batch, images=step(batch.images))


def _required_positional(function: Callable[..., Any]) -> int:
    try:
        signature = inspect.signature(
            function.forward if isinstance(function, nn.Module) else function
        )
    except ValueError:  # some functions written in C have none
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in signature.parameters.values())


def _albumentations(transform: Any, batch: Batch, generator: Generator) -> Batch:
    seed = int(torch.randint(2**62, (), device=batch.images.device, generator=generator))
    # one state for all parts: set_random_seed would give each part the same seed, and a pipeline's draws would go in step
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    before = batch.images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    after = [np.asarray(transform(image=image)["image"]) for image in before]
    for image in after:
        if image.shape != before.shape[1:] or image.dtype != np.uint8:
            raise SeewhyError(
                f"augmentation {step_name(transform)} must return {before.shape[1:]} uint8, found {image.shape} {image.dtype}; "
                "leave out Normalize, ToTensorV2 and what changes the size"
            )
    return _with_images(
        batch, torch.from_numpy(np.stack(after)).permute(0, 3, 1, 2).to(batch.images.device)
    )


def _checked(label: str, before: Batch, after: object) -> Batch:
    if not isinstance(after, Batch):
        raise SeewhyError(f"augmentation {label} must return a Batch, found {type(after).__name__}")
    for part, old, new in (
        ("images", before.images, after.images),
        ("labels", before.labels, after.labels),
    ):
        if not isinstance(new, Tensor) or (new.shape, new.dtype, new.device) != (
            old.shape,
            old.dtype,
            old.device,
        ):
            raise SeewhyError(
                f"augmentation {label} must keep {part} as {_described(old)}, found {_described(new)}"
            )
    return after


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')} on {value.device}"
    return type(value).__name__


def _require(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise SeewhyError(f"{rule}, found {value!r}")
