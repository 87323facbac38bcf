"""`seewhy data`, `summary`, `list`, `recipes`, `layers` and `methods`."""

import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from published_files import random_images, write_idx
from torch import Tensor, nn

from seewhy.cli import main
from seewhy.data.augment import AUGMENTATIONS
from seewhy.data.dataset import Dataset
from seewhy.data.sources import SOURCES
from seewhy.diagnosis.attacks import ATTACKS
from seewhy.diagnosis.corruptions import CORRUPTIONS
from seewhy.models.registry import MODELS
from seewhy.models.tta import TTA
from seewhy.train.optimizers import OPTIMIZERS
from seewhy.train.recipes import RECIPES
from seewhy.train.schedules import SCHEDULES

Capture = pytest.CaptureFixture[str]


@pytest.mark.slow
def test_data_prints_statistics_and_draws_samples(
    workspace: Path, data: Dataset, capsys: Capture
) -> None:
    assert main.main(["data", "bars", "--recipe", "tiny.toml"]) == 0
    out = capsys.readouterr().out
    assert "240 train, 60 test images, 3 classes, 3x8x8" in out
    mean = data.train.images[:, 0].double().div(255).mean().item()
    variance = data.test.images[:, 2].double().div(255).var(correction=0).item()
    assert f"{mean:.4f}" in out
    assert f"{variance:.4f}" in out
    assert "0 duplicate images, 0 shared across splits" in out
    assert main.main(["data", "bars", "--samples", "5", "--decimals", "6"]) == 0
    out += (exact := capsys.readouterr().out)
    assert f"{mean:.6f}" in exact
    assert (workspace / "figures" / "bars-normalized.svg").is_file()
    for name in ("bars-samples.png", "bars-samples.svg", "bars-tiny-augmentations.png"):
        assert (workspace / "figures" / name).is_file()
        assert name in out


