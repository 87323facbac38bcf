"""`--model package.module:function` opens a run whose model is the user's own."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from seewhy.cli import main, own_model
from seewhy.data.dataset import Dataset, Split
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.registry import MODELS
from seewhy.runs.run import open_run
from seewhy.runs.training import fit, resume
from seewhy.train.recipe import Recipe, to_toml

pytestmark = pytest.mark.train
ErrorOf = Callable[..., str]

CODE = """
from torch import nn

def build(num_classes, sample, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(width, num_classes))

def published():
    return build(1000, None)

def trained():
    return build(3, None)

setting = 3
"""


@pytest.fixture
def own(
    trained: Path, workspace: Path, recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A run of a model that only the user's file `nets/mine.py` has."""
    (workspace / "nets").mkdir()
    (workspace / "nets" / "mine.py").write_text(CODE)

    def build(num_classes: int, sample: Split, width: int = 4) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, width, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, num_classes),
        )

    with monkeypatch.context() as patch:
        patch.setitem(MODELS, "tiny-net", build)
        own_recipe = replace(recipe, model="tiny-net:width=6", epochs=1)
        fit(own_recipe, replace(data, load_args={"name": "bars"}), "own", quiet=True)
    assert "tiny-net" not in MODELS
    return Path("own")


@pytest.fixture
def forgets_the_model() -> Iterator[None]:
    yield
    MODELS.pop("tiny-net", None)


@pytest.mark.usefixtures("forgets_the_model")
def test_model_option_opens_a_run_of_ones_own_model(
    own: Path, capsys: pytest.CaptureFixture[str], error_of: ErrorOf
) -> None:
    needed = "the code of the run's model 'tiny-net' is not part of seewhy; name it with --model "
    assert needed in error_of("evaluate", "own")
    with pytest.raises(SeewhyError, match=r"\(in Python open_run\(directory, model="):
        open_run(own)
    assert main.main(["evaluate", "own", "--model", "nets.mine:build"]) == 0
    assert "of 60 test images of bars correct" in capsys.readouterr().out
    assert main.main(["layers", "own", "--model", "nets.mine:build"]) == 2  # it is known now
    assert "is seewhy's tiny-net; leave out --model" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("own", "blank_figures")
def test_a_function_that_returns_a_model_is_evaluated_and_reported(
    capsys: pytest.CaptureFixture[str], error_of: ErrorOf
) -> None:
    assert "add labeled images, as in --data photos" in error_of("report", "nets.mine:trained")
    assert "nets.mine:setting is not a function" in error_of("evaluate", "nets.mine:setting")
    assert "nets.mine:build fails: TypeError" in error_of(
        "evaluate", "nets.mine:build", "--data", "bars"
    )
    assert main.main(["evaluate", "nets.mine:trained", "--data", "bars"]) == 0
    assert "of 60 test images of bars correct" in capsys.readouterr().out
    words = ["report", "nets.mine:trained", "--data", "bars", "--report-minutes", "0.01"]
    assert main.main(words) == 0
    assert capsys.readouterr().out == "open: report.html\n"
    assert "<h1>Sequential on bars</h1>" in Path("report.html").read_text()
    assert "report.html exists; name another file with --output" in error_of(*words)


def test_a_function_keeps_its_channels_and_takes_no_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    gray = Classifier(nn.Identity(), image_shape=(1, 8, 8))
    monkeypatch.setattr(own_model, "_imported", lambda text: lambda: gray)
    opened = own_model.open_model("nets.mine:gray", "cpu", image_size=16)
    assert isinstance(opened, Classifier)
    assert opened.image_shape == (1, 16, 16)
    with pytest.raises(SeewhyError, match="crop is for published weights; leave it out for nets"):
        own_model.open_model("nets.mine:gray", "cpu", crop=0.9)


@pytest.mark.usefixtures("forgets_the_model")
def test_resume_needs_the_code_of_the_model(own: Path) -> None:
    (own / "summary.json").unlink()
    with pytest.raises(SeewhyError, match="the code of the run's model 'tiny-net' is not part of"):
        resume(own, quiet=True)


@pytest.mark.usefixtures("forgets_the_model")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nets.mine", "--model needs package.module:function, found 'nets.mine'"),
        ("nets.other:build", "cannot be imported: ModuleNotFoundError: No module named"),
        ("nets.mine:nothing", "cannot be imported: AttributeError"),
        ("nets.mine:setting", "--model nets.mine:setting is not a function, found int"),
    ],
)
def test_model_option_errors(text: str, message: str, own: Path, error_of: ErrorOf) -> None:
    assert message in error_of("evaluate", "own", "--model", text)


def test_model_option_is_for_own_models(trained: Path, error_of: ErrorOf) -> None:
    assert "is seewhy's speednet; leave out --model" in error_of(
        "report", "run", "--model", "torch.nn:Linear"
    )


@pytest.fixture
def forgets_new_models() -> Iterator[None]:
    before = set(MODELS)
    yield
    for name in set(MODELS) - before:
        del MODELS[name]


@pytest.mark.usefixtures("forgets_new_models")
def test_train_with_ones_own_model(
    own: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str], error_of: ErrorOf
) -> None:
    """A function whose network has 1,000 classes; the run gives the option to open it."""
    Path("own.toml").write_text(to_toml(replace(recipe, epochs=1)))
    arguments = ["train", "own.toml", "--data", "bars", "--output", "new", "--no-report"]
    assert main.main([*arguments, "--model", "nets.mine:published"]) == 0
    capsys.readouterr()
    del MODELS["nets.mine.published"]
    assert "name it with --model nets.mine:published" in error_of("evaluate", "new")
    assert main.main(["evaluate", "new", "--model", "nets.mine:published"]) == 0
    assert "of 60 test images of bars correct" in capsys.readouterr().out
    Path("hostile.toml").write_text(to_toml(replace(recipe, model="nets.mine:published")))
    arguments[1] = "hostile.toml"  # a file names no code to import
    assert "unknown model 'nets.mine'" in error_of(*arguments)
    assert "cannot be imported" in error_of(*arguments, "--model", "nets.other:build")


def test_fit_and_open_run_with_a_module(recipe: Recipe, data: Dataset, tmp_path: Path) -> None:
    """The module is not changed; the run is opened with a module of other weights."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(data.train.images[0].numel(), 10))
    weights = net[1].weight.clone()
    small = replace(recipe, epochs=1, lr=0.01)
    run = fit(small, data, tmp_path / "run", quiet=True, model=net)
    assert net[1].weight.shape == (10, weights.shape[1])
    assert torch.equal(net[1].weight, weights)
    assert run.recipe.model == "torch.nn.modules.container.Sequential"
    assert run.model[1].out_features == 3
    with pytest.raises(SeewhyError, match=r"--model torch\.nn\.modules\.container:Sequential"):
        open_run(tmp_path / "run")
    opened = open_run(tmp_path / "run", model=net)
    assert torch.equal(opened.model[1].weight, run.model[1].weight)
    (tmp_path / "run" / "summary.json").unlink()
    resumed = resume(tmp_path / "run", data, quiet=True, model=net)
    assert torch.equal(resumed.model[1].weight, run.model[1].weight)
    assert torch.equal(net[1].weight, weights)
    with pytest.raises(SeewhyError, match="returns probabilities"):
        fit(small, data, quiet=True, model=nn.Sequential(net, nn.Softmax(1)))
