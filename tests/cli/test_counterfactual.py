"""`seewhy counterfactual`."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.mark.slow
def test_regions_of_a_runs_errors(trained: Path, capsys: Capture) -> None:
    options = ["--to", "true", "--grid", "4", "--output", "why"]
    assert main.main(["counterfactual", "run", *options]) == 0
    out = capsys.readouterr().out
    assert "changed to" in out
    assert "written to: why\n" in out
    written = {path.name for path in Path("why").iterdir()}
    assert written == {f"counterfactuals.{suffix}" for suffix in ("png", "svg", "json")}
    (row,) = json.loads(Path("why/counterfactuals.json").read_text())  # the run has one error
    assert row["changed"] is None or row["changed"] != row["predicted"]
    assert set(row) == {"image", "predicted", "changed", "area", "random_regions"}


@pytest.mark.slow
def test_regions_of_files_skip_those_that_cannot_be_read(trained: Path, capsys: Capture) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 3), np.uint8)
    Image.fromarray(pixels).save("a.png")
    Path("bad.png").write_text("no image")
    options = ["--grid", "3", "--replacement", "gray", "--quiet", "--output", "why"]
    assert main.main(["counterfactual", "run", "a.png", "bad.png", *options]) == 1
    assert "bad.png" in capsys.readouterr().err
    (row,) = json.loads(Path("why/counterfactuals.json").read_text())
    assert row["image"] == "a.png"


def test_an_unknown_class_is_one_line(trained: Path, error_of: Callable[..., str]) -> None:
    assert "unknown target 'levle'" in error_of("counterfactual", "run", "--to", "levle")
    assert not Path("counterfactuals").exists()
