"""Labels put right by a CSV file: what changes, which image a row means, and what is refused."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.data.corrections import correct_labels
from seewhy.data.dataset import Dataset
from seewhy.data.sources import load, reload_data
from seewhy.errors import SeewhyError

HEADER = ("file", "split", "index", "label", "new_label")
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(row, …)` writes labels.csv."""

    def write(
        *rows: Sequence[object], header: Sequence[str] = HEADER, name: str = "labels.csv"
    ) -> Path:
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        return tmp_path / name

    return write


def photo_folder(root: Path) -> Path:
    """Two classes of four training and two test images, with the same file names."""
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.full((8, 8, 3), 100 * label + 10 * index + count, np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


def test_changed_and_dropped_images(data: Dataset, write: Write) -> None:
    """Of the bars, labeled 0, 1, 2, 0, … in each split."""
    path = write(
        ("bar-1-3.png", "test", 3, "upright", "level"),
        ("bar-0-4.png", "train", 4, "level", ""),
        ("bar-0-5.png", "", "", "slanting", "upright"),
    )
    corrected = correct_labels(data, path)
    kept = [index for index in range(240) if index != 4]
    expected = data.train.labels.clone()
    expected[5] = 0
    assert torch.equal(corrected.train.labels, expected[kept])
    assert torch.equal(corrected.train.images, data.train.images[kept])
    assert corrected.train.names == [data.train.names[index] for index in kept]
    assert corrected.test.labels.tolist() == [0, 1, 2, 1, *data.test.labels.tolist()[4:]]
    assert corrected.test.images is data.test.images
    assert corrected.classes == data.classes
    assert corrected.fingerprint not in ("", data.fingerprint)
    assert data.test.labels[3] == 0  # the data itself is not changed


def test_files_of_checks_and_of_other_programs(data: Dataset, write: Write) -> None:
    """More columns, other orders, and images named by a path of any length."""
    header = ("new_label", "path", "class", "score")
    path = write(("level", "/home/me/bar-1-3.png", "upright", 0.1), header=header)
    assert correct_labels(data, path).test.labels[3] == 1
    numbered = write(("train", 7, "level", ""), header=("split", "index", "label", "new_label"))
    assert len(correct_labels(data, numbered).train) == 239


def test_names_decide_after_images_were_dropped(data: Dataset, write: Write) -> None:
    first = write(("bar-1-0.png", "test", 0, "upright", ""), name="first.csv")
    second = write(("bar-1-3.png", "test", 2, "upright", "level"), name="second.csv")
    after = correct_labels(correct_labels(data, first), second)
    assert after.test.labels[:3].tolist() == [1, 2, 1]
    before = correct_labels(data, second)  # whose image 2 has another name
    assert before.test.labels[:4].tolist() == [0, 1, 2, 1]


def test_a_folder_is_loaded_again_with_its_labels(
    tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    root = photo_folder(tmp_path / "photos")
    plain = load(root, quiet=True)
    path = write(("cat/1.png", "", "", "cat", "dog"))  # of train and test
    with pytest.raises(SeewhyError, match=r"2 images of photos are named 'cat/1\.png'; add"):
        load(root, labels=path, quiet=True)
    path = write(
        ("1.png", "test", plain.test.names.index("test/cat/1.png"), "cat", "dog"),
        ("train/dog/0.png", "", "", "dog", ""),
    )
    data = load(root, labels=path)
    assert "photos: labels changed 1, images dropped 1" in capsys.readouterr().err
    assert len(data.train) == 7
    assert sorted(data.test.labels.tolist()) == [0, 1, 1, 1]
    assert data.load_args["labels"] == [str(path)]
    assert reload_data(data.origin).fingerprint == data.fingerprint
    write(("train/dog/0.png", "", "", "dog", ""))
    with pytest.raises(SeewhyError, match="is not the data of the run"):
        reload_data(data.origin)


@pytest.mark.parametrize(
    "source", ["table.csv", "arrays.npz", pytest.param("parquet", marks=pytest.mark.slow)]
)
def test_labels_of_other_sources(tmp_path: Path, write: Write, source: str) -> None:
    root, path = photo_folder(tmp_path / "photos"), tmp_path / source
    images = sorted(root.rglob("*.png"))
    labels = [image.parent.name for image in images]
    if source == "table.csv":
        rows = [
            f"{image.relative_to(tmp_path)},{label}\n"
            for image, label in zip(images, labels, strict=True)
        ]
        path.write_text("path,label\n" + "".join(rows))
    elif source == "arrays.npz":
        pixels = np.stack([np.asarray(Image.open(image)) for image in images])
        np.savez(path, images=pixels, labels=np.array([label == "dog" for label in labels]) + 0)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path.mkdir()
        cells = [{"bytes": image.read_bytes(), "path": None} for image in images]
        table = pa.table({"image": cells, "label": labels})
        pq.write_table(table, path / "train.parquet")
    plain = load(path, quiet=True)
    given, new = plain.classes[int(plain.train.labels[1])], plain.classes[1]
    file = write(
        (plain.train.names[0], "train", 0, plain.classes[int(plain.train.labels[0])], ""),
        (Path(plain.train.names[1]).name, "train", 1, given, new),
    )
    data = load(path, labels=[file], quiet=True)
    assert len(data.train) == len(plain.train) - 1
    assert data.train.labels[0] == 1
    assert torch.equal(data.train.images[0], plain.train.images[1])
    assert torch.equal(data.test.labels, plain.test.labels)


def test_labels_apply_to_folds(tmp_path: Path, write: Write) -> None:
    """The images of a cross-validation are those of train, also where they are tested."""
    root = photo_folder(tmp_path / "photos")
    plain = load(root, folds=2, quiet=True)
    assert plain.folds is not None
    path = write((Path(plain.train.names[3]).name, "train", 3, "cat", ""))
    data = load(root, folds=2, labels=path, quiet=True)
    assert data.folds is not None
    kept = [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(data.folds, plain.folds[kept])
    assert torch.equal(data.test.images, plain.train.images[kept])
    assert reload_data(data.origin).fingerprint == data.fingerprint


def test_names_that_act_in_a_spreadsheet(data: Dataset, write: Write) -> None:
    """A class and a file are written as `'=A`, so that they are no formula."""
    odd = replace(data, classes=("=upright", "-1", "slanting"), fingerprint="")
    names = ["@bar.png", *data.test.names[1:]]
    odd = replace(odd, test=replace(odd.test, names=names), fingerprint="")
    path = write(
        ("'@bar.png", "test", 0, "'=upright", "-1"), ("bar-1-1.png", "", "", "-1", "'=upright")
    )
    assert correct_labels(odd, path).test.labels[:2].tolist() == [1, 0]


BAR = "bar-1-3.png"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("lost.png", "test", 3, "upright", ""), "image 3 of the test split is 'bar-1-3.png', and"),
        (("lost.png", "", "", "upright", ""), "bars has no image named 'lost.png'; write names as"),
        (("", "test", 60, "upright", ""), "there is neither a file nor split and index"),
        ((BAR, "test", 3, "level", "upright"), "split is labeled 'upright', not 'level'; load"),
        ((BAR, "test", 3, "upright", "leevl"), r"class 'leevl' \(did you mean 'level'\?\); poss"),
    ],
)
def test_rows_that_do_not_fit(
    data: Dataset, write: Write, row: Sequence[object], message: str
) -> None:
    path = write(("bar-1-0.png", "test", 0, "upright", "level"), row)
    with pytest.raises(SeewhyError, match=f"labels.csv, line 3: .*{message}") as error:
        correct_labels(data, path)
    assert "\n" not in str(error.value)


def test_files_that_are_refused(data: Dataset, write: Write) -> None:
    path = write((BAR, "test", 3, "upright"), header=HEADER[:-1])
    with pytest.raises(
        SeewhyError, match="has no column new_label, only file, split, index, label"
    ):
        correct_labels(data, path)
    path = write((BAR, "test", 3, "upright", ""), (BAR, "", "", "upright", "level"))
    with pytest.raises(SeewhyError, match="line 3: line 2 is about the same image; keep one"):
        correct_labels(data, path)
    rows = [("", "test", index, data.classes[index % 3], "") for index in range(60)]
    with pytest.raises(SeewhyError, match="drops all images of the test split; keep some"):
        correct_labels(data, write(*rows))
    with pytest.raises(SeewhyError, match="labels must be the path of a CSV file, found 3"):
        load("digits", labels=3, quiet=True)  # type: ignore[arg-type]
    with pytest.raises(
        SeewhyError, match=r"missing\.csv does not exist; restore it, or leave it out"
    ):
        load("digits", labels="missing.csv", quiet=True)
