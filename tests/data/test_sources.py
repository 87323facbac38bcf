"""`load`: names, directories, data in memory, and errors of one line."""

import copy
import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from seewhy.data import digits
from seewhy.data.dataset import DataOrigin, Dataset, Split
from seewhy.data.memory import check_dataset
from seewhy.data.sources import SOURCES, load, reload_data
from seewhy.errors import SeewhyError
from seewhy.serialization import from_plain

JPEG_CUT = 300


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(
    path: Path,
    color: int | tuple[int, ...] = (9, 8, 7),
    size: tuple[int, int] = (6, 6),
    mode: str = "RGB",
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


def tree(root: Path, layout: dict[str, int], **options: object) -> Path:
    """Folders with so many pictures each; every picture has its own color."""
    for number, (folder, count) in enumerate(layout.items()):
        for i in range(count):
            color = (number, i, 100)
            picture(root / folder / f"{i}.png", color, **options)  # type: ignore[arg-type]
    return root


def refused(message: str, name: str | Path, **options: object) -> None:
    with pytest.raises(SeewhyError, match=message) as caught:
        load(name, quiet=True, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def in_memory(labels: list[int], size: int = 4, mask: bool = False) -> Dataset:
    def split(seed: int) -> Split:
        images = torch.randint(
            0, 256, (len(labels), 3, size, size), generator=torch.Generator().manual_seed(seed)
        )
        masks = images[:, 0] > 127 if mask else None
        return Split(
            images.to(torch.uint8),
            torch.tensor(labels),
            [f"{seed}-{i}" for i in range(len(labels))],
            masks,
        )

    return Dataset("mine", ("a", "b"), split(0), split(1), None, "")


# names


def test_load_digits() -> None:
    data = load("digits", quiet=True)
    assert data.image_shape == (1, 8, 8)
    assert data.classes == tuple("0123456789")
    assert (len(data.train), len(data.test)) == (1438, 359)
    bunch = load_digits()
    for split in (data.train, data.test):
        rows = [int(name.removeprefix("digit-")) for name in split.names]
        np.testing.assert_array_equal(split.labels.numpy(), bunch.target[rows])
        np.testing.assert_allclose(
            split.images[:, 0].numpy(), bunch.images[rows] / 16 * 255, atol=0.5
        )
    share = torch.bincount(data.test.labels) / torch.from_numpy(np.bincount(bunch.target))
    assert (share - 0.2).abs().max() < 0.01
    assert not set(data.train.names) & set(data.test.names)
    assert load("digits", seed=1, quiet=True).test.names != data.test.names


def test_digits_without_the_file_come_from_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = digits._digits()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    np.testing.assert_array_equal(digits._digits(), expected)


def test_load_rejects_unknown_names() -> None:
    refused(
        r"unknown dataset 'digit' \(did you mean 'digits'\?\); possible: cifar10, .*svhn, "
        "a directory's path, or hub:owner/name",
        "digit",
    )
    refused("unknown dataset ''", "")
    refused(r"shapes has no argument 'sed' \(did you mean 'seed'\?\)", "shapes:sed=3")
    refused("hub needs repository", "hub")


def test_load_rejects_paths_of_no_directory(tmp_path: Path) -> None:
    picture(tmp_path / "x.png")
    refused("x.png is a file; pass the directory", tmp_path / "x.png")
    refused("nowhere does not exist; pass a directory", str(tmp_path / "nowhere"))
    refused("cifar10 does not exist", "./cifar10")


def test_load_prefers_names_to_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path / "digits", {"a": 5, "b": 5})
    monkeypatch.chdir(tmp_path)
    assert len(load("digits", quiet=True).classes) == 10
    assert load("./digits", quiet=True).classes == ("a", "b")
    assert load(Path("digits"), quiet=True).classes == ("a", "b")
    (tmp_path / "digits").rename("pets")
    assert load("pets", quiet=True).name == "pets"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size must be at least 1, found 0"),
        ({"validation": 1.0}, "validation must be at least 0 and below 1, found 1.0"),
        ({"validation": -0.1}, "validation must be at least 0"),
        ({"validation": float("nan")}, "validation must be at least 0 and below 1, found nan"),
        ({"validation": "0.1"}, "validation must be a number, found '0.1' of type str"),
        (
            {"validation": np.ones((9, 9))},
            r"validation must be a number, found array.* of type ndarray",
        ),
        ({"image_size": 12.0}, "image_size must be a whole number, found 12.0 of type float"),
        ({"image_size": True}, "image_size must be a whole number, found True of type bool"),
        ({"seed": None}, "seed must be a whole number, found None"),
        ({"label": 3}, "label must be the name of a column, found 3 of type int"),
        ({"seed": -1}, "seed must be at least 0, found -1"),
        ({"label": "x"}, "digits has no label columns to choose from, found label='x'"),
    ],
)
def test_load_rejects_values_out_of_range(options: dict[str, object], message: str) -> None:
    refused(message, "digits", **options)


