"""The cache of decoded datasets: a JSON header, and pixels, labels and names of each split.

Everything has checksums. Those of the pixels are verified when they are read, the others at once.
"""

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

from seewhy.data.checksums import (
    SUFFIX,
    ChecksummedFile,
    checked_tensor,
    checksummed,
    read_checksums,
    verify,
)
from seewhy.data.dataset import Split
from seewhy.data.decode import ORIGINAL
from seewhy.data.pixel_range import ValueRange, check_range
from seewhy.errors import SeewhyError
from seewhy.files import is_stream, problem_of_path
from seewhy.progress import note

FORMAT = 4  # increase it when the files or the decoding change; older entries are then rebuilt

# Without it Linux counts a private writable mapping as memory, and may refuse a large one.
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


HEADER, DAMAGED = "entry.json", "damaged"  # the second one says why an entry is to be rebuilt
_SMALL = (
    ".labels",
    ".names",
    ".originals",
    SUFFIX,
)  # files that are verified when an entry is opened


class DamagedEntry(Exception):
    """The files of a cache entry are inconsistent."""


@dataclass(frozen=True)
class SplitHeader:
    """Shape of a split's pixels, and whether it has masks."""

    shape: tuple[int, int, int, int]  # N, C, H, W
    masks: bool


@dataclass(frozen=True)
class Header:
    """Content of entry.json."""

    classes: tuple[str, ...]
    splits: Mapping[str, SplitHeader]
    fingerprint: str
    skipped: tuple[str, ...]
    value_range: ValueRange | None = None  # of images with more than 8 bits
    held_out: tuple[str, ...] = ()  # splits that were drawn from train
    folds: tuple[int, ...] = ()  # of each training image, from 0, for cross-validation
    left_out: int = 0  # test images of the source that take no part in it
    multi_label: bool = False  # whether labels are (N, K) bool instead of (N,) int64


def read_entry(directory: Path) -> tuple[Header, dict[str, Split]]:
    """Read the entry in `directory`, with memory-mapped pixels.

    Raises DamagedEntry if a file is missing or damaged. Damaged pixels raise SeewhyError when they
    are read.
    """
    try:
        for path in filter(is_stream, directory.iterdir()):  # reading it might never end
            raise DamagedEntry(problem_of_path(path))
        if (directory / DAMAGED).exists():
            raise DamagedEntry((directory / DAMAGED).read_text(encoding="utf-8"))
        stored = json.loads((directory / HEADER).read_bytes())
        digest = stored.pop("digest")
        if digest != _digest(json.dumps(stored).encode()):
            raise DamagedEntry(f"the checksum of {HEADER} does not match")
        for name, expected in stored["digests"].items():
            if _digest((directory / name).read_bytes()) != expected:
                raise DamagedEntry(f"the checksum of {name} does not match")
        splits = {
            name: SplitHeader(tuple(split["shape"]), split["masks"])
            for name, split in stored["splits"].items()
        }
        header = Header(
            tuple(stored["classes"]),
            splits,
            stored["fingerprint"],
            tuple(stored["skipped"]),
            check_range(stored["value_range"]),
            tuple(stored.get("held_out", ())),
            tuple(stored.get("folds", ())),
            int(stored.get("left_out", 0)),
            bool(stored.get("multi_label", False)),
        )
        return header, {name: _read_split(directory, name, header) for name in splits}
    except KeyError as error:
        raise DamagedEntry(f"{HEADER} has no {error}; it is of another version") from error
    except (OSError, ValueError, TypeError, AttributeError, SeewhyError) as error:
        raise DamagedEntry(str(error)) from error


def write_header(directory: Path, header: Header) -> None:
    """Write entry.json, with checksums of all files but the pixels, which are there already."""
    small = [path for path in sorted(directory.iterdir()) if path.suffix in _SMALL]
    values = {
        **asdict(header),
        "digests": {path.name: _digest(path.read_bytes()) for path in small},
    }
    with durable(directory / HEADER) as file:
        file.write(json.dumps({**values, "digest": _digest(json.dumps(values).encode())}).encode())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def write_names(directory: Path, split: str, names: list[str], originals: np.ndarray) -> None:
    """Write the names of a split's images, and their `originals` (N,) of the dtype ORIGINAL."""
    with durable(directory / f"{split}.names") as file:
        file.write(json.dumps(names).encode())
    with durable(directory / f"{split}.originals") as file:
        file.write(originals.tobytes())


@contextlib.contextmanager
def array_file(path: Path, row_bytes: int) -> Iterator[ChecksummedFile]:
    """Open a new file for an array with rows of equal size; their checksums go beside it."""
    with (
        durable(path) as file,
        durable(path.with_name(path.name + SUFFIX)) as checksums,
        checksummed(file, checksums, row_bytes) as writer,
    ):
        yield writer


