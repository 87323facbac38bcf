"""A directory as a data set: Parquet files in the hub's layout, or a folder of images for each class."""

import errno
import glob
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seewhy.data.decode import Encoded
from seewhy.data.huggingface import library_offline, library_quiet, raw_dataset_from_tables
from seewhy.data.raw import (
    LoadRequest,
    RawDataset,
    RawSplit,
    Source,
    note_unused,
    split_role,
    split_roles,
)
from seewhy.errors import SeewhyError

_JUNK = {"thumbs.db", "desktop.ini", "__macosx", "icon\r"}
_IMAGE_SUFFIXES = {
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".jp2",
    ".avif",
}
_SHARD = re.compile(
    r"(?P<split>.+)-\d{5}-of-\d{5}\.parquet", re.IGNORECASE
)  # as the hub names its files
_GLIMPSED = 64  # files whose content is looked at on every load
_GLIMPSE = 4096  # bytes at the start and at the end of each


@dataclass(frozen=True)
class _File:
    path: Path
    size: int
    mtime_ns: int


def directory(path: Path) -> Source:
    """The data set in the directory `path`. Raises SeewhyError where it holds neither Parquet files nor folders of images."""
    if not path.exists():
        raise SeewhyError(
            f"{path} does not exist; give a directory of class folders or of Parquet files"
        )
    if not path.is_dir():
        raise SeewhyError(
            f"{path} is a file; give the directory that holds the class folders or the Parquet files"
        )
    root = path.resolve()
    if _printable(str(root)) != str(root):
        raise SeewhyError(
            f"the directory's path {_printable(str(root))} is not valid UTF-8; rename what is not"
        )
    try:
        parquet = _parquet_files(root)
        return _parquet_source(root, parquet) if parquet else _class_folders(root)
    except OSError as error:
        raise SeewhyError(f"{root} cannot be listed ({error}); check its permissions") from error


def image_files(path: Path) -> list[Path]:
    """`path` itself where it is a file, or the image files in it and below, in natural order.

    Raises SeewhyError for a path that does not exist and for a directory without images.
    """
    if not path.is_dir():
        if not path.exists():
            raise SeewhyError(f"{path} does not exist; give image files, or directories of them")
        return [path]
    found = [
        file.path
        for file in _listed(path, deep=True)
        if file.path.suffix.lower() in _IMAGE_SUFFIXES
    ]
    if not found:
        raise SeewhyError(f"{path} holds no image files; give image files, or directories of them")
    return found


def _parquet_files(root: Path) -> list[_File]:
    """Parquet files in `root`, else those in the one folder directly under it that has some."""
    here = [file for file in _listed(root, deep=False) if file.path.suffix.lower() == ".parquet"]
    if here:
        return here
    found = {
        folder.name: [
            file for file in _listed(folder, deep=False) if file.path.suffix.lower() == ".parquet"
        ]
        for folder in _folders(root)
    }
    found = {name: files for name, files in found.items() if files}
    if len(found) > 1:
        raise SeewhyError(
            f"{root}: several folders hold Parquet files: {', '.join(map(_printable, found))}; give the path of one of them"
        )
    return next(iter(found.values()), [])


def _parquet_source(root: Path, files: list[_File]) -> Source:
    by_split = _by_split(root, files)
    roles = split_roles(by_split, str(root))
    chosen = {role: by_split[name] for role, name in roles.items()}

    def open_(request: LoadRequest) -> RawDataset:
        import datasets

        note_unused(str(root), set(by_split) - set(roles.values()), request.quiet)
        try:
            with library_quiet(bars=False), library_offline():
                tables = datasets.load_dataset(
                    "parquet",
                    data_files={
                        role: [glob.escape(str(file.path)) for file in files]
                        for role, files in chosen.items()
                    },
                    cache_dir=str(
                        request.scratch
                    ),  # the library's copy lives only until the images are decoded
                )
        except Exception as error:  # pyarrow, datasets and the disk each raise their own
            cause = _innermost(error)
            if (
                isinstance(cause, OSError) and cause.errno == errno.ENOSPC
            ):  # of the cache, where this is reported
                raise cause from error
            said = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
            raise SeewhyError(f"{root}: the Parquet files cannot be read ({said})") from error
        return raw_dataset_from_tables(tables, str(root), request)

    return Source(root.name, _signature(root, chosen), open_)


def _by_split(root: Path, files: list[_File]) -> dict[str, list[_File]]:
    """Parquet files by the word anywhere in their names that says train, test or validation; all are train where none does.

    Files that the hub has named are files of the split that it names. Raises SeewhyError where another name says nothing
    although some do, or says two things: a guess could train on the test images.
    """
    found: dict[str, list[_File]] = {}
    silent = []
    for file in files:
        name = file.path.name
        if _printable(name) != name:
            raise SeewhyError(
                f"{root}: the file name {_printable(name)} is not valid UTF-8; rename the file"
            )
        roles = {
            role: word for word in re.findall(r"[a-z]+", name.lower()) if (role := split_role(word))
        }
        if len(roles) > 1:
            raise SeewhyError(
                f"{root}: {name} names more than one split ({', '.join(roles)}); rename it after the one it is of"
            )
        shard = _SHARD.fullmatch(name)
        if roles or shard:
            found.setdefault(
                next(iter(roles.values()), shard["split"] if shard else ""), []
            ).append(file)
        else:
            silent.append(name)
    if not any(map(split_role, found)):
        return {"train": files}
    if silent:
        raise SeewhyError(
            f"{root}: {silent[0]} names no split, as other files do; put train, test or validation into its name, or move it away"
        )
    if not any(split_role(name) == "train" for name in found):
        names = ", ".join(file.path.name for file in files[:5])
        raise SeewhyError(
            f"{root}: no train-*.parquet; found {names}; rename the files of the training split"
        )
    return found


