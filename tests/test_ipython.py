"""Formatters that show values in a notebook."""

import importlib
import subprocess
import sys

import pytest

from seewhy._ipython import SHOWN_TYPES
from seewhy.reporting.notebook import CARDS

SCRIPT = """
from IPython.testing.globalipapp import start_ipython
shell = start_ipython()
shell.display_formatter.active_types = ["text/plain", "text/html", "image/png"]  # as in a notebook
import seewhy
assert "torch" not in __import__("sys").modules
show = shell.display_formatter.format
data, _ = show(seewhy.find_recipe("demo", epochs=3))
assert data["text/plain"].startswith("Recipe(name='demo', "), data["text/plain"]
assert data["text/html"].count("<table>") == 2
from matplotlib.figure import Figure
data, _ = show(Figure())
assert data["image/png"].startswith(b"\\x89PNG")
"""


def test_every_shown_type_has_a_card() -> None:
    assert {getattr(importlib.import_module(module), name) for module, name in SHOWN_TYPES} == {
        *CARDS
    }


@pytest.mark.slow
def test_values_and_figures_show_themselves_in_ipython() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], check=True, timeout=120)
