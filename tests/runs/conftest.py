"""Runs that the tests of this room share; each is trained once."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from seewhy.data.dataset import Dataset
from seewhy.data.sources import SOURCES
from seewhy.runs.run import Run, open_run
from seewhy.runs.training import fit
from seewhy.train.recipe import Recipe


@pytest.fixture(scope="session")
def loadable(data: Dataset) -> Dataset:
    """The bars, as `load` returns them where `source` has registered them."""
    return replace(data, load_args={"name": "bars"})


@pytest.fixture
def source(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `load("bars")` possible."""
    monkeypatch.setitem(SOURCES, "bars", lambda: data)


@pytest.fixture
def changed_source(data: Dataset, source: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `load("bars")` return other data than `loadable`."""
    monkeypatch.setitem(SOURCES, "bars", lambda: replace(data, fingerprint="f" * 32))


@pytest.fixture(scope="session")
def run(recipe: Recipe, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run with a directory, on data made in memory; not to be changed."""
    return fit(recipe, data, tmp_path_factory.mktemp("runs") / "run", quiet=True)


@pytest.fixture
def directory(run: Run, tmp_path: Path) -> Path:
    """A copy of the directory of `run`, to be changed."""
    assert run.directory is not None
    return shutil.copytree(run.directory, tmp_path / "copy")


@pytest.fixture(scope="session")
def weak_run(recipe: Recipe, loadable: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run with errors, whose data can be loaded again."""
    directory = tmp_path_factory.mktemp("runs") / "weak"
    run = fit(replace(recipe, epochs=1), loadable, directory, quiet=True)
    assert run.result is not None
    assert run.result.accuracy < 0.95
    return run


@pytest.fixture
def unfinished(directory: Path) -> Run:
    """A run that was interrupted, as far as its directory says."""
    (directory / "summary.json").unlink()
    return open_run(directory)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws no curves, which takes longer than training; the shared runs above have them."""
    monkeypatch.setattr("seewhy.runs.training.curves_figure", lambda *_: None)
    monkeypatch.setattr("seewhy.runs.training.write_figure", lambda *_: None)