def _class_folders(root: Path) -> Source:
    folders = {folder.name: folder for folder in _folders(root)}
    roles = split_roles(folders, str(root)) if _has_split_folders(folders) else {}
    trees = {role: folders[name] for role, name in roles.items()} or {"train": root}
    images = {role: _images_by_class(tree) for role, tree in trees.items()}
    files = {
        role: [file for members in classes.values() for file in members]
        for role, classes in images.items()
    }
    if not files["train"]:
        raise SeewhyError(
            f"{root}: no images found; expected train/<class>/ and test/<class>/, or <class>/, or Parquet files"
        )
    classes = sorted(set().union(*images.values()), key=natural_key)

    def open_(request: LoadRequest) -> RawDataset:
        if request.label is not None:
            raise SeewhyError(
                f"{root}: the folders are the labels, found label={request.label!r}; leave label out"
            )
        if roles:
            note_unused(
                str(root), map(_printable, set(folders) - set(roles.values())), request.quiet
            )
        lengths = {
            role: [len(members.get(name, ())) for name in classes]
            for role, members in images.items()
        }
        splits = {
            role: _rows_of_files(
                root, files[role], np.repeat(np.arange(len(classes)), lengths[role])
            )
            for role in images
        }
        return RawDataset(tuple(map(_printable, classes)), splits)

    return Source(root.name, _signature(root, files), open_)


def _rows_of_files(root: Path, files: Sequence[_File], labels: np.ndarray) -> RawSplit:
    def read(indices: Sequence[int]) -> list[tuple[str, Encoded]]:
        return [
            (_printable(files[i].path.relative_to(root).as_posix()), files[i].path) for i in indices
        ]

    return RawSplit(read, labels)


def _has_split_folders(folders: Mapping[str, Path]) -> bool:
    """Whether a train folder holds folders; with images directly in it, "train" is a class of vehicles."""
    return any(split_role(name) == "train" and _folders(folder) for name, folder in folders.items())


def _images_by_class(tree: Path) -> dict[str, list[_File]]:
    """The files below each folder of `tree`, both in natural order; empty folders are left out."""
    stray = [
        file.path.name
        for file in _listed(tree, deep=False)
        if file.path.suffix.lower() in _IMAGE_SUFFIXES
    ]
    if stray:
        raise SeewhyError(
            f"{tree}: {len(stray):,} images lie outside any class folder (the first is {_printable(stray[0])}); "
            "put each into a folder named after its class"
        )
    found = {folder.name: _listed(folder, deep=True) for folder in _folders(tree)}
    return {name: files for name, files in found.items() if files}


def _folders(root: Path) -> list[Path]:
    return sorted(
        (path for path in root.iterdir() if path.is_dir() and not _ignored(path.name)),
        key=lambda p: natural_key(p.name),
    )


def _listed(root: Path, deep: bool) -> list[_File]:
    """The files in `root` (and below), in natural order, without hidden files and the litter of file managers."""
    found = []
    seen = set()
    for folder, below, names in os.walk(root, onerror=_raised, followlinks=True):
        below[:] = sorted((name for name in below if deep and not _ignored(name)), key=natural_key)
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up would be followed for ever
            below.clear()
            continue
        seen.add(real)
        for name in sorted(names, key=natural_key):
            if not _ignored(name):
                path = Path(folder, name)
                stat = (
                    path.stat() if path.exists() else path.lstat()
                )  # a dead link is reported when it is to be decoded
                found.append(_File(path, stat.st_size, stat.st_mtime_ns))
    return found


def _raised(error: OSError) -> None:
    raise error  # os.walk would pass over a folder that it may not read


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts class2 before class10."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


def _printable(name: str) -> str:
    """`name` with the bytes that are no UTF-8 written out: a terminal, JSON and a figure take it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _signature(root: Path, files: Mapping[str, Sequence[_File]]) -> list[object]:
    """Path, size and time of every file, and a hash of the start and the end of some.

    Two directories of one name are taken for one another only if all of these agree: files of equal names and sizes, all
    unpacked with the times of an archive, that differ in none of the glimpses.
    """
    everything = [file for members in files.values() for file in members]
    return [
        _glimpses(everything),
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


def _glimpses(files: Sequence[_File]) -> str:
    """Hex digest of the first and the last bytes of some of the files, evenly spaced."""
    seen = hashlib.blake2b(digest_size=16)
    for i in np.unique(np.linspace(0, len(files) - 1, _GLIMPSED).astype(np.int64)).tolist():
        if not files[i].path.is_file():  # a dead link, or a pipe that would be waited for
            continue
        try:
            with files[i].path.open("rb", buffering=0) as file:
                seen.update(file.read(_GLIMPSE))
                file.seek(max(0, files[i].size - _GLIMPSE))
                seen.update(file.read(_GLIMPSE))
        except OSError:  # reading it as an image will say so
            pass
    return seen.hexdigest()


def _innermost(error: BaseException) -> BaseException:
    """The error that began it: those around it only say that something failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
