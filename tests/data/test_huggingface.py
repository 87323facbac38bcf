"""Parquet directories and the hub: columns from features, and no network if there is a copy."""

from __future__ import annotations

import io
import random
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import lazy_loader
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from seewhy.data.huggingface import hub_answers
from seewhy.data.sources import load
from seewhy.errors import SeewhyError

datasets = lazy_loader.load("datasets")  # takes a second, in the worker that runs these tests


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SEEWHY_CACHE", str(cache))
    return cache


def png(*color: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(buffer, "PNG")
    return buffer.getvalue()


def cells(count: int) -> list[dict[str, Any]]:
    """Pictures whose red is their number."""
    return [
        {"bytes": png(i, 50, 60), "path": f"{i:03d}.png" if i % 2 else None} for i in range(count)
    ]


def table(count: int, image: str = "picture", **labels: tuple[Any, list[Any]]) -> datasets.Dataset:
    """`count` pictures in the column `image`, then label columns: a feature and its values."""
    features = {image: datasets.Image(), **{name: feature for name, (feature, _) in labels.items()}}
    columns = {image: cells(count), **{name: values for name, (_, values) in labels.items()}}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def class_label(*names: str) -> datasets.ClassLabel:
    return datasets.ClassLabel(names=list(names))


def stored(root: Path, name: str, data: datasets.Dataset) -> None:
    root.mkdir(parents=True, exist_ok=True)
    data.to_parquet(root / name)


def refused(message: str, name: str | Path, **options: Any) -> None:
    with pytest.raises(SeewhyError, match=message) as caught:
        load(name, quiet=True, **options)
    assert "\n" not in str(caught.value)


# Parquet


@pytest.mark.parametrize("folder", [".", "data", "plain_text"])
def test_load_parquet_files_of_the_hub(
    tmp_path: Path, own_cache: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library_cache = tmp_path / "library"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", library_cache)
    root = tmp_path / "a[1] set"  # brackets mean something to a glob
    kind = class_label("cat", "dog")
    stored(root / folder, "train-00000-of-00002.parquet", table(4, kind=(kind, [0, 1, 1, 0])))
    stored(root / folder, "train-00001-of-00002.parquet", table(3, kind=(kind, [1, 1, 1])))
    stored(root / folder, "test-00000-of-00001.parquet", table(2, kind=(kind, [1, 0])))
    data = load(root, quiet=True)
    assert (data.name, data.classes, data.validation) == ("a[1] set", ("cat", "dog"), None)
    assert data.train.labels.tolist() == [0, 1, 1, 0, 1, 1, 1]
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert data.train.names[:4] == ["train-00000", "001.png", "train-00002", "003.png"]
    assert data.test.labels.tolist() == [1, 0]
    assert not library_cache.exists()  # no second copy of the data anywhere
    assert not list(own_cache.rglob("*.arrow"))


@pytest.mark.slow
def test_load_assigns_splits_to_parquet_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = class_label("cat", "dog")
    for name in ("train", "validation", "test-0", "extra-00000-of-00001"):
        stored(tmp_path / "three", f"{name}.parquet", table(4, kind=(kind, [0, 1, 0, 1])))
    data = load(tmp_path / "three")
    assert data.validation is not None
    assert "not used: extra" in capsys.readouterr().err
    stored(tmp_path / "one", "anything.parquet", table(10, kind=(kind, [0, 1] * 5)))
    assert len(load(tmp_path / "one", quiet=True).test) == 2
    stored(tmp_path / "odd", "test.parquet", table(4, kind=(kind, [0, 1, 0, 1])))
    refused("no train-.*parquet; found test.parquet", tmp_path / "odd")
    for folder in ("x", "y"):
        stored(tmp_path / "two" / folder, "train.parquet", table(4, kind=(kind, [0, 1, 0, 1])))
    refused("several folders contain Parquet files: x, y; pass the path of one", tmp_path / "two")


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("mydata-train", "mydata-test"),
        ("my_Training", "my_Testing"),
        ("x.train1.v2", "x.val1.v2"),
        ("trainset", "testset"),
    ],
)
def test_load_finds_the_split_in_a_file_name(tmp_path: Path, train: str, test: str) -> None:
    kind = class_label("cat", "dog")
    stored(tmp_path, f"{train}.parquet", table(6, kind=(kind, [0, 1, 0, 1, 0, 1])))
    stored(tmp_path, f"{test}.parquet", table(2, kind=(kind, [1, 0])))
    data = load(tmp_path, quiet=True)
    assert data.train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert data.test.labels.tolist() == [1, 0]


