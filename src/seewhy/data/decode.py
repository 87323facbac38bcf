"""Decode images to uint8 pixels of one size, for training data and prediction."""

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from seewhy.errors import SeewhyError, lookup

# Content of a file, path, or image; arrays are (H, W) or (H, W, C) uint8.
Encoded = bytes | str | os.PathLike[str] | Image.Image | np.ndarray

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_GRAY_MODES = ("1", "L", "LA", "La", "I", "F")


@dataclass(frozen=True)
class Preprocessing:
    """How an image file becomes pixels, besides the image size.

    Args:
        crop: Fraction of the resized image's shorter side that the center crop keeps, in (0, 1]. It
            is `crop_pct` in timm, and crop size / resize size in torchvision.
        interpolation: "bicubic" or "bilinear", Pillow's filters, which prevent aliasing.

    Raises:
        SeewhyError: If `crop` is not in (0, 1], or the interpolation is unknown.
    """

    crop: float = 1.0
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        lookup(_FILTERS, self.interpolation, "interpolation")
        if not 0 < self.crop <= 1:
            raise SeewhyError(f"crop must be above 0 and at most 1, found {self.crop}")


DEFAULT_PREPROCESSING = Preprocessing()  # training data: only the longer side is cropped


def decode_image(
    source: Encoded,
    image_size: tuple[int, int],
    channels: int,
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
) -> Tensor:  # (C, H, W) uint8
    """Decode an image, rotate it upright, put it on white, resize it, and crop its center.

    Only the first frame of an animation is decoded.

    Args:
        source: A path, the content of an image file, a Pillow image, or an array (H, W) or
            (H, W, C) uint8.
        image_size: (height, width) of the result.
        channels: 1 for gray, 3 for RGB.
        preprocessing: The center crop.

    Returns:
        (C, H, W) uint8.

    Raises:
        SeewhyError: `channels` is neither 1 nor 3, or the source cannot be read as an image.
    """
    if channels not in (1, 3):
        raise SeewhyError(f"channels must be 1 (gray) or 3 (RGB), found {channels}")
    try:
        image = open_image(source, image_size, preprocessing)
        pixels = to_pixels(image, image_size, channels, preprocessing)
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error and more
        name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "the image"
        raise SeewhyError(
            f"{name} is {failure_reason(error)}; pass a PNG, a JPEG or another image file that "
            "Pillow can read"
        ) from error
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def open_image(
    source: Encoded,
    image_size: tuple[int, int] | None = None,
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
) -> Image.Image:
    """Open an image and read its header, but not its pixels. Raises Pillow's exceptions.

    A JPEG much larger than `image_size` is decoded at 1/2, 1/4, or 1/8, and never at less than
    twice the size it is resized to.
    """
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return Image.fromarray(
            source[:, :, 0] if source.ndim == 3 and source.shape[2] == 1 else source
        )
    if isinstance(source, bytes):
        if not source:
            raise ValueError("it is empty")
        image: Image.Image = Image.open(io.BytesIO(source))
    else:
        # reading the whole file avoids the limit on open files, and bytes decode without locks
        return open_image(Path(source).read_bytes(), image_size, preprocessing)
    if image_size is not None:
        side = math.ceil(2 * max(image_size) / preprocessing.crop)
        image.draft(None, (side, side))  # None: keep the mode
    return image


def to_pixels(
    image: Image.Image,
    image_size: tuple[int, int],
    channels: int,
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
) -> np.ndarray:  # (H, W, C) uint8
    """Decode an opened image. Raises Pillow's exceptions."""
    image.load()
    transposition = _UPRIGHT.get(orientation(image))
    flat = convert_mode(image, channels)
    if transposition is not None:
        flat = flat.transpose(transposition)
    pixels = np.asarray(resize_and_crop(flat, image_size, preprocessing))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of the image after its EXIF rotation, from its header."""
    return (image.width, image.height) if orientation(image) >= 5 else (image.height, image.width)


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 if it is missing or the EXIF block is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # the pixels may be fine
        return 1
    return value if value in _UPRIGHT else 1


def is_gray(image: Image.Image) -> bool:
    """Whether the image has a gray mode or a palette of grays."""
    if image.mode == "P":
        colors = np.asarray(convert_mode(image, 3))
        return bool((colors[:, :, :1] == colors[:, :, 1:]).all())
    return image.mode in _GRAY_MODES or image.mode.startswith("I;")


def convert_mode(image: Image.Image, channels: int) -> Image.Image:
    """The image as 8-bit gray (1) or RGB (3), with transparent parts on white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


def resize_and_crop(
    image: Image.Image,
    image_size: tuple[int, int],
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
) -> Image.Image:
    """Resize until the center crop covers `image_size` (height, width), and crop."""
    height, width = image_size
    if image.size == (width, height) and preprocessing.crop == 1:
        return image
    # Pillow's filters widen when they shrink, which prevents aliasing of fine patterns
    return image.resize(
        (width, height),
        _FILTERS[preprocessing.interpolation],
        box=crop_box((image.height, image.width), image_size, preprocessing),
    )


def crop_box(
    size: tuple[int, int],
    image_size: tuple[int, int],
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
) -> tuple[float, float, float, float]:
    """The part of an image of `size` (height, width) that `resize_and_crop` keeps.

    Returns left, top, right, bottom.
    """
    (height, width), (to_height, to_width) = size, image_size
    scale = max(to_height / height, to_width / width) / preprocessing.crop
    box_width, box_height = min(to_width / scale, width), min(to_height / scale, height)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def failure_reason(error: Exception) -> str:
    """The reason why an image could not be read, for an error message."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of a format that Pillow cannot read"
    if isinstance(error, FileNotFoundError):
        return "missing"
    text = str(error).strip().splitlines()
    return f"damaged or not an image ({text[0] if text else type(error).__name__})"


def _to_8_bit(values: np.ndarray[Any, Any]) -> np.ndarray:  # (H, W) uint8
    """Scale gray values by the smallest standard range that contains them.

    The ranges are 16 and 31 bit for integers; 1, 255 and 16 bit for floats.
    """
    ranges = (65535.0, 2.0**31 - 1) if values.dtype.kind in "iu" else (1.0, 255.0, 65535.0)
    values = np.nan_to_num(values.astype(np.float64))
    highest = values.max(initial=0.0)
    full_scale = next((limit for limit in ranges if highest <= limit), highest)
    return np.round(np.clip(values / full_scale, 0, 1) * 255).astype(np.uint8)
