"""Atomic writes, whose readers never see partial files, and what a path is."""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seewhy.errors import SeewhyError

_FRAGMENT = re.compile(r"\..+-(\d+)(?:\.\w+)?")  # names of temporary_path
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def problem_of_file(path: Path) -> str:
    """Why `path` is not a regular file, as in "a named pipe, not a regular file"; empty if it is.

    Reading anything else could block forever, or never end. Raises OSError if it cannot be looked
    up.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            return f"a link to {path.readlink()}, which does not exist"
        return "missing"
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return "a link that leads to itself"
    if stat.S_ISREG(mode):
        return ""
    return f"{_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a regular file"


def problem_of_path(path: Path) -> str:
    """`problem_of_file` with the path, as in "x.pth does not exist"."""
    problem = problem_of_file(path)
    if problem == "missing":
        return f"{path} does not exist"
    return f"{path} is {problem}" if problem else ""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path in the same directory, sync, and rename it to `path`.

    Raises SeewhyError if the disk is full or the directory cannot be written; `path` is then
    unchanged.
    """
    with writing_atomically(path) as temporary:
        write(temporary)


@contextmanager
def writing_atomically(path: Path) -> Iterator[Path]:
    """`write_atomically` as a block that writes the temporary path.

    A device or a pipe, such as /dev/null, is written itself: a rename would replace it by a file.
    """
    if is_stream(path):
        try:
            yield path
        except OSError as error:
            raise write_error(path, error) from error
        return
    temporary = temporary_path(path)
    try:
        yield temporary
        with temporary.open("r+b") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):  # the directory itself may be missing
            temporary.unlink(missing_ok=True)


def is_stream(path: Path) -> bool:
    """Whether `path` is a device, a pipe or a socket, or a link to an open file as /dev/stdout."""
    if path.is_symlink() and path.absolute().is_relative_to("/dev"):
        return True
    return path.exists() and not (path.is_file() or path.is_dir())


def check_file_name(path: Path) -> None:
    """Raise SeewhyError for a path without a name to write, such as `.` or `/`."""
    if path.name in ("", ".."):
        raise SeewhyError(f"{path} is a directory; add the name of the file to write")


def check_output_file(path: Path) -> None:
    """Raise SeewhyError for a file that could not be written; checked before the work for it.

    Directories that are missing are made when it is written.
    """
    check_file_name(path)
    if path.is_dir():
        raise SeewhyError(f"{path} is a directory; add the name of the file to write")
    if is_stream(path):
        return
    parent = next(each for each in path.absolute().parents if os.path.lexists(each))
    if not parent.is_dir() or not is_writable(parent):
        problem = "is read-only" if parent.is_dir() else "is not a directory"
        raise SeewhyError(
            f"{path} could not be written, because {parent} {problem}; choose another place"
        )


def temporary_path(path: Path) -> Path:
    """Where this process writes `path` before it renames the file. Raises as `check_file_name`."""
    check_file_name(path)
    return path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")


def is_fragment(path: Path) -> bool:
    """Whether a file has a name of `temporary_path`, and its process does not run any more."""
    fragment = _FRAGMENT.fullmatch(path.name)
    return fragment is not None and not path.is_dir() and not _is_alive(int(fragment[1]))


def remove_fragments(directory: Path) -> None:
    """Remove the temporary files below `directory` of processes that were killed."""
    for path in directory.rglob(".*"):
        if is_fragment(path):
            with suppress(OSError):
                path.unlink()


def _is_alive(process: int) -> bool:
    """Whether another process with this number runs on this machine."""
    if os.name != "posix":  # elsewhere the question would end the process
        return True
    try:
        os.kill(process, 0)
    except PermissionError:  # it belongs to another user
        return True
    except (ProcessLookupError, OverflowError):
        return False
    # a restarted container has the same number, and its predecessor is dead
    return process != os.getpid()


def _sync_directory(path: Path) -> None:
    """Sync a rename to disk; skipped on Windows, which cannot open directories."""
    with suppress(PermissionError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str, newline: str | None = None) -> None:
    """Write UTF-8 text atomically; `newline` is that of open()."""
    write_atomically(
        path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline=newline)
    )


def make_directory(path: Path) -> None:
    """Make a directory and its parents. Raises SeewhyError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def is_writable(directory: Path) -> bool:
    """Whether files can be made in a directory."""
    return os.access(directory, os.W_OK | os.X_OK)


def write_error(path: Path, error: OSError) -> SeewhyError:
    """A SeewhyError for a failed write: one line with the remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SeewhyError(
            f"the disk is full: {path} could not be written; "
            "free some space, or choose another directory"
        )
    return SeewhyError(
        f"{path} could not be written ({error.strerror or error}); choose another directory"
    )


def safe_file_name(text: str) -> str:
    """`text` with a hyphen in place of characters that are not safe in a file name."""
    return re.sub(r"[^\w.+=-]+", "-", text).strip("-") or "image"
