"""The binary files of published datasets: CIFAR, IDX (MNIST and its relatives), SVHN, STL-10.

Each reader takes the files of a dataset by the key of `seewhy.data.layouts`. Expected sizes follow
from the formats, so a truncated file is found before a single image is decoded.
"""

import gzip
import io
import math
import string
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, cast

import numpy as np

from seewhy.data.file_trees import NamedFile
from seewhy.data.raw import RawDataset, RawSplit, raw_split_from_arrays
from seewhy.data.safe_pickle import read_pickle
from seewhy.errors import SeewhyError

Files = Mapping[str, NamedFile]

DIGITS = tuple(string.digits)
# spelled as on the hub, so that runs on either copy know the same classes
FASHION_CLASSES = (
    *("T - shirt / top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
STL10_CLASSES = (
    *("airplane", "bird", "car", "cat", "deer"),
    *("dog", "horse", "monkey", "ship", "truck"),
)
# lower-case letters that EMNIST merges with their capitals (Cohen et al. 2017, section II-B)
_MERGED = "cijklmopsuvwxyz"
_MERGED_CLASSES = (
    *DIGITS,
    *string.ascii_uppercase,
    *sorted(set(string.ascii_lowercase) - {*_MERGED}),
)
EMNIST_CLASSES = {
    "byclass": (*DIGITS, *string.ascii_uppercase, *string.ascii_lowercase),
    "bymerge": _MERGED_CLASSES,
    "balanced": _MERGED_CLASSES,
    "letters": tuple(string.ascii_uppercase),
    "digits": DIGITS,
    "mnist": DIGITS,
}
_CIFAR_SHAPE = (3, 32, 32)
_STL10_SHAPE = (3, 96, 96)
_DEFLATE_RATIO = 1032  # largest ratio of a gzip file's content to its size


def read_cifar10_pickles(files: Files, label: str) -> RawDataset:
    """CIFAR-10 for Python: five batches for training, one for testing, and the names of classes."""
    batches = [files[f"data_batch_{number}"] for number in range(1, 6)]
    names = _pickled(files["batches.meta"]).get("label_names")
    return RawDataset(
        _class_names(names, files["batches.meta"], 10),
        {
            "train": _cifar_split(batches, "labels"),
            "test": _cifar_split([files["test_batch"]], "labels"),
        },
    )


def read_cifar100_pickles(files: Files, label: str) -> RawDataset:
    """CIFAR-100 for Python, with the labels named `label`: fine_label or coarse_label."""
    names = _pickled(files["meta"]).get(f"{label}_names")
    return RawDataset(
        _class_names(names, files["meta"], 20 if label == "coarse_label" else 100),
        {role: _cifar_split([files[role]], f"{label}s") for role in ("train", "test")},
    )


def _pickled(file: NamedFile) -> dict[str, Any]:
    """A pickled dictionary; its keys are bytes or text."""
    try:
        value = read_pickle(file.content)
    except Exception as error:  # a damaged pickle raises many types
        raise SeewhyError(
            f"{file.name} is not a pickle of arrays, lists and text ({_one_line(error)}); nothing "
            "of it was run: download it again from its publisher"
        ) from error
    if not isinstance(value, dict):
        raise file.damaged(f"a dict expected, found {type(value).__name__}")
    return {_text(key): item for key, item in value.items()}


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _class_names(names: object, file: NamedFile, count: int) -> tuple[str, ...]:
    if not isinstance(names, list) or len(names) != count:
        raise file.damaged(f"the names of {count} classes expected")
    return tuple(map(_text, names))


def _cifar_split(batches: Sequence[NamedFile], labels_key: str) -> RawSplit:
    images, labels = [], []
    names: list[str] = []
    for file in batches:
        batch = _pickled(file)
        data, stored = batch.get("data"), batch.get(labels_key)
        size = math.prod(_CIFAR_SHAPE)
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (size,):
            raise file.damaged(f"'data' must be (N, {size}) uint8")
        if not isinstance(stored, list | np.ndarray) or len(stored) != len(data):
            raise file.damaged(f"{labels_key!r} must be {len(data):,} labels")
        images.append(data.reshape(-1, *_CIFAR_SHAPE))
        try:
            labels.append(np.array(stored, dtype=np.int64).reshape(len(data)))
        except (TypeError, ValueError) as error:
            raise file.damaged(f"{labels_key!r} must be whole numbers") from error
        file_names = batch.get("filenames")
        if isinstance(file_names, list) and len(file_names) == len(data):
            names += map(_text, file_names)
        else:
            stem = file.name.rpartition("/")[2]
            names += [f"{stem}-{i:05d}" for i in range(len(data))]
    return _planar_split(np.concatenate(images), np.concatenate(labels), names)


def read_cifar10_binary(files: Files, label: str) -> RawDataset:
    """CIFAR-10 for C programs: records of a label and 3,072 pixels."""
    lines = files["batches.meta.txt"].content.decode("utf-8", "replace").split("\n")
    names = [line.strip() for line in lines if line.strip()]
    batches = [files[f"data_batch_{number}.bin"] for number in range(1, 6)]
    return RawDataset(
        _class_names(names, files["batches.meta.txt"], 10),
        {
            "train": _record_split(batches, 1, 0, "train"),
            "test": _record_split([files["test_batch.bin"]], 1, 0, "test"),
        },
    )


def read_cifar100_binary(files: Files, label: str) -> RawDataset:
    """CIFAR-100 for C programs: records of a coarse label, a fine label and 3,072 pixels."""
    coarse = label == "coarse_label"
    names = files[f"{label}_names.txt"]
    listed = [line.strip() for line in names.content.decode("utf-8", "replace").split("\n")]
    return RawDataset(
        _class_names(list(filter(None, listed)), names, 20 if coarse else 100),
        {
            role: _record_split([files[f"{role}.bin"]], 2, 0 if coarse else 1, role)
            for role in ("train", "test")
        },
    )


def _record_split(
    batches: Sequence[NamedFile], label_bytes: int, label_index: int, role: str
) -> RawSplit:
    size = label_bytes + math.prod(_CIFAR_SHAPE)
    parts = []
    for file in batches:
        if not file.content or len(file.content) % size:
            raise file.damaged(f"{len(file.content):,} bytes are not records of {size:,}")
        parts.append(np.frombuffer(file.content, np.uint8).reshape(-1, size))
    records = np.concatenate(parts)
    images = records[:, label_bytes:].reshape(-1, *_CIFAR_SHAPE)
    return _planar_split(images, records[:, label_index], role)


def read_idx_digits(classes: Sequence[str]) -> Any:
    """A reader of MNIST and the datasets that replace it, with the given classes."""

    def read(files: Files, label: str) -> RawDataset:
        splits = {
            role: _idx_split(files[f"{role} images"], files[f"{role} labels"], role)
            for role in ("train", "test")
        }
        return RawDataset(tuple(classes), splits)

    return read


def read_emnist(variant: str) -> Any:
    """A reader of a split of EMNIST (Cohen et al. 2017), such as letters."""

    def read(files: Files, label: str) -> RawDataset:
        splits = {
            role: _idx_split(
                files[f"{role} images"],
                files[f"{role} labels"],
                role,
                first_label=int(variant == "letters"),  # its labels are 1 to 26
                transposed=True,  # EMNIST stores the columns of an image one after the other
            )
            for role in ("train", "test")
        }
        return RawDataset(EMNIST_CLASSES[variant], splits)

    return read


def _idx_split(
    images_file: NamedFile,
    labels_file: NamedFile,
    role: str,
    first_label: int = 0,
    transposed: bool = False,
) -> RawSplit:
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    _check_count(images, labels, labels_file)
    pixels = images.transpose(0, 2, 1) if transposed else images
    return raw_split_from_arrays(pixels, labels.astype(np.int64) - first_label, role)


def read_idx(file: NamedFile, ndim: int) -> np.ndarray:
    """The uint8 array with `ndim` dimensions in an IDX file, which may be compressed by gzip.

    An IDX file consists of two zero bytes, the type (8: uint8), the number of dimensions, each as
    a 32-bit big-endian integer, and the values (LeCun, Cortes & Burges, the MNIST database).
    """
    compressed = file.content[:2] == b"\x1f\x8b"
    stream = io.BytesIO(file.content)
    opened = cast(BinaryIO, gzip.GzipFile(fileobj=stream) if compressed else stream)
    try:
        header = opened.read(4 + 4 * ndim)
        if header[:4] != bytes((0, 0, 8, ndim)) or len(header) != 4 + 4 * ndim:
            raise file.damaged(f"it does not begin as an IDX file with {ndim} dimensions of uint8")
        shape = tuple(np.frombuffer(header, ">u4", offset=4).tolist())
        data = _read_exactly(opened, math.prod(shape), file)
    except (EOFError, OSError, zlib.error) as error:
        raise file.damaged(error) from error
    return np.frombuffer(data, np.uint8).reshape(shape)


def _read_exactly(stream: BinaryIO, size: int, file: NamedFile) -> bytes:
    """The remaining bytes of a stream, which must be `size`."""
    if size > _DEFLATE_RATIO * len(file.content):  # before memory is reserved for them
        raise file.damaged(f"{size:,} bytes of values expected")
    data = stream.read(size + 1)
    if len(data) != size:
        found = "more" if len(data) > size else f"{len(data):,}"
        raise file.damaged(f"{size:,} bytes of values expected, found {found}")
    return data


def read_svhn(files: Files, label: str) -> RawDataset:
    """SVHN, format 2 (Netzer et al. 2011): X (32, 32, 3, N), y (N, 1); label 10 is the digit 0."""
    splits = {}
    for role in ("train", "test"):
        file = files[f"{role}_32x32.mat"]
        images, labels = _mat_arrays(file)
        splits[role] = raw_split_from_arrays(np.moveaxis(images, 3, 0), labels % 10, role)
    return RawDataset(DIGITS, splits)


def _mat_arrays(file: NamedFile) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import loadmat

    try:
        arrays = loadmat(io.BytesIO(file.content), variable_names=["X", "y"])
        images, labels = arrays["X"], arrays["y"].astype(np.int64).reshape(-1)
    except Exception as error:  # scipy raises many types
        raise file.damaged(error) from error
    if images.dtype != np.uint8 or images.shape[:3] != (32, 32, 3) or images.ndim != 4:
        raise file.damaged(f"X must be (32, 32, 3, N) uint8, found {images.shape} {images.dtype}")
    if len(labels) != images.shape[3] or not ((labels >= 1) & (labels <= 10)).all():
        raise file.damaged(f"y must be {images.shape[3]:,} labels from 1 to 10")
    return images, labels


def read_stl10(files: Files, label: str) -> RawDataset:
    """STL-10 (Coates et al. 2011): channels of 96 columns of 96 pixels, and labels 1 to 10."""
    splits = {}
    for role in ("train", "test"):
        images_file, labels_file = files[f"{role}_X.bin"], files[f"{role}_y.bin"]
        size = math.prod(_STL10_SHAPE)
        if not images_file.content or len(images_file.content) % size:
            raise images_file.damaged(
                f"{len(images_file.content):,} bytes are not images of {size:,}"
            )
        images = np.frombuffer(images_file.content, np.uint8).reshape(-1, *_STL10_SHAPE)
        labels = np.frombuffer(labels_file.content, np.uint8).astype(np.int64) - 1
        _check_count(images, labels, labels_file)
        splits[role] = raw_split_from_arrays(images.transpose(0, 3, 2, 1), labels, role)
    return RawDataset(STL10_CLASSES, splits)


def _check_count(images: np.ndarray, labels: np.ndarray, labels_file: NamedFile) -> None:
    if len(images) != len(labels):
        raise labels_file.damaged(f"{len(labels):,} labels for {len(images):,} images")


def _planar_split(images: np.ndarray, labels: np.ndarray, names: str | Sequence[str]) -> RawSplit:
    """A split of images (N, C, H, W)."""
    return raw_split_from_arrays(images.transpose(0, 2, 3, 1), labels.astype(np.int64), names)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
