"""The notebooks in examples/: they define nothing, run, and are committed with their outputs."""

import ast
import json
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))
# Settings, after those of the first cell; the start of a process takes longer than a trial.
SMALL = {
    "cifar10.ipynb": """
import seewhy.experiments.runner
seewhy.experiments.runner.number_of_jobs = lambda *arguments: 1
DATA = "shapes:train=200,test=60"
RECIPE = "tiny.toml"
EPOCHS, UPDATES = 2, 12
LAYERS = ["group3", "group1"]
IMAGES, SEEDS, OPTIMIZERS = 20, 2, ["sgd", "muon"]
"""
}
TINY = """
base = "resnet18-onecycle-plus"
model = "speednet:width=0.125"
batch_size = 50
"""
LOGIC = (
    *(ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.If, ast.IfExp, ast.With),
    *(ast.Try, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp, ast.ImportFrom),
)
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def shows_a_figure(source: str) -> bool:
    """Whether the last expression of a cell is a call of a function that ends with _figure."""
    last = ast.parse(source).body[-1]
    return (
        isinstance(last, ast.Expr)
        and isinstance(last.value, ast.Call)
        and ast.unparse(last.value.func).endswith("_figure")
    )


@each_notebook
def test_a_notebook_defines_nothing(path: Path) -> None:
    """Cells call functions of seewhy and name their results."""
    for cell in code_cells(path):
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, LOGIC), cell.source
            if isinstance(node, ast.Import):
                assert [alias.name for alias in node.names] == ["seewhy"]


@each_notebook
def test_a_notebook_is_committed_with_its_outputs(path: Path) -> None:
    assert path.stat().st_size < 2_000_000
    cells = code_cells(path)
    numbers = [cell.execution_count for cell in cells]
    assert numbers == list(range(1, len(cells) + 1))
    for cell in cells:
        assert not [output for output in cell.outputs if output.output_type == "error"]
        if shows_a_figure(cell.source):
            assert "image/png" in cell.outputs[-1].data, cell.source
    outputs = json.dumps([cell.outputs for cell in cells])
    assert "/home" not in outputs
    assert "site-packages" not in outputs


@pytest.mark.train
@pytest.mark.slow
@each_notebook
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient  # takes a second

    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(TINY)
    sources = [cell.source for cell in code_cells(path)]
    sources[0] += SMALL.get(path.name, "")
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    document = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(document, timeout=600, kernel_name="python3").execute()
    shown = [output.data for cell in cells for output in cell.outputs if "data" in output]
    assert sum("text/html" in data for data in shown) >= 3
    figures = [cell for cell in cells if shows_a_figure(cell.source)]
    assert len(figures) >= 5
    for cell in figures:
        assert "image/png" in cell.outputs[-1].data, cell.source
