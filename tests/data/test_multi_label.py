"""Images with any number of labels each: arrays, loaders, and tables of image files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labeled_bars import CLASSES, bars, write_images
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from seewhy.data.dataset import strata
from seewhy.data.labeled_images import as_dataset
from seewhy.data.multi_label import as_multi_label, read_multi_label_table
from seewhy.data.sources import load
from seewhy.errors import SeewhyError

PIXELS = torch.randint(256, (4, 3, 6, 5), generator=torch.Generator().manual_seed(0)).byte()
LABELS = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])


@pytest.mark.parametrize(
    "data",
    [
        (PIXELS, LABELS),
        (PIXELS / 255, LABELS.bool()),
        (PIXELS.numpy(), LABELS.float().numpy()),
        {"image": PIXELS, "labels": LABELS},
        [(image, label) for image, label in zip(PIXELS, LABELS, strict=True)],
        [(image, label) for image, label in zip(PIXELS, LABELS.tolist(), strict=True)],
        DataLoader(TensorDataset(PIXELS / 255, LABELS), batch_size=3),
    ],
)
def test_labels_of_arrays_and_loaders(data: Any) -> None:
    found = as_multi_label(data, ("a", "b", "c"))
    assert torch.equal(found.images, PIXELS)
    assert torch.equal(found.labels, LABELS.bool())
    assert found.classes == ("a", "b", "c")
    assert as_multi_label(found) is found


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: as_multi_label((PIXELS, LABELS * 2)), r"0 or 1 .* found \(4, 3\) int64 with 2"),
        (lambda: as_multi_label((PIXELS, LABELS), ("a", "b")), r"labels \(N, 3\), but there are 2"),
        (lambda: as_multi_label([(PIXELS[0], "a|b")]), "0 or 1 for each label of an image, found"),
        (
            lambda: as_dataset((PIXELS, LABELS)),
            "several labels per image with seewhy.runs",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(call: Any, message: str) -> None:
    with pytest.raises(SeewhyError, match=message):
        call()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for index, image in enumerate(PIXELS):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("path,a,b,c\n0.png,1,0,1\n1.png,0,0,0\n2.png,1,1,1\n3.png,0,1,0\n", ()),
        ("b;c;a;file;size\n0;1;1;0.png;8\n0;0;0;1.png;8\n1;1;1;2.png;8\n1;0;0;3.png;8\n", "abc"),
        ("path,labels\n0.png,a|c\n1.png,\n2.png,c | a|b\n3.png,b\n", ()),
    ],
)
def test_tables_of_image_files(directory: Path, text: str, classes: str) -> None:
    (directory / "labels.csv").write_text(text)
    found = read_multi_label_table(directory / "labels.csv", (3, 6, 5), tuple(classes))
    assert found.classes == ("a", "b", "c")
    assert torch.equal(found.images, PIXELS)
    assert torch.equal(found.labels, LABELS.bool())
    assert found.names == ("0.png", "1.png", "2.png", "3.png")


@pytest.mark.parametrize(
    ("text", "classes", "message"),
    [
        ("path,a\n0.png,yes\n", "", "line 2, column 'a': 'yes' is neither 0 nor 1"),
        ("path,a\n0.png,1\n", "ab", "no column 'b'; found path, a"),
        ("path,labels\n0.png,a|z\n", "ab", "line 2: 'z' is no label of the model; possible: a, b"),
        ("path\n0.png\n", "", "has no labels; add a column of 0 and 1 for each label"),
        ("path,a\nmissing.png,1\n", "", "missing.png"),
    ],
)
def test_tables_that_do_not_fit(directory: Path, text: str, classes: str, message: str) -> None:
    (directory / "labels.csv").write_text(text)
    with pytest.raises(SeewhyError, match=message):
        read_multi_label_table(directory / "labels.csv", (3, 6, 5), tuple(classes))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of 60 images, with their labels as lists, as columns, and as arrays."""
    directory, split = tmp_path_factory.mktemp("tables"), bars(60, 0)
    write_images(split, directory)
    lists, flags = ["file,tags"], ["file,top,middle,right,camera"]
    for name, own in zip(split.names, split.labels.tolist(), strict=True):
        chosen = [label for label, has in zip(CLASSES, own, strict=True) if has]
        lists.append(f"{name},{'; '.join(chosen)}")
        flags.append(f"{name},{','.join(str(int(has)) for has in own)},c1")
    (directory / "lists.csv").write_text("\n".join(lists), encoding="utf-8")
    (directory / "flags.csv").write_text("\n".join(flags), encoding="utf-8")
    labels, images = split.labels.numpy().astype(np.float32), split.images.numpy()
    np.savez(directory / "arrays.npz", images=images, labels=labels, classes=np.array(CLASSES))
    return directory


@pytest.mark.parametrize("name", ["lists.csv", "flags.csv", "arrays.npz"])
def test_labels_are_loaded_for_training(
    name: str, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load(tables / name, validation=0.25)
    assert data.multi_label
    expected = bars(60, 0)
    order = [CLASSES.index(label) for label in data.classes]
    for split in data.splits.values():
        rows = [int(Path(each).stem.removeprefix("train-")) for each in split.names]
        assert torch.equal(split.labels, expected.labels[rows][:, order])
        assert torch.equal(split.images, expected.images[rows])
        assert split.labels.any(0).all()  # stratified: each label is in each split
    again = load(tables / name, validation=0.25)  # from the cache
    assert again.fingerprint == data.fingerprint
    assert torch.equal(again.train.labels, data.train.labels)
    if name == "flags.csv":
        assert "labels are top, middle, right, and not camera" in capsys.readouterr().err
    limited = load(tables / name, limit=20)
    assert limited.train.labels.shape == (20, 3)
    assert load(tables / name, folds=3).num_folds == 3


def test_stratum_is_the_rarest_label() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=bool)
    assert strata(labels).tolist() == [1, 0, 2, 3, 1]
    assert strata(np.array([2, 0, 1])).tolist() == [2, 0, 1]


def test_list_in_a_column_of_classes_is_pointed_out(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{index}.png,{label}" for index, label in enumerate(["a|b", "a|b", "c", "c"])]
    (directory / "table.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    assert load(directory / "table.csv", split="test").classes == ("a|b", "c")
    assert "'a|b' in the column 'label' is the name of one class" in capsys.readouterr().err