def test_load_rejects_ambiguous_parquet_names(tmp_path: Path) -> None:
    kind = class_label("cat", "dog")
    for folder, names in {
        "some": ("a-train", "a-holdout"),
        "both": ("train", "train_test"),
        "twice": ("val", "train", "valid"),
    }.items():
        for name in names:
            stored(tmp_path / folder, f"{name}.parquet", table(4, kind=(kind, [0, 1, 0, 1])))
    refused(
        "a-holdout.parquet has no split in its name, unlike other files; add train",
        tmp_path / "some",
    )
    refused(
        r"train_test.parquet names more than one split \(train, test\); rename it",
        tmp_path / "both",
    )
    refused("both 'val' and 'valid' could be the validation split", tmp_path / "twice")


def test_load_rejects_a_parquet_name_that_is_not_utf_8(tmp_path: Path) -> None:
    stored(tmp_path, "train.parquet", table(4, kind=(class_label("cat", "dog"), [0, 1, 0, 1])))
    try:
        (tmp_path / "train.parquet").rename(tmp_path / "train-\udce9.parquet")
    except OSError:
        pytest.skip("this file system has no names that are not UTF-8")
    refused(r"the file name train-\\xe9.parquet is not valid UTF-8", tmp_path)


def test_columns_of_structs_and_integers(tmp_path: Path) -> None:
    """Parquet written without the library's metadata."""
    plain = pa.table(
        {
            "x": pa.array(cells(6), pa.struct({"bytes": pa.binary(), "path": pa.string()})),
            "y": [7, 3, 7, 3, 7, 10],
        }
    )
    for name in ("train", "test"):
        pq.write_table(plain, tmp_path / f"{name}.parquet")
    data = load(tmp_path, quiet=True)
    assert data.classes == ("3", "7", "10")
    assert data.train.labels.tolist() == [1, 0, 1, 0, 1, 2]
    assert data.train.images[:, 0, 0, 0].tolist() == list(range(6))


@pytest.mark.parametrize("form", ["absolute", "relative", "link"])
def test_load_reads_no_file_outside_the_directory(tmp_path: Path, form: str) -> None:
    """The path in a row was chosen by whoever made the table."""
    private = tmp_path / "private"
    private.mkdir()
    (private / "passport.png").write_bytes(png(9, 9, 9))
    root = tmp_path / "set"
    root.mkdir()
    (root / "link").symlink_to(private)
    path = {
        "absolute": str(private / "passport.png"),
        "relative": "../private/passport.png",
        "link": "link/passport.png",
    }[form]
    write_rows(root, [{"bytes": png(i, 0, 0), "path": None} for i in range(3)], path)
    refused(r"the image train-00003 is the file '.*passport.png' outside .*set, which is", root)
    refused("which is not read; store the content", root, skip_bad_images=True)


def test_load_reads_files_below_the_directory(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(png(7, 0, 0))
    write_rows(tmp_path, [{"bytes": png(i, 0, 0), "path": None} for i in range(3)], "images/0.png")
    data = load(tmp_path, quiet=True)
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 7]
    assert data.train.names[3] == "images/0.png"


def test_hub_rows_name_only_files_of_their_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "downloads")
    inside = cache / "datasets--me--pets" / "snapshots" / "1" / "0.png"
    for path in (inside, cache / "datasets--me--secret" / "0.png"):
        path.parent.mkdir(parents=True)
        path.write_bytes(png(7, 0, 0))
    feature = {"image": datasets.Image(), "label": class_label("a", "b")}

    def tables(path: Path) -> datasets.DatasetDict:
        rows = [{"bytes": png(i, 0, 0), "path": None} for i in range(3)]
        cells = [*rows, {"bytes": None, "path": str(path)}]
        columns = {"image": cells, "label": [0, 1, 0, 1]}
        table = datasets.Dataset.from_dict(columns, features=datasets.Features(feature))
        return datasets.DatasetDict(train=table, test=table)

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: tables(inside))
    assert load("hub:me/pets", quiet=True).train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 7]
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, **__: tables(cache / "datasets--me--secret" / "0.png")
    )
    refused("the image train-00003 is the file .*secret.* outside", "hub:me/pets", image_size=3)


def write_rows(root: Path, rows: list[dict[str, Any]], path: str) -> None:
    """train.parquet and test.parquet with `rows` and a row that is only a path."""
    images = [*rows, {"bytes": None, "path": path}]
    image = pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    for name in ("train", "test"):
        pq.write_table(
            pa.table({"image": image, "label": [i % 2 for i in range(len(images))]}),
            root / f"{name}.parquet",
        )


