"""Decode a dataset into the files of a cache entry, with threads, block by block."""

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from seewhy.data.cache import (
    Header,
    SplitHeader,
    array_file,
    durable,
    require_space,
    write_header,
    write_names,
)
from seewhy.data.dataset import fingerprint, split_digest
from seewhy.data.decode import (
    ORIGINAL,
    Encoded,
    Preprocessing,
    draft,
    failure_reason,
    is_gray,
    open_image,
    original_of,
    resize_and_crop,
    to_pixels,
    upright_size,
)
from seewhy.data.options import LoadOptions
from seewhy.data.pixel_range import finite_limits, is_deep, range_of_dataset, read_values
from seewhy.data.raw import RawDataset, RawSplit, check_label_range, check_labels
from seewhy.data.splitting import assign_splits
from seewhy.errors import SeewhyError
from seewhy.progress import note, progress
from seewhy.wording import counted

_SAMPLED = 256  # number of sampled image headers, to determine size and channels
_LARGEST_COMMON = 512  # images of a common size keep it up to this shorter side
_LARGEST_MEDIAN = 224  # images of several sizes get their median shorter side, at most this
_BLOCK_ROWS = 256  # encoded images in memory: at 5 MB each they take 1.3 GB
_BLOCK_BYTES = 64 * 2**20  # decoded pixels in memory
_TASK_ROWS = (
    16  # images per task, because submitting a task takes as long as decoding a small image
)

_GRAY = 128  # beside a letterboxed mask, and at its edges
_COLOR_MODES = ("RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")


@dataclass(frozen=True)
class _Format:
    name: str  # name of the dataset in messages
    image_size: tuple[int, int]  # height, width, with the margin
    margin: int  # of the training images; that of others is cropped
    channels: int
    channels_known: bool  # whether they were chosen, or color was found
    skip_bad_images: bool
    max_pixels: int | None
    preprocessing: Preprocessing
    range_known: bool  # whether the range of values was chosen or measured


@dataclass(frozen=True, eq=False)
class _WrittenSplit:
    header: SplitHeader
    labels: np.ndarray  # (N,) int64 or (N, K) bool, of the readable images
    digest: str
    skipped: list[str]
    folds: tuple[int, ...]  # (N,), or empty


@dataclass(frozen=True, eq=False)
class _Block:
    pixels: np.ndarray  # (n, C, H, W) uint8, of the readable images
    rows: list[int]  # (n,) their indices in the split
    names: list[str]  # (n,)
    originals: np.ndarray  # (n,) of the dtype ORIGINAL
    bad: list[tuple[str, str]]  # name of each unreadable image, and the reason


class _ColorFound(Exception):
    """The dataset seemed gray but has a color image."""


class _DeepFound(Exception):
    """The dataset seemed to have 8 bits per channel but has an image with more."""


def build_entry(
    raw: RawDataset, name: str, options: LoadOptions, directory: Path, quiet: bool
) -> bool:
    """Decode a dataset into the files of a cache entry.

    Args:
        raw: The dataset.
        name: Its name in messages.
        options: Image size and splits.
        directory: An empty directory, which becomes the entry.
        quiet: Print no progress.

    Returns:
        Whether the splits depend on the seed.

    Raises:
        SeewhyError: The labels are invalid, an image is unreadable, or the disk is too small.
    """
    splits, drawn = assign_splits(raw, name, options, quiet)
    first = next(iter(splits.values()))  # train, unless there is none
    image_format = _choose_format(first, name, options, quiet)
    total = sum(map(len, splits.values()))
    height, width = image_format.image_size

    def write_all(image_format: _Format) -> dict[str, _WrittenSplit]:
        with (
            require_space(directory, total * image_format.channels * height * width),
            ThreadPoolExecutor(os.cpu_count()) as pool,
            progress(f"decoding {name} at {width}x{height}", total, quiet) as advance,
        ):
            return {
                key: _write_split(
                    key,
                    split,
                    image_format if key == "train" else _without_margin(image_format),
                    directory,
                    pool,
                    advance,
                )
                for key, split in splits.items()
            }

    written = None
    while written is None:
        try:
            written = write_all(image_format)
        except _ColorFound:
            image_format = replace(image_format, channels=3, channels_known=True)
        except _DeepFound:
            image_format = _measure_range(first, image_format, quiet)
    labels = {key: split.labels for key, split in written.items()}
    check = check_label_range if options.split == "test" else check_labels
    check(raw.classes, labels, name)
    digests = {key: split.digest for key, split in written.items()}
    header = Header(
        classes=raw.classes,
        splits={key: split.header for key, split in written.items()},
        fingerprint=fingerprint(raw.classes, digests),
        skipped=tuple(image for split in written.values() for image in split.skipped),
        value_range=image_format.preprocessing.value_range,
        held_out=drawn,
        folds=next(iter(written.values())).folds,
        left_out=sum(map(len, raw.splits.values())) - len(first) if options.folds else 0,
        multi_label=first.labels.ndim == 2,
    )
    write_header(directory, header)
    return bool(drawn)


