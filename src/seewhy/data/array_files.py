"""Images and labels in .npz and .npy files, recognized by names such as x_train."""

import io
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from seewhy.data.file_trees import NamedFile
from seewhy.data.raw import (
    RawDataset,
    assign_roles,
    class_name,
    index_labels,
    raw_split_from_arrays,
    split_role,
    split_words,
)
from seewhy.errors import SeewhyError
from seewhy.wording import counted

_IMAGES = {"x", "image", "images", "img", "imgs", "data", "pixels"}
_LABELS = {"y", "label", "labels", "target", "targets"}
_CLASSES = {"classes", "class", "names"}
_EXAMPLE = "x_train, y_train, x_test and y_test, or images and labels"


class _ArrayName(NamedTuple):
    """What the words of a name mean; empty where they say nothing."""

    group: str  # the other words, such as kmnist in kmnist-train-imgs
    split: str  # train, test or validation
    kind: str  # images, labels or classes


def array_groups(names: Sequence[str]) -> dict[str, list[str]]:
    """The .npz and .npy files of each dataset among `names` of one folder.

    kmnist-train-imgs.npz and kmnist-test-labels.npz belong together; mnist.npz is a dataset. Arrays
    in .npy files are left out unless they are named as images or labels.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        read = _read_name(path.stem)
        if path.suffix.lower() == ".npz" or (path.suffix.lower() == ".npy" and read.kind):
            groups.setdefault(read.group, []).append(name)
    return {group: files for group, files in groups.items() if _may_be_complete(files)}


def _may_be_complete(files: Sequence[str]) -> bool:
    kinds = {_read_name(PurePosixPath(name).stem).kind for name in files}
    return any(name.lower().endswith(".npz") for name in files) or {"images", "labels"} <= kinds


def read_array_files(files: Sequence[NamedFile], title: str) -> RawDataset:
    """Images (N, H, W), (N, H, W, C) or (N, C, H, W) and labels of each split.

    Images are numbers; those that are not uint8 are scaled later. Labels are numbers (N,) or
    (N, 1), text, or one-hot rows; or rows (N, K) of 0 and 1, of images with any number of labels.
    Equal labels become a class; an array named classes gives the names.

    Raises:
        SeewhyError: A file is damaged, or an array is missing or of the wrong shape or type.
    """
    arrays: dict[tuple[str, str], tuple[str, np.ndarray]] = {}
    unused = []
    for file in files:
        for name, array in _arrays(file).items():
            read = _read_name(name)
            key = ("" if read.kind == "classes" else read.split, read.kind)
            if not read.kind:
                unused.append(name)
            elif key in arrays:
                what = " ".join(filter(None, key))
                raise SeewhyError(
                    f"{title}: both {arrays[key][0]} and {name} could be the {what}; remove one"
                )
            else:
                arrays[key] = (name, array)
    splits = [split for split, kind in arrays if kind == "images"]
    if not any((split, "labels") in arrays for split in splits):
        found = ", ".join([name for name, _ in arrays.values()] + unused) or "no arrays"
        raise SeewhyError(
            f"{title}: arrays of images and labels expected, found {found}; name them {_EXAMPLE}"
        )
    return _dataset(arrays, splits, title)


def _dataset(
    arrays: Mapping[tuple[str, str], tuple[str, np.ndarray]], splits: Sequence[str], title: str
) -> RawDataset:
    roles = assign_roles([split for split in splits if split], title)
    if "" in splits:
        if "train" in roles:
            raise SeewhyError(
                f"{title}: {arrays['', 'images'][0]} has no split in its name, unlike "
                f"{arrays['train', 'images'][0]}; add train, test or validation to its name"
            )
        roles["train"] = ""
    if "train" not in roles:
        raise SeewhyError(f"{title}: no images of the training split; name the arrays {_EXAMPLE}")
    images, stored = {}, {}
    for role, split in roles.items():
        name, pixels = arrays[split, "images"]
        if (split, "labels") not in arrays:
            raise SeewhyError(f"{title}: {name} has no labels; add the array {split}_labels")
        labels_name, labels = arrays[split, "labels"]
        images[role] = _images(name, pixels, title)
        stored[role] = _labels(labels_name, labels, title)
        if len(images[role]) != len(stored[role]):
            raise SeewhyError(
                f"{title}: {name} has {counted(len(pixels), 'image')} but {labels_name} "
                f"{len(labels):,} labels; give one label per image"
            )
    classes, indices = _classes(stored, arrays.get(("", "classes")), title)
    return RawDataset(
        classes,
        {role: raw_split_from_arrays(images[role], indices[role], role) for role in images},
    )


def _arrays(file: NamedFile) -> dict[str, np.ndarray]:
    """The arrays of a file, by name; an array without a name of its own has that of the file."""
    path = PurePosixPath(file.name.rpartition(":")[2].replace("\\", "/"))
    try:
        loaded = np.load(io.BytesIO(file.content), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {path.stem: loaded}
        with loaded:
            return {
                _joined(path.stem, name, alone=len(loaded.files) == 1): loaded[name]
                for name in loaded.files
            }
    except ValueError as error:
        if not file.content.startswith((b"\x93NUMPY", b"PK", b"\x80")):  # 80: a pickle
            raise file.damaged("neither an .npy nor an .npz file") from error
        if "pickle" in str(error).lower():
            raise SeewhyError(
                f"{file.name} holds Python objects, which are not read from a file; save arrays of "
                "numbers or text"
            ) from error
        raise file.damaged(error) from error
    except Exception as error:  # a damaged archive raises many types
        raise file.damaged(error) from error


def _joined(stem: str, name: str, alone: bool) -> str:
    """The name of an array in an .npz file, with the words of the file's name that it lacks."""
    of_file, of_array = _read_name(stem), _read_name(name)
    if alone and not of_array.kind:
        return stem
    return name if of_array.split or not of_file.split else f"{of_file.split}_{name}"


