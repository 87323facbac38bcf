"""Hostile names of classes, files and datasets in everything that the commands print and write."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from seewhy.cli import main
from seewhy.data.dataset import Dataset, Split
from seewhy.data.sources import SOURCES

CLASSES = (
    "=cmd|' -C calc'!A0",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "a\u202egnp\x9b2J\nfake: line | <img src=x onerror=alert(1)> [x](http://evil)",
)
ACTING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
TEXT = {".csv", ".html", ".json", ".jsonl", ".md", ".svg", ".toml", ".xml"}


def check(text: str, where: str) -> None:
    assert not (found := ACTING.search(text)), (
        f"{where}: {text[max(0, found.start() - 80) :][:160]!r}"
    )
    assert not re.search(r"^\W*fake", text, re.MULTILINE), where


@pytest.fixture
def hostile(workspace: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    def named(split: Split) -> Split:
        return replace(split, names=[f"\x1b[2J\nfake-{i}.png" for i in range(len(split))])

    made = Dataset(
        "b\x1b[2J\nfake: data [/x]", CLASSES, named(data.train), named(data.test), None, "0" * 32
    )
    monkeypatch.setitem(SOURCES, "bars", lambda: made)
    return made


@pytest.mark.slow
@pytest.mark.train
def test_no_output_acts_on_the_terminal_the_spreadsheet_or_the_page(
    hostile: Dataset, workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image, bad = "\x1b]0;x\x07\nfake.png", "no\x1b[2J\nfake image.png"
    Image.new("RGB", (8, 8), "red").save(image)
    Path(bad).write_text("no image")
    commands: list[tuple[int, list[str]]] = [
        (0, ["data", "bars"]),
        (
            0,
            [
                "train",
                "tiny.toml",
                "--data",
                "bars",
                "--epochs",
                "1",
                "--output",
                "run",
                "--no-report",
            ],
        ),
        (0, ["evaluate", "run"]),
        (0, ["evaluate", "run", "--json"]),
        (1, ["predict", "run", image, bad]),
        (1, ["predict", "run", image, bad, "--format", "jsonl"]),
        (1, ["predict", "run", image, bad, "--format", "csv", "--embed", "features.npy"]),
        (2, ["predict", "run", bad]),
        (1, ["explain", "run", image, bad, "--layers", "group3", "--output", "why"]),
        (0, ["explain", "run", "--layers", "group3", "--errors", "2", "--output", "errors"]),
        (0, ["counterfactual", "run", image, "--grid", "2", "--output", "regions"]),
        (1, ["counterfactual", "run", image, bad, "--grid", "2", "--output", "regions-2"]),
        (2, ["concepts", "run", "\x1b[2J\nfake class"]),
        (2, ["explain", "run", image, "--target", "\x1b[2J\nfake target"]),
        (2, ["data", "\x1b[2J\nfake dataset"]),
        (2, ["\x1b[2J\nfake command"]),
        (2, ["models", "--\x1b[2J\nfake"]),
    ]
    for code, command in commands:
        assert main.main(command) == code, (command, capfd.readouterr())
        printed = capfd.readouterr()
        check(printed.out, f"stdout of {command}")
        check(printed.err, f"stderr of {command}")
        assert "Traceback" not in printed.err
    written = [path for path in workspace.rglob("*") if path.suffix in TEXT and path.name != image]
    assert {path.suffix for path in written} == TEXT - {".html", ".xml"}
    for path in written:
        check(path.read_text(encoding="utf-8"), str(path))
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                cells = [cell for row in csv.reader(file) for cell in row]
            assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))]
    card = (workspace / "run" / "README.md").read_text()
    assert "\\<img src=x" in card
    [row] = [line for line in card.splitlines() if line.startswith("| classes |")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.usefixtures("blank_figures")
def test_report_comparison_and_export_show_hostile_names_harmlessly(
    hostile: Dataset, workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = ["tiny.toml", "--data", "bars", "--epochs", "1"]
    compared = [*small, "--vary", "lr", "0.1", "0.5", "--seeds", "1", "--output", "compared"]
    for command in (
        ["train", *small, "--output", "run"],
        ["compare", *compared],
        ["export", "run", "--format", "torch"],
        ["check", "bars", "--output", "checked", "--junit", "checked.xml"],
    ):
        assert main.main(command) == 0, (command, capfd.readouterr())
        printed = capfd.readouterr()
        check(printed.out + printed.err, f"output of {command}")
    written = [path for path in workspace.rglob("*") if path.suffix in TEXT]
    pages = ("run/report.html", "compared/report.html", "checked/check.html", "checked.xml")
    assert {workspace / page for page in pages} < set(written)
    for path in written:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".html", ".xml"):  # a line break is a space there
            assert not ACTING.search(text), path
            assert "<img src=x" not in text
        else:
            check(text, str(path))
        if path.suffix == ".csv":
            cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
            assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))]
