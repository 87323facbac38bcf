"""`seewhy evaluate` and `seewhy predict`."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.cli import main
from seewhy.data.dataset import Dataset
from seewhy.data.sources import SOURCES

Capture = pytest.CaptureFixture[str]
ErrorOf = Callable[..., str]


def test_evaluate(trained: Path, capsys: Capture) -> None:
    assert main.main(["evaluate", "run", "--data", "bars"]) == 0
    out = capsys.readouterr().out
    for text in (
        "of 60 test images of bars correct",
        "upright",
        "level",
        "slanting",
        "95% interval",
    ):
        assert text in out
    assert main.main(["evaluate", "run", "--data", "bars", "--split", "all"]) == 0
    assert "of all 300 images of bars correct" in capsys.readouterr().out
    assert main.main(["evaluate", "run", "--data", "bars", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["data"], values["split"], values["images"]) == ("bars", "test", 60)
    assert values["accuracy"] == json.loads((trained / "summary.json").read_text())["accuracy"]
    assert [row["images"] for row in values["classes"]] == [20, 20, 20]


def test_predict(trained: Path, data: Dataset, capsys: Capture) -> None:
    names = [f"{index}.png" for index in range(3)]
    for index, name in enumerate(names):
        Image.fromarray(data.test.images[index].permute(1, 2, 0).numpy()).save(name)
    assert main.main(["predict", "run", *names, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in values] == names
    assert [row["top"][0]["name"] for row in values] == ["upright", "level", "slanting"]
    assert all(len(row["top"]) == 3 for row in values)
    assert sum(each["probability"] for each in values[0]["top"]) == pytest.approx(1, abs=1e-5)
    assert main.main(["predict", "run", "0.png", "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert "0.png" in out
    assert "upright" in out
    assert "level" not in out


def test_predict_takes_directories(trained: Path, capsys: Capture, error_of: ErrorOf) -> None:
    Path("photos").mkdir()
    for name in ("10.png", "2.png"):
        Image.new("RGB", (8, 8)).save(Path("photos", name))
    assert main.main(["predict", "run", "photos", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in values] == [str(Path("photos", n)) for n in ("2.png", "10.png")]
    error = error_of("predict", "run", "photos", "--max-pixels", "63")
    assert "larger than --max-pixels 63 (8x8 is 64 pixels)" in error


def test_range_of_deep_images(trained: Path, capsys: Capture, error_of: ErrorOf) -> None:
    values = np.arange(64, dtype=np.int32).reshape(8, 8) * 65 - 1000
    Image.fromarray(values).save("deep.tif")
    assert "choose them with --range LOW HIGH" in error_of("predict", "run", "deep.tif")
    assert "range must be two" in error_of("predict", "run", "deep.tif", "--range", "auto")
    for words in (["-1000", "3095"], ["dtype"]):
        assert main.main(["predict", "run", "deep.tif", "--json", "--range", *words]) == 0
    values = (values + 1000) / 4095 * 255
    Image.fromarray(values.round().astype(np.uint8)).save("flat.png")
    both = ["predict", "run", "deep.tif", "flat.png", "--json", "--range", "-1000", "3095"]
    capsys.readouterr()
    assert main.main(both) == 0
    deep, flat = json.loads(capsys.readouterr().out)
    assert deep["top"] == flat["top"]


def test_predict_names_a_file_that_is_no_image(trained: Path, error_of: ErrorOf) -> None:
    Path("notes.png").write_text("no image")
    assert "notes.png" in error_of("predict", "run", "notes.png")
    assert "missing.png" in error_of("predict", "run", "missing.png")


def test_predict_names_what_cannot_be_read_and_does_the_rest(
    trained: Path, capsys: Capture
) -> None:
    Path("notes.png").write_text("no image")
    Image.new("RGB", (8, 8)).save("good.png")
    assert main.main(["predict", "run", "notes.png", "good.png", "--json"]) == 1
    printed = capsys.readouterr()
    assert [row["image"] for row in json.loads(printed.out)] == ["good.png"]
    assert printed.err.startswith("skipped: notes.png is ")
    assert printed.err.count("\n") == 1


@pytest.mark.train
def test_names_are_printed_without_markup(
    workspace: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Names of classes and files that look like rich's markup are data."""
    named = replace(data, name="[b]ars", classes=("[red]apple", "[other]", "[/b]"))
    monkeypatch.setitem(SOURCES, "marked", lambda: named)
    options = ["--data", "marked", "--output", "[bold]run", "--no-report", "--epochs", "1"]
    assert main.main(["train", "tiny.toml", *options]) == 0
    assert "written to: [bold]run\n" in capsys.readouterr().out
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("[red]x[_red].png")
    for arguments in (
        ["evaluate", "[bold]run"],
        ["predict", "[bold]run", "[red]x[_red].png"],
        ["data", "marked"],
    ):
        capsys.readouterr()
        assert main.main(arguments) == 0
        out = capsys.readouterr().out
        assert all(name in out for name in named.classes)
        assert arguments[0] != "predict" or "[red]x[_red].png" in out
