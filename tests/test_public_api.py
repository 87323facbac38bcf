"""The public names of the package and of its subpackages, and the cost of `import seewhy`."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import seewhy

ROOT = Path(seewhy.__file__).parent
STUBS = sorted(ROOT.rglob("__init__.pyi"))
PACKAGES = (
    "attribution",
    "checks",
    "data",
    "diagnosis",
    "experiments",
    "exporting",
    "figures",
    "models",
    "reporting",
    "runs",
    "train",
)


def package_of(stub: Path) -> str:
    return ".".join(stub.parent.relative_to(ROOT.parent).parts)


def stub_imports(stub: Path) -> dict[str, str]:
    """Each name that a stub lists, and the module it is imported from."""
    tree = ast.parse(stub.read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: f"{package_of(stub)}.{node.module or alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_every_package_has_a_stub() -> None:
    assert {package_of(stub) for stub in STUBS} == {
        "seewhy",
        *(f"seewhy.{name}" for name in PACKAGES),
    }


@pytest.mark.parametrize("stub", STUBS, ids=package_of)
def test_names_of_a_stub_resolve_and_are_documented(stub: Path) -> None:
    package = importlib.import_module(package_of(stub))
    names = stub_imports(stub)
    assert set(names) == set(package.__all__) == set(dir(package))
    for name, module in names.items():
        value = getattr(package, name)
        if not inspect.ismodule(value):
            assert value is getattr(sys.modules[module], name)
        if inspect.ismodule(value) or inspect.isroutine(value) or inspect.isclass(value):
            assert (inspect.getdoc(value) or "").strip(), f"{package_of(stub)}.{name}"


@pytest.mark.parametrize("stub", STUBS, ids=package_of)
def test_no_public_function_shares_its_name_with_a_module(stub: Path) -> None:
    package = importlib.import_module(package_of(stub))
    modules = {path.stem for path in stub.parent.glob("*.py")}
    shared = modules & set(package.__all__)
    assert not [name for name in shared if not inspect.ismodule(getattr(package, name))]


def test_top_level_names_are_few() -> None:
    assert len(dir(seewhy)) <= 53
    assert set(PACKAGES) <= set(dir(seewhy))


def test_unknown_attribute_names_the_module_and_the_nearest_name() -> None:
    with pytest.raises(AttributeError, match="seewhy attribute trian"):
        seewhy.trian  # noqa: B018
    command = [sys.executable, "-c", "import seewhy; seewhy.trian"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Did you mean: 'train'?" in done.stderr


@pytest.mark.parametrize("statement", ["import seewhy", "from seewhy.cli import main"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    heavy = {"torch", "numpy", "matplotlib", "datasets", "sklearn", "scipy", "PIL"}
    if statement == "import seewhy":
        heavy |= {"rich", "tyro"}
    code = f"import sys; {statement}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_version_is_read_from_the_source() -> None:
    """An uninstalled checkout works: nothing asks the installed package's metadata for it."""
    assert seewhy.__version__[0].isdigit()
    for path in ROOT.rglob("*.py"):
        assert 'version("seewhy")' not in path.read_text(encoding="utf-8"), path
