"""Errors of arguments: one line, exit code 2, and nothing written."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import tyro
from PIL import Image

from seewhy.cli import main
from seewhy.cli.arguments import name_options, option_names, parse
from seewhy.cli.predict import Evaluate, Predict
from seewhy.cli.train import Train

ErrorOf = Callable[..., str]
TRAIN = "train tiny.toml --data bars"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "trian",
            "unknown command 'trian' (did you mean 'train'?); possible: cache, check, compare",
        ),
        ("train", "train needs --data NAME|PATH (see `seewhy train --help`)"),
        ("train tiny.toml", "train needs --data NAME|PATH (see `seewhy train --help`)"),
        ("train tiny.toml --data", "--data needs a value (see `seewhy train --help`)"),
        ("train tiny.toml --dta bars", "unknown option --dta (did you mean '--data'?) (see"),
        (f"{TRAIN} --epocs 3", "unknown option --epocs (did you mean '--epochs'?) (see `seewhy t"),
        ("train --epocs 3 tiny.toml --data bars", "unknown option --epocs"),
        (f"{TRAIN} --batch_siz=3", "unknown option --batch-siz (did you mean '--batch-size'?)"),
        (f"{TRAIN} more", "unexpected argument 'more' (see `seewhy train --help`)"),
        (f"{TRAIN} --epochs three", "--epochs must be a number, found 'three' (see"),
        (f"{TRAIN} --batch-size 2.5", "--batch-size must be a whole number, found '2.5' (see"),
        ("train bars", "bars is data, not a recipe; pass it as --data bars"),
        ("train digits", "digits is data, not a recipe; pass it as --data digits"),
        (f"{TRAIN} --lr -1", "recipe field lr must be more than 0, found -1.0"),
        (f"{TRAIN} --model resnet81", "unknown model 'resnet81' (did you mean 'resnet18'?)"),
        (f"{TRAIN} --model vgg16", "32"),
        (f"{TRAIN} --augment crop:9", "crop"),
        (f"{TRAIN} --name ../x", "recipe field name must be a plain file name"),
        (f"{TRAIN} --device tpu", "device 'tpu' is not available"),
        (f"{TRAIN} --device meta", "device 'meta' is not available"),
        (f"{TRAIN} --validation 2", "validation"),
        ("train davidnet-42 --data bars", "unknown recipe 'davidnet-42' (did you mean"),
        ("find-lr davidnet-42 --data bars", "unknown recipe 'davidnet-42' (did you mean"),
        ("train tiny.toml --data bras", "unknown dataset 'bras' (did you mean 'bars'?)"),
        ("compare tiny.toml --data bars --backend dusk", "--backend must be one of processes, da"),
        ("resume", "resume needs RUN|EXPERIMENT (see `seewhy resume --help`)"),
        ("resume nowhere", "nowhere is not a run directory (no such directory)"),
        ("evaluate nowhere", "nowhere is not a run directory (no such directory)"),
        ("evaluate --jsn run", "unknown option --jsn (did you mean '--json'?)"),
        ("predict run", "predict needs at least one image file"),
        ("data bars --recipe davidnet-42", "unknown recipe"),
        ("summary resnet81", "unknown model 'resnet81' (did you mean 'resnet18'?)"),
        ("summary resnet18 --num-classes 1", "at least 2 classes, found 1"),
        ("methods --all", "unknown option --all (see `seewhy methods --help`)"),
        ("methods all", "unexpected argument 'all' (see `seewhy methods --help`)"),
        ("report", "report needs RUN|FILE.onnx|MODEL (see `seewhy report --help`)"),
        ("report run --ful", "unknown option --ful (did you mean '--full'?)"),
    ],
)
def test_argument_errors(command: str, message: str, workspace: Path, error_of: ErrorOf) -> None:
    assert message in error_of(*command.split())
    assert {path.name for path in workspace.iterdir()} == {"tiny.toml"}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("predict photo.png run", "run is a run, not images; name the run first, then the images"),
        ("explain photo.png run", "run is a run, not images; name the run first, then the images"),
        ("check run", "run is a run, not data; pass the directory of its images"),
        ("train --data ./run", "run is a run, not data; pass the directory of its images"),
        ("evaluate run/recipe.toml", "run/recipe.toml is not a run directory (it is a file)"),
        (
            "compare run other",
            "run is a run, not a recipe; its recipe is run/recipe.toml, and `seewhy report run "
            "--against RUN` compares two runs",
        ),
    ],
)
def test_a_run_in_the_place_of_something_else(
    command: str, message: str, workspace: Path, error_of: ErrorOf
) -> None:
    (workspace / "run").mkdir()
    (workspace / "run" / "recipe.toml").touch()
    assert message in error_of(*command.split())


@pytest.mark.parametrize("name", main.COMMANDS)
def test_option_names_are_those_of_the_help(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main.main([name, "--help"]) == 0
    listed = set(re.findall(r"^.? (--[a-z][\w-]*)", capsys.readouterr().out, re.MULTILINE))
    assert set(option_names(main.COMMANDS[name].load()[0])) == listed


def test_recipe_may_come_after_the_options(workspace: Path) -> None:
    options = parse("train", Train, ["--epochs", "1", "--data", "bars", "tiny.toml"])
    assert options.recipe == "tiny.toml"
    assert options.settings.model == "speednet:width=0.125"
    assert options.settings.epochs == 1


def test_every_field_of_the_recipe_is_an_option(workspace: Path) -> None:
    arguments = "--batch-size 80 --augment crop:1 flip --seed 3 --lr find --class-weights"
    settings = parse("train", Train, ["tiny.toml", "--data", "bars", *arguments.split()]).settings
    assert (settings.batch_size, settings.seed, settings.lr) == (80, 3, "find")
    assert settings.augment == ("crop:1", "flip")
    assert settings.class_weights
    assert settings.name == "tiny"


def test_without_tyros_hook_its_own_error_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(tyro, "_errors")
    with pytest.raises(SystemExit) as stopped:
        parse("predict", Predict, [])
    assert stopped.value.code == 2
    assert "RUN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("or skip them with skip_bad_images=True", "or skip them with --skip-bad-images"),
        ("larger than max_pixels=80 (9x9", "larger than --max-pixels 80 (9x9"),
        ("found label='x'; leave label out", "found --label 'x'; leave --label out"),
        ("choose with label=…", "choose with --label …"),
        ("image_size must be at least 1", "--image-size must be at least 1"),
        ("with range=(LOW, HIGH), or", "with --range LOW HIGH, or"),
        ("as in load('cifar10', root='data')", "as in load('cifar10', root='data')"),
        ("batch_size must be at least 1", "batch_size must be at least 1"),
        ("needs load(..., validation=0.1), or on=train", "needs --validation 0.1, or on=train"),
        ("opened (in Python open_run(d, model=…)); stop", "opened; stop"),
        ("use drop_last=true", "use --drop-last"),
        ("drop_last=false leaves", "--no-drop-last leaves"),
        ("folds must be at least 2, found 1", "--folds must be at least 2, found 1"),
        ("leave validation out", "leave --validation out"),
        ("pass `folds` as a number", "pass --folds as a number"),
        ("all folds of the data", "all folds of the data"),
        ("shapes:seed=3,label=4 has no 'max_pixels'", "shapes:seed=3,label=4 has no 'max_pixels'"),
    ],
)
def test_errors_name_options(message: str, expected: str) -> None:
    assert name_options(message, Train) == expected


def test_errors_name_no_option_that_a_command_lacks() -> None:
    message = "x is missing; remove it, or skip unreadable files with skip_bad_images=True"
    assert name_options(message, Evaluate) == "x is missing; remove it"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("explain run photo.png --target nobody", "unknown target 'nobody'; possible: "),
        ("explain run photo.png --target true", "not known for these images; choose another"),
        ("explain run photo.png --layers nowhere", "`seewhy layers MODEL` lists the layers"),
        ("explain run photo.png --opacity 2", "--opacity must be from 0 to 1, found 2"),
        ("explain run photo.png --errors 0", "--errors must be at least 1, found 0"),
        ("explain run photo.png --mean 0.5", "--mean is for published weights"),
        ("explain run photo.png --range 3 2", "--range must be two finite numbers"),
        ("trust run --layers nowhere", "`seewhy layers MODEL` lists the layers"),
        ("trust run --target nobody", "unknown target 'nobody'; possible: "),
        ("trust run --seconds 0", "--seconds must be above 0, found 0"),
        ("trust run --tune lrp --methods rise", "--tune chooses settings of its own method; leave"),
        ("trust run --tune grad-can", "unknown method 'grad-can' (did you mean 'grad-cam'?)"),
        ("trust run --tune lrp --images 6", "at least 8 images, half of them to choose a setting"),
        ("concepts run level --layer nowhere", "`seewhy layers MODEL` lists the layers"),
        ("counterfactual run --to predicted", "pass --to as a class, 'true' or 'runner-up'"),
        ("counterfactual run --grid 1", "--grid must be an integer from 2 to"),
        ("evaluate run --split dev", "unknown split 'dev'; possible: "),
        ("report run --report-minutes 0", "--report-minutes must be above 0, found 0"),
        ("report run --classes tiny.toml", "--classes is for published weights"),
        (f"{TRAIN} --validation 2", "--validation must be at least 0 and below 1, found 2.0"),
        (f"{TRAIN} --folds 1", "--folds must be at least 2, found 1"),
        (f"{TRAIN} --schedule plateau:on=validation", "such as --validation 0.1, or "),
        (f"{TRAIN} --patience 2", "such as --validation 0.1; "),
        (f"{TRAIN} --report-minutes 0", "--report-minutes must be above 0, found 0"),
    ],
)
def test_errors_of_commands_name_options_and_no_python(
    command: str, message: str, trained: Path, error_of: ErrorOf
) -> None:
    Image.new("RGB", (8, 8)).save("photo.png")
    error = error_of(*command.split())
    assert message in error
    for option in option_names(main.COMMANDS[command.split()[0]].load()[0]):
        assert not re.search(rf"(?<![\w:,-]){option[2:].replace('-', '_')}=", error), error
    assert "seewhy." not in error


def test_an_unreadable_image_names_the_option(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("pets/a").mkdir(parents=True)
    Path("pets/b").mkdir()
    for index in range(4):
        Image.new("L", (4, 4)).save(f"pets/{'ab'[index % 2]}/{index}.png")
    Path("pets/a/x.png").write_text("no image")
    assert main.main(["data", "pets"]) == 2
    error = capsys.readouterr().err
    assert "a/x.png is not an image" in error
    assert "skip unreadable files with --skip-bad-images\n" in error
