"""Images without class folders: the file name tells the class."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seewhy.data.decode import Encoded
from seewhy.data.listing import IMAGE_SUFFIXES, ListedFile, list_files, printable, signature
from seewhy.data.raw import (
    LoadRequest,
    RawDataset,
    RawSplit,
    Source,
    assign_roles,
    describe_splits,
    index_labels,
    reject_label_choice,
    split_role,
)
from seewhy.errors import SeewhyError
from seewhy.wording import counted


def named_files_source(root: Path, pattern: str) -> Source:
    """The images below `root`; the group `label` of `pattern` is the class.

    The pattern is searched in the name of the file, or in the whole path below `root` if it has a
    slash. Files in the folders of splits, such as train/, are of that split. Raises SeewhyError if
    the pattern does not match all images.
    """
    images = [
        file for file in list_files(root, deep=True) if file.path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not images:
        raise SeewhyError(f"{root} contains no image files; pass a directory of images")
    names = [file.path.relative_to(root) for file in images]
    found = [re.search(pattern, name.as_posix() if "/" in pattern else name.name) for name in names]
    labels = [each and each["label"] for each in found]
    unmatched = [name for name, label in zip(names, labels, strict=True) if not label]
    if unmatched:
        raise SeewhyError(
            f"{root}: label_pattern {pattern!r} finds no label in {len(unmatched):,} of "
            f"{counted(len(images), 'name')}, the first is {printable(unmatched[0].as_posix())!r}; "
            "change the pattern, or move other images away"
        )
    folders = [name.parts[0] if len(name.parts) > 1 else "" for name in names]
    in_splits = all(split_role(folder) for folder in folders)
    roles = assign_roles(dict.fromkeys(folders), str(root)) if in_splits else {"train": ""}
    if "train" not in roles:
        raise SeewhyError(f"{root}: no folder of training images; add train/, or pass one of these")
    rows = {
        role: [i for i, folder in enumerate(folders) if not in_splits or folder == split]
        for role, split in roles.items()
    }
    files = {role: [images[i] for i in members] for role, members in rows.items()}

    def open_(request: LoadRequest) -> RawDataset:
        reject_label_choice(str(root), request)
        stored = {
            role: np.array([printable(str(labels[i])) for i in members], dtype=object)
            for role, members in rows.items()
        }
        classes, indices = index_labels(stored)
        splits = {role: split_of_files(root, files[role], indices[role]) for role in rows}
        return RawDataset(classes, splits)

    places = {role: f"{split}/" if split else "all images" for role, split in roles.items()}
    unused = sorted({folder for folder in folders if in_splits} - set(roles.values()))
    key = [pattern, signature(root, files)]
    return Source(root.name, key, open_, describe_splits(places, unused))


def split_of_files(root: Path, files: Sequence[ListedFile], labels: np.ndarray) -> RawSplit:
    """A split of image files, named by their paths below `root`."""

    def read(indices: Sequence[int]) -> list[tuple[str, Encoded]]:
        return [
            (printable(files[i].path.relative_to(root).as_posix()), files[i].path) for i in indices
        ]

    return RawSplit(read, labels)
