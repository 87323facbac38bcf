"""`seewhy train`, `seewhy resume` and `seewhy demo`."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from seewhy.cli import main
from seewhy.cli.arguments import AUTO, DataOptions
from seewhy.cli.train import Train, _check_hint, _loading
from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.runs.run import open_run
from seewhy.train.recipe import Recipe

Capture = pytest.CaptureFixture[str]
ErrorOf = Callable[..., str]
QUIET = ["--quiet", "--no-report"]

pytestmark = pytest.mark.usefixtures("blank_figures")


def test_a_model_that_is_named_is_chosen_for_even_if_it_is_the_default_of_a_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(
        "seewhy.runs.choice.choose_recipe",
        lambda data, model, *rest, **options: asked.append(model),
    )
    for model in (Recipe().model, AUTO):
        Train("auto", "birds", settings=replace(Recipe(), model=model)).choice()
    assert asked == ["resnet18", None]


def test_options_that_decide_on_the_labels_are_used_for_the_choice(tmp_path: Path) -> None:
    """Of files in no class folders, and of a table with two columns of labels."""
    rows = ["image,class,label"]
    for index in range(6):
        name = f"{'ab'[index % 2]}_{index}.png"
        Image.new("L", (9, 9)).save(tmp_path / name)
        rows.append(f"{name},{index % 3},{index % 2}")
    files = DataOptions(label_pattern="(?P<label>[a-z])_")
    assert Train("auto", str(tmp_path), loading=files).choice().recipe.name == "demo"
    table = tmp_path / "table.csv"
    table.write_text("\n".join([*rows, "missing.png,0,0"]))
    columns = DataOptions(label="label", skip_bad_images=True)
    assert Train("auto", str(table), loading=columns).choice().recipe.name == "demo"


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, (224, 32, "bilinear")),
        ({"image_size": 192}, (192, 0, "bilinear")),
        ({"interpolation": "bicubic"}, (224, 32, "bicubic")),
    ],
)
def test_options_replace_what_published_weights_need(
    own: dict[str, Any], expected: tuple[int, int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {"image_size": 224, "margin": 32, "interpolation": "bilinear"}
    monkeypatch.setattr("seewhy.data.facts.data_facts", lambda *arguments, **options: None)
    monkeypatch.setattr("seewhy.runs.choice.loading_for", lambda *arguments: needed)
    recipe = replace(Recipe(), model="resnet18:weights=resnet18.pth")
    loading = _loading(Train("probe", "birds", settings=recipe, loading=DataOptions(**own)))
    assert (loading.image_size, loading.margin, loading.interpolation) == expected


@pytest.mark.train
def test_a_restart_by_torchrun_resumes_what_its_directory_says(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size and epochs may have been chosen for the data and the model."""

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    command = ["train", "tiny.toml", "--data", "bars", "--output", "run", *QUIET]
    with monkeypatch.context() as patch:
        patch.setattr("seewhy.runs.training.make_result", interrupt)
        assert main.main([*command, "--image-size", "6", "--epochs", "1"]) == 130
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert main.main(command) == 0
    run = open_run("run")
    assert (len(run.history), run.image_shape) == (1, (3, 6, 6))


@pytest.mark.slow
@pytest.mark.train
def test_train_prints_the_result_and_the_files(workspace: Path, capsys: Capture) -> None:
    assert main.main(["train", "tiny.toml", "--data", "bars"]) == 0
    out = capsys.readouterr().out
    assert "Dataset(bars: 240 train, 60 test images, 3 classes, 3x8x8)" in out
    rows = [line for line in out.splitlines() if line.split()[:1] in (["1"], ["2"], ["3"], ["4"])]
    assert len(rows) == 4
    assert "of 60 test images correct (95% interval " in out
    directory = workspace / "runs" / "latest"
    assert f"written to: {directory.resolve().relative_to(workspace)}\n" in out
    assert "model.safetensors" in out
    assert (directory / "model.safetensors").is_file()
    assert "next: open runs/" in out
    assert "<title>tiny on bars: " in (directory / "report.html").read_text()
    assert (directory / "figures" / "confusion.svg").is_file()


