"""The wheel and the sdist hold all that is needed, and the wheel runs outside the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import seewhy

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the sdist."""
    pytest.importorskip("hatchling")
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return directory


def source_files() -> set[str]:
    """The files of the package, as the wheel names them."""
    package = ROOT / "src"
    return {
        path.relative_to(package).as_posix()
        for path in (package / "seewhy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_holds_the_package_with_stubs_and_assets(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    assert wheel.name == f"seewhy-{seewhy.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"seewhy-{seewhy.__version__}.dist-info/METADATA").decode()
    packaged = {name for name in names if name.startswith("seewhy/")}
    assert packaged == source_files()
    assert {"seewhy/py.typed", "seewhy/__init__.pyi", "seewhy/reporting/assets/page.html"} <= names
    assert f"Version: {seewhy.__version__}\n" in metadata


def test_sdist_holds_tests_and_documents(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/conftest.py"}
    assert expected | {f"src/{name}" for name in source_files()} <= names
    assert not {name for name in names if "node_modules" in name or "__pycache__" in name}


def test_installed_wheel_runs_outside_the_checkout(distributions: Path, tmp_path: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*install, "--target", str(target), str(wheel)], check=True)
    environment = os.environ | {"PYTHONPATH": str(target)}

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    assert str(target) in run("-c", "import seewhy; print(seewhy.__file__)")
    assert run("-m", "seewhy", "--version") == f"seewhy {seewhy.__version__}\n"
    assert "davidnet" in run("-m", "seewhy", "list")
    listed = run("-c", "import seewhy; print(*dir(seewhy.figures), seewhy.reporting.report)")
    assert "reliability_figure" in listed
