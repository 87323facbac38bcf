"""Decode images to uint8 pixels of one size, for training data and prediction."""

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from seewhy.data.image_formats import UnusableImage, open_known_format
from seewhy.data.pixel_range import ValueRange, check_range, is_deep, to_8_bit
from seewhy.errors import SeewhyError, lookup
from seewhy.files import problem_of_file

MAX_PIXELS = 150_000_000  # default of max_pixels

# Content of a file, path, or image; arrays are (H, W) or (H, W, C).
Encoded = bytes | str | os.PathLike[str] | Image.Image | np.ndarray

_ORIENTATION_TAG = 0x0112
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# an image before it is decoded to the size of a dataset
ORIGINAL = np.dtype([("height", "<u4"), ("width", "<u4"), ("bytes", "<u8"), ("format", "S8")])
RESIZE_MODES = {
    "crop": "the center crop that covers the shorter side",
    "letterbox": "the whole image, with gray beside its shorter side",
}
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_GRAY = 128  # beside a letterboxed image
_BYTES_PER_PIXEL = 8  # of the largest format, RGBA with 16 bits per channel
_GRAY_MODES = ("1", "L", "LA", "La", "I", "F")


@dataclass(frozen=True)
class Preprocessing:
    """How an image file becomes pixels, besides the image size.

    Args:
        crop: Fraction of the resized image's shorter side that the center crop keeps, in (0, 1]. It
            is `crop_pct` in timm, and crop size / resize size in torchvision.
        interpolation: "bicubic" or "bilinear", Pillow's filters, which prevent aliasing.
        value_range: The values that become black and white, for images with more than 8 bits per
            channel: (low, high), or "dtype" for the range of their type, 0 to 1 for floats. With
            None it is that of the type, and an image that does not fit it is rejected.
        resize: "crop" or "letterbox", which resizes the whole image and adds gray beside it.

    Raises:
        SeewhyError: If `crop` is not in (0, 1], or the interpolation, the range or `resize` is
            unknown.
    """

    crop: float = 1.0
    interpolation: str = "bicubic"
    value_range: ValueRange | None = None
    resize: str = "crop"

    def __post_init__(self) -> None:
        lookup(FILTERS, self.interpolation, "interpolation")
        lookup(RESIZE_MODES, self.resize, "resize")
        if not 0 < self.crop <= 1:
            raise SeewhyError(f"crop must be above 0 and at most 1, found {self.crop}")
        object.__setattr__(self, "value_range", check_range(self.value_range))  # a list in JSON


DEFAULT_PREPROCESSING = Preprocessing()  # training data: only the longer side is cropped


def decode_image(
    source: Encoded,
    image_size: tuple[int, int],
    channels: int,
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    max_pixels: int | None = None,
) -> Tensor:  # (C, H, W) uint8
    """Decode an image, rotate it upright, put it on white, resize it, and crop its center.

    Only the first frame of an animation is decoded.

    Args:
        source: A path, the content of an image file, a Pillow image, or an array (H, W) or
            (H, W, C).
        image_size: (height, width) of the result.
        channels: 1 for gray, 3 for RGB.
        preprocessing: The center crop, and the range of values of an image of more than 8 bits.
        max_pixels: Largest number of pixels of an image that is decoded; None for 150 million.

    Returns:
        (C, H, W) uint8.

    Raises:
        SeewhyError: `channels` is neither 1 nor 3, or the source cannot be read as an image.
    """
    if channels not in (1, 3):
        raise SeewhyError(f"channels must be 1 (gray) or 3 (RGB), found {channels}")
    try:
        image = open_image(source, image_size, preprocessing, max_pixels)
        pixels = to_pixels(image, image_size, channels, preprocessing)
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error and more
        name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "the image"
        raise SeewhyError(
            f"{name} is {failure_reason(error)}; pass a PNG, a JPEG, or another image file"
        ) from error
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def open_image(
    source: Encoded,
    image_size: tuple[int, int] | None = None,
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    max_pixels: int | None = None,
) -> Image.Image:
    """Open an image and read its header, but not its pixels. All images are opened here.

    A JPEG much larger than `image_size` is decoded at 1/2, 1/4, or 1/8, and never at less than
    twice the size it is resized to. Raises UnusableImage, and Pillow's exceptions.
    """
    if isinstance(source, np.ndarray):
        if is_deep(source):
            source = np.asarray(to_8_bit(source, preprocessing.value_range))
        return Image.fromarray(
            source[:, :, 0] if source.ndim == 3 and source.shape[2] == 1 else source
        )
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if isinstance(source, Image.Image):
        image = source
        if image.format == "EPS":  # it would be run when its pixels are read
            raise UnusableImage("PostScript (EPS), a program, which is never run")
    else:
        content = source if isinstance(source, bytes) else _read_file(Path(source), limit)
        if not content:
            raise UnusableImage("empty")
        image = open_known_format(io.BytesIO(content))
    width, height = _stored_size(image)
    if width * height > limit:
        raise UnusableImage(
            f"larger than max_pixels={limit} ({width}x{height} is {width * height} pixels)"
        )
    if image_size is not None and not isinstance(source, Image.Image):
        draft(image, image_size, preprocessing)
    return image


