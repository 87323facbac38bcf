"""Published datasets on disk, written in their exact layouts, against the images in them."""

import gzip
import io
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from published_files import (
    CIFAR10,
    Images,
    random_images,
    write_cifar10_binary,
    write_cifar10_python,
    write_cifar100_binary,
    write_cifar100_python,
    write_idx,
    write_stl10,
    write_svhn,
)

from seewhy.data.dataset import Dataset, Split
from seewhy.data.sources import load, reload_data
from seewhy.errors import SeewhyError

DIGITS = tuple("0123456789")


def refused(message: str, name: str | Path, **options: object) -> None:
    with pytest.raises(SeewhyError, match=message) as caught:
        load(name, quiet=True, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def assert_split(split: Split, images: Images) -> None:
    pixels = images.pixels if images.pixels.ndim == 4 else images.pixels[..., None]
    np.testing.assert_array_equal(split.images.permute(0, 2, 3, 1).numpy(), pixels)
    assert split.labels.tolist() == images.labels.tolist()


def assert_holds(data: Dataset, train: Images, test: Images) -> None:
    assert_split(data.train, train)
    assert_split(data.test, test)


def color(side: int = 32, num_classes: int = 10) -> tuple[Images, Images]:
    counts = (num_classes + 3, num_classes + 1)
    return (
        random_images(counts[0], num_classes, side, seed=1),
        random_images(counts[1], num_classes, side, seed=2),
    )


def gray(num_classes: int = 10) -> tuple[Images, Images]:
    return (
        random_images(num_classes + 3, num_classes, 28, 1, seed=3),
        random_images(num_classes + 1, num_classes, 28, 1, seed=4),
    )


# each dataset


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_cifar10_python(tmp_path: Path, protocol: int) -> None:
    train, test = color()
    folder = write_cifar10_python(tmp_path / "data", train, test, protocol)
    data = load(tmp_path / "data", quiet=True)
    assert_holds(data, train, test)
    assert (data.name, data.classes) == ("cifar10", tuple(CIFAR10))
    assert data.train.names[3] == "batc_s_000000.png"  # the second batch begins
    assert load(folder, quiet=True).fingerprint == data.fingerprint
    named = load("cifar10", root=tmp_path / "data", quiet=True)
    assert named.fingerprint == data.fingerprint
    assert named.load_args["root"] == str(tmp_path / "data")
    assert reload_data(named.origin).fingerprint == data.fingerprint


def test_cifar10_pickled_by_python_2(tmp_path: Path) -> None:
    """Python 2 wrote text where Python 3 writes bytes, and numpy.core for the array."""
    train, test = color()
    folder = write_cifar10_python(tmp_path, train, test)
    for path in folder.iterdir():
        if path.suffix != ".html":
            path.write_bytes(as_python_2(path.read_bytes()))
    assert b"numpy.core.multiarray" in (folder / "test_batch").read_bytes()
    assert_holds(load(tmp_path, quiet=True), train, test)


def as_python_2(content: bytes) -> bytes:
    """A pickle as Python 2 wrote it: bytes as its text, without the detour over an encoding."""

    class Pickler(pickle._Pickler):  # type: ignore[name-defined]
        dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

        def save_bytes(self, value: bytes) -> None:
            self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
            self.memoize(value)

        dispatch[bytes] = save_bytes

    file = io.BytesIO()
    Pickler(file, 2).dump(pickle.loads(content))
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def test_cifar10_binary_is_the_same_data(tmp_path: Path) -> None:
    train, test = color()
    write_cifar10_binary(tmp_path, train, test)
    data = load(tmp_path, quiet=True)
    assert_holds(data, train, test)
    assert data.classes == tuple(CIFAR10)
    write_cifar10_python(tmp_path, train, test)
    both = load(tmp_path, quiet=True)  # two layouts of one dataset are no ambiguity
    assert both.fingerprint == data.fingerprint
    assert both.train.names != data.train.names


@pytest.mark.parametrize("write", [write_cifar100_python, write_cifar100_binary])
def test_cifar100_has_fine_and_coarse_labels(
    tmp_path: Path, write: Callable[[Path, Images, Images], Path]
) -> None:
    train, test = color(num_classes=100)
    write(tmp_path, train, test)
    data = load(tmp_path, quiet=True)
    assert_holds(data, train, test)
    assert (data.name, data.classes[99], len(data.classes)) == ("cifar100", "fine99", 100)
    coarse = load("cifar100", root=tmp_path, label="coarse_label", quiet=True)
    assert coarse.train.labels.tolist() == (train.labels // 5).tolist()
    assert (coarse.classes[19], len(coarse.classes)) == ("coarse19", 20)
    refused(
        "no label column 'course'; possible: fine_label, coarse_label", tmp_path, label="course"
    )


@pytest.mark.sampled(4)
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("folder", "name", "classes"),
    [
        ("MNIST/raw", "mnist", DIGITS),
        ("FashionMNIST/raw", "fashion-mnist", ("T - shirt / top", "Trouser", "Pullover")),
        ("KMNIST/raw", "kmnist", DIGITS),
        ("fashion", "fashion-mnist", ("T - shirt / top",)),
    ],
)
def test_idx_in_the_folders_of_torchvision(
    tmp_path: Path, folder: str, name: str, classes: tuple[str, ...], zipped: bool
) -> None:
    train, test = gray()
    write_idx(tmp_path / "data" / folder, train, test, zipped=zipped)
    for data in (
        load(tmp_path / "data", quiet=True),
        load(tmp_path / "data" / folder, quiet=True),
        load(name, root=tmp_path / "data", quiet=True),
    ):
        assert_holds(data, train, test)
        assert data.name == name
        assert data.classes[: len(classes)] == classes
        assert data.image_shape == (1, 28, 28)


def test_idx_in_a_folder_of_any_name(tmp_path: Path) -> None:
    train, test = gray()
    folder = write_idx(tmp_path / "data" / "set", train, test)
    write_idx(folder, test, train, zipped=True)  # extracted files come first
    data = load(folder, quiet=True)
    assert_holds(data, train, test)
    assert (data.name, data.classes) == ("set", DIGITS)
    fashion = load("fashion-mnist", root=folder, quiet=True)
    assert fashion.classes[9] == "Ankle boot"
    for path in folder.iterdir():  # as in other copies of the files
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert_holds(load(folder, quiet=True), train, test)


@pytest.mark.parametrize(
    ("variant", "num_classes", "first", "some"),
    [
        ("letters", 26, 1, {0: "A", 25: "Z"}),
        ("balanced", 47, 0, {9: "9", 10: "A", 35: "Z", 36: "a", 38: "d", 46: "t"}),
        ("bymerge", 47, 0, {36: "a", 37: "b", 38: "d", 46: "t"}),
        ("byclass", 62, 0, {10: "A", 36: "a", 61: "z"}),
        ("digits", 10, 0, {0: "0"}),
        ("mnist", 10, 0, {9: "9"}),
    ],
)
def test_emnist(
    tmp_path: Path, variant: str, num_classes: int, first: int, some: dict[int, str]
) -> None:
    train, test = gray(num_classes)
    stored = [
        Images(images.pixels.transpose(0, 2, 1).copy(), images.labels + first)
        for images in (train, test)
    ]
    raw = tmp_path / "EMNIST" / "raw"
    write_idx(raw, *stored, prefix=f"emnist-{variant}-", test_name="test", zipped=True)
    data = load(f"emnist-{variant}", root=tmp_path, quiet=True)
    assert_holds(data, train, test)
    assert len(data.classes) == num_classes
    assert {index: data.classes[index] for index in some} == some


def test_emnist_in_its_archive(tmp_path: Path) -> None:
    train, test = gray()
    for variant in ("digits", "mnist"):
        prefix = f"emnist-{variant}-"
        write_idx(tmp_path / "gzip", *_columns(train, test), prefix, "test", zipped=True)
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "gzip")
    (tmp_path / "EMNIST" / "raw").mkdir(parents=True)
    archive = Path(packed).rename(tmp_path / "EMNIST" / "raw" / "gzip.zip")
    assert_holds(load("emnist-digits", root=archive, quiet=True), train, test)
    refused(
        r"gzip.zip holds several datasets: emnist-digits \(gzip\), emnist-mnist \(gzip\); name "
        r"one, as in load\('emnist-digits', root=…\) or .emnist-digits --root …., or pass",
        archive,
    )


