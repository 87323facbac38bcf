"""The commands as a user types them, in this process; one test starts a real one."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.cli import main
from seewhy.data.dataset import Dataset
from seewhy.data.sources import SOURCES
from seewhy.errors import SeewhyError
from seewhy.experiments.experiment import open_experiment
from seewhy.runs.checkpoint import newest_checkpoint
from seewhy.runs.lr_search import find_lr
from seewhy.train.lr_finder import LR_SUGGESTIONS, LRRangeTest
from seewhy.train.recipe import Recipe, to_toml

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a recipe file, and the bars as a data set that can be named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SOURCES, "bars", lambda: data)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "tiny.toml").write_text(to_toml(recipe))
    return tmp_path


@pytest.fixture
def trained(here: Path) -> Path:
    assert (
        main.main(
            ["train", "tiny.toml", "--data", "bars", "--output", "run", "--quiet", "--no-report"]
        )
        == 0
    )
    return here / "run"


def error_of(arguments: list[str], capsys: Capture) -> str:
    """The one line that a mistake prints, after checking that it is one, with exit code 2 and no traceback."""
    capsys.readouterr()
    assert main.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("seewhy: ")
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    return printed.err.strip()


def test_help_lists_every_command(capsys: Capture) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert main.main(arguments) == 0
        text = capsys.readouterr().out
        for name in main.COMMANDS:
            assert f"\n  {name} " in text
        assert all(len(line) <= 100 for line in text.splitlines())


def test_every_command_has_help(capsys: Capture) -> None:
    for name in main.COMMANDS:
        with pytest.raises(SystemExit) as stopped:
            main.main([name, "--help"])
        assert stopped.value.code == 0
        assert f"usage: seewhy {name}" in capsys.readouterr().out


def test_help_of_train_shows_the_fields_of_the_recipe_that_is_named(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main.main(["train", "davidnet-24", "--help"])
    text = capsys.readouterr().out
    assert "(default: 0.45)" in text
    assert "--batch-size" in text


def test_train_says_how_well_and_what_is_where(here: Path, capsys: Capture) -> None:
    assert main.main(["train", "tiny.toml", "--data", "bars"]) == 0
    out = capsys.readouterr().out
    assert "Dataset(bars: 240 train, 60 test images, 3 classes, 3x8x8)" in out
    assert (
        len(
            [
                line
                for line in out.splitlines()
                if line.strip()[:1].isdigit() and line.split()[0] in "1234"
            ]
        )
        == 4
    )
    assert "of 60 test images correct (95% interval" in out
    directory = here / "runs" / "latest"
    assert str(directory.resolve().relative_to(here)) in out
    assert "model.safetensors" in out
    assert (directory / "model.safetensors").is_file()
    assert "report.html" in out
    assert "<title>tiny on bars: " in (directory / "report.html").read_text()
    assert (directory / "figures" / "confusion.png").is_file()


def test_any_field_of_the_recipe_is_an_option(here: Path) -> None:
    options = [
        "--epochs",
        "1",
        "--batch-size",
        "80",
        "--augment",
        "crop:1",
        "flip",
        "--seed",
        "3",
        "--lr",
        "0.1",
        "--name",
        "mine",
    ]
    assert (
        main.main(
            [
                "train",
                "tiny.toml",
                "--data",
                "bars",
                "--output",
                "out",
                "--quiet",
                "--no-report",
                *options,
            ]
        )
        == 0
    )
    written = (here / "out" / "recipe.toml").read_text()
    for line in (
        "epochs = 1.0",
        "batch_size = 80",
        'augment = ["crop:1", "flip"]',
        "seed = 3",
        "lr = 0.1",
        'name = "mine"',
    ):
        assert line in written.splitlines()


def test_options_may_come_before_the_recipe(here: Path) -> None:
    assert (
        main.main(
            [
                "train",
                "--epochs",
                "1",
                "--data",
                "bars",
                "--output",
                "out",
                "--quiet",
                "--no-report",
                "tiny.toml",
            ]
        )
        == 0
    )
    written = (here / "out" / "recipe.toml").read_text().splitlines()
    assert 'name = "tiny"' in written
    assert 'model = "speednet:width=0.125"' in written
    assert "epochs = 1.0" in written


def test_the_directory_is_called_after_the_name(here: Path) -> None:
    options = ["--quiet", "--no-report", "--epochs", "1", "--name", "my run"]
    assert main.main(["train", "tiny.toml", "--data", "bars", *options]) == 0
    assert (here / "runs" / "latest").resolve().name.endswith("-my run")


def test_the_seed_of_a_recipe_does_not_draw_the_splits(here: Path) -> None:
    for seed in ("0", "1"):
        options = ["--epochs", "0.1", "--seed", seed, "--output", seed, "--quiet", "--no-report"]
        assert main.main(["train", "demo", "--data", "digits", *options]) == 0
    first, second = (
        json.loads((here / seed / "env.json").read_text())["data"]["fingerprint"]
        for seed in ("0", "1")
    )
    assert first == second
    options = [
        "--epochs",
        "0.1",
        "--split-seed",
        "1",
        "--output",
        "other",
        "--quiet",
        "--no-report",
    ]
    assert main.main(["train", "demo", "--data", "digits", *options]) == 0
    assert json.loads((here / "other" / "env.json").read_text())["data"]["fingerprint"] != first


def test_the_recipe_of_a_run_trains_it_again(trained: Path) -> None:
    options = ["--output", "again", "--quiet", "--no-report"]
    assert main.main(["train", str(trained / "recipe.toml"), "--data", "bars", *options]) == 0
    first, again = (
        json.loads((path / "summary.json").read_text())
        for path in (trained, trained.parent / "again")
    )
    assert first["test_loss"] == again["test_loss"]


def test_evaluate(trained: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert main.main(["evaluate", "run", "--data", "bars"]) == 0
    out = capsys.readouterr().out
    for word in ("of 60 test images correct", "upright", "level", "slanting", "95% interval"):
        assert word in out
    assert main.main(["evaluate", "run", "--data", "bars", "--split", "all"]) == 0
    assert "of 300 images correct" in capsys.readouterr().out
    assert main.main(["evaluate", "run", "--data", "bars", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == json.loads((trained / "summary.json").read_text())["accuracy"]
    assert [row["images"] for row in found["classes"]] == [20, 20, 20]


def test_predict(trained: Path, data: Dataset, capsys: Capture) -> None:
    names = []
    for index in range(3):
        pixels = data.test.images[index].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(f"{index}.png")
        names.append(f"{index}.png")
    capsys.readouterr()
    assert main.main(["predict", "run", *names, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [answer["image"] for answer in found] == names
    assert [answer["top"][0]["name"] for answer in found] == ["upright", "level", "slanting"]
    assert all(len(answer["top"]) == 3 for answer in found)
    assert sum(guess["probability"] for guess in found[0]["top"]) == pytest.approx(1, abs=1e-5)
    assert main.main(["predict", "run", "0.png", "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert "0.png" in out
    assert "upright" in out
    assert "level" not in out


def test_data_describes_and_draws(here: Path, data: Dataset, capsys: Capture) -> None:
    assert main.main(["data", "bars", "--recipe", "tiny.toml"]) == 0
    out = capsys.readouterr().out
    assert "240 train, 60 test images, 3 classes, 3 x 8 x 8" in out
    mean = data.train.images[:, 0].double().div(255).mean().item()
    variance = data.test.images[:, 2].double().div(255).var(correction=0).item()
    assert f"{mean:.4f}" in out
    assert f"{variance:.4f}" in out
    for name in ("bars-samples.png", "bars-samples.svg", "bars-tiny-augmentations.png"):
        assert (here / "figures" / name).is_file()
        assert name in out


def test_summary_models_and_recipes(capsys: Capture) -> None:
    assert main.main(["summary", "resnet18"]) == 0
    out = capsys.readouterr().out
    assert "11,173,962" in out
    assert "555.43" in out
    assert main.main(["models"]) == 0
    assert "davidnet" in capsys.readouterr().out
    assert main.main(["recipes"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in (
        "davidnet-24 davidnet, 24 epochs",
        "batches of 500 x 2, lr 0.17",
        "freeze whiten:3, resolution linear:warmup",
    ):
        assert words in out
    assert "lookahead" not in out  # which no recipe sets


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["trian"],
            "unknown command 'trian' (did you mean 'train'?); possible: compare, data, demo",
        ),
        (["train", "davidnet-42", "--data", "bars"], "unknown recipe 'davidnet-42' (did you mean"),
        (
            ["train", "tiny.toml"],
            "Missing from seewhy train: --data NAME|PATH (see `seewhy train --help`)",
        ),
        (["train"], "Missing from seewhy train: RECIPE|FILE.toml, --data NAME|PATH (see"),
        (
            ["train", "tiny.toml", "--data", "bras"],
            "unknown data set 'bras' (did you mean 'bars'?)",
        ),
        (
            ["train", "tiny.toml", "--data", "bars", "--epocs", "3"],
            "--epocs, 3; did you mean --epochs FLOAT? (see",
        ),
        (
            ["train", "tiny.toml", "--data", "bars", "--epochs", "three"],
            "Error parsing --epochs: could not convert",
        ),
        (
            ["train", "tiny.toml", "--data", "bars", "--model", "resnet81"],
            "unknown model 'resnet81' (did you mean 'resnet18'?)",
        ),
        (
            ["train", "tiny.toml", "--data", "bars", "--lr", "-1"],
            "recipe field lr must be more than 0, found -1.0",
        ),
        (["train", "tiny.toml", "--data", "bars", "--model", "vgg16"], "32"),
        (
            ["train", "tiny.toml", "--data", "bars", "--device", "tpu"],
            "device 'tpu' cannot be used here",
        ),
        (
            ["train", "tiny.toml", "--data", "bars", "--device", "meta"],
            "device 'meta' cannot be used here",
        ),
        (["train", "tiny.toml", "--data", "bars", "--validation", "2"], "validation"),
        (["evaluate", "nowhere"], "nowhere is not a run directory (no such directory)"),
        (
            ["train", "tiny.toml", "--data", "bars", "--name", "../x"],
            "recipe field name must be a plain file name",
        ),
        (["train", "tiny.toml", "--data", "bars", "--augment", "crop:9"], "crop"),
        (["predict", "run"], "predict needs at least one image file"),
        (["data", "bars", "--recipe", "davidnet-42"], "unknown recipe"),
        (["summary", "resnet81"], "unknown model 'resnet81' (did you mean 'resnet18'?)"),
        (["summary", "resnet18", "--num-classes", "1"], "at least 2 classes, found 1"),
        (["models", "--all"], "Unrecognized options: --all (see `seewhy models --help`)"),
    ],
)
def test_mistakes_are_one_line_with_exit_code_2(
    arguments: list[str], message: str, here: Path, capsys: Capture
) -> None:
    assert message in error_of(arguments, capsys)
    assert {path.name for path in here.iterdir()} == {"tiny.toml"}


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_mistake_reads_the_same_in_any_encoding(encoding: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "seewhy", "recipes", "demo", "--al"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stderr == "seewhy: Unrecognized options: --al (see `seewhy recipes --help`)\n"


def test_a_run_directory_that_exists_is_not_touched(trained: Path, capsys: Capture) -> None:
    before = (trained / "summary.json").read_bytes()
    message = error_of(["train", "tiny.toml", "--data", "bars", "--output", "run"], capsys)
    assert (
        message
        == "seewhy: run exists and is not empty (nothing was changed); name another directory, or remove it"
    )
    assert (trained / "summary.json").read_bytes() == before


def test_an_empty_directory_of_the_users_stays_when_a_training_cannot_start(
    here: Path, capsys: Capture
) -> None:
    (here / "mine" / "run").mkdir(parents=True)
    error_of(
        ["train", "tiny.toml", "--data", "bars", "--augment", "crop:9", "--output", "mine/run"],
        capsys,
    )
    assert (here / "mine" / "run").is_dir()


def test_an_image_that_is_none_is_named(trained: Path, capsys: Capture) -> None:
    Path("notes.png").write_text("no image")
    assert "notes.png" in error_of(["predict", "run", "notes.png"], capsys)
    assert "missing.png" in error_of(["predict", "run", "missing.png"], capsys)


def test_debug_shows_the_traceback(here: Path, capsys: Capture) -> None:
    assert main.main(["--debug", "train", "nowhere.toml", "--data", "bars"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_our_own_bugs_stay_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: list[str]) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(main.COMMANDS, "models", broken)
    with pytest.raises(ZeroDivisionError):
        main.main(["models"])


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def interrupted(arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(main.COMMANDS, "models", interrupted)
    assert main.main(["models"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_real_process_starts_quickly_and_prints_its_version() -> None:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "seewhy", "--help"], capture_output=True, text=True, check=True
    )
    assert "usage: seewhy COMMAND" in done.stdout
    assert (
        time.perf_counter() - began < 5
    )  # generous, since other tests run beside it: the benchmark measures it alone
    done = subprocess.run(
        [sys.executable, "-m", "seewhy", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("seewhy 0.")


def test_wrong_arguments_exit_with_2_in_a_real_process() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "seewhy", "nonsense"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("seewhy: unknown command 'nonsense'; possible:")


@pytest.mark.slow
def test_the_demo_reaches_98_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["demo"]) == 0
    summary = json.loads((tmp_path / "runs" / "latest" / "summary.json").read_text())
    assert summary["accuracy"] >= 0.98
    assert summary["test_images"] == 359
    assert "written to" in capsys.readouterr().out


def test_names_are_data_not_markup(
    here: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Class and file names that look like rich's markup are printed as they are."""
    named = replace(data, name="[b]ars", classes=("[red]apple", "[other]", "[/b]"))
    monkeypatch.setitem(SOURCES, "marked", lambda: named)
    assert (
        main.main(
            ["train", "tiny.toml", "--data", "marked", "--output", "[bold]run", "--no-report"]
        )
        == 0
    )
    assert "written to [bold]run" in capsys.readouterr().out
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("[red]x[_red].png")
    for arguments in (
        ["evaluate", "[bold]run"],
        ["predict", "[bold]run", "[red]x[_red].png"],
        ["data", "marked"],
    ):
        capsys.readouterr()
        assert main.main(arguments) == 0
        out = capsys.readouterr().out
        for name in named.classes:
            assert name in out
    assert main.main(["predict", "[bold]run", "[red]x[_red].png"]) == 0
    assert "[red]x[_red].png" in capsys.readouterr().out


