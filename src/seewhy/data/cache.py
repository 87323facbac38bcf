"""The files of one cache entry: a JSON header, and for each split its pixels, labels and names, ready to be memory-mapped."""

import contextlib
import errno
import hashlib
import json
import math
import mmap
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.progress import note

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
        splits = {
            name: SplitHeader(tuple(split["shape"]), split["masks"])
            for name, split in stored["splits"].items()
        }
        header = Header(
            tuple(stored["classes"]), splits, stored["fingerprint"], tuple(stored["skipped"])
        )
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
    remedy = (
        "make room, choose a smaller image_size, or set SEEWHY_CACHE to a directory on another disk"
    )
    if free < needed:
        raise SeewhyError(
            f"no space in {directory.parent}: {needed:,} bytes are needed, {free:,} are free; {remedy}"
        )
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SeewhyError(
            f"no space in {directory.parent}: {needed:,} bytes are needed; {remedy}"
        ) from error


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
            mapping = mmap.mmap(
                file.fileno(), size, flags=private, prot=mmap.PROT_READ | mmap.PROT_WRITE
            )
    return torch.frombuffer(mapping, dtype=torch.uint8).view(shape)


def _read_split(directory: Path, name: str, header: SplitHeader) -> Split:
    count, _, height, width = header.shape
    labels = np.fromfile(directory / f"{name}.labels", dtype="<i8")
    names = json.loads((directory / f"{name}.names").read_bytes())
    if len(labels) != count or len(names) != count:
        raise DamagedEntry(
            f"the {name} split has {len(labels):,} labels and {len(names):,} names for {count:,} images"
        )
    return Split(
        images=map_bytes(directory / f"{name}.images", header.shape),
        labels=torch.from_numpy(labels.astype(np.int64)),
        names=names,
        masks=map_bytes(directory / f"{name}.masks", (count, height, width)).view(torch.bool)
        if header.masks
        else None,
    )


def cache_root() -> Path:
    """$SEEWHY_CACHE, or $XDG_CACHE_HOME/seewhy, or ~/.cache/seewhy."""
    if own := os.environ.get("SEEWHY_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "seewhy"


def open_or_build(
    title: str, key: Mapping[str, object], seed: int, build: Callable[[Path], bool], quiet: bool
) -> tuple[Header, dict[str, Split]]:
    """The entry of `key`; `build` fills a directory with it if there is none, and says whether it depends on the seed.

    Data whose splits are not drawn by chance is stored once, whatever the seed. Raises SeewhyError where the cache
    cannot be written.
    """
    folder = cache_root() / "datasets"
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40]
    content = json.dumps({"format": FORMAT, **key}, sort_keys=True).encode()
    stem = f"{slug}-{hashlib.blake2b(content, digest_size=10).hexdigest()}"
    homes = (folder / stem, folder / f"{stem}-seed{seed}")
    try:
        return _first_entry(homes)
    except (
        FileNotFoundError,
        DamagedEntry,
    ):  # damaged: looked at again under the lock, another process may be mending it
        pass
    with _writing(folder), _locked(folder / f"{stem}.lock", title, quiet):
        try:
            return _first_entry(homes)
        except FileNotFoundError:
            pass
        except DamagedEntry as error:
            note(f"the cached copy of {title} is damaged ({error}); decoding it anew", quiet)
        work = (
            folder / f".{stem}.unfinished"
        )  # whoever holds the lock is the only writer: what lies there is a dead one's
        for leftover in (*homes, work):
            shutil.rmtree(leftover, ignore_errors=True)
        work.mkdir()
        try:
            home = homes[build(work)]
            _sync(work)
            work.rename(home)
            _sync(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return read_entry(home)


def _first_entry(homes: tuple[Path, ...]) -> tuple[Header, dict[str, Split]]:
    for home in homes:
        if home.is_dir():
            return read_entry(home)
    raise FileNotFoundError


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turns a failure of the disk under the cache into a SeewhyError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise SeewhyError(
            f"cannot fill the cache in {folder} ({error}); make room, make it writable, or set SEEWHY_CACHE elsewhere"
        ) from error


@contextmanager
def _locked(path: Path, title: str, quiet: bool) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        note(f"waiting for another process that decodes {title}", quiet)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sync(directory: Path) -> None:
    if os.name == "posix":  # elsewhere a directory cannot be opened
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
