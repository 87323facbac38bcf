"""`seewhy evaluate` and `seewhy predict`."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.cli import main
from seewhy.data.dataset import Dataset
from seewhy.data.sources import SOURCES
from seewhy.models.features import extract_features
from seewhy.models.inference import compute_logits
from seewhy.runs.calibration import calibrate, run_temperature
from seewhy.runs.prediction_stream import read_image
from seewhy.runs.run import open_run


def lines_of(capsys: "Capture") -> list[Any]:
    """The objects in the lines that a command printed."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


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


def test_evaluate_shows_progress_unless_quiet(trained: Path, capsys: Capture) -> None:
    assert main.main(["evaluate", "run", "--data", "bars", "--split", "all"]) == 0
    shown = capsys.readouterr()
    assert "predicting: 0 of 300\npredicting: 300 in " in shown.err
    assert main.main(["evaluate", "run", "--data", "bars", "--split", "all", "--quiet"]) == 0
    quiet = capsys.readouterr()
    assert "predicting" not in quiet.err
    assert quiet.out == shown.out


def test_evaluate_measures_the_groups_of_metadata(
    trained: Path, data: Dataset, capsys: Capture, error_of: ErrorOf
) -> None:
    rows = [f"{name},{'ab'[index % 2]}" for index, name in enumerate(data.test.names)]
    Path("m.csv").write_text("\n".join(["file,camera", *rows]))
    options = ["evaluate", "run", "--data", "bars", "--metadata", "m.csv"]
    assert main.main(options) == 0
    out = capsys.readouterr().out
    assert "camera: a" in out
    assert "Fisher's test" in out
    assert main.main([*options, "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["subgroups"]
    assert {each["description"]: each["images"] for each in groups} == {
        "camera: a": 30,
        "camera: b": 30,
    }
    Path("m.csv").write_text("file,camera\nother.png,a\n")
    assert "none of its 1 path is one of the 60 images" in error_of(*options)


def test_predict(trained: Path, data: Dataset, capsys: Capture) -> None:
    names = [f"{index}.png" for index in range(3)]
    for index, name in enumerate(names):
        Image.fromarray(data.test.images[index].permute(1, 2, 0).numpy()).save(name)
    assert main.main(["predict", "run", *names, "--format", "jsonl"]) == 0
    values = lines_of(capsys)
    assert [row["image"] for row in values] == names
    assert [row["top"][0]["name"] for row in values] == ["upright", "level", "slanting"]
    assert all(len(row["top"]) == 3 for row in values)
    assert sum(each["probability"] for each in values[0]["top"]) == pytest.approx(1, abs=1e-5)
    assert main.main(["predict", "run", "0.png", "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert "0.png" in out
    assert "upright" in out
    assert "level" not in out


def test_calibrated_predictions_and_abstention(
    trained: Path, data: Dataset, capsys: Capture
) -> None:
    run = open_run(trained)
    names = [f"{index}.png" for index in range(6)]
    for index, name in enumerate(names):
        Image.fromarray(data.test.images[index].permute(1, 2, 0).numpy()).save(name)
    scaled = compute_logits(calibrate(run), data.test.images[:6]).softmax(1).amax(1)
    threshold = float(scaled.sort().values[2:4].mean())  # half of the images are above
    options = ["--calibrated", "--abstain-below", str(threshold)]
    assert main.main(["predict", "run", *names, "--format", "jsonl", *options]) == 0
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["top"][0]["probability"] for row in rows] == pytest.approx(
        scaled.tolist(), abs=1e-4
    )
    assert [row["abstained"] for row in rows] == (scaled < threshold).tolist()
    assert f"calibrated: {run_temperature(run)}" in printed.err
    assert "abstained from 3 of 6 images: confidence below" in printed.err
    assert main.main(["predict", "run", *names, *options]) == 0
    assert capsys.readouterr().out.count(".png, abstained\n") == 3


def test_evaluate_prints_coverage_and_accuracy_without_abstained_images(
    trained: Path, capsys: Capture
) -> None:
    predictions = open_run(trained).predictions
    assert predictions is not None
    threshold = predictions.confidence.sort().values[19:21].mean().item()  # 20 of 60 are below
    kept = predictions.confidence >= threshold
    command = ["evaluate", "run", "--data", "bars", "--abstain-below"]
    assert main.main([*command, str(threshold)]) == 0
    accuracy = predictions.correct[kept].double().mean().item()
    out = " ".join(capsys.readouterr().out.split())
    assert f"coverage 66.67%: 40 of 60 images with a confidence of at least {threshold:g}" in out
    assert f"{100 * accuracy:.2f}% of these correct" in out
    assert main.main([*command, str(threshold), "--json"]) == 0
    selective = json.loads(capsys.readouterr().out)["selective"]
    assert (selective["images"], selective["accuracy"]) == (40, accuracy)
    assert main.main([*command, "0.99999999", "--json"]) == 0
    selective = json.loads(capsys.readouterr().out)["selective"]
    assert selective["accuracy"] is None or selective["images"]
    assert main.main([*command, str(threshold), "--calibrated"]) == 0
    assert "calibrated: temperature" in capsys.readouterr().err


def test_impossible_calibration_and_abstention_are_one_line(
    trained: Path, error_of: ErrorOf
) -> None:
    Path("x.png").touch()
    for command in (["predict", "run", "x.png"], ["evaluate", "run"]):
        error = error_of(*command, "--abstain-below", "80")
        assert "--abstain-below must be above 0 and below 1, found 80; did you mean 0.8?" in error
    (trained / "summary.json").unlink()
    assert "has no test predictions" in error_of("predict", "run", "x.png", "--calibrated")


def test_predict_takes_directories(trained: Path, capsys: Capture, error_of: ErrorOf) -> None:
    Path("photos").mkdir()
    for name in ("10.png", "2.png"):
        Image.new("RGB", (8, 8)).save(Path("photos", name))
    for pattern in ("photos", "photos/*.png", "**/*[02].png"):
        assert main.main(["predict", "run", pattern, "--format", "jsonl"]) == 0
        names = [row["image"] for row in lines_of(capsys)]
        assert names == [str(Path("photos", n)) for n in ("2.png", "10.png")]
    error = error_of("predict", "run", "photos", "--max-pixels", "63")
    assert "larger than --max-pixels 63 (8x8 is 64 pixels)" in error


@pytest.mark.slow
def test_range_of_deep_images(trained: Path, capsys: Capture, error_of: ErrorOf) -> None:
    values = np.arange(64, dtype=np.int32).reshape(8, 8) * 65 - 1000
    Image.fromarray(values).save("deep.tif")
    assert "choose them with --range LOW HIGH" in error_of("predict", "run", "deep.tif")
    assert "range must be two" in error_of("predict", "run", "deep.tif", "--range", "auto")
    for words in (["-1000", "3095"], ["dtype"]):
        assert main.main(["predict", "run", "deep.tif", "--range", *words]) == 0
    values = (values + 1000) / 4095 * 255
    Image.fromarray(values.round().astype(np.uint8)).save("flat.png")
    both = ["predict", "run", "deep.tif", "flat.png", "--format", "jsonl"]
    both += ["--range", "-1000", "3095"]
    capsys.readouterr()
    assert main.main(both) == 0
    deep, flat = lines_of(capsys)
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
    files = ["missing.png", "notes.png", "good.png"]
    assert main.main(["predict", "run", *files, "--format", "jsonl"]) == 1
    printed = capsys.readouterr()
    assert [json.loads(line)["image"] for line in printed.out.splitlines()] == ["good.png"]
    first, second = printed.err.splitlines()
    assert first.startswith("skipped: missing.png does not exist")
    assert second.startswith("skipped: notes.png is ")


def test_predict_writes_csv_and_features(trained: Path, capsys: Capture, error_of: ErrorOf) -> None:
    names = [f"{index:03}.png" for index in range(70)]  # more than a block
    for index, name in enumerate(names):
        Image.new("RGB", (8, 8), (3 * index, 0, 0)).save(name)
    options = ["--top", "1", "--output", "found.csv"]
    for embed in ("features.npy", "features.npz", "features.csv"):
        assert main.main(["predict", "run", "[0-9]*.png", *options, "--embed", embed]) == 0
    assert capsys.readouterr().out == ""
    header, *rows = Path("found.csv").read_text().splitlines()
    assert header == "image,rank,class,probability"
    assert [row.split(",")[0] for row in rows] == names
    run = open_run("run")
    pixels = torch.stack([read_image(run.classifier, name) for name in names])
    expected = extract_features(run, pixels).numpy()
    np.testing.assert_allclose(np.load("features.npy"), expected, rtol=1e-4, atol=1e-5)
    assert Path("features.names.txt").read_text().splitlines() == names
    archive = np.load("features.npz")
    np.testing.assert_array_equal(archive["features"], np.load("features.npy"))
    assert archive["names"].tolist() == names
    header, *rows = Path("features.csv").read_text().splitlines()
    assert header.startswith("image,feature_0,feature_1,")
    assert [row.split(",")[0] for row in rows] == names
    values = np.array([row.split(",")[1:] for row in rows], float)
    np.testing.assert_allclose(values, np.load("features.npy"), rtol=1e-6)
    for arguments, message in (
        (["--embed", "features.txt"], "features are written to .npy, .npz or .csv, found"),
        (["--output", "found.txt"], "the format of found.txt is unknown; add --format csv"),
        (["--format", "xml"], "unknown format 'xml'"),
        (["--top", "0"], "--top must be at least 1"),
    ):
        assert message in error_of("predict", "run", "000.png", *arguments)
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


def test_predictions_and_features_need_two_files(trained: Path, error_of: ErrorOf) -> None:
    both = ["--output", "x.csv", "--embed", "x.csv"]
    assert "--output and --embed name one file" in error_of("predict", "run", "x.png", *both)


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


@pytest.mark.skipif(sys.platform == "win32", reason="no links")
def test_predict_of_a_dead_link_says_so(trained: Path, error_of: ErrorOf) -> None:
    Path("dead.png").symlink_to("nowhere.png")
    message = error_of("predict", "run", "dead.png")
    assert "dead.png is a link to nowhere.png, which does not exist; pass image" in message


@pytest.mark.parametrize("command", [["predict", "run"], ["data"], ["evaluate"], ["report"]])
def test_a_name_that_is_too_long_is_one_line(
    command: list[str], workspace: Path, error_of: ErrorOf
) -> None:
    message = error_of(*command, f"./{'x' * 300}")
    assert message.endswith("File name too long; pass another path, or check its permissions")
