"""The structure that ARCHITECTURE.md promises: who may import whom, no cycles, no long files."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from seewhy.cli.main import COMMANDS

SOURCE = Path(__file__).parents[1] / "src" / "seewhy"
FILES = sorted(SOURCE.rglob("*.py"))
LONGEST = 400  # lines

# A package imports the base modules and earlier rows; packages in one row are independent.
BASE_MODULES = {
    "errors",
    "escaping",
    "interruption",
    "notation",
    "files",
    "progress",
    "serialization",
    "significance",
    "wording",
    "_torch_compat",
}
PACKAGES = (
    {"data"},
    {"models"},
    {"train", "attribution"},
    {"diagnosis"},
    {"checks"},
    {"figures"},
    {"runs"},
    {"exporting"},
    {"experiments"},
    {"reporting"},
    {"cli", "_ipython"},
)
HEAVY = {
    "torch",
    "datasets",
    "jinja2",
    "sklearn",
    "matplotlib",
    "pyarrow",
    "tensorboard",
    "safetensors",
    "joblib",
    "scipy",
    "onnxruntime",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def nested_statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements in a node. `ast.walk` visits each expression too, ten times as many nodes."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, name, ()):
            yield child
            yield from nested_statements(child)


@cache
def import_statements(path: Path, top_level_only: bool) -> list[ast.Import | ast.ImportFrom]:
    tree = parsed(path)
    nodes = tree.body if top_level_only else nested_statements(tree)
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


@cache
def imports(path: Path, top_level_only: bool = False) -> frozenset[str]:
    """The modules that a file imports, each as the longest name that is a module of ours."""
    found: set[str] = set()
    for node in import_statements(path, top_level_only):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else str(node.module))
    return frozenset(found)


def package(module: str) -> str:
    return [*module.split("."), ""][1]


def allowed(own: str) -> set[str]:
    """The packages that a file of package `own` may import from."""
    if own in BASE_MODULES:
        return BASE_MODULES
    below = set(BASE_MODULES)
    for row in PACKAGES:
        if own in row:
            return below | {own}
        below |= row
    raise AssertionError(f"{own} is neither a package nor a base module")


@pytest.mark.parametrize("own", sorted({package(name) for name in MODULES} - {"", "__main__"}))
def test_package_imports_only_earlier_packages(own: str) -> None:
    for path in FILES:
        if package(module_name(path)) == own:
            used = {package(name) for name in imports(path) if name.startswith("seewhy.")}
            assert used <= allowed(own), f"{path.relative_to(SOURCE)}: {used - allowed(own)}"


def test_nothing_is_imported_from_the_public_package() -> None:
    """Inside the package, names come from modules, so that the order of packages shows."""
    for path in FILES:
        for node in import_statements(path, top_level_only=False):
            if isinstance(node, ast.ImportFrom) and node.module == "seewhy":
                names = {alias.name for alias in node.names}
                assert names == {"__version__"}, f"{path.relative_to(SOURCE)}: {names}"


def test_there_is_no_import_cycle() -> None:
    graph = {
        module_name(path): {
            name
            for name in imports(path, top_level_only=True)
            if name in MODULES and name != module_name(path)
        }
        for path in FILES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_file_is_long() -> None:
    lengths = {
        str(path.relative_to(SOURCE)): len(path.read_text(encoding="utf-8").splitlines())
        for path in FILES
    }
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST}


def test_the_command_line_starts_without_anything_heavy() -> None:
    """What the help of a command imports at the top of its files names no slow library."""
    commands = {f"seewhy.cli.{command.module}" for command in COMMANDS.values()}
    seen, waiting = set(), {"seewhy", "seewhy.__main__", "seewhy.cli.main"} | commands
    paths = {module_name(path): path for path in FILES}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        found = imports(paths[module], top_level_only=True)
        assert not {name.split(".")[0] for name in found} & HEAVY, module
        parents = {name.rsplit(".", 1)[0] for name in found if name in MODULES}
        waiting |= {name for name in found | parents if name in MODULES} - seen
    assert "seewhy.train.recipe" in seen


def test_nothing_takes_seconds_to_import() -> None:
    """scikit-learn and scipy.stats, which import pandas too, are for tests alone."""
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        slow = re.findall(r"(?:from|import) (sklearn|scipy\.stats|scipy import stats)\b", text)
        # a fallback of `digits`
        assert len(slow) <= (path.name == "digits.py"), f"{path.relative_to(SOURCE)}: {slow}"


def test_architecture_names_every_package() -> None:
    text = (SOURCE.parents[1] / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for name in {package(module) for module in MODULES} - {"", "__main__"}:
        assert f"`{name}" in text or f" {name}" in text, f"{name} is missing in ARCHITECTURE.md"
