"""Decoding a data set once, in threads and in blocks, into the files of a cache entry."""

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

from seewhy.data.cache import Header, SplitHeader, durable, require_space, write_header, write_names
from seewhy.data.dataset import fingerprint, split_digest
from seewhy.data.decode import Encoded, fit, is_gray, open_image, reason, to_pixels, upright_size
from seewhy.data.raw import RawDataset, RawSplit, assign_splits, check_labels
from seewhy.errors import SeewhyError
from seewhy.progress import progress

_SAMPLED = 256  # images whose headers decide the size
_LARGEST_COMMON = 512  # images that agree on a size keep it up to this shorter side
_LARGEST_MEDIAN = 224  # images that do not are brought to their median shorter side, at most this
_BLOCK_ROWS = 256  # encoded images held at once: photographs of 5 MB each make 1.3 GB
_BLOCK_BYTES = 64 * 2**20  # decoded pixels held at once
_TASK_ROWS = 16  # images per task of the pool: handing over a single small image costs as much as decoding it

_COLOR_MODES = ("RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")


@dataclass(frozen=True)
class LoadOptions:
    """How the user wants a data set decoded and split."""

    image_size: int | None = None
    validation: float = 0.0
    seed: int = 0
    skip_bad_images: bool = False
    label: str | None = None  # the column that has the labels


@dataclass(frozen=True)
class _Plan:
    where: str
    image_size: tuple[int, int]  # height, width
    channels: int
    skip_bad_images: bool


@dataclass(frozen=True, eq=False)
class _Written:
    header: SplitHeader
    labels: np.ndarray  # (N,) int64, of the images that could be read
    digest: str
    skipped: list[str]


@dataclass(frozen=True, eq=False)
class _Block:
    pixels: np.ndarray  # (n, C, H, W) uint8, of the images that could be read
    rows: list[int]  # (n,) which rows they are
    names: list[str]  # (n,)
    bad: list[tuple[str, str]]  # name and reason of the others


class _ColorFound(Exception):
    """A color image turned up in a data set that looked gray."""


def build_entry(
    raw: RawDataset, where: str, wish: LoadOptions, directory: Path, quiet: bool
) -> bool:
    """Decode `raw` into the files of a cache entry in `directory`; says whether the seed had a part in its splits.

    Raises SeewhyError for labels that cannot be trained on, an image that cannot be read, and a disk that is too small.
    """
    splits, drawn = assign_splits(raw, where, wish.validation, wish.seed)
    plan = _plan(splits["train"], where, wish)
    total = sum(map(len, splits.values()))
    height, width = plan.image_size

    def write_all(plan: _Plan) -> dict[str, _Written]:
        with (
            require_space(directory, total * plan.channels * height * width),
            ThreadPoolExecutor(os.cpu_count()) as pool,
            progress(f"decoding {where} at {width}x{height}", total, quiet) as advance,
        ):
            return {
                split: _write_split(split, rows, plan, directory, pool, advance)
                for split, rows in splits.items()
            }

    try:
        written = write_all(plan)
    except _ColorFound:
        written = write_all(replace(plan, channels=3))
    check_labels(raw.classes, {split: done.labels for split, done in written.items()}, where)
    header = Header(
        classes=raw.classes,
        splits={split: done.header for split, done in written.items()},
        fingerprint=fingerprint(
            raw.classes, {split: done.digest for split, done in written.items()}
        ),
        skipped=tuple(name for done in written.values() for name in done.skipped),
    )
    write_header(directory, header)
    return drawn


