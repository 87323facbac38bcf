"""Images with more than 8 bits per channel: which of their values become black and white."""

import io
import math
import sys
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image, ImageFile

from seewhy.data.image_formats import UnusableImage, open_known_format
from seewhy.errors import SeewhyError

# the values that become black and white; "dtype" is the range of the type in which they are stored
ValueRange = tuple[float, float] | Literal["dtype"]

_GRAY_ALPHA = "LA;16B"  # of a PNG, which Pillow opens as RGBA
_DEEP_COLORS = {f"{mode};16{order}" for mode in ("RGB", "RGBA") for order in "BLN"} | {_GRAY_ALPHA}
_BLOCK = 2**20  # values scaled at once
_CRUSHED = 1 / 16  # fraction of the range of its type below which an image is nearly black
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _SIGNED = 258, 339, 2  # tags of TIFF, and a value of the second


def check_range(value: object) -> ValueRange | None:
    """`value` as a range; None is that of the dataset. Raises SeewhyError for anything else."""
    if value is None or value == "dataset":
        return None
    if value == "dtype":
        return "dtype"
    try:
        low, high = map(float, value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SeewhyError(
            "range must be two finite numbers, LOW below HIGH, which become black and white, or "
            f"dataset, or dtype; found {value!r}"
        )
    return low, high


def is_deep(image: Image.Image | np.ndarray[Any, Any]) -> bool:
    """Whether an opened image has more than 8 bits per channel; its pixels need not be read."""
    if isinstance(image, np.ndarray):
        return bool(image.dtype != np.uint8)
    return _is_deep_gray(image) or _raw_mode(image) in _DEEP_COLORS


def read_values(image: Image.Image | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The values (H, W) or (H, W, C) of a deep image, read completely and without alpha."""
    if isinstance(image, np.ndarray):
        return image
    if _is_deep_gray(image):
        _use_native_order(image)
        values = np.asarray(image)
        _, high = dtype_range(image)
        return values.view(np.uint32) if high == 2**32 - 1 else values
    return _both_bytes(image)[..., :3]


def dtype_range(image: Image.Image | np.ndarray[Any, Any]) -> tuple[float, float]:
    """The range of the type in which the values of a deep image are stored; 0 to 1 for floats."""
    if isinstance(image, np.ndarray):
        if image.dtype.kind not in "iu":
            return 0.0, 1.0
        limits = np.iinfo(image.dtype)
        return float(limits.min), float(limits.max)
    if image.mode == "F":
        return 0.0, 1.0
    if image.mode != "I":
        return 0.0, 65535.0
    tags = getattr(image, "tag_v2", None)
    if tags is None:  # Pillow scales a deep PGM to 16 bits
        return (-(2.0**31), 2.0**31 - 1) if image.format is None else (0.0, 65535.0)
    bits = int(tags.get(_BITS_PER_SAMPLE, (32,))[0])
    signed = _SIGNED in tags.get(_SAMPLE_FORMAT, (1,))
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)


def range_of_dataset(low: float, high: float) -> tuple[float, float]:
    """The range for images with values from `low` to `high`.

    It is -1 to 1, 0 to 1, or 0 to 2^n - 1 for at least 8 bits if the values are in it and span half
    of it, so that an image with 8 bits keeps its pixels, and otherwise exactly that of the values.
    """
    if low == high:
        return low, low + 1
    standard = (-1.0, 1.0) if low < 0 else (0.0, 1.0)
    if high > 1:
        standard = (0.0, 2.0 ** max(8, int(high).bit_length()) - 1)
    fits = standard[0] <= low and high <= standard[1]
    return standard if fits and 2 * (high - low) >= standard[1] - standard[0] else (low, high)


Deep = TypeVar("Deep", Image.Image, np.ndarray[Any, Any])


def to_8_bit(image: Deep, value_range: ValueRange | None) -> Deep:
    """A deep image with 8 bits: the range becomes 0 to 255, what is outside is clipped.

    NaN becomes black. Without a range it is that of the type. Raises UnusableImage if the values do
    not fit in that, or nearly all of it is unused.
    """
    of_dtype = dtype_range(image)
    alpha = None
    if isinstance(image, Image.Image) and not _is_deep_gray(image):
        planes = _both_bytes(image)
        planes, alpha = planes[..., :3], (planes[..., 3:] >> 8).astype(np.uint8)
        values: np.ndarray[Any, Any] = planes
    else:
        values = read_values(image)
    if value_range is None:
        _check_fit(values, *of_dtype)
    scaled = _scale(values, *(of_dtype if value_range in (None, "dtype") else value_range))
    if isinstance(image, np.ndarray):
        return scaled
    return Image.fromarray(scaled if alpha is None else np.concatenate([scaled, alpha], axis=-1))


def finite_limits(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The lowest and the highest finite value; infinity and minus infinity if there is none."""
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (math.inf, -math.inf)


def _check_fit(values: np.ndarray[Any, Any], low: float, high: float) -> None:
    lowest, highest = finite_limits(values)
    if lowest > highest:
        return
    if lowest < low or highest > high or (high > 1 and 0 < highest <= high * _CRUSHED):
        raise UnusableImage(
            f"stored with more than 8 bits and has values from {lowest:g} to {highest:g}, of which "
            "the black and the white ones are unknown: choose them with range=(LOW, HIGH), or "
            "convert it to 8 bits"
        )


def _scale(values: np.ndarray[Any, Any], low: float, high: float) -> np.ndarray:
    flat = np.ascontiguousarray(values).reshape(-1)
    scaled = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), _BLOCK):  # float64 takes eight times the memory
        block = flat[start : start + _BLOCK].astype(np.float64)
        block = np.nan_to_num(block, nan=low, posinf=high, neginf=low)
        block = (np.clip(block, low, high) - low) * (255 / (high - low))
        scaled[start : start + _BLOCK] = np.round(block)
    return scaled.reshape(values.shape)


