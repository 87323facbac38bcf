"""Random operations on images, for TrivialAugment and RandAugment.

Each gives the same result as Pillow (ImageOps, ImageEnhance, and the nearest-neighbor affine
transform with black fill). A batch passes three stages: lookup tables of pixel values, blends with
a degenerate image, and geometric transforms. Each stage changes only the images with one of its
operations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from seewhy.data.pixels import LUMA_WEIGHTS

OPERATIONS = (
    "identity",
    "auto-contrast",
    "equalize",
    "solarize",
    "posterize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "rotate",
    "shear-x",
    "shear-y",
    "translate-x",
    "translate-y",
)
STRENGTHS = 31  # 0, 1/30, …, 1


@dataclass(frozen=True)
class Space:
    """What a strength of 1 does."""

    degrees: float  # of a rotation
    shear: float
    shift: Callable[[int], float]  # pixels of a translation, by the side of the image
    bits: int  # that posterize drops
    factor: Callable[[Tensor, Tensor], Tensor]  # of a blend, by strength and direction (B,)


# the "wide" space of TrivialAugment
WIDE = Space(135, 0.99, lambda side: min(32, side), 6, lambda strength, _: 0.01 + 1.99 * strength)
# the space of RandAugment, as for ImageNet
STANDARD = Space(
    30,
    0.3,
    lambda side: 150 / 331 * side,
    4,
    lambda strength, direction: 1 + 0.9 * strength * direction,
)


def rand_augment(images: Tensor, generator: Generator, n: int, strength: float) -> Tensor:
    """Apply `n` random operations of one strength to each image (Cubuk et al. 2020).

    Args:
        images: (B, C, H, W) uint8.
        generator: On the device of the images; draws the operations and their directions.
        n: Number of operations.
        strength: In [0, 1].

    Returns:
        (B, C, H, W) uint8.
    """
    for _ in range(n):
        operation, direction = (
            torch.randint(choices, (len(images),), device=images.device, generator=generator)
            for choices in (len(OPERATIONS), 2)
        )
        strengths = torch.full((len(images),), strength, device=images.device)
        images = apply_operations(images, operation, strengths, 2 * direction - 1, STANDARD)
    return images


def trivial_augment(images: Tensor, generator: Generator) -> Tensor:
    """Apply a random operation of random strength to each image (Müller & Hutter 2021).

    Args:
        images: (B, C, H, W) uint8.
        generator: On the device of the images; draws the operation, one of 31 strengths, and the
            direction.

    Returns:
        (B, C, H, W) uint8.
    """
    operation, strength, direction = (
        torch.randint(choices, (len(images),), device=images.device, generator=generator)
        for choices in (len(OPERATIONS), STRENGTHS, 2)
    )
    return apply_operations(images, operation, strength / (STRENGTHS - 1), 2 * direction - 1)


def apply_operations(
    images: Tensor,
    operation: Tensor,
    strength: Tensor,
    direction: Tensor,
    space: Space = WIDE,
) -> Tensor:
    """Apply `OPERATIONS[operation[b]]` to image b.

    Args:
        images: (B, C, H, W) uint8.
        operation: (B,) int64, indices into OPERATIONS.
        strength: (B,) float in [0, 1].
        direction: (B,) 1 or -1; used by rotate, shear and translate, and by blends in STANDARD.
        space: What a strength of 1 does.

    Returns:
        (B, C, H, W) uint8.
    """
    images = images.contiguous()
    images = _apply_lookup_tables(images, operation, strength, space)
    images = _blend(images, operation, space.factor(strength, direction))
    return _transform(images, operation, strength * direction, space)


def _is(operation: Tensor, name: str) -> Tensor:  # (B, 1, 1) bool
    return (operation == OPERATIONS.index(name))[:, None, None]


def _apply_lookup_tables(
    images: Tensor, operation: Tensor, strength: Tensor, space: Space
) -> Tensor:
    """Auto-contrast, equalize, solarize and posterize, by a table of 256 values per channel."""
    pixels = images.flatten(2).long()  # (B, C, HW)
    value = torch.arange(256, dtype=torch.int32, device=images.device).expand(
        *images.shape[:2], 256
    )
    table = value
    for name, candidate in (
        ("auto-contrast", _auto_contrast(value, images.flatten(2))),
        ("equalize", _equalize(value, pixels)),
        ("solarize", _solarize(value, strength)),
        ("posterize", _posterize(value, space.bits * strength)),
    ):
        table = torch.where(_is(operation, name), candidate, table)
    return table.byte().gather(2, pixels).view(images.shape)


def _auto_contrast(value: Tensor, pixels: Tensor) -> Tensor:
    """Stretch each channel so that its darkest pixel becomes 0 and its brightest 255."""
    low, high = pixels.aminmax(dim=2, keepdim=True)
    stretched = ((value - low) * 255 // (high - low).clamp(min=1)).clamp(0, 255)
    return torch.where(high > low, stretched, value)


def _equalize(value: Tensor, pixels: Tensor) -> Tensor:
    """Histogram equalization of each channel."""
    ones = torch.ones((), dtype=value.dtype, device=value.device)
    histogram = torch.zeros_like(value, memory_format=torch.contiguous_format).scatter_add_(
        2, pixels, ones.expand_as(pixels)
    )
    brightest_count = histogram.gather(2, pixels.amax(2, keepdim=True))
    step = (pixels.shape[2] - brightest_count) // 255
    darker = histogram.cumsum(2, dtype=value.dtype) - histogram
    spread = ((step // 2 + darker) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, spread, value)


def _solarize(value: Tensor, strength: Tensor) -> Tensor:
    """Invert the values at and above a threshold, from 256 to 0 by strength."""
    threshold = 256 - (256 * strength).long()[:, None, None]
    return torch.where(value < threshold, value, 255 - value)


def _posterize(value: Tensor, bits: Tensor) -> Tensor:
    """Drop the lowest bits."""
    dropped = bits.long()[:, None, None]
    return value >> dropped << dropped


def _blend(images: Tensor, operation: Tensor, factor: Tensor) -> Tensor:
    """Color, contrast, brightness, sharpness: a blend with a degenerate image."""
    color, contrast, brightness, sharpness = (
        _is(operation, name)[..., None] for name in ("color", "contrast", "brightness", "sharpness")
    )
    pixels = images.float()
    gray = _gray(pixels)
    degenerate = torch.where(color, gray, gray.mean((2, 3), keepdim=True).round())
    degenerate = torch.where(sharpness, _smooth(pixels), degenerate)
    degenerate = torch.where(brightness, 0.0, degenerate)
    blended = color | contrast | brightness | sharpness
    factor = torch.where(blended, factor[:, None, None, None], 1.0)
    # not lerp: slow on CPU with a broadcast weight
    return pixels.sub_(degenerate).mul_(factor).add_(degenerate).round_().clamp_(0, 255).byte()


def _gray(pixels: Tensor) -> Tensor:  # (B, 1, H, W)
    """Luma of RGB, rounded; the mean over channels if there are not three."""
    if pixels.shape[1] != 3:
        return pixels.mean(1, keepdim=True).round_()
    red, green, blue = pixels[:, 0:1], pixels[:, 1:2], pixels[:, 2:3]
    weights = LUMA_WEIGHTS
    return (weights[0] * red + weights[1] * green + weights[2] * blue).round_()


def _smooth(pixels: Tensor) -> Tensor:
    """Pillow's SMOOTH filter: 5/13 of the center, 1/13 of each neighbor; borders unchanged."""
    # in place, because allocating memory would take longer than the sums
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1]
    rows += pixels[:, :, 2:]
    smooth = pixels.clone()
    inner = smooth[:, :, 1:-1, 1:-1]
    inner *= 4
    for first in range(3):
        inner += rows[..., first : first + inner.shape[3]]
    inner.div_(13).round_()
    return smooth


