"""What `import seewhy` offers, and what it costs."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import seewhy


def test_every_public_name_is_there_and_documented() -> None:
    for name in seewhy.__all__:
        value = getattr(seewhy, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert inspect.getdoc(value), name
    assert set(seewhy.__all__) <= set(dir(seewhy))


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(seewhy.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (alias.asname, str(node.module))
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {name for name, _ in seen} == set(seewhy.__all__)
    for name, module in seen:
        assert getattr(seewhy, str(name)) is getattr(sys.modules[module], str(name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'seewhy' has no attribute 'trian'"):
        seewhy.trian  # noqa: B018


def test_importing_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'matplotlib', 'datasets', 'sklearn', 'rich', 'tyro'}"
    code = f"import sys, seewhy; print(sorted({heavy} & set(sys.modules)))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
