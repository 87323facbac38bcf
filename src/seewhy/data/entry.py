"""The files of one cache entry: a JSON header, and for each split its pixels, labels and names, ready to be memory-mapped."""

import contextlib
import errno
import json
import math
import mmap
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError

FORMAT = 1  # raise it when the files or the decoding change: older entries are then built anew

# Without it Linux counts a private writable mapping as memory, and refuses one larger than the machine's.
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


class DamagedEntry(Exception):
    """The files of a cache entry do not fit together."""


@dataclass(frozen=True)
class SplitHeader:
    """What the files of one split hold."""

    shape: tuple[int, int, int, int]  # N, C, H, W
    masks: bool


@dataclass(frozen=True)
class Header:
    """What an entry holds."""

    classes: tuple[str, ...]
    splits: Mapping[str, SplitHeader]
    fingerprint: str
    skipped: tuple[str, ...]


def read_entry(directory: Path) -> tuple[Header, dict[str, Split]]:
    """The entry in `directory`, its pixels memory-mapped. Raises DamagedEntry where a file is missing, short or garbled."""
    try:
        stored = json.loads((directory / "entry.json").read_bytes())
        splits = {name: SplitHeader(tuple(split["shape"]), split["masks"]) for name, split in stored["splits"].items()}
        header = Header(tuple(stored["classes"]), splits, stored["fingerprint"], tuple(stored["skipped"]))
        return header, {name: _read_split(directory, name, split) for name, split in splits.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedEntry(str(error)) from error


def write_header(directory: Path, header: Header) -> None:
    """Write what `read_entry` reads first."""
    with durable(directory / "entry.json") as file:
        file.write(json.dumps(asdict(header)).encode())


def write_names(directory: Path, split: str, names: list[str]) -> None:
    """Write the names of a split's images."""
    with durable(directory / f"{split}.names") as file:
        file.write(json.dumps(names).encode())


@contextlib.contextmanager
def durable(path: Path) -> Iterator[BinaryIO]:
    """A new file that is on the disk, not only in its cache, when the block ends."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def require_space(directory: Path, needed: int) -> Iterator[None]:
    """Raises SeewhyError if `directory` has no room for `needed` bytes, now or when the block runs out of it."""
    free = shutil.disk_usage(directory).free
    remedy = "make room, choose a smaller image_size, or set SEEWHY_CACHE to a directory on another disk"
    if free < needed:
        raise SeewhyError(f"no space in {directory.parent}: {needed:,} bytes are needed, {free:,} are free; {remedy}")
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SeewhyError(f"no space in {directory.parent}: {needed:,} bytes are needed; {remedy}") from error


def map_bytes(path: Path, shape: tuple[int, ...]) -> Tensor:  # `shape` uint8
    """A file as a tensor whose pages are read when touched; writing to it changes a private copy, never the file.

    Raises DamagedEntry if the file has not exactly as many bytes as `shape`.
    """
    size = math.prod(shape)
    found = path.stat().st_size
    if found != size or size == 0:
        raise DamagedEntry(f"{path.name} has {found:,} bytes, not {size:,}")
    with path.open("rb") as file:
        if sys.platform == "win32":
            mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
        else:
            private = mmap.MAP_PRIVATE | _NORESERVE
            mapping = mmap.mmap(file.fileno(), size, flags=private, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return torch.frombuffer(mapping, dtype=torch.uint8).view(shape)


def _read_split(directory: Path, name: str, header: SplitHeader) -> Split:
    count, _, height, width = header.shape
    labels = np.fromfile(directory / f"{name}.labels", dtype="<i8")
    names = json.loads((directory / f"{name}.names").read_bytes())
    if len(labels) != count or len(names) != count:
        raise DamagedEntry(f"the {name} split has {len(labels):,} labels and {len(names):,} names for {count:,} images")
    return Split(
        images=map_bytes(directory / f"{name}.images", header.shape),
        labels=torch.from_numpy(labels.astype(np.int64)),
        names=names,
        masks=map_bytes(directory / f"{name}.masks", (count, height, width)).view(torch.bool) if header.masks else None,
    )