def _choose_format(split: RawSplit, name: str, options: LoadOptions, quiet: bool) -> _Format:
    """Size, channels and range of values from sampled headers; decoding verifies the last two."""
    sizes: list[tuple[int, int]] = []
    colored = deep = False
    first_failure = ""
    sample = np.unique(np.linspace(0, len(split) - 1, _SAMPLED).astype(np.int64)).tolist()
    for image_name, encoded in split.read(sample):
        try:
            if isinstance(encoded, np.ndarray) and is_deep(encoded):
                deep, encoded = True, np.zeros(encoded.shape, np.uint8)
            image = open_image(encoded, max_pixels=options.max_pixels)
            deep = deep or is_deep(image)  # before its pixels are read
            sizes.append(upright_size(image))
            colored = colored or image.mode in _COLOR_MODES
        except Exception as error:  # decoding will report or skip it
            first_failure = first_failure or f"{image_name} is {failure_reason(error)}"
    if not sizes:
        raise SeewhyError(
            f"{name}: none of {counted(len(sample), 'sampled image')} can be read: "
            f"{first_failure}; use PNG, JPEG, or another image format"
        )
    if options.image_size is not None:
        image_size = (options.image_size, options.image_size)
    elif len(set(sizes)) == 1 and min(sizes[0]) <= _LARGEST_COMMON:
        image_size = sizes[0]
    else:
        side = min(round(float(np.median([min(size) for size in sizes]))), _LARGEST_MEDIAN)
        image_size = (side, side)
    image_format = _Format(
        name,
        (image_size[0] + options.margin, image_size[1] + options.margin),
        options.margin,
        options.channels or (3 if colored else 1),
        options.channels is not None,
        options.skip_bad_images,
        options.max_pixels,
        Preprocessing(1.0, options.interpolation, options.range, options.resize),
        range_known=options.range is not None,
    )
    if deep and not image_format.range_known:
        return _measure_range(split, image_format, quiet)
    return image_format


def _without_margin(image_format: _Format) -> _Format:
    """The format of images that are evaluated: the center crop, or with "letterbox" all of them."""
    height, width = (side - image_format.margin for side in image_format.image_size)
    crop = min(height, width) / min(image_format.image_size)
    if image_format.preprocessing.resize != "crop":
        crop = 1.0
    return replace(
        image_format,
        image_size=(height, width),
        margin=0,
        preprocessing=replace(image_format.preprocessing, crop=crop),
    )


def _measure_range(split: RawSplit, image_format: _Format, quiet: bool) -> _Format:
    """The format with the range of the values in the deep images of a split, if there are any."""

    def limits(encoded: Encoded) -> tuple[float, float, bool]:
        try:
            image = (
                encoded
                if isinstance(encoded, np.ndarray)
                else open_image(encoded, max_pixels=image_format.max_pixels)
            )
            if is_deep(image):
                values = read_values(image)
                return *finite_limits(values), not np.isfinite(values).all()
        except Exception:  # decoding will report or skip it
            pass
        return math.inf, -math.inf, False

    low, high, infinite = math.inf, -math.inf, 0
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        progress(f"measuring {image_format.name}", len(split), quiet) as advance,
    ):
        for start in range(0, len(split), _BLOCK_ROWS):
            encoded = split.read(range(start, min(start + _BLOCK_ROWS, len(split))))
            for lowest, highest, not_finite in pool.map(limits, [image for _, image in encoded]):
                low, high, infinite = min(low, lowest), max(high, highest), infinite + not_finite
            advance(len(encoded))
    if infinite and low > high:
        raise SeewhyError(f"{image_format.name}: no pixel is a finite number; restore the images")
    if infinite:
        note(
            f"{image_format.name}: images with pixels that are not finite: {infinite:,}; infinity "
            "becomes white, NaN and minus infinity black",
            quiet,
        )
    measured = range_of_dataset(low, high) if low <= high else None
    preprocessing = replace(image_format.preprocessing, value_range=measured)
    return replace(image_format, preprocessing=preprocessing, range_known=True)


