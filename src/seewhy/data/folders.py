"""A directory as a data set: Parquet files in the hub's layout, or a folder of images for each class."""

import errno
import glob
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from seewhy.data.columns import library_offline, library_quiet, raw_of_tables
from seewhy.data.raw import Raw, Request, Source, note_unused, split_role, split_roles
from seewhy.errors import SeewhyError

_JUNK = {"thumbs.db", "desktop.ini", "__macosx", "icon\r"}
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif"}


@dataclass(frozen=True)
class _File:
    path: Path
    size: int
    mtime_ns: int


def directory(path: Path) -> Source:
    """The data set in the directory `path`. Raises SeewhyError where it holds neither Parquet files nor folders of images."""
    if not path.exists():
        raise SeewhyError(f"{path} does not exist; give a directory of class folders or of Parquet files")
    if not path.is_dir():
        raise SeewhyError(f"{path} is a file; give the directory that holds the class folders or the Parquet files")
    root = path.resolve()
    try:
        parquet = _parquet_files(root)
        return _parquet_source(root, parquet) if parquet else _class_folders(root)
    except OSError as error:
        raise SeewhyError(f"{root} cannot be listed ({error}); check its permissions") from error


def _parquet_files(root: Path) -> list[_File]:
    """Parquet files in `root`, else those in the one folder directly under it that has some."""
    here = [file for file in _listed(root, deep=False) if file.path.suffix.lower() == ".parquet"]
    if here:
        return here
    found = {
        folder.name: [file for file in _listed(folder, deep=False) if file.path.suffix.lower() == ".parquet"]
        for folder in _folders(root)
    }
    found = {name: files for name, files in found.items() if files}
    if len(found) > 1:
        raise SeewhyError(f"{root}: several folders hold Parquet files: {', '.join(found)}; give the path of one of them")
    return next(iter(found.values()), [])


def _parquet_source(root: Path, files: list[_File]) -> Source:
    by_split: dict[str, list[_File]] = {}
    for file in files:
        by_split.setdefault(re.split(r"[-_.]", file.path.name)[0], []).append(file)  # train-00000-of-00001.parquet
    if not any(split_role(name) == "train" for name in by_split):
        if any(split_role(name) for name in by_split):
            names = ", ".join(file.path.name for file in files[:5])
            raise SeewhyError(f"{root}: no train-*.parquet; found {names}; rename the files of the training split")
        by_split = {"train": files}
    roles = split_roles(by_split, str(root))
    chosen = {role: by_split[name] for role, name in roles.items()}

    def open_(request: Request) -> Raw:
        import datasets

        note_unused(str(root), set(by_split) - set(roles.values()), request.quiet)
        try:
            with library_quiet(bars=False), library_offline():
                tables = datasets.load_dataset(
                    "parquet",
                    data_files={role: [glob.escape(str(file.path)) for file in files] for role, files in chosen.items()},
                    cache_dir=str(request.scratch),  # the library's copy lives only until the images are decoded
                )
        except Exception as error:  # pyarrow, datasets and the disk each raise their own
            cause = _innermost(error)
            if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:  # of the cache, where this is reported
                raise cause from error
            said = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
            raise SeewhyError(f"{root}: the Parquet files cannot be read ({said})") from error
        return raw_of_tables(tables, str(root), request)

    return Source(root.name, _signature(root, chosen), open_)


def _class_folders(root: Path) -> Source:
    folders = {folder.name: folder for folder in _folders(root)}
    roles = split_roles(folders, str(root)) if _has_split_folders(folders) else {}
    trees = {role: folders[name] for role, name in roles.items()} or {"train": root}
    images = {role: _images_by_class(tree) for role, tree in trees.items()}
    files = {role: [file for members in classes.values() for file in members] for role, classes in images.items()}
    if not files["train"]:
        raise SeewhyError(f"{root}: no images found; expected train/<class>/ and test/<class>/, or <class>/, or Parquet files")
    classes = tuple(sorted(set().union(*images.values()), key=natural_key))

    def open_(request: Request) -> Raw:
        import datasets

        if request.label is not None:
            raise SeewhyError(f"{root}: the folders are the labels, found label={request.label!r}; leave label out")
        if roles:
            note_unused(str(root), set(folders) - set(roles.values()), request.quiet)
        features = datasets.Features(image=datasets.Image(decode=False), label=datasets.ClassLabel(names=list(classes)))
        tables = {}
        for role, members in images.items():
            columns = {
                "image": [str(file.path) for files in members.values() for file in files],
                "label": [name for name, files in members.items() for _ in files],
            }
            tables[role] = datasets.Dataset.from_dict(columns, features=features)
        return raw_of_tables(tables, str(root), request, naming=lambda path: Path(path).relative_to(root).as_posix())

    return Source(root.name, _signature(root, files), open_)


def _has_split_folders(folders: Mapping[str, Path]) -> bool:
    """Whether a train folder holds folders; with images directly in it, "train" is a class of vehicles."""
    return any(split_role(name) == "train" and _folders(folder) for name, folder in folders.items())


def _images_by_class(tree: Path) -> dict[str, list[_File]]:
    """The files below each folder of `tree`, both in natural order; empty folders are left out."""
    stray = [file.path.name for file in _listed(tree, deep=False) if file.path.suffix.lower() in _IMAGE_SUFFIXES]
    if stray:
        raise SeewhyError(
            f"{tree}: {len(stray):,} images lie outside any class folder (the first is {stray[0]}); "
            "put each into a folder named after its class"
        )
    found = {folder.name: _listed(folder, deep=True) for folder in _folders(tree)}
    return {name: files for name, files in found.items() if files}


def _folders(root: Path) -> list[Path]:
    return sorted(
        (path for path in root.iterdir() if path.is_dir() and not _ignored(path.name)), key=lambda p: natural_key(p.name)
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
                stat = path.stat() if path.exists() else path.lstat()  # a dead link is reported when it is to be decoded
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


def _signature(root: Path, files: Mapping[str, Iterable[_File]]) -> list[object]:
    return [
        [role, *((file.path.relative_to(root).as_posix(), file.size, file.mtime_ns) for file in members)]
        for role, members in files.items()
    ]


def _innermost(error: BaseException) -> BaseException:
    """The error that began it: those around it only say that something failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
