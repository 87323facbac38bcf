"""Small datasets in the exact layouts of the published ones, as their publishers' pages describe.

Each writer takes random images (N, H, W) or (N, H, W, 3) uint8 and labels (N,), and writes them
with code of its own, so that a reader is tested against an independent expectation.
"""

import gzip
import pickle
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.io import savemat

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Images(NamedTuple):
    """Images of one split, upright, and their labels."""

    pixels: np.ndarray  # (N, H, W) or (N, H, W, 3) uint8
    labels: np.ndarray  # (N,) int64


def random_images(
    count: int, num_classes: int, side: int = 32, channels: int = 3, seed: int = 0
) -> Images:
    """Random pixels; every class occurs."""
    generator = np.random.default_rng(seed)
    shape = (count, side, side, 3)[: 4 if channels == 3 else 3]
    pixels = generator.integers(0, 256, shape, dtype=np.uint8)
    return Images(pixels, generator.permutation(np.arange(count) % num_classes))


def cifar_rows(pixels: np.ndarray) -> np.ndarray:
    """(N, 3072): 1,024 red values row by row, then green, then blue."""
    return np.stack(
        [np.concatenate([image[:, :, channel].ravel() for channel in range(3)]) for image in pixels]
    )


def write_cifar10_python(root: Path, train: Images, test: Images, protocol: int = 2) -> Path:
    """Pickled dictionaries with keys of bytes, as Python 2 wrote them."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    parts = np.array_split(np.arange(len(train.labels)), 5)
    for number, rows in enumerate(parts, 1):
        batch = Images(train.pixels[rows], train.labels[rows])
        _dump(folder / f"data_batch_{number}", _cifar_batch(batch, f"batch {number}"), protocol)
    _dump(folder / "test_batch", _cifar_batch(test, "testing batch"), protocol)
    meta = {
        b"num_cases_per_batch": 10000,
        b"label_names": [name.encode() for name in CIFAR10],
        b"num_vis": 3072,
    }
    _dump(folder / "batches.meta", meta, protocol)
    (folder / "readme.html").write_text("<html>")
    return folder


def _cifar_batch(images: Images, label: str) -> dict[bytes, object]:
    return {
        b"batch_label": label.encode(),
        b"labels": images.labels.tolist(),
        b"data": cifar_rows(images.pixels),
        b"filenames": [f"{label[:4]}_s_{i:06d}.png".encode() for i in range(len(images.labels))],
    }


def write_cifar100_python(root: Path, train: Images, test: Images, protocol: int = 2) -> Path:
    """One pickle per split with fine and coarse labels; here class c belongs to c // 5."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, images in (("train", train), ("test", test)):
        values = {
            b"filenames": [f"{name}_s_{i:06d}.png".encode() for i in range(len(images.labels))],
            b"batch_label": b"training batch 1 of 1",
            b"fine_labels": images.labels.tolist(),
            b"coarse_labels": (images.labels // 5).tolist(),
            b"data": cifar_rows(images.pixels),
        }
        _dump(folder / name, values, protocol)
    meta = {
        b"fine_label_names": [f"fine{i}".encode() for i in range(100)],
        b"coarse_label_names": [f"coarse{i}".encode() for i in range(20)],
    }
    _dump(folder / "meta", meta, protocol)
    return folder


def _dump(path: Path, value: object, protocol: int) -> None:
    path.write_bytes(pickle.dumps(value, protocol=protocol))


def write_cifar10_binary(root: Path, train: Images, test: Images) -> Path:
    """Records of one byte for the label and 3,072 for the pixels."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    parts = np.array_split(np.arange(len(train.labels)), 5)
    for number, rows in enumerate(parts, 1):
        records = _records(Images(train.pixels[rows], train.labels[rows]))
        (folder / f"data_batch_{number}.bin").write_bytes(records)
    (folder / "test_batch.bin").write_bytes(_records(test))
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR10) + "\n\n")
    return folder


def write_cifar100_binary(root: Path, train: Images, test: Images) -> Path:
    """Records of the coarse label, the fine label and 3,072 bytes of pixels."""
    folder = root / "cifar-100-binary"
    folder.mkdir(parents=True)
    for name, images in (("train", train), ("test", test)):
        content = b"".join(
            bytes([label // 5, label]) + row.tobytes()
            for label, row in zip(images.labels.tolist(), cifar_rows(images.pixels), strict=True)
        )
        (folder / f"{name}.bin").write_bytes(content)
    for kind, count in (("fine", 100), ("coarse", 20)):
        lines = "".join(f"{kind}{i}\n" for i in range(count))
        (folder / f"{kind}_label_names.txt").write_text(lines)
    return folder


def _records(images: Images) -> bytes:
    rows = cifar_rows(images.pixels)
    return b"".join(
        bytes([label]) + row.tobytes()
        for label, row in zip(images.labels.tolist(), rows, strict=True)
    )


def write_idx(
    folder: Path,
    train: Images,
    test: Images,
    prefix: str = "",
    test_name: str = "t10k",
    zipped: bool = False,
) -> Path:
    """The four files of MNIST; with `zipped`, each compressed by gzip."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, images in (("train", train), (test_name, test)):
        count, height, width = images.pixels.shape
        head = struct.pack(">IIII", 0x803, count, height, width)
        files = {
            f"{prefix}{name}-images-idx3-ubyte": head + images.pixels.tobytes(),
            f"{prefix}{name}-labels-idx1-ubyte": struct.pack(">II", 0x801, count)
            + bytes(images.labels.tolist()),
        }
        for file_name, content in files.items():
            if zipped:
                (folder / f"{file_name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / file_name).write_bytes(content)
    return folder


def write_svhn(root: Path, train: Images, test: Images) -> Path:
    """MATLAB files with X (32, 32, 3, N) and y (N, 1); the digit 0 has label 10."""
    root.mkdir(parents=True, exist_ok=True)
    for name, images in (("train", train), ("test", test)):
        labels = np.where(images.labels == 0, 10, images.labels).astype(np.uint8)
        arrays = {"X": np.stack(list(images.pixels), axis=3), "y": labels[:, None]}
        savemat(root / f"{name}_32x32.mat", arrays, do_compression=True)
    return root


def write_stl10(root: Path, train: Images, test: Images) -> Path:
    """Channel by channel, and in each one column after the other; labels 1 to 10."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for name, images in (("train", train), ("test", test)):
        content = b"".join(
            image[:, column, channel].tobytes()
            for image in images.pixels
            for channel in range(3)
            for column in range(96)
        )
        (folder / f"{name}_X.bin").write_bytes(content)
        (folder / f"{name}_y.bin").write_bytes(bytes((images.labels + 1).tolist()))
    (folder / "class_names.txt").write_text("airplane\nbird\n")
    return folder