@pytest.mark.parametrize(
    ("labels", "classes", "indices"),
    [
        (
            pa.array([2**63 + 1, 7, 2**64 - 1], pa.uint64()),
            ["7", f"{2**63 + 1}", f"{2**64 - 1}"],
            [1, 0, 2],
        ),
        (pa.array(["10", "2", "1"]), ["1", "2", "10"], [2, 1, 0]),
        (pa.array(["caf\u00e9", "bar", "cafe\u0301"]), ["bar", "caf\u00e9"], [1, 0, 1]),
    ],
)
def test_labels_become_classes_in_natural_order(
    tmp_path: Path, labels: pa.Array, classes: list[str], indices: list[int]
) -> None:
    image = pa.array(cells(3), pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    for name in ("train", "test"):
        pq.write_table(pa.table({"image": image, "label": labels}), tmp_path / f"{name}.parquet")
    data = load(tmp_path, quiet=True)
    assert list(data.classes) == classes
    assert data.train.labels.tolist() == indices


def test_columns_that_differ_by_case(tmp_path: Path) -> None:
    image = pa.array(cells(6), pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    columns = {"image": image, "label": [0, 1] * 3, "Label": [0, 1, 2] * 2}
    for name in ("train", "test"):
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    refused("more than one column could be the label: label, Label; choose with label=…", tmp_path)
    assert len(load(tmp_path, label="label", quiet=True).classes) == 2
    assert len(load(tmp_path, label="Label", quiet=True).classes) == 3


def test_columns_of_string_labels(tmp_path: Path) -> None:
    text = datasets.Value("string")
    stored(tmp_path, "train.parquet", table(4, animal=(text, ["dog", "cat", "dog", "bee"])))
    stored(tmp_path, "test.parquet", table(3, animal=(text, ["cat", "bee", "dog"])))
    data = load(tmp_path, quiet=True)
    assert data.classes == ("bee", "cat", "dog")
    assert data.train.labels.tolist() == [2, 1, 2, 0]
    stored(tmp_path, "test.parquet", table(3, animal=(text, ["cat", "yak", "dog"])))
    refused("the test split has classes missing from train: 'yak'", tmp_path)


@pytest.mark.slow
def test_label_column_is_chosen(tmp_path: Path) -> None:
    number, text, score = (
        datasets.Value("int64"),
        datasets.Value("string"),
        datasets.Value("float32"),
    )
    columns = {
        "id": (number, list(range(6))),
        "name": (text, list("uvuvuv")),
        "score": (score, [0.5] * 6),
    }
    for split in ("train", "test"):
        stored(tmp_path / "ambiguous", f"{split}.parquet", table(6, **columns))
        stored(tmp_path / "none", f"{split}.parquet", table(6, score=columns["score"]))
        kinds = {
            "fine": (class_label("a", "b"), [0, 1] * 3),
            "coarse": (class_label("A", "B"), [1, 0] * 3),
        }
        stored(tmp_path / "clear", f"{split}.parquet", table(6, **columns, **kinds))
    refused(
        "more than one column could be the label: id, name; choose with label=",
        tmp_path / "ambiguous",
    )
    assert load(tmp_path / "ambiguous", label="name", quiet=True).classes == ("u", "v")
    refused(r"no label column \(.*\); found picture \(.*\), score \(float32\)", tmp_path / "none")
    assert load(tmp_path / "clear", quiet=True).classes == ("a", "b")
    assert load(tmp_path / "clear", label="coarse", quiet=True).classes == ("A", "B")
    refused(
        r"no label column 'coarze' \(did you mean 'coarse'\?\); possible: id, name, fine, coarse",
        tmp_path / "clear",
        label="coarze",
    )
    refused("no label column 'score'", tmp_path / "clear", label="score")


def test_missing_labels_are_rejected(tmp_path: Path) -> None:
    kind, number = class_label("a", "b"), datasets.Value("int64")
    for folder, feature in (("named", kind), ("plain", number)):
        stored(tmp_path / folder, "train.parquet", table(4, y=(feature, [0, 1, 0, 1])))
        stored(tmp_path / folder, "test.parquet", table(3, y=(feature, [-1, -1, -1])))
        refused(
            r"3 of 3 labels of the test split are out of range 0 to 1 \(found -1\); "
            "-1 marks images without a label",
            tmp_path / folder,
        )
    stored(tmp_path / "missing", "train.parquet", table(4, y=(kind, [0, 1, None, 1])))
    refused("1 of 4 labels of the train split are missing", tmp_path / "missing")


def test_load_rejects_parquet_without_images(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    datasets.Dataset.from_dict({"text": ["a", "b"], "y": [0, 1]}).to_parquet(
        tmp_path / "text" / "train.parquet"
    )
    refused(r"no image column .*; found text \(string\), y \(int64\)", tmp_path / "text")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "train.parquet").write_text("this is not Parquet")
    refused("the Parquet files cannot be read", tmp_path / "bad")


def test_load_names_an_unreadable_row(tmp_path: Path) -> None:
    plain = (
        table(5, y=(class_label("a", "b"), [0, 1, 0, 1, 0]))
        .cast_column("picture", datasets.Image(decode=False))
        .to_list()
    )
    plain[2]["picture"]["bytes"] = b"text"
    plain[3]["picture"]["bytes"] = b""
    schema = pa.schema(
        {"picture": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "y": pa.int64()}
    )
    pq.write_table(pa.Table.from_pylist(plain, schema), tmp_path / "train.parquet")
    pq.write_table(pa.Table.from_pylist(plain[:2], schema), tmp_path / "test.parquet")
    refused("train-00002 is not an image", tmp_path)
    data = load(tmp_path, skip_bad_images=True, quiet=True)
    assert data.skipped == ("train-00002", "003.png")
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 1, 4]


# the hub


def both(make: Callable[[int], datasets.Dataset], **more: datasets.Dataset) -> datasets.DatasetDict:
    return datasets.DatasetDict(train=make(8), test=make(4), **more)


def digits_table(count: int) -> datasets.Dataset:
    return table(count, "image", label=(class_label(*"0123456789"), [i % 4 for i in range(count)]))


HUB: dict[str, tuple[str, str | None, Callable[[], datasets.DatasetDict]]] = {
    "cifar10": (
        "uoft-cs/cifar10",
        None,
        lambda: both(lambda n: table(n, "img", label=(class_label("x", "y"), [0, 1] * (n // 2)))),
    ),
    "mnist": ("ylecun/mnist", None, lambda: both(digits_table)),
    "fashion-mnist": ("zalando-datasets/fashion_mnist", None, lambda: both(digits_table)),
    "svhn": (
        "ufldl-stanford/svhn",
        "cropped_digits",
        lambda: both(digits_table, extra=digits_table(6)),
    ),
}


def cifar100(count: int) -> datasets.Dataset:
    fine, coarse = class_label("apple", "bed", "bee"), class_label("plants", "things")
    return table(
        count,
        "img",
        fine_label=(fine, [0, 1, 2, 0] * (count // 4)),
        coarse_label=(coarse, [0, 1, 0, 0] * (count // 4)),
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, str | None]]:
    """A hub that is only reached online; returns the calls that reached it."""
    calls = []
    here = {repository: (config, make) for repository, config, make in HUB.values()}
    here["uoft-cs/cifar100"] = (None, lambda: both(cifar100))

    def load_dataset(
        repository: str, config: str | None = None, revision: str | None = None
    ) -> datasets.DatasetDict:
        if datasets.config.HF_HUB_OFFLINE:
            raise ConnectionError("offline")
        calls.append((repository, config, revision))
        if repository not in here:
            raise datasets.exceptions.DatasetNotFoundError(
                f"Dataset '{repository}' doesn't exist on the Hub or cannot be accessed."
            )
        return here[repository][1]()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("seewhy.data.huggingface.hub_answers", lambda: True)
    return calls


@pytest.mark.parametrize("name", HUB)
def test_load_names_of_the_hub(name: str, hub: list[Any]) -> None:
    repository, config, make = HUB[name]
    data = load(name, quiet=True)
    assert hub == [(repository, config, None)]
    assert (data.name, len(data.train), len(data.test), data.validation) == (name, 8, 4, None)
    assert list(data.classes) == make()["train"].features["label"].names
    assert data.train.images[:, 0, 0, 0].tolist() == list(range(8))
    load(name, quiet=True)
    assert len(hub) == 1


def test_load_cifar100_by_fine_or_coarse_labels(hub: list[Any]) -> None:
    assert load("cifar100", quiet=True).classes == ("apple", "bed", "bee")
    coarse = load("cifar100", label="coarse_label", quiet=True)
    assert coarse.classes == ("plants", "things")
    assert coarse.train.labels.tolist() == [0, 1, 0, 0] * 2


def test_hub_takes_config_and_revision(hub: list[Any]) -> None:
    assert load("hub:ylecun/mnist", quiet=True).name == "hub:ylecun/mnist"
    load("hub:ylecun/mnist,config=2023_01,revision=0012", quiet=True)
    assert hub == [("ylecun/mnist", None, None), ("ylecun/mnist", "2023_01", "0012")]
    refused(
        "ylecun/mnits cannot be loaded from the hub: Dataset 'ylecun/mnits' doesn't exist",
        "hub:ylecun/mnits",
    )


def test_hub_split_roles(hub: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    data = load("svhn", validation=0.5)
    assert data.validation is not None
    assert torch.bincount(data.validation.labels).tolist() == [1, 1, 1, 1]
    assert "test from split 'test'; not used: extra" in capsys.readouterr().err


def test_hub_restores_switches_of_the_library(hub: list[Any]) -> None:
    def switches() -> tuple[object, ...]:
        return (
            datasets.config.HF_HUB_OFFLINE,
            huggingface_hub.constants.HF_HUB_OFFLINE,
            datasets.are_progress_bars_disabled(),
            datasets.logging.get_verbosity(),
            huggingface_hub.logging.get_verbosity(),
        )

    before = switches()
    load("mnist", quiet=True)
    refused("cannot be loaded", "hub:no/body")
    assert switches() == before


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Refuses every connection at once; returns the attempts."""
    attempts: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        attempts.append(arguments[0])
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    return attempts


def test_hub_without_a_network(
    no_network: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    refused(
        "uoft-cs/cifar10 is not cached, and the hub is not reachable; .*directory of Parquet",
        "cifar10",
    )
    assert 1 <= len(no_network) <= 3  # and not the half-minute of retries


def test_directories_need_no_network(no_network: list[object], tmp_path: Path) -> None:
    for split in ("train", "test"):
        stored(tmp_path, f"{split}.parquet", table(4, y=(class_label("a", "b"), [0, 1, 0, 1])))
    load(tmp_path, quiet=True)
    assert no_network == []


def test_the_librarys_cache_needs_no_network(
    no_network: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library reads its cache as a download leaves it."""
    for split in ("train", "test"):
        stored(
            tmp_path / "files",
            f"{split}.parquet",
            table(8, "img", label=(class_label("x", "y"), [0, 1] * 4)),
        )
    files = {split: str(tmp_path / "files" / f"{split}.parquet") for split in ("train", "test")}
    datasets.load_dataset(
        "parquet", "plain_text", data_files=files, cache_dir=str(tmp_path / "made")
    )
    (made,) = (path.parent for path in (tmp_path / "made").rglob("dataset_info.json"))
    home = tmp_path / "library" / "uoft-cs___cifar10" / "plain_text" / "0.0.0" / "abc"
    shutil.copytree(made, home)
    info = (
        (home / "dataset_info.json")
        .read_text()
        .replace('"dataset_name": "parquet"', '"dataset_name": "cifar10"')
    )
    (home / "dataset_info.json").write_text(
        info.replace(f'"config_name": "{made.parts[-3]}"', '"config_name": "plain_text"')
    )
    for split in ("train", "test"):
        (home / f"parquet-{split}.arrow").rename(home / f"cifar10-{split}.arrow")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "library"))
    no_network.clear()  # the library called while the files were made
    data = load("cifar10", quiet=True)
    np.testing.assert_array_equal(data.train.images[:, 0, 0, 0].numpy(), np.arange(8))
    assert no_network == []


@pytest.mark.slow
def test_load_refuses_damaged_tables_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Names and labels that are no UTF-8, and random bytes in the schema."""
    stream = io.BytesIO()
    Image.new("L", (4, 4)).save(stream, "PNG")
    table = pa.table(
        {
            "image": [{"bytes": stream.getvalue(), "path": f"file-{i}"} for i in range(6)],
            "label": ["cataa", "dogbb"] * 3,
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="none", store_schema=False)
    content, choose = buffer.getvalue(), random.Random(0)
    damaged = [
        content.replace(old, new)
        for old, new in (
            (b"image", b"im\xffge"),
            (b"label", b"la\xffel"),
            (b"cataa", b"ca\xffaa"),
            (b"file-3", b"fi\xffe-3"),
        )
    ]
    schema = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for _ in range(8):
        changed = bytearray(content)
        changed[choose.randrange(schema, len(content))] = choose.randrange(256)
        damaged.append(bytes(changed))
    for number, changed_content in enumerate(damaged):
        (tmp_path / "train.parquet").write_bytes(changed_content)
        message = ""
        try:
            load(tmp_path, quiet=True)
        except SeewhyError as error:
            message = str(error)
        assert "\n" not in message
        assert message or number >= 4
    assert capfd.readouterr().err == ""


def test_hub_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a firewall; the library retries for half a minute, and resolves names slowly."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("seewhy.data.huggingface._CONNECT_SECONDS", 0.2)
        started = time.monotonic()
        assert not hub_answers()
        assert time.monotonic() - started < 2