@pytest.mark.slow
def test_load_takes_numpy_numbers() -> None:
    data = load(
        "digits", image_size=np.int64(6), validation=np.float64(0.25), seed=np.uint8(3), quiet=True
    )  # type: ignore[arg-type]
    plain = load("digits", image_size=6, validation=0.25, seed=3, quiet=True)
    assert data.fingerprint == plain.fingerprint
    assert data.load_args == plain.load_args
    assert json.loads(json.dumps(data.load_args)) == data.load_args


def test_load_rejects_other_types() -> None:
    message = "name must be a dataset or the path of a directory, found 5 of type int"
    refused(message, 5)  # type: ignore[arg-type]


# sources from outside


def test_load_takes_an_added_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def mine(size: int = 4) -> Dataset:
        return in_memory([0, 1] * 10, size)

    monkeypatch.setitem(SOURCES, "mine", mine)
    data = load("mine:size=6", quiet=True)
    assert data.image_shape == (3, 6, 6)
    assert len(data.fingerprint) == 32
    monkeypatch.setitem(SOURCES, "mine", partial(mine, size=5))
    assert load("mine", quiet=True).image_shape == (3, 5, 5)


def test_load_splits_and_resizes_data_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made = in_memory([0, 1] * 10, size=8, mask=True)
    monkeypatch.setitem(SOURCES, "mine", lambda: made)
    data = load("mine", image_size=4, validation=0.2, quiet=True)
    assert data.image_shape == (3, 4, 4)
    assert data.validation is not None
    assert torch.bincount(data.validation.labels).tolist() == [2, 2]
    assert sorted([*data.train.names, *data.validation.names]) == sorted(made.train.names)
    row = made.train.names.index(data.train.names[0])
    expected = Image.fromarray(made.train.images[row].permute(1, 2, 0).numpy()).resize(
        (4, 4), Image.Resampling.BICUBIC
    )
    np.testing.assert_array_equal(
        data.train.images[0].permute(1, 2, 0).numpy(), np.asarray(expected)
    )
    kept = load("mine", validation=0.2, quiet=True)
    place = [made.train.names.index(name) for name in kept.train.names]
    assert torch.equal(kept.train.images, made.train.images[place])
    assert made.train.masks is not None
    assert kept.train.masks is not None
    assert torch.equal(kept.train.masks, made.train.masks[place])
    other = replace(made, train=replace(made.train, masks=~made.train.masks))  # as are its pixels
    monkeypatch.setitem(SOURCES, "mine", lambda: other)
    changed = load("mine", validation=0.2, quiet=True)
    assert changed.train.masks is not None
    assert torch.equal(changed.train.masks, ~kept.train.masks)