def _columns(*splits: Images) -> list[Images]:
    return [Images(each.pixels.transpose(0, 2, 1).copy(), each.labels) for each in splits]


def test_svhn(tmp_path: Path) -> None:
    train, test = color()
    write_svhn(tmp_path / "data", train, test)
    data = load("svhn", root=tmp_path / "data", quiet=True)
    assert_holds(data, train, test)
    assert data.classes == DIGITS
    assert load(tmp_path / "data", quiet=True).fingerprint == data.fingerprint


def test_stl10(tmp_path: Path) -> None:
    train, test = color(side=96)
    write_stl10(tmp_path, train, test)
    data = load(tmp_path, quiet=True)
    assert_holds(data, train, test)
    assert (data.name, data.classes[1]) == ("stl10", "bird")


# archives


def tar(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    return path


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("write", "name", "archive"),
    [
        (write_cifar10_python, "cifar10", "cifar-10-python.tar.gz"),
        (write_cifar10_binary, "cifar10", "cifar-10-binary.tar.gz"),
        (write_cifar100_python, "cifar100", "cifar-100-python.tar.gz"),
        (write_cifar100_binary, "cifar100", "cifar-100-binary.tar.gz"),
    ],
)
def test_published_archives(
    tmp_path: Path,
    write: Callable[[Path, Images, Images], Path],
    name: str,
    archive: str,
) -> None:
    train, test = color(num_classes=int(name.removeprefix("cifar")))
    folder = write(tmp_path / "out", train, test)
    (tmp_path / "data").mkdir()
    path = tar(folder, tmp_path / "data" / archive)
    for data in (
        load(path, quiet=True),
        load(tmp_path / "data", quiet=True),
        load(name, root=tmp_path / "data", quiet=True),
    ):
        assert_holds(data, train, test)
        assert data.name == name
    assert list((tmp_path / "data").iterdir()) == [path]  # nothing was extracted