def test_a_terminal_that_lacks_a_character_is_no_reason_to_fail() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "seewhy", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0
    assert "usage: seewhy COMMAND ?" in done.stdout


@pytest.mark.slow
def test_a_terminated_training_keeps_its_weights(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-u",
        "-m",
        "seewhy",
        "train",
        "demo",
        "--data",
        "digits",
        "--epochs",
        "1000",
        "--output",
        "out",
    ]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.split()[:1] == ["2"]:  # two epochs have ended
                process.terminate()
                break
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert json.loads((tmp_path / "out" / "status.json").read_text())["status"] == "interrupted"
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_explain_draws_the_worst_mistakes(trained: Path, here: Path, capsys: Capture) -> None:
    assert (
        main.main(
            [
                "explain",
                "run",
                "--method",
                "hires-cam",
                "gradients",
                "--mistakes",
                "2",
                "--out",
                "why",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "1 image, 3 maps of each" in out  # the bars leave one mistake; two layers and the pixels
    assert "written to why" in out
    assert {path.name for path in (here / "why").iterdir()} == {
        "grid.png",
        "grid.svg",
        "maps.npz",
        "overlays",
    }


def test_explain_takes_files_and_directories(trained: Path, here: Path, capsys: Capture) -> None:
    (here / "photos").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (20, 12), "navy").save(here / "photos" / name)
    Image.new("RGB", (9, 9), "red").save(here / "c.png")
    arguments = [
        "explain",
        "run",
        "photos",
        "c.png",
        "--layers",
        "group3",
        "--target",
        "level",
        "--quiet",
    ]
    assert main.main(arguments) == 0
    assert capsys.readouterr().out == ""
    (made,) = (here / "explanations").iterdir()  # named after the time and the method
    assert made.name.endswith("-grad-cam")
    with np.load(made / "maps.npz") as arrays:
        assert [Path(name).name for name in arrays["names"]] == ["a.png", "b.jpg", "c.png"]
        assert arrays["weights"].tolist() == [[0, 1, 0]] * 3
    with Image.open(made / "overlays" / "a-group3-grad-cam.png") as overlay:
        assert overlay.size == (20, 12)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "grad-can"], "unknown method 'grad-can' (did you mean 'grad-cam'?)"),
        (["--layers", "group4"], "unknown layer 'group4' (did you mean 'group"),
        (["--target", "lvel"], "unknown target 'lvel' (did you mean 'level'?)"),
        (["--target", "level-slanting"], "or a pair such as ('predicted', 'runner-up')"),
        (["--target", "true", "level", "7"], "one class, or two for a difference of logits, found"),
        (["--target", "7"], "class 7 does not exist: the model has 3 classes"),
        (["--smooth", "flop"], "unknown smoothing 'flop' (did you mean 'flip'?)"),
        (["--opacity", "2"], "an opacity from 0 to 1, found 10 and 2"),
        (["nowhere.png"], "nowhere.png does not exist; give image files"),
        (["--out", "run"], "run exists and is not empty"),
    ],
)
def test_explain_says_what_is_wrong_and_writes_nothing(
    trained: Path, here: Path, capsys: Capture, arguments: list[str], said: str
) -> None:
    before = {path for path in here.rglob("*") if path.is_file()}
    assert said in error_of(["explain", "run", *arguments], capsys)
    assert {path for path in here.rglob("*") if path.is_file()} == before