@contextlib.contextmanager
def durable(path: Path) -> Iterator[BinaryIO]:
    """Open a new file for writing, and sync it to disk when the block ends."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def require_space(directory: Path, needed: int) -> Iterator[None]:
    """Raise SeewhyError if there is no disk space for `needed` bytes, now or inside the block."""
    free = shutil.disk_usage(directory).free
    remedy = "free some space, choose a smaller image_size, or set SEEWHY_CACHE to another disk"
    if free < needed:
        raise SeewhyError(
            f"no space in {directory.parent}: {needed:,} bytes are needed, {free:,} are free; "
            f"{remedy}"
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
    """A file as a memory-mapped tensor (copy-on-write: the file never changes).

    Raises DamagedEntry if the size of the file does not match `shape`.
    """
    size = math.prod(shape)
    actual = path.stat().st_size
    if actual != size or size == 0:
        raise DamagedEntry(f"{path.name} has {actual:,} bytes, not {size:,}")
    with path.open("rb") as file:
        if sys.platform == "win32":
            mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
        else:
            private = mmap.MAP_PRIVATE | _NORESERVE
            mapping = mmap.mmap(
                file.fileno(), size, flags=private, prot=mmap.PROT_READ | mmap.PROT_WRITE
            )
    return torch.frombuffer(mapping, dtype=torch.uint8).view(shape)


def _read_split(directory: Path, name: str, entry: Header) -> Split:
    header = entry.splits[name]
    count, _, height, width = header.shape
    if entry.multi_label:
        flags = np.fromfile(directory / f"{name}.labels", dtype=np.uint8)
        labels = flags.reshape(-1, len(entry.classes)).astype(bool)
    else:
        labels = np.fromfile(directory / f"{name}.labels", dtype="<i8").astype(np.int64)
    names = json.loads((directory / f"{name}.names").read_bytes())
    originals = np.fromfile(directory / f"{name}.originals", dtype=ORIGINAL)
    for kind, values in {"labels": labels, "names": names, "originals": originals}.items():
        if len(values) != count:
            raise DamagedEntry(f"the {name} split has {len(values):,} {kind} for {count:,} images")
    masks = None
    if header.masks:
        masks = _map_checked(directory / f"{name}.masks", (count, height, width), torch.bool)
    return Split(
        images=_map_checked(directory / f"{name}.images", header.shape, torch.uint8),
        labels=torch.from_numpy(labels),
        names=names,
        masks=masks,
        originals=originals,
    )


def _map_checked(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A file as a memory-mapped tensor, verified when it is read."""
    checksums = read_checksums(path.with_name(path.name + SUFFIX), shape[0], math.prod(shape[1:]))

    def damaged(row: int) -> SeewhyError:
        reason = f"{path.name} from image {row:,} on"
        with contextlib.suppress(OSError):  # of a cache that cannot be written
            (path.parent / DAMAGED).write_text(reason, encoding="utf-8")
        return SeewhyError(
            f"the cached copy of the data in {path.parent} is damaged ({reason}); try again: it "
            "will be decoded anew"
        )

    return checked_tensor(map_bytes(path, shape).view(dtype), checksums, damaged)


def cache_entries() -> list[Path]:
    """The directories of the datasets in the cache."""
    folder = cache_root() / "datasets"
    names = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in names if path.is_dir() and not path.name.startswith(".")]


def verify_entry(directory: Path) -> str:
    """Read all of an entry. Returns what is damaged, which the next `load` decodes anew, or ""."""
    try:
        _, splits = read_entry(directory)
        for split in splits.values():
            for array in (split.images, split.masks):
                if array is not None:
                    verify(array)
    except (DamagedEntry, SeewhyError) as error:
        return str(error)
    return ""


def cache_root() -> Path:
    """$SEEWHY_CACHE, or $XDG_CACHE_HOME/seewhy, or ~/.cache/seewhy."""
    if root := os.environ.get("SEEWHY_CACHE"):
        return Path(root).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "seewhy"


def open_or_build(
    title: str, key: Mapping[str, object], seed: int, build: Callable[[Path], bool], quiet: bool
) -> tuple[Header, dict[str, Split]]:
    """Open the cache entry of `key`, or build it.

    Args:
        title: Name of the dataset, for messages and the name of the entry.
        key: JSON values that determine the content, apart from the seed.
        seed: Seed of the splits. Entries that do not depend on it are stored once.
        build: Writes an entry into an empty directory; returns whether it depends on the seed.
        quiet: Print nothing.

    Returns:
        Header, and splits by name.

    Raises:
        SeewhyError: The cache cannot be written.
    """
    folder = cache_root() / "datasets"
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40]
    content = json.dumps({"format": FORMAT, **key}, sort_keys=True).encode()
    stem = f"{slug}-{hashlib.blake2b(content, digest_size=10).hexdigest()}"
    entries = (folder / stem, folder / f"{stem}-seed{seed}")
    try:
        return _first_entry(entries)
    except (FileNotFoundError, DamagedEntry):
        pass  # read again under the lock: another process may have built it
    with _writing(folder), _locked(folder / f"{stem}.lock", title, quiet):
        try:
            return _first_entry(entries)
        except FileNotFoundError:
            pass
        except DamagedEntry as error:
            note(f"the cached copy of {title} is damaged ({error}); decoding it again", quiet)
        # under the lock, an unfinished directory belongs to a dead process
        work = folder / f".{stem}.unfinished"
        for leftover in (*entries, work):
            shutil.rmtree(leftover, ignore_errors=True)
        work.mkdir()
        try:
            entry = entries[build(work)]
            _sync(work)
            work.rename(entry)
            _sync(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return read_entry(entry)


def _first_entry(entries: tuple[Path, ...]) -> tuple[Header, dict[str, Split]]:
    for entry in entries:
        if entry.is_dir():
            return read_entry(entry)
    raise FileNotFoundError


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn an OSError of the cache into a SeewhyError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise SeewhyError(
            f"cannot write the cache in {folder} ({error}); "
            "free some space, make it writable, or set SEEWHY_CACHE to another directory"
        ) from error


@contextmanager
def _locked(path: Path, title: str, quiet: bool) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        note(f"waiting for another process to decode {title}", quiet)
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