@pytest.mark.train
def test_train_with_corrected_labels_can_be_evaluated(
    workspace: Path, data: Dataset, capsys: Capture, error_of: ErrorOf
) -> None:
    """The run loads its data with the same files again."""
    header = "file,split,index,label,new_label\n"
    Path("labels.csv").write_text(f"{header}bar-1-3.png,test,3,upright,level\n")
    Path("more.csv").write_text(f"{header}bar-0-1.png,,,level,\n")
    loading = ["--data", "bars", "--labels", "labels.csv", "more.csv"]
    command = ["train", "tiny.toml", *loading, "--epochs", "1", "--no-report", "--output", "run"]
    assert main.main(command) == 0
    printed = capsys.readouterr()
    assert "bars: labels changed 1, images dropped 0" in printed.err
    assert "239 train, 60 test images" in printed.out
    run = open_run("run")
    assert run.predictions is not None
    assert run.predictions.labels.tolist() == [0, 1, 2, 1, *data.test.labels.tolist()[4:]]
    files = [str(workspace.resolve() / name) for name in ("labels.csv", "more.csv")]
    assert run.data_origin.load_args["labels"] == files
    assert main.main(["evaluate", "run"]) == 0
    Path("more.csv").unlink()
    assert "more.csv does not exist; restore it" in error_of("evaluate", "run")


@pytest.mark.train
def test_train_applies_options_to_the_recipe(workspace: Path) -> None:
    options = "--epochs 1 --batch-size 80 --augment crop:1 flip --seed 3 --lr 0.1"
    command = ["train", "tiny.toml", "--data", "bars", *options.split(), *QUIET]
    assert main.main([*command, "--name", "my run"]) == 0
    directory = (workspace / "runs" / "latest").resolve()
    assert directory.name.endswith("-my run")
    written = (directory / "recipe.toml").read_text().splitlines()
    assert {
        "epochs = 1.0",
        "batch_size = 80",
        'augment = ["crop:1", "flip"]',
        "seed = 3",
        "lr = 0.1",
        'name = "my run"',
        'model = "speednet:width=0.125"',
    } <= set(written)


@pytest.mark.train
def test_split_seed_draws_the_splits_and_seed_does_not(workspace: Path) -> None:
    def fingerprint(*options: str) -> str:
        command = ["train", "tiny.toml", "--data", "digits", "--epochs", "0.01", *QUIET, *options]
        name = "".join(options).strip("-")
        assert main.main([*command, "--output", name]) == 0
        environment = json.loads((workspace / name / "env.json").read_text())
        return str(environment["data"]["fingerprint"])

    first = fingerprint("--seed", "0")
    assert fingerprint("--seed", "1") == first
    assert fingerprint("--split-seed", "1") != first


@pytest.mark.train
def test_the_recipe_of_a_run_trains_it_again(trained: Path) -> None:
    command = ["train", "run/recipe.toml", "--data", "bars", "--output", "again", *QUIET]
    assert main.main(command) == 0
    first, again = (
        json.loads((path / "summary.json").read_text())
        for path in (trained, trained.parent / "again")
    )
    assert first["test_nll"] == again["test_nll"]


def test_an_existing_run_directory_is_not_changed(trained: Path, error_of: ErrorOf) -> None:
    before = (trained / "summary.json").read_bytes()
    message = error_of("train", "tiny.toml", "--data", "bars", "--output", "run")
    assert message == (
        "seewhy: run is not empty; nothing was written; choose another directory, or remove it"
    )
    assert (trained / "summary.json").read_bytes() == before


def test_an_empty_output_directory_stays_after_an_error(workspace: Path, error_of: ErrorOf) -> None:
    (workspace / "mine" / "run").mkdir(parents=True)
    options = ["--augment", "crop:9", "--output", "mine/run"]
    error_of("train", "tiny.toml", "--data", "bars", *options)
    assert (workspace / "mine" / "run").is_dir()