def test_load_rejects_invalid_data_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made = in_memory([0, 1])
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: in_memory([0, 7]), "labels of the train split are out of range 0 to 1"),
        (lambda: 5, "must return a Dataset or a Source, found int"),
        (
            lambda: Dataset(
                "mine",
                ("a", "b"),
                made.train,
                Split(made.test.images.float(), *_rest(made)),
                None,
                "",
            ),
            "uint8, found",
        ),
        (
            lambda: Dataset(
                "mine",
                ("a", "b"),
                made.train,
                Split(made.test.images, torch.tensor([1]), ["x"]),
                None,
                "",
            ),
            "2 images, 1 label and 1 name",
        ),
    ]
    for source, message in cases:
        monkeypatch.setitem(SOURCES, "mine", source)
        refused(message, "mine")
    monkeypatch.setitem(SOURCES, "mine", lambda: made)
    refused("mine has no label columns", "mine", label="x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": np.zeros((2, 3, 4, 4), dtype=np.uint8)},
            r"images must be \(N, C, H, W\) uint8, found \(2, 3, 4, 4\) uint8",
        ),
        (
            {"images": torch.zeros(2, 3, 4, 4, dtype=torch.int8)},
            r".* uint8, found \(2, 3, 4, 4\) int8",
        ),
        (
            {"images": torch.zeros(2, 3, 4, dtype=torch.uint8)},
            r".* uint8, found \(2, 3, 4\) uint8",
        ),
        ({"images": torch.zeros(2, 3, 0, 4, dtype=torch.uint8)}, r".* uint8, found \(2, 3, 0, 4\)"),
        (
            {"images": torch.zeros(2, 3, 5, 4, dtype=torch.uint8)},
            "images are 3x5x4 but those of train are 3x4x4; resize them",
        ),
        (
            {"labels": torch.tensor([0, 1], dtype=torch.int32)},
            r"labels must be \(N,\) int64, or .*, found \(2,\) int32",
        ),
        (
            {"labels": torch.tensor([[0, 1]])},
            r"labels must be \(N,\) int64, or .*, found \(1, 2\) int64",
        ),
        ({"labels": [0, 1]}, r"labels must be \(N,\) int64, or .*, found list"),
        ({"names": iter("ab")}, "names must be a list of N names, found str_"),
        (
            {"names": ["a"]},
            "images, labels and names must be equal in number, found 2 images, 2 labels and 1",
        ),
        (
            {"masks": torch.zeros(2, 4, 5, dtype=torch.bool)},
            r"masks must be .* bool, here \(2, 4, 4\), found \(2, 4, 5\)",
        ),
        (
            {"masks": torch.zeros(2, 4, 4)},
            r"masks must be .* bool, .* found \(2, 4, 4\) float32",
        ),
    ],
)
def test_check_dataset_names_the_problem(change: dict[str, Any], message: str) -> None:
    made = in_memory([0, 1])
    for split in ("test", "validation"):
        with pytest.raises(SeewhyError, match=f"mine: the {split} split's {message}") as caught:
            check_dataset(replace(made, **{split: replace(made.test, **change)}))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((0, 1), "mine: the names of classes must be text, found 0 of type int; pass '0'"),
        (("a", "a"), "mine: 2 classes are named 'a'; give each class a name of its own"),
        ("ab", "mine: classes must be a tuple of names, found str"),
        (np.array(["a", "b"]), r"mine: classes must be a tuple of names, found \(2,\) <U1"),
    ],
)
def test_check_dataset_rejects_names_of_classes(classes: Any, message: str) -> None:
    with pytest.raises(SeewhyError, match=message):
        check_dataset(replace(in_memory([0, 1]), classes=classes))


def test_check_dataset_computes_a_missing_fingerprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = in_memory([0, 1], mask=True)
    done = check_dataset(made)
    assert len(done.fingerprint) == 32
    assert (done.train, done.test, done.classes) == (made.train, made.test, made.classes)
    monkeypatch.setattr(
        "seewhy.data.memory.compute_digest", lambda _: pytest.fail("read the pixels")
    )
    assert check_dataset(done) is done


def _rest(data: Dataset) -> tuple[torch.Tensor, list[str]]:
    return data.test.labels, list(data.test.names)


# class folders


def test_load_train_and_test_folders(tmp_path: Path) -> None:
    tree(tmp_path / "pets", {"train/cat": 12, "train/dog": 3, "test/cat": 2, "test/dog": 1})
    data = load(tmp_path / "pets", quiet=True)
    assert (data.name, data.classes, data.validation, data.skipped) == (
        "pets",
        ("cat", "dog"),
        None,
        (),
    )
    # natural order, names relative to the directory, pixels and labels of that very file
    assert data.train.names == [f"train/cat/{i}.png" for i in range(12)] + [
        f"train/dog/{i}.png" for i in range(3)
    ]
    assert data.train.labels.tolist() == [0] * 12 + [1] * 3
    assert data.train.images[:, 1, 0, 0].tolist() == [*range(12), *range(3)]
    assert data.test.names == ["test/cat/0.png", "test/cat/1.png", "test/dog/0.png"]