def _is_deep_gray(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def _raw_mode(image: Image.Image) -> str:
    """How the pixels of an opened file are stored, such as "RGB;16B"; empty if they are read."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return ""
    arguments = image.tile[0].args
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _use_native_order(image: Image.Image) -> None:
    """Read in the byte order of the machine, to which libtiff converts; Pillow forgets some."""
    if isinstance(image, ImageFile.ImageFile):
        image.tile = [
            tile._replace(args=(tile.args[0].replace("B", "N"), *tile.args[1:]))
            if tile.codec_name == "libtiff" and isinstance(tile.args, tuple)
            else tile
            for tile in image.tile
        ]


def _both_bytes(image: Image.Image) -> np.ndarray[Any, Any]:  # (H, W, C) uint16
    """The values of a color image with 16 bits per channel, of which Pillow reads the upper byte.

    Read again in the other byte order, it gives the lower byte.
    """
    assert isinstance(image, ImageFile.ImageFile)
    assert isinstance(image.fp, io.BytesIO)
    if _raw_mode(image) == _GRAY_ALPHA:  # its four bytes, as if they were those of RGBA
        image.tile = [tile._replace(args="RGBA") for tile in image.tile]
        parts = np.asarray(image).astype(np.uint16)
        gray, alpha = (parts[..., ::2] << 8 | parts[..., 1::2]).transpose(2, 0, 1)
        return np.stack([gray, gray, gray, alpha], axis=-1)
    twin = open_known_format(io.BytesIO(image.fp.getvalue()))
    assert isinstance(twin, ImageFile.ImageFile)
    twin.tile = [tile._replace(args=_swapped(tile.args)) for tile in twin.tile]
    upper, lower = np.asarray(image).astype(np.uint16), np.asarray(twin)
    values: np.ndarray[Any, Any] = (upper << 8) | lower
    return values


def _swapped(arguments: Any) -> Any:
    """The decoder's arguments for the other byte order."""
    if isinstance(arguments, tuple):
        return (_swapped(arguments[0]), *arguments[1:])
    swapped = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    return f"{arguments[:-1]}{swapped[arguments[-1]]}"
