"""A directory or an archive as names and contents; members of an archive are never extracted."""

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from seewhy.data.listing import IMAGE_SUFFIXES, is_folder, is_ignored, natural_key, printable
from seewhy.errors import SeewhyError
from seewhy.files import problem_of_file

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DEEPEST = 4  # folders below the root, such as data/MNIST/raw


@dataclass(frozen=True, eq=False)
class FileTree:
    """The files of a directory or of an archive, by their path inside it."""

    path: Path
    names: tuple[str, ...]  # relative POSIX paths, in natural order
    read: Callable[[Sequence[str]], dict[str, bytes]]
    image_folders: tuple[str, ...] = ()  # below the root; their files are not listed


@dataclass(frozen=True)
class NamedFile:
    """The content of a file, and its name in messages."""

    name: str
    content: bytes

    def damaged(self, reason: object) -> SeewhyError:
        """The error for a file with the wrong content."""
        text = " ".join(str(reason).split()) or type(reason).__name__
        return SeewhyError(f"{self.name} is damaged ({text[:200]}); download it again")


def is_archive(path: Path) -> bool:
    """Whether the file name is that of an archive."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def directory_tree(root: Path) -> FileTree:
    """The files of a directory and of the folders in it; a folder of images is only noted."""
    names: list[str] = []
    image_folders: list[str] = []

    def scan(folder: Path, relative: str, depth: int) -> None:
        files, folders = [], []
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_ignored(entry.name):
                    continue
                if is_folder(entry):
                    folders.append(entry.name)
                elif depth and Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                    image_folders.append(relative)
                    return  # a folder of a class may have a million more
                else:
                    files.append(entry.name)
        names.extend(relative + name for name in sorted(files, key=natural_key))
        if depth < _DEEPEST:
            for name in sorted(folders, key=natural_key):
                scan(folder / name, f"{relative}{name}/", depth + 1)

    scan(root, "", 0)

    def read(wanted: Sequence[str]) -> dict[str, bytes]:
        return {name: read_file(root / name) for name in wanted}

    return FileTree(root, tuple(names), read, tuple(image_folders))


def read_file(path: Path) -> bytes:
    """The content of a file. Raises SeewhyError if it cannot be read."""
    check_regular_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise SeewhyError(f"{path} cannot be read ({error.strerror}); restore it") from error


def check_regular_file(path: Path) -> None:
    """Raise SeewhyError if `path` is a pipe, a device or something else that is not a file."""
    if problem := problem_of_file(path):
        raise SeewhyError(f"{printable(str(path))} is {problem}; remove it, or restore the file")


def archive_tree(path: Path) -> FileTree:
    """The regular files in an archive; links and directories are left out.

    Raises SeewhyError if it is damaged, or a name leads out of the archive.
    """
    check_regular_file(path)
    opened = _zip_members if path.name.lower().endswith(".zip") else _tar_members
    with _reading(path), opened(path) as members:
        names = tuple(members)

    def read(wanted: Sequence[str]) -> dict[str, bytes]:
        with _reading(path), opened(path) as members:
            # in their order in the archive: a compressed tar can only be read forward
            chosen = set(wanted).intersection(members)
            return {name: content() for name, content in members.items() if name in chosen}

    return FileTree(path, names, read)


@contextmanager
def _zip_members(path: Path) -> Iterator[Mapping[str, Callable[[], bytes]]]:
    with zipfile.ZipFile(path) as archive:
        yield {
            _inside(path, member.filename): partial(archive.read, member)
            for member in archive.infolist()
            if not member.is_dir()
        }


@contextmanager
def _tar_members(path: Path) -> Iterator[Mapping[str, Callable[[], bytes]]]:
    with tarfile.open(path) as archive:

        def content(member: tarfile.TarInfo) -> bytes:
            file = archive.extractfile(member)  # opens the member, and writes nothing
            data = file.read() if file else b""
            if len(data) != member.size:
                raise EOFError(f"{member.name} ends early")
            return data

        yield {
            _inside(path, member.name): partial(content, member)
            for member in archive.getmembers()
            if member.isreg()
        }


def _inside(path: Path, name: str) -> str:
    """The name of a member. Raises SeewhyError if it leads out of the archive."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0]:
        raise SeewhyError(
            f"{path}: the name {name!r} leads out of the archive, so it is not trusted; "
            "pack its files again"
        )
    return "/".join(parts)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged archive into a SeewhyError."""
    try:
        yield
    except (
        OSError,
        EOFError,
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        RuntimeError,  # encrypted, or an unknown compression
    ) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise SeewhyError(
            f"{path} cannot be read as an archive ({text[:200]}); download it again"
        ) from error
