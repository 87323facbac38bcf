"""Augmentations that move pixels: crops, flips and rotations.

With a margin, images are larger than `Batch.size`, and what a crop or a rotation moves into view
are real pixels.
"""

from math import log, radians
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from seewhy.data.batch import Batch, require, uniform, with_images
from seewhy.data.pixels import hash32, index_rows_and_columns, reflect_indices

_ATTEMPTS = 10  # to draw a box that fits


def crop(
    batch: Batch,
    generator: Generator,
    padding: float = 4,
    mode: Literal["reflect", "constant"] = "reflect",
) -> Batch:
    """Random crop of the image padded by `padding` pixels, reflected or black ("constant").

    A padding below 1 is a fraction of the shorter side of the crop. Images with a margin are larger
    than the crop, so that it moves over real pixels first.
    """
    images = batch.images
    height, width = images.shape[2:]
    to_height, to_width = batch.target_size
    require(mode in ("reflect", "constant"), "crop: mode must be reflect or constant", mode)
    require(padding >= 0, "crop: padding must be 0 or more", padding)
    whole = padding < 1 or padding == round(padding)
    require(whole, "crop: padding must be whole pixels, or a fraction below 1", padding)
    pixels = round(padding if padding >= 1 else padding * min(to_height, to_width))
    fits = mode == "constant" or pixels < min(height, width)
    require(
        fits,
        f"crop: padding must be below {min(height, width)} to reflect images of {height}x{width}",
        padding,
    )
    offsets = 2 * pixels + 1 + height - to_height  # a margin is as wide as it is high
    top, left = torch.randint(
        offsets, (2, len(images), 1), device=images.device, generator=generator
    )
    rows = top + torch.arange(to_height, device=images.device)
    columns = left + torch.arange(to_width, device=images.device)
    if mode == "constant":
        return with_images(
            batch, index_rows_and_columns(F.pad(images, [pixels] * 4), rows, columns)
        )
    rows, columns = (
        reflect_indices(rows - pixels, height),
        reflect_indices(columns - pixels, width),
    )
    return with_images(batch, index_rows_and_columns(images, rows, columns))


def flip(batch: Batch, generator: Generator, p: float = 0.5) -> Batch:
    """Horizontal flip with probability `p`."""
    require(0 <= p <= 1, "flip: p must be between 0 and 1", p)
    return _flip(batch, uniform(batch, generator) < p)


def alternating_flip(batch: Batch, generator: Generator) -> Batch:
    """Horizontal flip of each image in every other epoch (Jordan 2024, arXiv 2404.00498).

    A hash of an image's index and the generator's seed chooses even or odd epochs.
    """
    seed = generator.initial_seed()
    coin = hash32(hash32(batch.indices) ^ ((seed ^ seed >> 32) & 0xFFFFFFFF))
    return _flip(batch, (coin + batch.epoch) % 2 == 1)


def _flip(batch: Batch, mask: Tensor) -> Batch:
    height, width = batch.images.shape[2:]
    rows, columns = (torch.arange(length, device=mask.device) for length in (height, width))
    columns = torch.where(mask[:, None], width - 1 - columns, columns)
    return with_images(
        batch, index_rows_and_columns(batch.images, rows.expand(len(mask), -1), columns)
    )


def resized_crop(
    batch: Batch, generator: Generator, scale: float = 0.08, ratio: float = 0.75
) -> Batch:
    """Crop a random box and resize it (Szegedy et al. 2015, "Inception").

    The box covers `scale` to all of the image, with a uniform area. Its aspect ratio (width /
    height) is drawn on a log scale between `ratio` and 1 / `ratio`. A box that does not fit is
    drawn again, up to ten times; then the largest centered box of such a ratio is taken. These are
    the draws of torchvision's RandomResizedCrop. The box is resized bilinearly.
    """
    require(0 < scale <= 1, "resized-crop: scale must be above 0 and at most 1", scale)
    require(0 < ratio <= 1, "resized-crop: ratio must be above 0 and at most 1", ratio)
    box = random_boxes(batch.images, generator, scale, ratio)
    top, left, height, width = box[..., None].float().unbind()  # (B, 1) each
    (to_height, to_width), none = batch.target_size, torch.zeros((), device=box.device)
    y, x = _pixel_centers(batch.target_size, box.device)
    rows, columns = top + y * (height / to_height), left + x * (width / to_width)
    return with_images(batch, _sample_bilinear(batch.images, (none, columns), (rows, none)))


