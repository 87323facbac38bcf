"""Files below a directory, in natural order, and a cheap signature of their content."""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_JUNK = {"thumbs.db", "desktop.ini", "__macosx", "icon\r"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
IMAGE_SUFFIXES |= {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".heic", ".heif"}
_SAMPLED_FILES = 64  # number of files that are partially hashed on each load
_SAMPLED_BYTES = 4096  # at the start and at the end of each file


@dataclass(frozen=True)
class ListedFile:
    """A file with its size and time, which change when it is replaced."""

    path: Path
    size: int
    mtime_ns: int


def listed_file(path: Path) -> ListedFile:
    """The file at `path`, which may be a broken link."""
    stat = path.stat() if path.exists() else path.lstat()  # decoding reports a broken link
    return ListedFile(path, stat.st_size, stat.st_mtime_ns)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def list_folders(root: Path) -> list[Path]:
    """The folders in `root`, in natural order, without hidden and system folders."""
    return sorted(
        (path for path in root.iterdir() if path.is_dir() and not is_ignored(path.name)),
        key=lambda p: natural_key(p.name),
    )


def list_files(root: Path, deep: bool) -> list[ListedFile]:
    """The files in `root` (and below), in natural order, without hidden and system files."""
    files = []
    visited = set()
    for folder, subfolders, names in os.walk(root, onerror=_raise, followlinks=True):
        subfolders[:] = sorted(
            (
                name
                for name in subfolders
                if deep and not is_ignored(name) and not _leads_up(Path(folder, name))
            ),
            key=natural_key,
        )
        real = os.path.realpath(folder)
        if real in visited:  # links to each other's folders would be followed forever
            subfolders.clear()
            continue
        visited.add(real)
        files += [
            listed_file(Path(folder, name))
            for name in sorted(names, key=natural_key)
            if not is_ignored(name)
        ]
    return files


def _leads_up(folder: Path) -> bool:
    """Whether a folder is a link to one above it, whose files are not those of the link."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _raise(error: OSError) -> None:
    raise error  # os.walk would skip a folder without read permission


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or made by an operating system."""
    return name.startswith(".") or name.lower() in _JUNK


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """A sort key that puts class2 before class10."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


def printable(name: str) -> str:
    """`name` with bytes that are not UTF-8 escaped, for terminals, JSON and figures."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def signature(root: Path, files: Mapping[str, Sequence[ListedFile]]) -> list[object]:
    """Path, size and time of every file, and a hash of parts of some files.

    The hash distinguishes directories with equal names, sizes and times, such as unpacked archives.
    """
    all_files = [file for members in files.values() for file in members]
    return [
        _sample_digest(all_files),
        *(
            [
                role,
                *(
                    (file.path.relative_to(root).as_posix(), file.size, file.mtime_ns)
                    for file in members
                ),
            ]
            for role, members in files.items()
        ),
    ]


def _sample_digest(files: Sequence[ListedFile]) -> str:
    """Hex digest of the first and the last bytes of evenly spaced files."""
    hasher = hashlib.blake2b(digest_size=16)
    for i in np.unique(np.linspace(0, len(files) - 1, _SAMPLED_FILES).astype(np.int64)).tolist():
        if not files[i].path.is_file():  # a broken link, or a pipe, which would block
            continue
        try:
            with files[i].path.open("rb", buffering=0) as file:
                hasher.update(file.read(_SAMPLED_BYTES))
                file.seek(max(0, files[i].size - _SAMPLED_BYTES))
                hasher.update(file.read(_SAMPLED_BYTES))
        except OSError:  # decoding reports it
            pass
    return hasher.hexdigest()
