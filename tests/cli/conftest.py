"""A working directory with a recipe and a dataset, and a finished run in it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from seewhy.cli import main
from seewhy.data.dataset import Dataset
from seewhy.data.sources import SOURCES
from seewhy.train.recipe import Recipe, to_toml

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def workspace(
    tmp_path: Path, recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working directory with tiny.toml; the bars are the dataset `bars`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SOURCES, "bars", lambda: data)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "tiny.toml").write_text(to_toml(recipe))
    return tmp_path


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's run is; the first test that needs it trains it."""
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture
def trained(workspace: Path, trained_once: Path, capsys: Capture) -> Path:
    """A finished run without a report, `run` in the working directory."""
    if not trained_once.exists():
        command = ["train", "tiny.toml", "--data", "bars", "--quiet", "--no-report"]
        assert main.main([*command, "--output", str(trained_once)]) == 0
    capsys.readouterr()
    return Path(shutil.copytree(trained_once, workspace / "run"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that share the trained run."""
    for item in items:
        if "trained" in getattr(item, "fixturenames", ()) and "/cli/" in item.path.as_posix():
            item.add_marker(pytest.mark.train)


@pytest.fixture
def error_of(capsys: Capture) -> Callable[..., str]:
    """Runs a command and returns its error, after checking that it is one line with exit code 2."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert main.main(arguments) == 2
        printed = capsys.readouterr()
        *progress, error = printed.err.splitlines()
        assert error.startswith("seewhy: ")
        assert not any("seewhy: " in line or "Traceback" in line for line in progress)
        return error

    return run
