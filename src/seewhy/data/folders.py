"""Datasets in directories: Parquet files as on the hub, or one folder of images per class."""

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
    assign_roles,
    note_unused,
    split_role,
)
from seewhy.errors import SeewhyError

_JUNK = {"thumbs.db", "desktop.ini", "__macosx", "icon\r"}
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
_IMAGE_SUFFIXES |= {".ppm", ".pgm", ".pbm", ".jp2", ".avif"}
# a file name on the hub
_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}\.parquet", re.IGNORECASE)
_SAMPLED_FILES = 64  # number of files that are partially hashed on each load
_SAMPLED_BYTES = 4096  # at the start and at the end of each file


@dataclass(frozen=True)
class _File:
    path: Path
    size: int
    mtime_ns: int


def directory_source(path: Path) -> Source:
    """The dataset in the directory `path`.

    Raises SeewhyError if it has neither Parquet files nor class folders.
    """
    if not path.exists():
        raise SeewhyError(
            f"{path} does not exist; pass a directory of class folders or Parquet files"
        )
    if not path.is_dir():
        raise SeewhyError(f"{path} is a file; pass the directory of class folders or Parquet files")
    root = path.resolve()
    if _printable(str(root)) != str(root):
        raise SeewhyError(
            f"the path {_printable(str(root))} is not valid UTF-8; rename the directory"
        )
    try:
        parquet = _parquet_files(root)
        return _parquet_source(root, parquet) if parquet else _class_folders(root)
    except OSError as error:
        raise SeewhyError(f"{root} cannot be listed ({error}); check its permissions") from error


def image_files(path: Path) -> list[Path]:
    """`path` itself if it is a file, or all image files below it, in natural order.

    Raises SeewhyError for a missing path and a directory without images.
    """
    if not path.is_dir():
        if not path.exists():
            raise SeewhyError(f"{path} does not exist; pass image files or directories of images")
        return [path]
    images = [
        file.path
        for file in _list_files(path, deep=True)
        if file.path.suffix.lower() in _IMAGE_SUFFIXES
    ]
    if not images:
        raise SeewhyError(
            f"{path} contains no image files; pass image files or directories of images"
        )
    return images


def _parquet_files(root: Path) -> list[_File]:
    """The Parquet files in `root`, or else in its only folder that has some."""

    def parquet(folder: Path) -> list[_File]:
        files = _list_files(folder, deep=False)
        return [file for file in files if file.path.suffix.lower() == ".parquet"]

    if files := parquet(root):
        return files
    by_folder = {folder.name: files for folder in _folders(root) if (files := parquet(folder))}
    if len(by_folder) > 1:
        raise SeewhyError(
            f"{root}: several folders contain Parquet files: "
            f"{', '.join(map(_printable, by_folder))}; pass the path of one of them"
        )
    return next(iter(by_folder.values()), [])


def _parquet_source(root: Path, files: list[_File]) -> Source:
    by_split = _group_by_split(root, files)
    roles = assign_roles(by_split, str(root))
    by_role = {role: by_split[name] for role, name in roles.items()}

    def open_(request: LoadRequest) -> RawDataset:
        import datasets

        note_unused(str(root), set(by_split) - set(roles.values()), request.quiet)
        try:
            with library_quiet(bars=False), library_offline():
                tables = datasets.load_dataset(
                    "parquet",
                    data_files={
                        role: [glob.escape(str(file.path)) for file in files]
                        for role, files in by_role.items()
                    },
                    # the copy of `datasets` is only needed until the images are decoded
                    cache_dir=str(request.scratch),
                )
        except Exception as error:  # pyarrow, datasets and the file system raise different errors
            cause = _root_cause(error)
            if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
                raise cause from error  # the cache reports it
            message = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
            raise SeewhyError(
                f"{root}: the Parquet files cannot be read ({message}); restore them"
            ) from error
        return raw_dataset_from_tables(tables, str(root), request)

    return Source(root.name, _signature(root, by_role), open_)