@pytest.mark.parametrize("held_out", ["test", "val", "valid", "validation", "Test"])
def test_load_knows_the_names_of_test_folders(tmp_path: Path, held_out: str) -> None:
    tree(tmp_path, {"train/a": 2, "train/b": 2, f"{held_out}/a": 1, f"{held_out}/b": 1})
    data = load(tmp_path, quiet=True)
    assert data.test.names == [f"{held_out}/a/0.png", f"{held_out}/b/0.png"]
    assert data.validation is None


def test_load_three_split_folders(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {f"{split}/{label}": 2 for split in ("train", "test", "val") for label in ("a", "b")},
    )
    data = load(tmp_path, quiet=True)
    assert data.validation is not None
    assert data.validation.names[0] == "val/a/0.png"
    assert data.test.names[0] == "test/a/0.png"
    refused("has its own validation split of 4; leave validation at 0", tmp_path, validation=0.5)
    tree(tmp_path, {"valid/a": 1})
    refused("both 'val' and 'valid' could be the validation split", tmp_path)


def test_load_splits_a_single_tree(tmp_path: Path) -> None:
    tree(tmp_path / "set", {"class10/deep/er": 10, "class2": 20, "class1": 5})
    data = load(tmp_path / "set", validation=0.25, quiet=True)
    assert data.classes == ("class1", "class2", "class10")
    assert torch.bincount(data.test.labels).tolist() == [1, 4, 2]
    assert data.validation is not None
    assert torch.bincount(data.validation.labels).tolist() == [1, 4, 2]
    everything = [*data.train.names, *data.validation.names, *data.test.names]
    assert len(set(everything)) == 35
    assert "class10/deep/er/9.png" in everything


def test_load_takes_train_as_a_class(tmp_path: Path) -> None:
    tree(tmp_path, {"train": 5, "bus": 5})
    assert load(tmp_path, quiet=True).classes == ("bus", "train")