def _transform(images: Tensor, operation: Tensor, strength: Tensor, space: Space) -> Tensor:
    """Rotate, shear and translate by a strength in [-1, 1]; black fill."""
    count, channels, height, width = images.shape
    zero = torch.zeros_like(strength)

    def select(name: str, value: Tensor, otherwise: Tensor = zero) -> Tensor:
        return torch.where(operation == OPERATIONS.index(name), value, otherwise)[:, None, None]

    angle = torch.deg2rad(space.degrees * strength)
    cosine, sine = select("rotate", angle.cos(), zero + 1), select("rotate", angle.sin())
    shear_x, shear_y = (select(name, space.shear * strength) for name in ("shear-x", "shear-y"))
    shift_x = select("translate-x", (strength * space.shift(width)).trunc())
    shift_y = select("translate-y", (strength * space.shift(height)).trunc())
    # pixel centers: from the image's center for rotation, from its corner for shear, as in Pillow
    y = torch.arange(height, device=images.device)[:, None] + 0.5
    x = torch.arange(width, device=images.device) + 0.5
    from_y, from_x = y - height / 2, x - width / 2
    row = (
        (sine * from_x + cosine * from_y + height / 2 + shear_y * x + shift_y).floor().long()
    )  # (B, H, W)
    column = (cosine * from_x - sine * from_y + width / 2 + shear_x * y + shift_x).floor().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    source = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    gathered = images.flatten(2).gather(2, source.view(count, 1, -1).expand(-1, channels, -1))
    return gathered.view(images.shape) * inside[:, None]
