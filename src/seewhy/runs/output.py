"""Output directories: their names, their locks, and the link to the latest run."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from seewhy.errors import SeewhyError
from seewhy.files import (
    is_fragment,
    make_directory,
    remove_fragments,
    temporary_path,
    write_error,
)
from seewhy.runs.directory import ENVIRONMENT, WRITTEN_FIRST, has_started

AUTOMATIC_NAME = re.compile(r"\d{8}-\d{4}-")  # start of names from new_directory


def new_directory(name: str, root: str | Path = "runs") -> Path:
    """Make an empty directory ROOT/DATE-TIME-NAME; a number is appended if it exists."""
    stem = f"{datetime.now():%Y%m%d-%H%M}-{name}"
    for number in range(1, 10_000):
        path = Path(root) / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise write_error(path, error) from error
        return path
    raise SeewhyError(
        f"{root} already contains 10,000 runs of this minute; pass an output directory"
    )


@contextmanager
def run_directory(
    name: str, output: Path | None = None, root: str | Path = "runs"
) -> Iterator[Path]:
    """Yield `output`, or a new directory in `root`; a new directory that stays empty is removed."""
    if output is not None:
        with claim_directory(output):
            yield output
        return
    directory = new_directory(name, root)
    try:
        yield directory
    finally:
        for empty in (directory, directory.parent):
            with suppress(OSError):
                empty.rmdir()  # fails unless it is empty


def check_empty(directory: Path) -> None:
    """Raise SeewhyError unless `directory` is empty: a run directory is never overwritten.

    The files of a run that was killed before it started do not count: nothing is lost with them.
    """
    if directory.exists() and not is_unused(directory):
        problem = "is not empty" if directory.is_dir() else "is not a directory"
        raise SeewhyError(
            f"{directory} {problem}; nothing was written; choose another directory, or remove it"
        )


def is_unused(directory: Path) -> bool:
    """Whether a directory holds nothing but files of a run that was killed before it started."""
    killed = (directory / ENVIRONMENT).is_file() and not has_started(directory)
    return directory.is_dir() and all(
        is_fragment(path) or (killed and path.name in WRITTEN_FIRST) for path in directory.iterdir()
    )


@contextmanager
def claim_directory(directory: Path | None) -> Iterator[None]:
    """Hold the lock of an empty directory inside the block (see `check_empty`).

    Raises SeewhyError if the directory is not empty, DirectoryLocked if another process claims it.
    """
    with lock_directory(directory):
        if directory is not None:
            check_empty(directory)
            for path in directory.iterdir() if directory.exists() else ():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield


class DirectoryLocked(SeewhyError):
    """Another process is writing to the directory."""


@contextmanager
def lock_directory(directory: Path | None) -> Iterator[None]:
    """Prevent other processes from writing to `directory`. Locks may be nested.

    Temporary files of processes that were killed are removed.

    Raises DirectoryLocked if another process holds the lock.
    """
    if directory is None:
        yield
        return
    directory = directory.resolve()
    make_directory(directory.parent)
    path = directory.with_name(f".{directory.name}.lock")
    lock = FileLock(path, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DirectoryLocked(
            f"another process is writing to {directory}; wait for it or stop it, then resume"
        ) from None
    except OSError as error:
        raise write_error(path, error) from error
    try:
        if lock.lock_counter == 1:  # the outermost one
            remove_fragments(directory)
        yield
    finally:
        lock.release()
        if not lock.is_locked:
            with suppress(OSError):
                path.unlink()


def link_latest(directory: Path) -> None:
    """Point the symbolic link `latest` to a run with an automatic name, if links are supported."""
    latest = directory.parent / "latest"
    temporary = temporary_path(latest)
    replaceable = not latest.exists() or (
        latest.is_symlink() and AUTOMATIC_NAME.match(latest.readlink().name)
    )
    if not (AUTOMATIC_NAME.match(directory.name) and replaceable):
        return
    try:
        temporary.symlink_to(directory.name)
        temporary.replace(latest)
    except OSError:
        temporary.unlink(missing_ok=True)
