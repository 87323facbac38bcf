"""The structure that ARCHITECTURE.md promises: who may import whom, no cycles, no long files."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "seewhy"
FILES = sorted(SOURCE.rglob("*.py"))
LONGEST = 300  # lines

# package or module -> what it may import besides itself; what is not listed is a top-level module that may import anything
MAY_IMPORT = {
    "errors": set(),
    "notation": {"errors"},
    "files": {"errors"},
    "keeping": {"errors"},
    "checkpoint": {"errors", "files"},
    "environment": set(),
    "data": {"errors", "notation", "files"},
    "models": {"errors", "notation", "data"},
    "explaining": {"errors", "notation", "data", "models"},
    "train": {"errors", "notation", "data", "models"},
    "diagnosing": {"errors", "notation", "files", "data", "models"},
    "figures": {"errors", "files", "data", "models", "explaining", "train", "diagnosing", "comparing"},
    "weights": {"errors", "files", "models"},
    "run": {"errors", "files", "train", "diagnosing", "weights"},
    "evaluation": {"errors", "data", "diagnosing", "models", "run", "train"},
    "reporting": {"errors", "files", "data", "train", "explaining", "diagnosing", "figures", "run", "evaluation", "comparing"},
    "comparing": {"errors", "files", "train", "diagnosing", "run"},
    "recording": {"files", "figures", "environment", "keeping", "checkpoint", "data", "train", "diagnosing", "run", "weights"},
}
HEAVY = {"torch", "datasets", "jinja2", "sklearn", "matplotlib", "pyarrow", "tensorboard", "safetensors", "joblib", "scipy"}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


HOMES = ast.literal_eval(
    next(
        node.value
        for node in ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES"
    )
)


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """The modules that a file imports, each as the longest name that is a module of ours, or as it stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                home = HOMES.get(alias.name) if node.module == "seewhy" else None  # a public name stands for its module
                found.add(home or (name if name in MODULES else str(node.module)))
    return found


def layer(module: str) -> str:
    return [*module.split("."), ""][1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_layer_imports_only_what_is_below_it(path: Path) -> None:
    own = layer(module_name(path))
    if own not in MAY_IMPORT:
        return
    used = {layer(name) for name in imports(path) if name.startswith("seewhy.")}
    assert used <= MAY_IMPORT[own] | {own}


def test_there_is_no_import_cycle() -> None:
    graph = {
        module_name(path): {name for name in imports(path, top_level_only=True) if name in MODULES and name != module_name(path)}
        for path in FILES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_the_command_line_starts_without_anything_heavy() -> None:
    """What `seewhy --help` imports at the top of its files, followed through, names no slow library."""
    seen, waiting = set(), {"seewhy", "seewhy.__main__", "seewhy.cli"}
    paths = {module_name(path): path for path in FILES}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        found = imports(paths[module], top_level_only=True)
        assert not {name.split(".")[0] for name in found} & HEAVY, module
        parents = {name.rsplit(".", 1)[0] for name in found if name in MODULES}
        waiting |= {name for name in found | parents if name in MODULES} - seen
    assert "seewhy.train.recipe" in seen


def test_the_map_names_every_package_and_module_of_the_top_level() -> None:
    text = (SOURCE.parents[1] / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for path in FILES:
        if path.name != "__init__.py":
            assert path.name in text, f"{path.name} is missing in ARCHITECTURE.md"