def test_an_explanation_that_fails_leaves_no_directory(
    trained: Path, here: Path, capsys: Capture
) -> None:
    assert "unknown layer" in error_of(["explain", "run", "--layers", "group9"], capsys)
    assert not (here / "explanations").exists()


def test_layers_of_a_run_and_of_a_network(trained: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert main.main(["layers", "run"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert any(row.split() == ["*", "group3", "Group", "32", "3x3"] for row in rows)
    assert main.main(["layers", "resnet18", "--image-size", "16"]) == 0
    starred = [
        row.split()[1] for row in capsys.readouterr().out.splitlines() if row.startswith("*")
    ]
    assert starred == ["layer1", "layer2", "layer3", "layer4"]


def test_methods_are_listed_with_their_papers(capsys: Capture) -> None:
    assert main.main(["methods"]) == 0
    out = capsys.readouterr().out
    assert "grad-cam++" in out
    assert "Selvaraju" in out
    assert "rise: masks=2000, grid=7, keep=0.5, seed=0" in out


def test_trust_ranks_methods(trained: Path, capsys: Capture) -> None:
    capsys.readouterr()
    arguments = [
        "trust",
        "run",
        "--method",
        "hires-cam",
        "gradients",
        "--layers",
        "group3",
        "--images",
        "12",
    ]
    assert main.main([*arguments, "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert {(each["method"], each["layer"]) for each in found} == {
        ("hires-cam", "group3"),
        ("gradients", "pixels"),
    }
    assert main.main([*arguments, "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "most faithful: " in out or "none of these can be trusted" in out


def test_report_needs_the_data_once_and_then_the_run_alone(
    trained: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert not (trained / "report.html").exists()
    assert not (trained / "diagnosis.npz").exists()
    capsys.readouterr()
    assert main.main(["report", "run", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == f"open {Path('run/report.html')}\n"
    first = (trained / "report.html").read_text()
    accuracy = json.loads((trained / "summary.json").read_text())["accuracy"]
    assert f"<title>tiny on bars: Test accuracy {100 * accuracy:.2f}% (60 images)</title>" in first

    monkeypatch.delitem(SOURCES, "bars")
    assert main.main(["report", "run", "--out", "mine.html", "--quiet"]) == 0  # without data
    assert capsys.readouterr().out == ""
    assert (here / "mine.html").read_text() == first
    assert main.main(["report", "run", "--against", "run", "--full"]) == 0
    assert "0 errors fixed, 0 new" in (trained / "report.html").read_text()
    capsys.readouterr()
    assert "unknown data set 'bars'" in error_of(
        ["report", "run", "--fresh"], capsys
    )  # which needs the data


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing from seewhy report: RUN (see `seewhy report --help`)"),
        (["nowhere"], "nowhere is not a run directory (no such directory)"),
        (["run", "--against", "nowhere"], "nowhere is not a run directory (no such directory)"),
        (["run", "--device", "tpu"], "device 'tpu' cannot be used here"),
        (["run", "--ful"], "--ful; did you mean --full"),
    ],
)
def test_report_says_what_is_wrong(
    trained: Path, arguments: list[str], said: str, capsys: Capture
) -> None:
    assert said in error_of(["report", *arguments], capsys)
    assert not (trained / "report.html").exists()


def test_an_unfinished_run_has_no_report(trained: Path, capsys: Capture) -> None:
    (trained / "summary.json").unlink()
    said = error_of(["report", "run"], capsys)
    assert "run has not finished; resume it with `seewhy resume`, then report" in said


def test_a_training_without_a_report_is_finished_all_the_same(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def cannot(*arguments: object, **options: object) -> Path:
        raise SeewhyError("there is no room")

    monkeypatch.setattr("seewhy.reporting.page.report", cannot)
    assert main.main(["train", "tiny.toml", "--data", "bars", "--output", "run"]) == 0
    printed = capsys.readouterr()
    assert "no report was written: there is no room" in printed.err
    assert "of 60 test images correct" in printed.out
    assert not (here / "run" / "report.html").exists()


def test_find_lr_says_which_rates_to_try(here: Path, capsys: Capture) -> None:
    options = [
        "find-lr",
        "tiny.toml",
        "--data",
        "bars",
        "--updates",
        "12",
        "--start",
        "1e-5",
        "--device",
        "cpu",
    ]
    assert main.main([*options, "--out", "figures/range"]) == 0
    out = capsys.readouterr().out
    assert "12 updates at rates from 1e-05 to 10" in out
    assert all(f"\n{name} " in out for name in (*LR_SUGGESTIONS, "in tiny"))
    assert (here / "figures" / "range.svg").exists()
    assert not (here / "runs").exists()
    message = error_of(
        ["find-lr", "tiny.toml", "--data", "bars", "--start", "1", "--end", "0.1"], capsys
    )
    assert "from a lower to a higher rate" in message
    assert "unknown recipe 'davidnet-42'" in error_of(
        ["find-lr", "davidnet-42", "--data", "bars"], capsys
    )


COMPARE = ["compare", "tiny.toml", "--data", "bars", "--jobs", "1", "--device", "cpu", "--quiet"]


def test_compare_trains_each_recipe_with_each_seed_and_says_what_is_real(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [
        "--vary",
        "optimizer=sgd:momentum=0.9,nesterov=true,adam",
        "--seeds",
        "2",
        "--output",
        "both",
    ]
    assert main.main([*COMPARE, *options]) == 0
    out = capsys.readouterr().out
    assert "sgd:momentum=0.9,nesterov=true" in out
    assert " has the highest test accuracy: " in out
    assert " has the lowest training loss: " in out
    assert "over the seeds" in out
    homes = sorted(path.name for path in (here / "both").iterdir() if path.is_dir())
    assert homes == ["01-sgd-momentum-0.9-nesterov-true", "02-adam", "figures"]
    for home in homes[:2]:
        assert (
            here / "both" / home / "lr_range_test.json"
        ).exists()  # its rate was found, because none was given
        assert (
            sorted(path.name for path in (here / "both" / home).glob("seed-*/summary.json"))
            == ["summary.json"] * 2
        )
    for name in ("results.csv", "differences.csv", "curves.csv", "report.html"):
        assert (here / "both" / name).exists()
    before = (here / "both" / "02-adam" / "seed-1" / "summary.json").read_text()
    monkeypatch.setenv("COLUMNS", "60")
    assert (
        main.main(["compare", "--resume", "both", "--jobs", "1", "--device", "cpu", "--quiet"]) == 0
    )  # nothing is left to do
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 60
    assert "training loss" in narrow
    assert "state MB" not in narrow
    assert (here / "both" / "02-adam" / "seed-1" / "summary.json").read_text() == before


def test_compare_takes_a_learning_rate_that_is_given_and_makes_a_grid(
    here: Path, capsys: Capture
) -> None:
    options = [
        "--vary",
        "optimizer=momentum,adam",
        "--vary",
        "augment=none,flip",
        "--lr",
        "0.01",
        "--seeds",
        "1",
        "--images",
        "120",
    ]
    assert main.main([*COMPARE, *options, "--output", "grid"]) == 0
    experiment = open_experiment("grid")
    assert list(experiment.recipes) == [
        "momentum · no augment",
        "momentum · flip",
        "adam · no augment",
        "adam · flip",
    ]
    assert {recipe.lr for recipe in experiment.recipes.values()} == {0.01}
    images = len(SOURCES["bars"]().train)  # type: ignore[union-attr]
    assert {recipe.epochs for recipe in experiment.recipes.values()} == {120 / images}
    assert not experiment.range_tests


def test_compare_says_what_failed_and_how_to_go_on(here: Path, capsys: Capture) -> None:
    message = error_of(
        [*COMPARE, "--vary", "lr=0.01,1e30", "--seeds", "1", "--output", "half"], capsys
    )
    assert message.startswith(
        "seewhy: 1 of 2 trainings have no result; `seewhy compare --resume half` tries them again"
    )
    assert (here / "half" / "results.csv").exists()
    assert len(open_experiment("half").finished) == 1


def test_a_rate_that_cannot_be_found_costs_the_others_nothing(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the report, in which the range test is that found nothing."""

    def found(recipe: Recipe, data: Dataset, device: str) -> LRRangeTest:
        test = find_lr(recipe, data)
        return test if recipe.batch_size == 40 else replace(test, losses=tuple(sorted(test.losses)))

    monkeypatch.setattr("seewhy.experiments.runner.find_lr", found)
    options = [
        "--vary",
        "batch_size=40,60",
        "--lr",
        "find",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--output",
        "half",
    ]
    message = error_of([*COMPARE, *options], capsys)
    assert message.startswith(
        "seewhy: 1 of 2 trainings have no result; `seewhy compare --resume half` tries them again"
    )
    experiment = open_experiment("half")
    assert [trial.recipe for trial in experiment.finished] == ["batch_size=40"]
    assert "only at rates from" in experiment.trials[1].why_not
    assert "batch_size=60" in (here / "half" / "report.html").read_text()


@pytest.mark.slow
def test_ctrl_c_lets_every_training_of_a_comparison_write_a_checkpoint(tmp_path: Path) -> None:
    options = [
        "--data",
        "digits",
        "--vary",
        "lr=0.5,1.0",
        "--epochs",
        "500",
        "--seeds",
        "1",
        "--jobs",
        "2",
        "--output",
        "c",
    ]
    command = [sys.executable, "-m", "seewhy", "compare", "demo", *options, "--device", "cpu"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    began = time.monotonic()
    while len(list(tmp_path.glob("c/*/seed-0/checkpoints/last.pt"))) < 2:
        assert process.poll() is None
        assert time.monotonic() - began < 120
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.endswith(
        "seewhy: interrupted; 0 of 2 trainings are finished and kept; `seewhy compare --resume c` goes on\n"
    )
    for home in tmp_path.glob("c/*/seed-0"):
        status = json.loads((home / "status.json").read_text())
        assert status["status"] == "interrupted"
        step = newest_checkpoint(home / "checkpoints").content["state"]["step"]
        assert f"interrupted after step {step};" in status["detail"]
    assert (tmp_path / "c" / "curves.csv").exists()


def test_compare_starts_its_own_processes(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "start it without torchrun" in error_of([*COMPARE, "--vary", "lr=0.1,0.2"], capsys)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say what is to differ, as in --vary optimizer=sgd,adam"),
        (
            ["--vary", "optimizer=sgd,adam"],
            "unknown recipe field 'optimizer' (did you mean 'optimizer'?)",
        ),
        (
            ["--vary", "lr=0.1,0.2", "--vary", "lr=0.3,0.4"],
            "lr varies twice; put all its values into one, as in lr=VALUE,VALUE",
        ),
        (["--vary", "lr=0.1,-3"], "lr must be more than 0, found -3.0"),
        (["--vary", "lr=0.1,fast"], "lr must be a number, or find, found 'fast'"),
        (["--vary", "lr=0.1,0.1"], "lr=0.1 is given twice"),
        (["--vary", "optimizer"], "written FIELD=VALUE,VALUE"),
        (["--vary", "seed=1,2"], "see --seeds"),
        (["--vary", "lr=0.1,0.2", "--seeds", "0"], "seeds must be at least 1, found 0"),
        (["--vary", "lr=0.1,0.2", "--seconds", "0"], "seconds must be more than 0, found 0"),
        (["--vary", "lr=0.1,0.2", "--images", "0"], "images must be more than 0, found 0"),
        (
            ["--vary", "epochs=1,2", "--seconds", "3"],
            "is said by one of epochs, seconds and images, found epochs and seconds",
        ),
        (
            ["--vary", "lr=0.1,0.2", "--epochs", "3", "--images", "9"],
            "one of epochs, seconds and images, found epochs and images",
        ),
        (
            ["--vary", "lr=0.1,0.2", "--backend", "dask", "--jobs", "2"],
            "jobs are of this machine's processes; dask runs as many",
        ),
        (["--vary", "lr=0.1,0.2", "--jobs", "-1"], "jobs must be 0 or more, found -1"),
    ],
)
def test_compare_refuses_what_cannot_be_compared(
    here: Path, capsys: Capture, options: list[str], said: str
) -> None:
    assert said in error_of([*COMPARE, *options], capsys)
    assert not (here / "runs").exists()
