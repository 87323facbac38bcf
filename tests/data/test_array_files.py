"""Arrays in .npz and .npy files."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from seewhy.data.sources import load
from seewhy.errors import SeewhyError

GENERATOR = np.random.default_rng(0)
X = GENERATOR.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)
Y = np.arange(30) % 3
X2 = GENERATOR.integers(0, 256, (9, 6, 5, 3), dtype=np.uint8)
Y2 = np.arange(9)[::-1] % 3


def refused(message: str, path: Path) -> None:
    with pytest.raises(SeewhyError, match=message) as caught:
        load(path, quiet=True)
    assert "\n" not in str(caught.value)


def assert_holds(path: Path, classes: tuple[str, ...] = ("0", "1", "2")) -> None:
    data = load(path, quiet=True)
    for split, images, labels in ((data.train, X, Y), (data.test, X2, Y2)):
        np.testing.assert_array_equal(split.images.permute(0, 2, 3, 1).numpy(), images)
        assert split.labels.tolist() == labels.tolist()
    assert data.classes == classes


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),  # Keras
        ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
        ("trainX", "trainY", "testX", "testY"),
        ("images", "labels", "images_test", "labels_test"),
    ],
)
def test_npz_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **dict(zip(names, (X, Y[:, None], X2, Y2), strict=True)))
    assert_holds(path)
    assert load(path, quiet=True).name == "mine"
    assert_holds(tmp_path)


def test_npz_files_of_one_array_each(tmp_path: Path) -> None:
    """As those of KMNIST."""
    for name, array in (("train-imgs", X), ("train-labels", Y), ("test-imgs", X2)):
        np.savez(tmp_path / f"kmnist-{name}.npz", array)
    np.savez(tmp_path / "kmnist-test-labels.npz", Y2)
    assert_holds(tmp_path)
    assert load("kmnist", root=tmp_path, quiet=True).name == "kmnist"


def test_npz_file_of_each_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", images=X, labels=Y)
    np.savez(tmp_path / "test.npz", images=X2, labels=Y2)
    assert_holds(tmp_path)


def test_npy_files(tmp_path: Path) -> None:
    for name, array in (("x_train", X), ("y_train", Y), ("x_test", X2), ("y_test", Y2)):
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "embeddings.npy", np.zeros(3))
    assert_holds(tmp_path)


def test_npy_files_without_splits(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", X)
    np.save(tmp_path / "labels.npy", Y)
    data = load(tmp_path, quiet=True)
    assert (len(data.train), len(data.test)) == (24, 6)
    index = [int(name.removeprefix("train-")) for name in data.test.names]
    np.testing.assert_array_equal(data.test.images.permute(0, 2, 3, 1).numpy(), X[index])


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (X.transpose(0, 3, 1, 2), Y),  # channels first
        (X / 255, Y.astype(np.uint8)),
        (X.astype(np.float32), Y.astype(np.float64)),
        (X.astype(np.int64), np.eye(3)[Y]),  # one-hot
    ],
)
def test_forms_of_arrays(tmp_path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=X2, y_test=Y2)
    assert_holds(path)


def test_classes_of_arrays(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    names = np.array(["cat", "dog", "eel"])
    np.savez(path, x_train=X, y_train=Y, x_test=X2, y_test=Y2, classes=names)
    assert_holds(path, ("cat", "dog", "eel"))
    np.savez(path, x_train=X, y_train=names[Y], x_test=X2, y_test=names[Y2].astype("S"))
    assert_holds(path, ("cat", "dog", "eel"))
    np.savez(path, x_train=X, y_train=10 * Y, x_test=X2, y_test=10 * Y2)
    assert_holds(path, ("0", "10", "20"))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.where(Y, 2**63, 10).astype(np.uint64), ("10", "9223372036854775808")),
        (np.where(Y, 1e20, 3), ("3", "100000000000000000000")),
        (np.where(Y, "10", "9"), ("9", "10")),
    ],
)
def test_labels_in_natural_order(
    tmp_path: Path, labels: np.ndarray, classes: tuple[str, ...]
) -> None:
    np.savez(tmp_path / "mine.npz", x=X, y=labels)
    data = load(tmp_path, quiet=True)
    assert data.classes == classes
    rows = {
        name: bool(label) for name, label in zip(data.train.names, data.train.labels, strict=True)
    }
    assert all(rows[name] == bool(Y[int(name[-5:])]) for name in rows)


def test_gray_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=X[..., 0], y=Y)
    assert load(tmp_path, quiet=True).image_shape == (1, 6, 5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": X, "b": Y}, "arrays of images and labels expected, found a, b; name them x_train"),
        ({"x_train": X}, "arrays of images and labels expected, found x_train"),
        ({"x_train": X, "y_train": Y[:-1]}, "x_train has 30 images but y_train 29 labels"),
        ({"x_train": X, "y_train": Y, "x_test": X2}, "x_test has no labels; add the array test_l"),
        ({"x_test": X, "y_test": Y}, "no images of the training split; name the arrays x_train"),
        ({"x": X[:, 0, 0], "y": Y}, r"x must be \(N, H, W\), .* found \(30, 3\)"),
        ({"x": X[..., :2], "y": Y}, r"with 1 or 3 channels, found \(30, 6, 5, 2\)"),
        ({"x": X * np.nan, "y": Y}, "mine: no pixel is a finite number; restore the images"),
        ({"x": X.astype(str), "y": Y}, "x must be numbers"),
        ({"x": X, "y": Y + 0.5}, r"y must be labels \(N,\) of whole numbers or text"),
        (
            {"x": X, "y": np.where(Y > 0, np.inf, 0)},
            r"y must be labels \(N,\) of whole numbers or text",
        ),
        ({"x": X, "y": Y % 2, "classes": ["a", "a"]}, "2 classes are named 'a'; give each class a"),
        ({"x": X, "y": Y - 1}, "labels must be at least 0, found -1; keep only labeled images"),
        ({"x": X, "images": X, "y": Y}, "both x and images could be the images; remove one"),
        ({"x": X, "y": Y, "x_train": X2, "y_train": Y2}, "x has no split in its name, unlike x_t"),
    ],
)
def test_arrays_that_cannot_be_used(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "mine.npz", **arrays)
    refused(message, tmp_path / "mine.npz")


def test_arrays_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=np.array([{}], dtype=object), y=Y)
    refused("mine.npz holds Python objects, which are not read from a file", tmp_path)
    (tmp_path / "mine.npz").write_bytes(pickle.dumps(X))
    refused("mine.npz holds Python objects", tmp_path)


def test_damaged_arrays(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:-200])
    refused("mine.npz is damaged", path)
    path.write_bytes(b"")
    refused("mine.npz is damaged", path)


def test_two_sets_of_arrays(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", x=X, y=Y)
    refused(r"several datasets: a \(a.npz\), b \(b.npz\); pass the path of one", tmp_path)
    assert load(tmp_path / "a.npz", quiet=True).name == "a"