def _read_name(name: str) -> _ArrayName:
    split = kind = ""
    others = []
    for word in split_words(name):
        if role := split_role(word):
            split = role
        elif word in _CLASSES:
            kind = "classes"
        elif word in _LABELS and not kind:
            kind = "labels"
        elif word in _IMAGES and not kind:
            kind = "images"
        else:
            others.append(word)
    return _ArrayName("-".join(others), split, kind)


def _images(name: str, array: np.ndarray, title: str) -> np.ndarray:  # (N, H, W) or (N, H, W, C)
    shape = array.shape
    if len(shape) == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    elif len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise SeewhyError(
            f"{title}: {name} must be (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 "
            f"channels, found {shape}"
        )
    if array.dtype.kind not in "iufb" or not array.size:
        raise SeewhyError(f"{title}: {name} must be numbers, found {shape} {array.dtype}")
    return array


def _labels(name: str, array: np.ndarray, title: str) -> np.ndarray:
    """Labels (N,) as numbers or text; or (N, K) bool, if images have any number of them."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "iufb":
        one_hot = ((array == 0) | (array == 1)).all() and (array.sum(1) == 1).all()
        if one_hot:
            indices: np.ndarray = np.argmax(array, axis=1)
            return indices.astype(np.int64)
        if ((array == 0) | (array == 1)).all():  # any number of labels
            return array.astype(bool)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "backslashreplace")
    whole = array.dtype.kind in "iub" or (
        array.dtype.kind == "f" and np.isfinite(array).all() and (array % 1 == 0).all()
    )
    if array.ndim != 1 or not (whole or array.dtype.kind == "U"):
        raise SeewhyError(
            f"{title}: {name} must be labels (N,) of whole numbers or text, or (N, K) of 0 and 1, "
            f"found {array.shape} {array.dtype}"
        )
    if array.dtype.kind == "U" or (array.size and array.max() >= 2**63):
        return array if array.dtype.kind != "f" else np.array([int(each) for each in array], object)
    return array.astype(np.int64)


def _classes(
    stored: Mapping[str, np.ndarray], names: tuple[str, np.ndarray] | None, title: str
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Class names, and each split's labels (N,) int64 as indices into them, or (N, K) bool."""
    if any(values.ndim == 2 for values in stored.values()):
        width = next(values.shape[1] for values in stored.values() if values.ndim == 2)
        numbered = tuple(map(str, range(width)))
        named = None if names is None else tuple(map(str, _labels(*names, title).tolist()))
        rows = {role: _as_rows(values, width) for role, values in stored.items()}
        return named or numbered, rows
    if names is not None and names[1].dtype.kind in "SU" and stored["train"].dtype.kind == "i":
        listed = map(class_name, _labels(*names, title).tolist())
        return tuple(listed), dict(stored)  # check_labels compares them
    lowest = min(
        (values.min() for values in stored.values() if values.dtype.kind == "i"), default=0
    )
    if lowest < 0:
        raise SeewhyError(
            f"{title}: labels must be at least 0, found {lowest}; keep only labeled images"
        )
    return index_labels(stored)


def _as_rows(labels: np.ndarray, width: int) -> np.ndarray:  # (N, width) bool
    """Labels (N, K) as they are; class indices, of one-hot rows in another split, as rows again."""
    if labels.ndim == 1 and labels.dtype.kind == "i" and 0 <= labels.min() <= labels.max() < width:
        rows: np.ndarray = np.eye(width, dtype=bool)[labels]
        return rows
    return labels