def _group_by_split(root: Path, files: list[_File]) -> dict[str, list[_File]]:
    """Parquet files by the split role in their names; if no name has a role, all are train.

    A file named as on the hub belongs to the split in its name. Raises SeewhyError if only some
    names have a role, or a name has two: a guess could put test images into train.
    """
    by_split: dict[str, list[_File]] = {}
    without_role = []
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
                f"{root}: {name} names more than one split ({', '.join(roles)}); "
                "rename it after its split"
            )
        shard = _SHARD.fullmatch(name)
        if roles or shard:
            split = next(iter(roles.values()), shard["split"] if shard else "")
            by_split.setdefault(split, []).append(file)
        else:
            without_role.append(name)
    if not any(map(split_role, by_split)):
        return {"train": files}
    if without_role:
        raise SeewhyError(
            f"{root}: {without_role[0]} has no split in its name, unlike other files; add train, "
            "test or validation to its name, or move it away"
        )
    if not any(split_role(name) == "train" for name in by_split):
        names = ", ".join(file.path.name for file in files[:5])
        raise SeewhyError(
            f"{root}: no train-*.parquet; found {names}; rename the files of the training split"
        )
    return by_split


def _class_folders(root: Path) -> Source:
    folders = {folder.name: folder for folder in _folders(root)}
    roles = assign_roles(folders, str(root)) if _has_split_folders(folders) else {}
    trees = {role: folders[name] for role, name in roles.items()} or {"train": root}
    images = {role: _images_by_class(tree) for role, tree in trees.items()}
    files = {
        role: [file for members in classes.values() for file in members]
        for role, classes in images.items()
    }
    if not files["train"]:
        raise SeewhyError(
            f"{root}: no images; expected train/<class>/ and test/<class>/, or <class>/, "
            "or Parquet files"
        )
    classes = sorted(set().union(*images.values()), key=natural_key)

    def open_(request: LoadRequest) -> RawDataset:
        if request.label is not None:
            raise SeewhyError(
                f"{root}: the folders are the labels, found label={request.label!r}; "
                "leave label out"
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
            role: _raw_split(root, files[role], np.repeat(np.arange(len(classes)), lengths[role]))
            for role in images
        }
        return RawDataset(tuple(map(_printable, classes)), splits)

    return Source(root.name, _signature(root, files), open_)


def _raw_split(root: Path, files: Sequence[_File], labels: np.ndarray) -> RawSplit:
    def read(indices: Sequence[int]) -> list[tuple[str, Encoded]]:
        return [
            (_printable(files[i].path.relative_to(root).as_posix()), files[i].path) for i in indices
        ]

    return RawSplit(read, labels)


def _has_split_folders(folders: Mapping[str, Path]) -> bool:
    """Whether a train folder has subfolders; if it contains images itself, "train" is a class."""
    return any(split_role(name) == "train" and _folders(folder) for name, folder in folders.items())


def _images_by_class(tree: Path) -> dict[str, list[_File]]:
    """The files below each folder of `tree`, all in natural order, without empty folders."""
    stray = [
        file.path.name
        for file in _list_files(tree, deep=False)
        if file.path.suffix.lower() in _IMAGE_SUFFIXES
    ]
    if stray:
        raise SeewhyError(
            f"{tree}: {len(stray):,} images are outside the class folders (the first is "
            f"{_printable(stray[0])}); move each into the folder of its class"
        )
    by_class = {folder.name: _list_files(folder, deep=True) for folder in _folders(tree)}
    return {name: files for name, files in by_class.items() if files}


def _folders(root: Path) -> list[Path]:
    return sorted(
        (path for path in root.iterdir() if path.is_dir() and not _ignored(path.name)),
        key=lambda p: natural_key(p.name),
    )


def _list_files(root: Path, deep: bool) -> list[_File]:
    """The files in `root` (and below), in natural order, without hidden and system files."""
    files = []
    visited = set()
    for folder, subfolders, names in os.walk(root, onerror=_raise, followlinks=True):
        subfolders[:] = sorted(
            (name for name in subfolders if deep and not _ignored(name)), key=natural_key
        )
        real = os.path.realpath(folder)
        if real in visited:  # a link to a parent would be followed forever
            subfolders.clear()
            continue
        visited.add(real)
        for name in sorted(names, key=natural_key):
            if not _ignored(name):
                path = Path(folder, name)
                # decoding reports a broken link
                stat = path.stat() if path.exists() else path.lstat()
                files.append(_File(path, stat.st_size, stat.st_mtime_ns))
    return files


def _raise(error: OSError) -> None:
    raise error  # os.walk would skip a folder without read permission


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """A sort key that puts class2 before class10."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


def _printable(name: str) -> str:
    """`name` with bytes that are not UTF-8 escaped, for terminals, JSON and figures."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _signature(root: Path, files: Mapping[str, Sequence[_File]]) -> list[object]:
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


def _sample_digest(files: Sequence[_File]) -> str:
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


def _root_cause(error: BaseException) -> BaseException:
    """The first error of a chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