def _plan(rows: RawSplit, where: str, wish: LoadOptions) -> _Plan:
    """Size and channels, from the headers of a sample; one channel is a guess that decoding checks on every image."""
    sizes: list[tuple[int, int]] = []
    colored = False
    why = ""
    sample = np.unique(np.linspace(0, len(rows) - 1, _SAMPLED).astype(np.int64)).tolist()
    for name, encoded in rows.read(sample):
        try:
            image = open_image(encoded)
            sizes.append(upright_size(image))
            colored = colored or image.mode in _COLOR_MODES
        except Exception as error:  # decoding will name it, or skip it
            why = why or f"{name}: {reason(error)}"
    if not sizes:
        raise SeewhyError(
            f"{where}: none of {len(sample)} images looked at can be read; the first is {why}"
        )
    if wish.image_size is not None:
        image_size = (wish.image_size, wish.image_size)
    elif len(set(sizes)) == 1 and min(sizes[0]) <= _LARGEST_COMMON:
        image_size = sizes[0]
    else:
        side = min(round(float(np.median([min(size) for size in sizes]))), _LARGEST_MEDIAN)
        image_size = (side, side)
    return _Plan(where, image_size, 3 if colored else 1, wish.skip_bad_images)


def _write_split(
    split: str,
    rows: RawSplit,
    plan: _Plan,
    directory: Path,
    pool: ThreadPoolExecutor,
    advance: Callable[[int], None],
) -> _Written:
    names: list[str] = []
    kept: list[int] = []
    skipped: list[str] = []
    hasher = hashlib.blake2b(digest_size=16)
    with durable(directory / f"{split}.images") as file:
        for block in _blocks(rows, plan, pool):
            if block.bad and not plan.skip_bad_images:
                name, why = block.bad[0]
                raise SeewhyError(
                    f"{plan.where}: {name} is {why}; remove the file, or leave out all such files with skip_bad_images"
                )
            file.write(block.pixels.data)
            hasher.update(block.pixels.data)
            names += block.names
            kept += block.rows
            skipped += [name for name, _ in block.bad]
            advance(len(block.rows) + len(block.bad))
    labels = rows.labels[kept]
    with durable(directory / f"{split}.labels") as file:
        file.write(labels.astype("<i8").tobytes())
    if rows.masks is not None:
        with durable(directory / f"{split}.masks") as file:
            for row in kept:
                file.write(_fitted_mask(rows.masks[row], plan.image_size).tobytes())
    write_names(directory, split, names)
    shape = (len(kept), plan.channels, *plan.image_size)
    return _Written(
        SplitHeader(shape, rows.masks is not None),
        labels,
        split_digest(hasher, shape, labels),
        skipped,
    )


def _blocks(rows: RawSplit, plan: _Plan, pool: ThreadPoolExecutor) -> Iterator[_Block]:
    size = math.prod(plan.image_size) * plan.channels
    step = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // size))
    for start in range(0, len(rows), step):
        chosen = range(start, min(start + step, len(rows)))
        encoded = rows.read(chosen)
        tasks = [encoded[i : i + _TASK_ROWS] for i in range(0, len(encoded), _TASK_ROWS)]
        results = list(
            chain.from_iterable(
                pool.map(lambda task: [_pixels(image, plan) for _, image in task], tasks)
            )
        )
        good = [i for i, result in enumerate(results) if isinstance(result, np.ndarray)]
        stacked = np.array([results[i] for i in good], dtype=np.uint8).reshape(
            len(good), *plan.image_size, plan.channels
        )
        yield _Block(
            pixels=np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)),
            rows=[chosen[i] for i in good],
            names=[encoded[i][0] for i in good],
            bad=[
                (encoded[i][0], result)
                for i, result in enumerate(results)
                if isinstance(result, str)
            ],
        )


def _pixels(encoded: Encoded, plan: _Plan) -> np.ndarray | str:
    """(H, W, C) uint8, or why there are none."""
    try:
        image = open_image(encoded, plan.image_size)
        image.load()
        colored = plan.channels == 1 and not is_gray(image)
        pixels = None if colored else to_pixels(image, plan.image_size, plan.channels)
    except Exception as error:  # a damaged file raises nearly anything inside Pillow
        return reason(error)
    if pixels is None:
        raise _ColorFound
    return pixels


def _fitted_mask(mask: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:  # (H, W) bool
    return np.asarray(fit(Image.fromarray(mask.astype(np.uint8) * 255), image_size)) >= 128
