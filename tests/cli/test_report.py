"""`seewhy report`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from seewhy.cli import main
from seewhy.data.sources import SOURCES

Capture = pytest.CaptureFixture[str]
ErrorOf = Callable[..., str]

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.mark.slow
def test_report_needs_the_data_once(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, error_of: ErrorOf
) -> None:
    assert not (trained / "report.html").exists()
    assert not (trained / "diagnosis.npz").exists()
    assert main.main(["report", "run", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == f"open: {Path('run/report.html')}\n"
    first = (trained / "report.html").read_text()
    accuracy = json.loads((trained / "summary.json").read_text())["accuracy"]
    assert f"<title>tiny on bars: Test accuracy {100 * accuracy:.2f}% (60 images)</title>" in first

    assert f"{100 * accuracy:.2f}%" in (trained / "report.md").read_text()
    numbers = json.loads((trained / "report.json").read_text())
    assert numbers["accuracy"]["value"] == pytest.approx(accuracy, abs=1e-6)

    assert (
        main.main(["report", "run", "--map-train", "--output", "m.html", "--json", "m.json"]) == 0
    )
    mapped = json.loads(Path("m.json").read_text())
    assert mapped["image_map"].pop("shown") == {"test": 60, "train": 240}
    assert mapped == numbers
    assert "60 test images and 240 training images" in Path("m.html").read_text()

    monkeypatch.delitem(SOURCES, "bars")
    assert "unknown dataset 'bars'" in error_of("report", "run", "--map-train")
    words = ["--output", "mine.html", "--json", "new/mine.json", "--markdown", "a/m.md", "--quiet"]
    assert main.main(["report", "run", *words]) == 0
    assert capsys.readouterr().out == ""
    assert Path("mine.html").read_text() == first
    assert json.loads(Path("new/mine.json").read_text()) == numbers
    assert Path("a/m.md").read_text() == (trained / "report.md").read_text()
    assert not Path("mine.json").exists()
    assert main.main(["report", "run", "--against", "run", "--full"]) == 0
    assert "0 errors fixed, 0 new" in (trained / "report.html").read_text()
    assert "unknown dataset 'bars'" in error_of("report", "run", "--fresh")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere"], "nowhere is not a run directory (no such directory)"),
        (["run", "--against", "nowhere"], "nowhere is not a run directory (no such directory)"),
        (["run", "--device", "tpu"], "device 'tpu' is not available"),
        (["run", "--split", "train", "--map-train"], "--map-train needs training images besides"),
        (["run", "--output", "run"], "run is a directory; add the name of the file to write"),
    ],
)
def test_report_errors(trained: Path, options: list[str], message: str, error_of: ErrorOf) -> None:
    assert message in error_of("report", *options)
    assert not (trained / "report.html").exists()


def test_report_of_an_unfinished_run_says_how_to_resume(trained: Path, error_of: ErrorOf) -> None:
    (trained / "summary.json").unlink()
    assert "seewhy resume" in error_of("report", "run")