def random_boxes(
    images: Tensor, generator: Generator, scale: float, ratio: float
) -> Tensor:  # (4, B) int64: top, left, height, width
    """The boxes of `resized_crop`."""
    height, width = images.shape[2:]
    shape, device = (_ATTEMPTS, len(images)), images.device
    draws = torch.rand(4, *shape, device=device, generator=generator)
    area = height * width * (scale + (1 - scale) * draws[0])
    aspect = ((2 * draws[1] - 1) * -log(ratio)).exp()
    widths, heights = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    tops = (draws[2] * (height - heights + 1)).floor()
    lefts = (draws[3] * (width - widths + 1)).floor()
    first = fits.int().argmax(0, keepdim=True)  # of equal values the first
    boxes = torch.stack([tops, lefts, heights, widths]).gather(1, first.expand(4, 1, -1))[:, 0]
    most = min(max(width / height, ratio), 1 / ratio)  # of the centered box
    to_width, to_height = min(width, round(height * most)), min(height, round(width / most))
    centered = ((height - to_height) // 2, (width - to_width) // 2, to_height, to_width)
    fallback = torch.stack([torch.full_like(boxes[0], value) for value in centered])
    return torch.where(fits.any(0), boxes, fallback).long()


def rotate(batch: Batch, generator: Generator, degrees: float = 15.0) -> Batch:
    """Rotate by a random angle of up to ± `degrees` about the center.

    Pixels are interpolated bilinearly. Beyond the border, which a margin moves out of view, the
    image is reflected.
    """
    require(0 <= degrees <= 180, "rotate: degrees must be between 0 and 180", degrees)
    angle = radians(degrees) * (2 * uniform(batch, generator) - 1)[:, None]
    height, width = batch.images.shape[2:]
    y, x = _pixel_centers((height, width), angle.device)
    y, x = y - height / 2, x - width / 2
    along_rows = (angle.sin() * x, angle.cos() * x + width / 2)
    along_columns = (angle.cos() * y + height / 2, -angle.sin() * y)
    return with_images(batch, _sample_bilinear(batch.images, along_rows, along_columns))


def _pixel_centers(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """(h,) and (w,) float32; the center of the first pixel is 0.5."""
    y, x = (torch.arange(side, device=device) + 0.5 for side in size)
    return y, x


def _sample_bilinear(
    images: Tensor, along_rows: tuple[Tensor, Tensor], along_columns: tuple[Tensor, Tensor]
) -> Tensor:
    """Pixels at the points (y, x) of an affine map, reflected beyond the borders.

    The point of output pixel (i, j) is `along_rows[:, b, j] + along_columns[:, b, i]`, in pixels
    from the top left corner of the image; each of the four is (B, w) or (B, h), or a scalar.
    """
    height, width = images.shape[2:]
    # complex, because adding pairs is ten times slower on CPU
    rows, columns = (
        x * (2 / width) + 1j * (y * (2 / height)) for y, x in (along_rows, along_columns)
    )
    grid = torch.view_as_real(rows[:, None, :] + (columns - (1 + 1j))[:, :, None])
    sampled = F.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return sampled.round_().byte()


def center_crop(batch: Batch) -> Batch:
    """Remove the margin that no augmentation has used."""
    height, width = batch.images.shape[2:]
    to_height, to_width = batch.target_size
    if (height, width) == (to_height, to_width):
        return batch
    top, left = (height - to_height) // 2, (width - to_width) // 2
    return with_images(batch, batch.images[:, :, top : top + to_height, left : left + to_width])