def test_an_archive_beside_its_extracted_folder(tmp_path: Path) -> None:
    """As torchvision leaves them."""
    train, test = color()
    folder = write_cifar10_python(tmp_path, train, test)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"not even an archive")
    assert_holds(load(tmp_path, quiet=True), train, test)
    shutil.rmtree(folder)
    refused("cifar-10-python.tar.gz cannot be read as an archive", tmp_path)


@pytest.mark.parametrize("suffix", ["zip", "gztar", "tar", "bztar"])
def test_archives_of_any_kind(tmp_path: Path, suffix: str) -> None:
    train, test = gray()
    write_idx(tmp_path / "out" / "MNIST" / "raw", train, test)
    path = shutil.make_archive(str(tmp_path / "mine"), suffix, tmp_path / "out")
    data = load(path, quiet=True)
    assert_holds(data, train, test)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.move(path, alone)
    assert load(alone, quiet=True).fingerprint == data.fingerprint
    assert load("mnist", root=alone, quiet=True).fingerprint == data.fingerprint


def test_a_cached_archive_is_not_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(tmp_path / "out" / "MNIST", *gray())
    path = shutil.make_archive(str(tmp_path / "mine"), "zip", tmp_path / "out")
    first = load(path, quiet=True)
    monkeypatch.setattr("seewhy.data.layouts.archive_tree", lambda _: pytest.fail("opened"))
    assert load(path, quiet=True).fingerprint == first.fingerprint


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "C:\\evil", "..\\evil"])
def test_archives_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(inside / "mine.zip", "w") as archive:
        archive.writestr(name, b"x")
    with tarfile.open(inside / "mine.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    for path in ("mine.zip", "mine.tar"):
        refused("leads out of the archive, so it is not trusted", inside / path)
    assert not (tmp_path / "evil").exists()


def test_links_in_archives_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(gzip.compress(b"secret"))
    link = tarfile.TarInfo("MNIST/train-images-idx3-ubyte")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
    with tarfile.open(tmp_path / "mine.tar", "w") as archive:
        archive.addfile(link)
    refused("mine.tar holds no dataset in a published layout", tmp_path / "mine.tar")


# errors


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


def test_a_hostile_pickle_is_refused(tmp_path: Path) -> None:
    folder = write_cifar10_python(tmp_path, *color())
    proof = tmp_path / "proof"
    batch = {b"data": Hostile(f"touch {proof}"), b"labels": [0]}
    (folder / "data_batch_4").write_bytes(pickle.dumps(batch, protocol=2))
    refused(
        r"data_batch_4 is not a pickle of arrays, lists and text \(it asks for \w+.system\); "
        "nothing of it was run: download it again",
        tmp_path,
    )
    assert not proof.exists()


def test_damaged_files(tmp_path: Path) -> None:
    train, test = color()
    folder = write_cifar10_python(tmp_path / "py", train, test)
    content = (folder / "test_batch").read_bytes()
    (folder / "test_batch").write_bytes(content[:-100])
    refused("test_batch is not a pickle", folder)
    (folder / "test_batch").write_bytes(pickle.dumps([1]))
    refused(r"test_batch is damaged \(a dict expected, found list\); download it again", folder)
    for change, message in (
        ({b"data": np.zeros((11, 99), np.uint8)}, r"'data' must be \(N, 3072\) uint8"),
        ({b"labels": [1, 2]}, "'labels' must be 11 labels"),
        ({b"labels": ["cat"] * 11}, "'labels' must be whole numbers"),
    ):
        batch = pickle.loads(content, encoding="bytes") | change
        (folder / "test_batch").write_bytes(pickle.dumps(batch))
        refused(rf"test_batch is damaged \({message}\)", folder)
    (folder / "test_batch").unlink()
    refused("of cifar10, test_batch is missing; download it again", folder)
    (folder / "data_batch_2").unlink()
    refused("of cifar10, data_batch_2, test_batch are missing", tmp_path / "py")

    folder = write_cifar10_binary(tmp_path / "bin", train, test)
    _cut(folder / "data_batch_3.bin")
    refused(r"data_batch_3.bin is damaged \(9,\d\d\d bytes are not records of 3,073\)", folder)
    folder = write_svhn(tmp_path / "svhn", train, test)
    _cut(folder / "test_32x32.mat")
    refused("test_32x32.mat is damaged", folder)
    folder = write_stl10(tmp_path / "stl", *color(side=96))
    _cut(folder / "train_y.bin")
    refused(r"train_y.bin is damaged \(12 labels for 13 images\)", folder)
    _cut(folder / "test_X.bin")
    _cut(folder / "train_X.bin")
    refused(r"train_X.bin is damaged \(359,423 bytes are not images of 27,648\)", folder)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_idx_files(tmp_path: Path, zipped: bool) -> None:
    folder = write_idx(tmp_path / "MNIST" / "raw", *gray(), zipped=zipped)
    path = next(folder.glob("train-images*"))
    content = path.read_bytes()
    plain = gzip.decompress(content) if zipped else content

    def write(content: bytes) -> None:
        path.write_bytes(gzip.compress(content) if zipped else content)

    write(plain[:-5])
    refused(r"train-images-idx3-ubyte(.gz)? is damaged \(10,192 bytes of .* found 10,187\)", folder)
    write(plain + b"x")
    refused("10,192 bytes of values expected, found more", folder)
    write(b"\0\0\x08\x03" + b"\xff" * 12)  # a header of 2^96 values
    refused("bytes of values expected", folder)
    write(b"\0\0\x0d" + plain[3:])  # float32
    refused("it does not begin as an IDX file with 3 dimensions of uint8", folder)
    write(plain)
    path.write_bytes(path.read_bytes()[: len(content) // 2])
    refused("train-images-idx3-ubyte(.gz)? is damaged", folder)


def test_several_datasets_in_a_folder(tmp_path: Path) -> None:
    write_cifar10_python(tmp_path / "data", *color())
    train, test = gray()
    write_idx(tmp_path / "data" / "MNIST" / "raw", train, test)
    refused(
        r"data holds several datasets: cifar10 \(cifar-10-batches-py\), mnist \(MNIST/raw\); name "
        r"one, as in load\('cifar10', root=…\) or .cifar10 --root …., or pass the path of one",
        tmp_path / "data",
    )
    assert_holds(load("mnist", root=tmp_path / "data", quiet=True), train, test)
    write_idx(tmp_path / "data" / "copy" / "mnist", train, test)
    refused(
        r"several datasets: mnist \(MNIST/raw\), mnist \(copy/mnist\); pass the path of one",
        "mnist",
        root=tmp_path / "data",
    )


def test_a_published_dataset_beside_images(tmp_path: Path) -> None:
    train, test = gray()
    write_idx(tmp_path / "MNIST", train, test)
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "photos" / "cat" / "a.png")
    refused(r"holds mnist \(MNIST\) and images in photos/cat; pass the directory of one", tmp_path)
    assert_holds(load("mnist", root=tmp_path, quiet=True), train, test)


def test_root_and_name_errors(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST", *gray())
    refused(
        "cifar10 is not in .*; pass as root the directory or the archive", "cifar10", root=tmp_path
    )
    refused(
        r"published dataset, found 'cifar-10' \(did you mean 'cifar10'\?\); possible: cifar10, ",
        "cifar-10",
        root=tmp_path,
    )
    refused("root .*nowhere does not exist", "mnist", root=tmp_path / "nowhere")
    refused("root must be a path, found 5 of type int", "mnist", root=5)
    refused(r"stl10 is read from its published files: .* load\('stl10', root='data'\)", "stl10")
    refused("mnist has no label columns", "mnist", root=tmp_path, label="x")


def test_a_held_out_part_and_a_limit(tmp_path: Path) -> None:
    train, test = random_images(40, 10, 28, 1), random_images(20, 10, 28, 1, seed=1)
    write_idx(tmp_path / "MNIST", train, test)
    data = load("mnist", root=tmp_path, validation=0.25, limit=20, image_size=14, quiet=True)
    assert data.validation is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 10, 20)
    assert torch.bincount(data.train.labels).tolist() == [2] * 10