@pytest.mark.slow
@pytest.mark.usefixtures("workspace", "blank_figures")
@pytest.mark.parametrize("decimals", ["4", "6"])
def test_statistics_fit_60_columns(
    decimals: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    options = ["--validation", "0.2", "--decimals", decimals, "--output", "f"]
    assert main.main(["data", "bars", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("split"))
    rows = lines[start : start + 11]  # a head, a rule, and three channels of three splits
    assert max(map(len, rows)) <= 60
    numbers = [row.split()[-5:] for row in rows[2:]]
    assert all(len(value.partition(".")[2]) == int(decimals) for row in numbers for value in row)


@pytest.mark.slow
@pytest.mark.usefixtures("workspace", "blank_figures")
def test_data_finds_published_files(capsys: Capture, error_of: Callable[..., str]) -> None:
    train, test = random_images(13, 10, 28, 1), random_images(11, 10, 28, 1, seed=1)
    write_idx(Path("data/MNIST/raw"), train, test)
    for arguments in (["mnist", "--root", "data"], ["./data"]):
        assert main.main(["data", *arguments, "--output", "f"]) == 0
        assert "mnist: 13 train, 11 test images, 10 classes, 1x28x28" in capsys.readouterr().out
    write_idx(Path("data/FashionMNIST/raw"), train, test)
    assert "holds several datasets: mnist (MNIST/raw), fashion" in error_of("data", "./data")
    assert "or `mnist --root …`" in error_of("data", "./data")


@pytest.mark.usefixtures("workspace")
def test_data_errors(error_of: Callable[..., str]) -> None:
    assert "number of --samples must be at least 1, found 0" in error_of(
        "data", "bars", "--samples=0"
    )
    assert "decimals must be from 0 to 15, found 16" in error_of("data", "bars", "--decimals", "16")
    assert not Path("figures").exists()


@pytest.mark.slow
def test_summary(capsys: Capture) -> None:
    assert main.main(["summary", "resnet18", "--batch-size", "32"]) == 0
    out = capsys.readouterr().out
    assert "11,173,962" in out
    assert "17.77 G" in out


@pytest.mark.slow
def test_summary_draws_the_model(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["summary", "davidnet", "--figure", "net.svg"]) == 0
    assert capsys.readouterr().out.endswith("figure: net.svg\n")
    assert "layer3.1" in Path("net.svg").read_text(encoding="utf-8")
    assert main.main(["summary", "davidnet", "--figure", "net.txt"]) == 2
    output = capsys.readouterr()
    assert "possible: .svg, .png, .pdf" in output.err
    assert not output.out


class Decides(nn.Module):
    """Its control flow depends on the values of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1) if x.sum() > 0 else -x.flatten(1))
        return logits


@pytest.mark.slow
def test_summary_of_a_model_that_cannot_be_drawn(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "decides", lambda num_classes, sample: Decides())
    monkeypatch.chdir(tmp_path)
    assert main.main(["summary", "decides", "--image-size", "4", "--figure", "net.svg"]) == 2
    output = capsys.readouterr()
    assert "parameters     490" in output.out
    (line,) = output.err.splitlines()
    assert "decides cannot be drawn, because torch.export cannot trace it: " in line
    assert not list(tmp_path.iterdir())


def test_list_names_every_entry(capsys: Capture) -> None:
    assert main.main(["list"]) == 0
    words = capsys.readouterr().out.split()
    for table in (ATTACKS, AUGMENTATIONS, CORRUPTIONS, MODELS, OPTIMIZERS, SCHEDULES, SOURCES, TTA):
        assert {*table} <= {*words}


@pytest.mark.parametrize(
    ("table", "texts"),
    [
        ("models", ("davidnet", "settings: width=1, depth=2")),
        (
            "optimizers",
            ("Adadelta (Zeiler 2012)", "2013). Here: momentum=0.9.", "Here: AdamW."),
        ),
        ("schedules", ("One cycle (Smith & Topin 2018)", "settings: stages=3, factor=0.1")),
        ("augmentations", ("(Müller & Hutter 2021)", "settings: p=0.5")),
        ("attacks", ("Fast gradient sign method", "settings: epsilon=0.0314")),
        ("datasets", ("`uoft-cs/cifar10` of the Hugging Face hub.",)),
    ],
)
def test_list_describes_a_table(table: str, texts: tuple[str, ...], capsys: Capture) -> None:
    assert main.main(["list", table]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for text in texts:
        assert text in out
    assert "partial(" not in out


def test_list_of_an_unknown_table(capsys: Capture) -> None:
    assert main.main(["list", "optimizer"]) == 2
    assert "did you mean 'optimizers'" in capsys.readouterr().err


def test_recipes(capsys: Capture) -> None:
    assert main.main(["recipes"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for text in (
        "davidnet-24 davidnet, 24 epochs, batch size 512, lr 0.45",
        "freeze whiten:3, resolution linear:warmup",
    ):
        assert text in out
    assert "lookahead" not in out  # no recipe sets it
    assert main.main(["recipes", "davidnet-24"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["lr"] == RECIPES["davidnet-24"].lr


@pytest.mark.slow
def test_layers_of_a_run_and_of_a_model(trained: Path, capsys: Capture) -> None:
    assert main.main(["layers", "run"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert any(row.split() == ["*", "group3", "Group", "32", "3x3"] for row in rows)
    assert main.main(["layers", "resnet18", "--image-size", "16"]) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    starred = [row[1] for row in rows if row[:1] == ["*"] and len(row) == 5]
    assert starred == ["layer1", "layer2", "layer3", "layer4"]


def test_methods(capsys: Capture) -> None:
    assert main.main(["methods"]) == 0
    out = capsys.readouterr().out
    assert "grad-cam++" in out
    assert "Selvaraju" in out
    assert "settings: masks=2000, grid=7, " in out


@pytest.mark.parametrize(
    "command",
    [
        "list",
        "list optimizers",
        "recipes",
        "methods",
        pytest.param("layers resnet18", marks=pytest.mark.slow),
        "evaluate run",
        "predict run {image}",
        "recipes demo",
    ],
)
def test_tables_fit_60_columns(
    command: str, trained: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Path(__file__).parents[2] / "docs" / "images" / "report.jpg"
    shutil.copy(image, "photo.jpg")
    monkeypatch.setenv("COLUMNS", "60")
    assert main.main(command.format(image="photo.jpg").split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert max(map(len, lines)) <= 60 or command == "recipes demo"
