"""Datasets in directories: Parquet files as on the hub, or one folder of images per class."""

import errno
import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from seewhy.data.file_trees import check_regular_file
from seewhy.data.folder_layout import Classes, find_layout
from seewhy.data.huggingface import library_offline, library_quiet, raw_dataset_from_tables
from seewhy.data.layouts import files_source
from seewhy.data.listing import (
    IMAGE_SUFFIXES,
    ListedFile,
    list_files,
    list_folders,
    natural_key,
    printable,
    signature,
)
from seewhy.data.named_files import named_files_source, split_of_files
from seewhy.data.raw import (
    LoadRequest,
    RawDataset,
    Source,
    assign_roles,
    describe_splits,
    split_role,
    split_words,
)
from seewhy.errors import SeewhyError, first_line
from seewhy.files import problem_of_file

# a file name on the hub
_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}\.parquet", re.IGNORECASE)


def directory_source(path: Path, label_pattern: str | None = None) -> Source:
    """The dataset in a directory, an archive, or an .npz file.

    With a `label_pattern`, the names of image files tell their classes.

    Raises SeewhyError if there is none, or more than one.
    """
    expected = "class folders, Parquet files, or a published dataset's files"
    if not path.exists():
        raise SeewhyError(f"{path} does not exist; pass a directory of {expected}")
    root = path.resolve()
    if printable(str(root)) != str(root):
        raise SeewhyError(
            f"the path {printable(str(root))} is not valid UTF-8; rename the directory"
        )
    if (path / "recipe.toml").is_file():
        raise SeewhyError(f"{path} is a run, not data; pass the directory of its images")
    try:
        if label_pattern is not None:
            if not root.is_dir():
                raise SeewhyError(f"label_pattern is for directories, found {path}; leave it out")
            return named_files_source(root, label_pattern)
        published = files_source(root)
        if not root.is_dir():
            if published is None:
                raise SeewhyError(
                    f"{path} is a file; pass the directory of {expected}, or an archive or "
                    "an .npz file"
                )
            return published
        parquet = _parquet_files(root)
        if parquet and published is not None:
            raise SeewhyError(
                f"{root} holds Parquet files and {published.name}; pass the directory of one of "
                "them"
            )
        return published or (_parquet_source(root, parquet) if parquet else _class_folders(root))
    except OSError as error:
        raise SeewhyError(f"{root} cannot be listed ({error}); check its permissions") from error


def image_files(path: Path) -> list[Path]:
    """`path` itself if it is a file, or all image files below it, in natural order.

    A path that does not exist may be a pattern such as `photos/**/*.jpg`. Raises SeewhyError for a
    missing path, a run, and a directory without images.
    """
    if not path.is_dir():
        if not path.exists():
            found = sorted(glob.glob(str(path), recursive=True), key=natural_key)  # noqa: PTH207
            files = [each for each in map(Path, found) if each.is_file()]
            if files:
                return files
            problem = problem_of_file(path) if path.is_symlink() else ""
            reason = f"is {problem}" if problem else "does not exist"
            raise SeewhyError(f"{path} {reason}; pass image files or directories of images")
        return [path]
    if (path / "recipe.toml").is_file():
        raise SeewhyError(f"{path} is a run, not images; name the run first, then the images")
    images = [
        file.path
        for file in list_files(path, deep=True)
        if file.path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not images:
        raise SeewhyError(
            f"{path} contains no image files; pass image files or directories of images"
        )
    return images


def _parquet_files(root: Path) -> list[ListedFile]:
    """The Parquet files in `root`, or else in its only folder that has some."""

    def parquet(folder: Path) -> list[ListedFile]:
        files = list_files(folder, deep=False)
        return [file for file in files if file.path.suffix.lower() == ".parquet"]

    if files := parquet(root):
        return files
    by_folder = {folder.name: files for folder in list_folders(root) if (files := parquet(folder))}
    if len(by_folder) > 1:
        raise SeewhyError(
            f"{root}: several folders contain Parquet files: "
            f"{', '.join(map(printable, by_folder))}; pass the path of one of them"
        )
    return next(iter(by_folder.values()), [])


def _parquet_source(root: Path, files: list[ListedFile]) -> Source:
    for file in files:
        check_regular_file(file.path)
    by_split = _group_by_split(root, files)
    roles = assign_roles(by_split, str(root))
    by_role = {role: by_split[name] for role, name in roles.items()}

    def open_(request: LoadRequest) -> RawDataset:
        import datasets

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
            raise SeewhyError(
                f"{root}: the Parquet files cannot be read ({first_line(cause)}); restore them"
            ) from error
        return raw_dataset_from_tables(tables, str(root), request, (root,))

    places = {role: _file_names(files) for role, files in by_role.items()}
    unused = set(by_split) - set(roles.values())
    description = describe_splits(places, unused) if "test" in places or unused else ""
    return Source(root.name, signature(root, by_role), open_, description)


def _file_names(files: Sequence[ListedFile]) -> str:
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0].path.name}{more}"


def _group_by_split(root: Path, files: list[ListedFile]) -> dict[str, list[ListedFile]]:
    """Parquet files by the split role in their names; if no name has a role, all are train.

    A file named as on the hub belongs to the split in its name. Raises SeewhyError if only some
    names have a role, or a name has two: a guess could put test images into train.
    """
    by_split: dict[str, list[ListedFile]] = {}
    without_role = []
    for file in files:
        name = file.path.name
        if printable(name) != name:
            raise SeewhyError(
                f"{root}: the file name {printable(name)} is not valid UTF-8; rename the file"
            )
        roles = {role: word for word in split_words(name) if (role := split_role(word))}
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
    layout = find_layout(root)
    images = {
        role: {name: list_files(folder, deep=True) for name, folder in classes.items()}
        for role, classes in layout.classes.items()
    }
    files = {
        role: [file for members in classes.values() for file in members]
        for role, classes in images.items()
    }
    if not next(iter(files.values())):
        raise SeewhyError(
            f"{root}: no images; expected train/<class>/ and test/<class>/, or <class>/, "
            "or Parquet files, or the files of a published dataset such as cifar-10-batches-py"
        )
    classes = sorted(set().union(*images.values()), key=natural_key)

    def open_(request: LoadRequest) -> RawDataset:
        if request.label is not None:
            raise SeewhyError(
                f"{root}: the folders are the labels, found label={request.label!r}; "
                "leave label out"
            )
        lengths = {
            role: [len(members.get(name, ())) for name in classes]
            for role, members in images.items()
        }
        splits = {
            role: split_of_files(
                root,
                [file for name in classes for file in members.get(name, ())],
                np.repeat(np.arange(len(classes)), lengths[role]),
            )
            for role, members in images.items()
        }
        return RawDataset(tuple(classes), splits)

    key = [classes, signature(root, files)]
    return Source(root.name, key, open_, layout.description + _pooled(layout.classes, files))


def _pooled(classes: Mapping[str, Classes], files: Mapping[str, Sequence[ListedFile]]) -> str:
    """A remark if images are in folders inside those of the classes."""
    folders = {folder for by_name in classes.values() for folder in by_name.values()}
    inner = [
        file for members in files.values() for file in members if file.path.parent not in folders
    ]
    return "; the folders in a class belong to it" if inner else ""


def _root_cause(error: BaseException) -> BaseException:
    """The first error of a chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
