"""One image, however it is stored, as uint8 pixels of the size a model wants: the same for training data and a user's file."""

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

from seewhy.errors import SeewhyError

Encoded = (
    bytes | str | os.PathLike[str] | Image.Image | np.ndarray
)  # an array is (H, W) or (H, W, C) uint8

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
_GRAY_MODES = ("1", "L", "LA", "La", "I", "F")


@dataclass(frozen=True)
class Preprocessing:
    """How an image file becomes pixels, beyond their number.

    Args:
        crop: Share of the resized image's shorter side that the center crop keeps, in (0, 1]. timm
            calls it `crop_pct`; in torchvision it is the crop size over the resize size.

    Raises:
        SeewhyError: If `crop` is not in (0, 1].
    """

    crop: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise SeewhyError(f"crop must be above 0 and at most 1, found {self.crop}")


DEFAULT_PREPROCESSING = (
    Preprocessing()
)  # training data: nothing is cut but the overhang of the longer side


def decode_image(
    source: Encoded,
    image_size: tuple[int, int],
    channels: int,
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
) -> Tensor:  # (C, H, W) uint8
    """`source` upright, on white, resized and center-cropped to `image_size` (height, width), gray (1) or RGB (3).

    Of an animation the first frame. Raises SeewhyError for what cannot be read as an image.
    """
    if channels not in (1, 3):
        raise SeewhyError(f"images are decoded to 1 or 3 channels, found {channels}")
    try:
        image = open_image(source, image_size, preprocessing)
        pixels = to_pixels(image, image_size, channels, preprocessing)
    except Exception as error:  # a damaged file raises nearly anything inside Pillow: OSError, SyntaxError, struct.error …
        name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "the image"
        raise SeewhyError(
            f"{name}: {reason(error)}; give a PNG, JPEG or another image file that Pillow reads"
        ) from error
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def open_image(
    source: Encoded,
    image_size: tuple[int, int] | None = None,
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
) -> Image.Image:
    """Open an image: its header is read, its pixels are not yet. Raises what Pillow raises.

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
        # read whole: an open file per image would run into the limit on open files, and bytes decode without locks
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
    """Everything after opening; raises what Pillow raises."""
    image.load()
    transposition = _UPRIGHT.get(orientation(image))
    flat = flatten(image, channels)
    if transposition is not None:
        flat = flat.transpose(transposition)
    pixels = np.asarray(fit(flat, image_size, preprocessing))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) as a viewer shows the image, from its header alone."""
    return (image.width, image.height) if orientation(image) >= 5 else (image.height, image.width)


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where there is none or where the EXIF block is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1
    return value if value in _UPRIGHT else 1


def is_gray(image: Image.Image) -> bool:
    """Whether the image is stored without color: a gray mode, or a palette that has only grays."""
    if image.mode == "P":
        colors = np.asarray(flatten(image, 3))
        return bool((colors[:, :, :1] == colors[:, :, 1:]).all())
    return image.mode in _GRAY_MODES or image.mode.startswith("I;")


def flatten(image: Image.Image, channels: int) -> Image.Image:
    """8 bit, without transparency: what is transparent becomes white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


def fit(
    image: Image.Image,
    image_size: tuple[int, int],
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
) -> Image.Image:
    """Resize until the center crop covers `image_size` (height, width), and crop."""
    height, width = image_size
    if image.size == (width, height) and preprocessing.crop == 1:
        return image
    # Pillow widens its bicubic filter when it shrinks, which is what keeps fine patterns from aliasing
    return image.resize(
        (width, height),
        Image.Resampling.BICUBIC,
        box=crop_box((image.height, image.width), image_size, preprocessing),
    )


def crop_box(
    size: tuple[int, int],
    image_size: tuple[int, int],
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
) -> tuple[float, float, float, float]:
    """Part of an image of `size` (height, width) that `fit` keeps: left, top, right, bottom."""
    (height, width), (to_height, to_width) = size, image_size
    scale = max(to_height / height, to_width / width) / preprocessing.crop
    box_width, box_height = min(to_width / scale, width), min(to_height / scale, height)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def reason(error: Exception) -> str:
    """Why an image could not be read, in words for a person."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of a kind that Pillow cannot read"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    text = str(error).strip().splitlines()
    return f"damaged or not an image ({text[0] if text else type(error).__name__})"


def _to_8_bit(values: np.ndarray[Any, Any]) -> np.ndarray:  # (H, W) uint8
    """Scale deep gray values by the full range that holds them: 16 or 31 bit for integers, 1, 255 or 16 bit for floats."""
    ranges = (65535.0, 2.0**31 - 1) if values.dtype.kind in "iu" else (1.0, 255.0, 65535.0)
    values = np.nan_to_num(values.astype(np.float64))
    highest = values.max(initial=0.0)
    full = next((top for top in ranges if highest <= top), highest)
    return np.round(np.clip(values / full, 0, 1) * 255).astype(np.uint8)
