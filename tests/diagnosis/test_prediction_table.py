"""Predictions that another program has written as CSV, and the report of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.cli import main
from seewhy.diagnosis.prediction_table import read_prediction_table
from seewhy.errors import SeewhyError
from seewhy.reporting.page import report

CLASSES = ("ant", "bee", "cat")
ROWS = [  # path, label, scores
    ("b/3.png", "bee", (0.1, 0.7, 0.2)),
    ("a/1.png", "ant", (0.2, 0.5, 0.3)),
    *((f"a/{index}.png", "ant", (0.6, 0.3, 0.1)) for index in range(4, 10)),
    *((f"c/{index}.png", "cat", (0.0, 0.25, 0.75)) for index in range(8)),
    *((f"b/{index}.png", "bee", (0.3, 0.4, 0.3)) for index in range(10, 15)),
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """An image for each row, whose gray value is the number of the row."""
    for number, (path, _, _) in enumerate(ROWS):
        file = tmp_path / "photos" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(file)
    return tmp_path / "photos"


def write(path: Path, rows: list[tuple[str, str, tuple[float, ...]]], header: str = "") -> Path:
    lines = [f"{name},{label},{','.join(map(str, scores))}" for name, label, scores in rows]
    path.write_text("\n".join([header or "file,label,ant,bee,cat", *lines]) + "\n")
    return path


def test_rows_belong_to_their_images(images: Path, tmp_path: Path) -> None:
    predictions, data = read_prediction_table(write(tmp_path / "p.csv", ROWS), images, quiet=True)
    assert (len(data.train), len(data.test)) == (0, len(ROWS))
    assert predictions.classes == data.classes == CLASSES
    for index in range(len(ROWS)):
        path, label, scores = ROWS[int(data.test.images[index, 0, 0, 0])]  # the gray value
        assert data.test.names[index] == path
        assert CLASSES[int(predictions.labels[index])] == label
        np.testing.assert_allclose(predictions.probabilities[index], scores, atol=1e-6)


@pytest.mark.parametrize("chosen", [[0, 1], [1], [2, 3]], ids=["one each", "one", "one class"])
def test_images_that_could_not_be_split_are_measured(
    images: Path, tmp_path: Path, chosen: list[int]
) -> None:
    rows = [ROWS[index] for index in chosen]
    predictions, data = read_prediction_table(write(tmp_path / "p.csv", rows), images, quiet=True)
    assert len(data.test) == len(predictions.labels) == len(rows)
    assert {CLASSES[label] for label in predictions.labels.tolist()} == {row[1] for row in rows}


def test_scores_outside_of_0_to_1_are_logits(images: Path, tmp_path: Path) -> None:
    rows = [(path, label, tuple(8 * s - 3 for s in scores)) for path, label, scores in ROWS]
    table = write(images / "p.csv", rows)  # beside the images, whose directory is the default
    predictions, data = read_prediction_table(table, quiet=True)
    first = data.test.names[0]
    expected = next(scores for path, _, scores in rows if path == first)
    assert torch.equal(predictions.logits[0], torch.tensor(expected))


@pytest.mark.slow
def test_report_of_predictions(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "p.csv", ROWS)
    assert main.main(["report", "p.csv", "--images", "photos", "--quiet"]) == 0
    page = Path("report.html").read_text()
    assert "<h1>predictions on p</h1>" in page
    assert "1 of 21 test images is misclassified" in page
    for section in ("classes", "calibration", "slices", "label-issues", "errors"):
        assert f'<section id="{section}"' in page
    assert "Clusters" not in page  # there are no features
    assert "unlike all others" not in page
    for section in ("robustness", "trust", "model", "training"):
        assert f'id="{section}"' not in page
        assert f'href="#{section}"' not in page
    assert main.main(["report", "run", "--images", "photos"]) == 2
    assert "--images is for a CSV file of predictions" in capsys.readouterr().err
    predictions, data = read_prediction_table("p.csv", images, quiet=True)
    with pytest.raises(SeewhyError, match="the file to write"):
        report(predictions, data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label,ant,bee\n", "has no rows; expected a header, such as path,label,ant,bee"),
        ("x,label,ant\na.png,ant,1\n", "no column named path or file; the first line is 'x,"),
        ("file,true,ant\na.png,ant,1\n", "no column named label or class; the first line is 'file"),
        ("file,label,ant\na.png,bee,1\n", "no column has the scores of 'bee'; every label needs"),
        ("file,label,ant,bee\na.png,ant,1\n", "line 2 has 3 cells, but the header has 4"),
        ("file,label,ant,bee\na.png,ant,1,x\n", "line 2, column 'bee': 'x' is no number"),
        ("file,label,ant,bee\na.png,ant,1,0\nb.png,ant,.9,.9\n", "line 3: .*sum to 1.8, not 1"),
        ("file,label,ant,bee\na.png,ant,nan,2\n", "line 2, column 'ant': 'nan' is no number"),
    ],
)
def test_read_prediction_table_says_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(SeewhyError, match=message):
        read_prediction_table(tmp_path / "p.csv", quiet=True)