@pytest.mark.train
def test_a_run_without_a_report_is_partly_done(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail(*arguments: object, **options: object) -> Path:
        raise SeewhyError("there is no room")

    monkeypatch.setattr("seewhy.reporting.page.report", fail)
    assert main.main(["train", "tiny.toml", "--data", "bars", "--output", "run"]) == 1
    printed = capsys.readouterr()
    assert "no report was written: there is no room" in printed.err
    assert "of 60 test images correct" in printed.out
    assert "next: seewhy report run" in printed.out
    assert not (workspace / "run" / "report.html").exists()


@pytest.mark.train
def test_resume_continues_an_interrupted_run(
    trained: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    command = ["train", "tiny.toml", "--data", "bars", "--output", "part", *QUIET]
    with monkeypatch.context() as patch:
        patch.setattr("seewhy.runs.training.make_result", interrupt)
        assert main.main(command) == 130
    assert not (workspace / "part" / "summary.json").exists()
    assert main.main(["resume", "part", *QUIET]) == 0
    assert "of 60 test images correct" in capsys.readouterr().out
    whole, resumed = (
        json.loads((workspace / name / "summary.json").read_text()) for name in ("run", "part")
    )
    assert whole["test_nll"] == resumed["test_nll"]


@pytest.mark.train
@pytest.mark.parametrize("option", [[], ["--no-report"]], ids=["report", "no report"])
def test_resume_writes_a_report_only_if_the_command_did(
    option: list[str], trained: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    reported: list[object] = []
    monkeypatch.setattr("seewhy.reporting.page.report", lambda run, *_, **__: reported.append(run))
    command = ["train", "tiny.toml", "--data", "bars", "--output", "part", "--quiet", *option]
    monkeypatch.setattr("sys.argv", ["seewhy", *command])
    with monkeypatch.context() as patch:
        patch.setattr("seewhy.runs.training.make_result", interrupt)
        assert main.main(command) == 130
    assert main.main(["resume", "part", "--quiet"]) == 0
    assert bool(reported) == (not option)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["run"], "finished"),
        (["run", "--jobs", "2"], "--jobs and --backend are for experiments; run is not one"),
        (["run", "--backend", "dask"], "--jobs and --backend are for experiments"),
        (["run", "--device", "tpu"], "finished"),
    ],
)
def test_resume_errors(trained: Path, options: list[str], message: str, error_of: ErrorOf) -> None:
    assert message in error_of("resume", *options)


@pytest.mark.slow
@pytest.mark.train
def test_demo_reaches_98_5_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    # the example of the README writes the same report
    monkeypatch.setattr("seewhy.reporting.page.report", lambda run, *_, **__: run.directory)
    assert main.main(["demo"]) == 0
    summary = json.loads((tmp_path / "runs" / "latest" / "summary.json").read_text())
    assert summary["accuracy"] >= 0.985
    assert summary["test_images"] == 359
    assert "written to: " in capsys.readouterr().out


@pytest.mark.train
def test_train_without_a_recipe_chooses_one(
    workspace: Path, capsys: Capture, error_of: ErrorOf
) -> None:
    command = ["train", "--data", "bars", "--model", "speednet:width=0.125", "--minutes", "0.05"]
    assert main.main([*command, "--epochs", "1", "--no-report", "--output", "run"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "recipe demo: 240 training images are small (about 8 pixels) and few"
    assert lines[1].endswith("`seewhy recipes` lists all")
    assert " of 1 epoch of demo fit into 0.05 minutes, at " in lines[2]
    written = (workspace / "run" / "recipe.toml").read_text().splitlines()
    assert {'name = "demo"', 'model = "speednet:width=0.125"'} <= set(written)
    assert "train needs --data" in error_of("train")


def test_the_named_check_finds_wrong_labels_if_there_are_published_weights() -> None:
    assert _check_hint("my pets", "resnet18:weights=a.pth") == (
        "copies, odd images, wrong labels: seewhy check 'my pets' --model resnet18:weights=a.pth"
    )
    assert _check_hint("pets", "resnet18", r"(?P<label>\w+)_").endswith(
        r"seewhy check pets --label-pattern '(?P<label>\w+)_'"
    )


@pytest.mark.train
def test_training_on_a_folder_names_the_check_of_its_images(
    workspace: Path, data: Dataset, capsys: Capture
) -> None:
    for split, images in (("train", data.train), ("test", data.test)):
        for index in range(40):
            name = data.classes[int(images.labels[index])]
            folder = workspace / "pets" / split / name
            folder.mkdir(parents=True, exist_ok=True)
            pixels = images.images[index].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / f"{index}.png")
    command = ["train", "tiny.toml", "--epochs", "1", "--no-report", "--data"]
    assert main.main([*command, "pets"]) == 0
    assert capsys.readouterr().out.endswith("copies and odd images: seewhy check pets\n")
    assert main.main([*command, "bars"]) == 0
    assert "seewhy check" not in capsys.readouterr().out
