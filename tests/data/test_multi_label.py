"""Images with any number of labels each: arrays, loaders, and tables of image files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from seewhy.data.labeled_images import as_dataset
from seewhy.data.multi_label import as_multi_label, read_multi_label_table
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