def test_load_skips_system_files_and_follows_links(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", {"a": 5, "b": 5, "empty": 0})
    (root / "empty").mkdir()
    for junk in (
        ".DS_Store",
        "a/Thumbs.db",
        "a/desktop.ini",
        "a/._0.png",
        "README.md",
        ".git/x",
        "__MACOSX/a/0.png",
    ):
        (root / junk).parent.mkdir(parents=True, exist_ok=True)
        (root / junk).write_text("junk")
    tree(tmp_path / "elsewhere", {"c": 5})
    (root / "c").symlink_to(tmp_path / "elsewhere" / "c")
    (root / "a" / "loop").symlink_to(root / "a")
    (root / "a" / "up").symlink_to(root)  # the images of b and c are not those of a
    data = load(root, quiet=True)
    assert data.classes == ("a", "b", "c")
    assert torch.cat([data.train.labels, data.test.labels]).bincount().tolist() == [5, 5, 5]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_load_escapes_names_that_are_not_utf_8(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "set", {"train/b": 2, "train/caf\udce9": 3, "test/b": 1, "test/caf\udce9": 1}
    )
    (root / "train" / "b" / "1.png").rename(root / "train" / "b" / "\udcff.png")
    data = load(root, quiet=True)
    assert data.classes == ("b", r"caf\xe9")
    assert data.train.names == [
        "train/b/0.png",
        r"train/b/\xff.png",
        *(rf"train/caf\xe9/{i}.png" for i in range(3)),
    ]
    assert data.train.images[:, 1, 0, 0].tolist() == [0, 1, 0, 1, 2]
    (root / "test" / "b" / "\udcff.png").write_text("text")
    refused(r"test/b/\\xff.png is not an image", root)
    refused(r"path .*\\xff is not valid UTF-8; rename", root.rename(tmp_path / "\udcff"))


def test_load_notes_unused_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path, {"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1, "unlabeled/x": 1})
    load(tmp_path)
    assert "not used: unlabeled" in capsys.readouterr().err


def test_load_rejects_invalid_folders(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    refused(r"no images; expected train/<class>/", tmp_path / "none")
    refused(
        "found only the class 'a'; a classifier needs at least two",
        tree(tmp_path / "one", {"a": 5}),
    )
    refused(
        "the test split needs a class with at least two images, found one in 'a', 'b'; add images",
        tree(tmp_path / "single", {"a": 1, "b": 1}),
    )
    lacking = tree(tmp_path / "lacking", {"train/a": 2, "train/b": 2, "test/a": 1, "test/zebra": 1})
    refused("the test split has classes missing from train: 'zebra'", lacking)
    stray = tree(tmp_path / "stray", {"a": 5, "b": 5})
    picture(stray / "x.png")
    refused(r"images outside the class folders: 1 \(the first is x.png\)", stray)
    refused("the folders are the labels", tree(tmp_path / "label", {"a": 5, "b": 5}), label="x")


# sizes and channels


def test_load_keeps_a_common_size(tmp_path: Path) -> None:
    tree(tmp_path, {"a": 5, "b": 5}, size=(9, 6))
    assert load(tmp_path, quiet=True).image_shape == (3, 6, 9)
    assert load(tmp_path, image_size=4, quiet=True).image_shape == (3, 4, 4)


def test_load_converts_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gray = tree(tmp_path / "gray", {"a": 5, "b": 5}, mode="RGB")
    for path in gray.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert load(gray, quiet=True).image_shape == (1, 6, 6)
    color = load(gray, channels=3, quiet=True)
    assert color.image_shape == (3, 6, 6)
    assert (color.train.images == load(gray, quiet=True).train.images).all()
    colored = tree(tmp_path / "colored", {"a": 5, "b": 5})
    luma = load(colored, channels=1, quiet=True)
    with Image.open(colored / luma.train.names[3]) as image:
        assert luma.train.images[3, 0, 0, 0] == image.convert("L").getpixel((0, 0))
    monkeypatch.setitem(SOURCES, "mine", lambda: in_memory([0, 1] * 5))
    assert load("mine", channels=1, quiet=True).image_shape == (1, 4, 4)
    refused(r"channels must be 1 \(gray\) or 3 \(RGB\), found 2", gray, channels=2)


def test_load_resizes_to_the_median_shorter_side(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for i, size in enumerate([(10, 20), (30, 12), (14, 14), (16, 90), (18, 18)] * 2):
            picture(tmp_path / "set" / label / f"{i}.png", size=size)
            picture(tmp_path / "large" / label / f"{i}.png", size=(300, 240 + i))
    assert load(tmp_path / "set", quiet=True).image_shape == (3, 14, 14)
    assert load(tmp_path / "large", quiet=True).image_shape == (3, 224, 224)


def test_load_resizes_large_images_of_a_common_size(tmp_path: Path) -> None:
    tree(tmp_path, {"a": 2, "b": 2}, size=(600, 520))
    assert load(tmp_path, quiet=True).image_shape == (3, 224, 224)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16", "P"])
def test_load_keeps_gray_images_gray(tmp_path: Path, mode: str) -> None:
    for label in ("a", "b"):
        for i in range(5):
            image = Image.new("L", (4, 4), 255 * (i % 2))
            picture_path = tmp_path / label / f"{i}.png"
            picture_path.parent.mkdir(exist_ok=True)
            (image.convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)).save(
                picture_path
            )
    assert load(tmp_path, quiet=True).image_shape == (1, 4, 4)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_load_decodes_again_after_a_late_color_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr("seewhy.data.build._SAMPLED", 4)
    for label in ("a", "b"):
        for i in range(30):
            picture(tmp_path / "set" / label / f"{i}.png", i, mode="L")
    gray = load(tmp_path / "set", quiet=True)
    assert gray.image_shape[0] == 1
    color = Image.new("RGB", (6, 6), (250, 0, 0))
    (color.quantize(2) if mode == "P" else color).save(tmp_path / "set" / "a" / "17.png")
    data = load(tmp_path / "set", quiet=True)
    assert data.image_shape[0] == 3
    split = data.train if "a/17.png" in data.train.names else data.test
    assert split.images[list(split.names).index("a/17.png"), :, 0, 0].tolist() == [250, 0, 0]
    assert torch.equal(data.train.images[0], gray.train.images[0].expand(3, 6, 6))


def test_load_decodes_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.data.build._BLOCK_ROWS", 7)
    monkeypatch.setattr("seewhy.data.build._TASK_ROWS", 2)
    tree(tmp_path, {"train/a": 40, "train/b": 23, "test/a": 1, "test/b": 7})
    data = load(tmp_path, quiet=True)
    assert data.train.images[:, 1, 5, 5].tolist() == [*range(40), *range(23)]
    assert data.train.names[41] == "train/b/1.png"


# bad files


def broken(root: Path) -> dict[str, str]:
    tree(root, {"train/a": 6, "train/b": 6, "test/a": 3, "test/b": 3})
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(root / "train/a/cut.jpg")
    (root / "train/a/cut.jpg").write_bytes((root / "train/a/cut.jpg").read_bytes()[:JPEG_CUT])
    (root / "train/b/notes.txt").write_text("not an image")
    (root / "test/b/fake.png").write_text("not an image")
    (root / "test/b/gone.png").symlink_to(root / "nowhere.png")
    return {
        "train/a/cut.jpg": "damaged",
        "train/b/notes.txt": "not an image",
        "test/b/fake.png": "",
        "test/b/gone.png": "a link to .*nowhere.png, which does not exist",
    }


def test_load_names_an_unreadable_file(tmp_path: Path) -> None:
    for name, why in broken(tmp_path).items():
        refused(f"{name} is .*{why}.*skip_bad_images", tmp_path)
        (tmp_path / name).unlink()
    assert len(load(tmp_path, quiet=True).train) == 12


def test_load_skips_unreadable_files(tmp_path: Path) -> None:
    bad = broken(tmp_path)
    data = load(tmp_path, skip_bad_images=True, quiet=True)
    assert data.skipped == tuple(bad)
    assert data.train.labels.tolist() == [0] * 6 + [1] * 6
    assert not set(data.skipped) & {*data.train.names, *data.test.names}
    assert data.train.images[6:, 1, 0, 0].tolist() == list(range(6))
    refused(
        "4 images cannot be read, the first is train/a/cut.jpg", tmp_path
    )  # from the cache, too
    assert load(tmp_path, skip_bad_images=True, quiet=True).skipped == data.skipped


def test_load_fails_if_all_files_are_unreadable(tmp_path: Path) -> None:
    tree(tmp_path, {"train/a": 2, "train/b": 2, "test/a": 1})
    (tmp_path / "test/a/0.png").write_text("text")
    refused("the test split has no images", tmp_path, skip_bad_images=True)
    for path in tmp_path.glob("train/*/*.png"):
        path.write_text("text")
    refused(
        "none of 4 sampled images can be read: train/a/0.png is not an image",
        tmp_path,
        skip_bad_images=True,
    )


def test_load_args_load_the_data_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "test"):
        for place, name in enumerate(("cat", "dog")):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for index in range(4):
                Image.new("RGB", (9, 9), (40 * index, 200 * place, 0)).save(folder / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    first = load("./pets", image_size=6, validation=0.25, seed=3, quiet=True)
    monkeypatch.chdir("/")
    again = load(**first.load_args, quiet=True)
    assert again.fingerprint == first.fingerprint
    assert again.image_shape == (3, 6, 6)
    assert again.validation is not None
    assert len(again.validation) == 2
    assert load("digits", quiet=True).load_args["name"] == "digits"


def test_limit_samples_training_images_by_class() -> None:
    whole = load("digits", seed=4, quiet=True)
    some = load("digits", limit=200, seed=4, quiet=True)
    assert len(some.train) == 200
    assert torch.equal(some.test.images, whole.test.images)
    counts, all_counts = (
        torch.bincount(split.labels, minlength=10) for split in (some.train, whole.train)
    )
    assert (counts - 200 * all_counts / len(whole.train)).abs().max() <= 1
    by_name = dict(zip(whole.train.names, whole.train.images, strict=True))
    assert all(
        torch.equal(image, by_name[name])
        for name, image in zip(some.train.names, some.train.images, strict=True)
    )
    assert some.fingerprint != whole.fingerprint
    assert load(**some.load_args, quiet=True).fingerprint == some.fingerprint
    assert set(some.train.names) <= set(load("digits", limit=300, seed=4, quiet=True).train.names)
    assert set(some.train.names) != set(load("digits", limit=200, seed=5, quiet=True).train.names)
    assert load("digits", limit=10**6, seed=4, quiet=True).fingerprint == whole.fingerprint


def test_limit_keeps_rare_classes(tmp_path: Path) -> None:
    tree(tmp_path, {"train/a": 40, "train/b": 2, "test/a": 1, "test/b": 1})
    assert torch.bincount(load(tmp_path, limit=3, quiet=True).train.labels).tolist() == [2, 1]
    refused("limit must be at least the number of classes of .*, 2, found 1", tmp_path, limit=1)
    refused("limit must be at least 1, found 0", tmp_path, limit=0)


def test_reload_data_loads_the_same_data() -> None:
    data = load("digits", validation=0.1, limit=200, seed=3, quiet=True)
    assert reload_data(data.origin).fingerprint == data.fingerprint
    assert reload_data(data.origin, data) is data
    assert data.origin.load_args["limit"] == 200


def test_reload_data_checks_the_content() -> None:
    data = in_memory([0, 1, 0, 1])
    data = check_dataset(replace(data, fingerprint=""))
    assert reload_data(data.origin, data) is data
    with pytest.raises(SeewhyError, match="made in memory, so it cannot be loaded again; pass"):
        reload_data(data.origin)
    other = check_dataset(replace(data, test=data.train, fingerprint=""))
    with pytest.raises(SeewhyError, match=f"is {other.fingerprint}, not {data.fingerprint}"):
        reload_data(data.origin, other)


def test_reload_data_detects_changed_files(tmp_path: Path) -> None:
    origin = load(tree(tmp_path, {"train/a": 2, "train/b": 2, "test/a": 1}), quiet=True).origin
    picture(tmp_path / "train" / "a" / "0.png", (250, 250, 250))
    with pytest.raises(SeewhyError, match="not the data of the run"):
        reload_data(origin)


def test_data_origin_survives_json() -> None:
    origin = replace(in_memory([0, 1]).origin, skipped=("a.png",))
    assert from_plain(DataOrigin, json.loads(json.dumps(asdict(origin)))) == origin


def test_a_class_with_one_image_stays_in_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load(tree(tmp_path / "single", {"a": 5, "b": 1, "c": 2}), validation=0.3)
    assert "the test split has no images of 'b', which have only one" in capsys.readouterr().err
    assert data.train.labels.tolist().count(1) == 1
    assert set(data.test.labels.tolist()) == {0, 2}


def test_fingerprint_of_a_dataset_with_another_split_is_computed_anew() -> None:
    data = load("digits", quiet=True)
    assert replace(data, name="x").fingerprint == data.fingerprint
    assert replace(replace(data, name="x"), value_range=None).fingerprint == data.fingerprint
    relabeled = replace(data.test, labels=data.test.labels.flip(0))
    changed = replace(data, test=relabeled)
    renamed = replace(data, classes=tuple("abcdefghij"))
    assert changed.fingerprint == renamed.fingerprint == ""
    for other in (changed, renamed, replace(changed, name="y")):
        assert check_dataset(other).fingerprint not in ("", data.fingerprint)
        with pytest.raises(SeewhyError, match="is not the data of the run: its fingerprint is"):
            reload_data(data.origin, other)
    assert check_dataset(replace(changed, test=data.test)).fingerprint == data.fingerprint
    assert replace(data, test=relabeled, fingerprint="given").fingerprint == "given"


def test_fingerprint_survives_pickling_and_copying() -> None:
    data = load("digits", quiet=True)
    for same in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert replace(same, name="x").fingerprint == data.fingerprint
        assert replace(same, test=same.train).fingerprint == ""
