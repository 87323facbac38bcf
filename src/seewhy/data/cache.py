"""The cache of decoded data sets: one directory per entry, complete or absent, built by one process at a time."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from seewhy.data.dataset import Split
from seewhy.data.entry import FORMAT, DamagedEntry, Header, read_entry
from seewhy.data.progress import note
from seewhy.errors import SeewhyError


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
    except (FileNotFoundError, DamagedEntry):  # damaged: looked at again under the lock, another process may be mending it
        pass
    with _writing(folder), _locked(folder / f"{stem}.lock", title, quiet):
        try:
            return _first_entry(homes)
        except FileNotFoundError:
            pass
        except DamagedEntry as error:
            note(f"the cached copy of {title} is damaged ({error}); decoding it anew", quiet)
        work = folder / f".{stem}.unfinished"  # whoever holds the lock is the only writer: what lies there is a dead one's
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