def draft(
    image: Image.Image,
    image_size: tuple[int, int],
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
) -> None:
    """Let a JPEG much larger than `image_size` be decoded at 1/2, 1/4, or 1/8 of its size."""
    side = math.ceil(2 * max(image_size) / preprocessing.crop)
    image.draft(None, (side, side))  # None: keep the mode


def original_of(
    encoded: Encoded, image: Image.Image, size: tuple[int, int]
) -> tuple[int, int, int, str]:
    """The row of ORIGINAL of an image whose header tells `size` (width, height).

    Bytes and format are 0 and empty for pixels that were in no file.
    """
    width, height = size[::-1] if orientation(image) >= 5 else size
    stored = 0
    if isinstance(encoded, bytes):
        stored = len(encoded)
    elif isinstance(encoded, (str, os.PathLike)):
        stored = Path(encoded).stat().st_size
    file_format = (image.format or "") if stored else ""
    return height, width, stored, "JPEG" if file_format == "MPO" else file_format


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) that is decoded: that of the image, or of a larger tile of a TIFF."""
    tags = getattr(image, "tag_v2", {})
    tile = int(tags.get(_TILE_WIDTH, 0)), int(tags.get(_TILE_LENGTH, 0))
    return max(image.size, tile, key=math.prod)


def _read_file(path: Path, max_pixels: int) -> bytes:
    """The content of an image file; whole, which avoids the limit on the number of open files."""
    if problem := problem_of_file(path):
        raise UnusableImage(problem)
    size = path.stat().st_size
    if size > max_pixels * _BYTES_PER_PIXEL:
        raise UnusableImage(f"larger than an image of max_pixels={max_pixels} ({size} bytes)")
    with path.open("rb") as file:
        return file.read(size)


def to_pixels(
    image: Image.Image,
    image_size: tuple[int, int],
    channels: int,
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
) -> np.ndarray:  # (H, W, C) uint8
    """Decode an opened image. Raises Pillow's exceptions."""
    if is_deep(image):
        flat = convert_mode(to_8_bit(image, preprocessing.value_range), channels)
    else:
        image.load()
        flat = convert_mode(image, channels)
    transposition = _UPRIGHT.get(orientation(image))
    if transposition is not None:
        flat = flat.transpose(transposition)
    pixels = np.asarray(resize_and_crop(flat, image_size, preprocessing))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of the image after its EXIF rotation; it reads the pixels of a PNG."""
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
    """An image of 8 bits as gray (1) or RGB (3), with transparent parts on white."""
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
    """Resize until the center crop covers `image_size` (height, width), and crop.

    With resize="letterbox", the whole image is in it, with gray beside it.
    """
    height, width = image_size
    if image.size == (width, height) and preprocessing.crop == 1:
        return image
    box = crop_box((image.height, image.width), image_size, preprocessing)
    inside = (max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height))
    scale = width / (box[2] - box[0])
    size = [
        min(side, max(1, round(scale * (inside[axis + 2] - inside[axis]))))
        for axis, side in enumerate((width, height))
    ]
    # Pillow's filters widen when they shrink, which prevents aliasing of fine patterns
    resized = image.resize((size[0], size[1]), FILTERS[preprocessing.interpolation], box=inside)
    if resized.size == (width, height):
        return resized
    whole = Image.new(image.mode, (width, height), (_GRAY,) * len(image.getbands()))
    whole.paste(resized, ((width - size[0]) // 2, (height - size[1]) // 2))
    return whole


def crop_box(
    size: tuple[int, int],
    image_size: tuple[int, int],
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
) -> tuple[float, float, float, float]:
    """The part of an image of `size` (height, width) that `resize_and_crop` keeps.

    Returns left, top, right, bottom. With resize="letterbox", it reaches beyond the image.
    """
    (height, width), (to_height, to_width) = size, image_size
    scales = to_height / height, to_width / width
    if preprocessing.resize == "letterbox":
        scale = min(scales) / preprocessing.crop
        box_width, box_height = to_width / scale, to_height / scale
    else:
        scale = max(scales) / preprocessing.crop
        box_width, box_height = min(to_width / scale, width), min(to_height / scale, height)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def failure_reason(error: Exception) -> str:
    """The reason why an image could not be read; it completes the sentence "the image is …"."""
    if isinstance(error, UnusableImage):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of a format that is not supported"
    if isinstance(error, OSError) and error.strerror:
        return f"not readable ({error.strerror})"
    text = str(error).strip().splitlines()
    return f"damaged or not an image ({text[0] if text else type(error).__name__})"