def _write_split(
    split_name: str,
    split: RawSplit,
    image_format: _Format,
    directory: Path,
    pool: ThreadPoolExecutor,
    advance: Callable[[int], None],
) -> _WrittenSplit:
    names: list[str] = []
    originals = [np.zeros(0, ORIGINAL)]
    readable: list[int] = []
    skipped: list[str] = []
    hasher = hashlib.blake2b(digest_size=16)
    height, width = image_format.image_size
    row_bytes = image_format.channels * height * width
    with array_file(directory / f"{split_name}.images", row_bytes) as file:
        for block in _decode_blocks(split, image_format, pool):
            if block.bad and not image_format.skip_bad_images:
                image_name, failure = block.bad[0]
                raise SeewhyError(
                    f"{image_format.name}: {image_name} is {failure}; remove the file, or skip "
                    "unreadable files with skip_bad_images=True"
                )
            file.write(block.pixels)
            hasher.update(block.pixels.data)
            names += block.names
            originals.append(block.originals)
            readable += block.rows
            skipped += [image_name for image_name, _ in block.bad]
            advance(len(block.rows) + len(block.bad))
    labels = split.labels[readable]
    with durable(directory / f"{split_name}.labels") as file:
        file.write(labels.astype("<i8" if labels.ndim == 1 else np.uint8).tobytes())
    if split.masks is not None:
        with array_file(directory / f"{split_name}.masks", height * width) as file:
            for row in readable:
                file.write(_fit_mask(split.masks[row], image_format))
    write_names(directory, split_name, names, np.concatenate(originals))
    shape = (len(readable), image_format.channels, *image_format.image_size)
    return _WrittenSplit(
        SplitHeader(shape, split.masks is not None),
        labels,
        split_digest(hasher, shape, labels),
        skipped,
        () if split.folds is None else tuple(split.folds[readable].tolist()),
    )


def _decode_blocks(
    split: RawSplit, image_format: _Format, pool: ThreadPoolExecutor
) -> Iterator[_Block]:
    size = math.prod(image_format.image_size) * image_format.channels
    step = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // size))
    for start in range(0, len(split), step):
        rows = range(start, min(start + step, len(split)))
        encoded = split.read(rows)
        tasks = [encoded[i : i + _TASK_ROWS] for i in range(0, len(encoded), _TASK_ROWS)]
        results = list(
            chain.from_iterable(
                pool.map(lambda task: [_decode(image, image_format) for _, image in task], tasks)
            )
        )
        decoded = {i: result for i, result in enumerate(results) if not isinstance(result, str)}
        readable = list(decoded)
        stacked = np.array([pixels for pixels, _ in decoded.values()], dtype=np.uint8).reshape(
            len(readable), *image_format.image_size, image_format.channels
        )
        yield _Block(
            pixels=np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)),
            rows=[rows[i] for i in readable],
            names=[encoded[i][0] for i in readable],
            originals=np.array([original for _, original in decoded.values()], ORIGINAL),
            bad=[
                (encoded[i][0], result)
                for i, result in enumerate(results)
                if isinstance(result, str)
            ],
        )


def _decode(
    encoded: Encoded, image_format: _Format
) -> tuple[np.ndarray, tuple[int, int, int, str]] | str:
    """(H, W, C) uint8 and a row of ORIGINAL, or the reason why the image is unreadable."""
    if isinstance(encoded, np.ndarray) and encoded.dtype == np.uint8:
        pixels = encoded[:, :, None] if encoded.ndim == 2 else encoded
        shape = (*image_format.image_size, image_format.channels)
        if pixels.shape == shape and image_format.preprocessing.crop == 1:
            # a hundred times faster than by way of Pillow
            return pixels, (*image_format.image_size, 0, "")
    try:
        if isinstance(encoded, np.ndarray) and is_deep(encoded) and not image_format.range_known:
            raise _DeepFound
        image = open_image(encoded, None, image_format.preprocessing, image_format.max_pixels)
        size = image.size  # that in the header
        if not isinstance(encoded, Image.Image):
            draft(image, image_format.image_size, image_format.preprocessing)
        if not is_deep(image):
            image.load()  # which may change the mode
        elif not image_format.range_known:
            raise _DeepFound
        colored = not (image_format.channels == 3 or image_format.channels_known or is_gray(image))
        if colored:
            raise _ColorFound
        pixels = to_pixels(
            image, image_format.image_size, image_format.channels, image_format.preprocessing
        )
        return pixels, original_of(encoded, image, size)
    except (_ColorFound, _DeepFound):
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error and more
        return failure_reason(error)


def _fit_mask(mask: np.ndarray, image_format: _Format) -> np.ndarray:  # (H, W) bool
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    fitted = resize_and_crop(image, image_format.image_size, image_format.preprocessing)
    return np.asarray(fitted) > _GRAY
