"""`seewhy check`: the table, the files, the exit codes."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from generated_photographs import photographs
from PIL import Image

from seewhy.checks import CHECKS
from seewhy.cli import main
from seewhy.data.dataset import Dataset, Split
from seewhy.data.sources import SOURCES

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dataset `copied`: photographs, of which a test image is a training image."""
    monkeypatch.chdir(tmp_path)
    images = torch.from_numpy(photographs(40, 0))
    images[30] = images[0]
    labels = torch.arange(40) % 2

    def split(rows: slice) -> Split:
        return Split(images[rows], labels[rows], [f"{i}.png" for i in range(40)][rows])

    data = Dataset("copied", ("ant", "bee"), split(slice(28)), split(slice(28, 40)), None, "0" * 32)
    monkeypatch.setitem(SOURCES, "copied", lambda: data)


@pytest.mark.slow
@pytest.mark.usefixtures("copied")
def test_check_prints_a_table_of_60_columns_and_writes_files(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    arguments = ["check", "copied", "--output", "o", "--json", "c.json", "--junit", "j.xml"]
    assert main.main([*arguments, "--fail-on", "duplicates,drift"]) == 1
    printed = capsys.readouterr()
    assert printed.err.endswith("seewhy: --fail-on: duplicates found\n")
    lines = printed.out.splitlines()
    assert lines[0] == "copied: 28 train, 12 test images, 2 classes"
    table = lines[2 : 4 + len(CHECKS)]
    assert [row.split()[0] for row in table[2:]] == list(CHECKS)
    assert max(map(len, table)) <= 60
    row = next(row for row in table if row.startswith("duplicates"))
    assert row.split() == ["duplicates", "1", "pair", "0", "–", "found"]
    assert "  0.png = 30.png: 0" in lines
    assert "outliers, label-issues not judged: needs the features" in printed.out
    assert json.loads(Path("c.json").read_text()) == json.loads(Path("o/check.json").read_text())
    assert ElementTree.parse("j.xml").getroot().get("failures") == "1"
    html = Path("o/check.html").read_text(encoding="utf-8")
    assert '<a href="#duplicates">duplicates</a>' in html
    assert html.count('<svg class="tile"') == 2
    assert "0.png" in html
    assert Path("o/duplicates.csv").is_file()


@pytest.mark.usefixtures("copied")
def test_check_fails_only_on_what_it_is_told(capsys: Capture) -> None:
    assert main.main(["check", "copied", "--only", "duplicates,gray", "--json", "new/c.json"]) == 0
    assert Path("new/c.json").is_file()
    assert main.main(["check", "copied", "--only", "duplicates", "--fail-on", "all"]) == 1
    capsys.readouterr()
    quiet = ["check", "copied", "--only", "outliers,gray", "--fail-on", "outliers", "--quiet"]
    assert main.main(quiet) == 0
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith("seewhy: --fail-on outliers is not judged: needs the features")


@pytest.mark.usefixtures("copied")
def test_check_errors(error_of: Callable[..., str]) -> None:
    error = error_of("check", "copied", "--fail-on", "duplicate,drift")
    assert "unknown check 'duplicate' (did you mean 'duplicates'?); possible: blurry, " in error
    assert "unknown check 'x'" in error_of("check", "copied", "--only", "x")
    Path("empty").mkdir()
    assert "no images" in error_of("check", "./empty")
    Path("one/a").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save("one/a/0.png")
    assert "only the class 'a'" in error_of("check", "./one", "--quiet")


def test_check_of_a_folder_without_a_test_split(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        Path("flat", name).mkdir(parents=True)
        for number in range(5):  # all images are constant and equal
            Image.new("RGB", (20, 20), (9, 9, 9)).save(Path("flat", name, f"{number}.png"))
    assert main.main(["check", "./flat"]) == 0
    out = capsys.readouterr().out
    assert "drift, property-drift, label-drift not judged: the splits were drawn" in " ".join(
        out.split()
    )
    assert "dark not judged" in out
    assert "9 of 10 images have the pixels of another image" in " ".join(out.split())
