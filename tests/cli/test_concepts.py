"""`seewhy concepts`."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.mark.slow
def test_concepts_of_a_runs_test_images(trained: Path, capsys: Capture) -> None:
    assert main.main(["concepts", "run", "level", "--count", "2", "--output", "why"]) == 0
    out = capsys.readouterr().out
    assert "class level, layer " in out
    assert "written to: why\n" in out
    written = {path.name for path in Path("why").iterdir()}
    assert written == {"concepts.png", "concepts.svg", "concepts.json", "concepts.npz"}
    values = json.loads(Path("why/concepts.json").read_text())
    importances = [concept["importance"] for concept in values["concepts"]]
    assert importances == sorted(importances, reverse=True)
    with np.load("why/concepts.npz") as arrays:
        assert len(arrays["names"]) == values["images"] == len(arrays["maps"])
        strongest = arrays["maps"][:, 0].mean((1, 2)).argmax()
        assert values["concepts"][0]["strongest"][0] == arrays["names"][strongest]


@pytest.mark.slow
def test_concepts_of_files_skip_those_that_cannot_be_read(trained: Path, capsys: Capture) -> None:
    Path("photos").mkdir()
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 12, 3), np.uint8)
        Image.fromarray(pixels).save(f"photos/{index}.png")
    Path("photos/bad.png").write_text("no image")
    assert main.main(["concepts", "run", "level", "photos", "--count", "2", "--quiet"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "bad.png" in captured.err
    (directory,) = Path("concepts").iterdir()
    assert directory.name.endswith("-level")
    assert json.loads((directory / "concepts.json").read_text())["images"] == 4


def test_concepts_need_a_class_of_the_run(trained: Path, error_of: Callable[..., str]) -> None:
    assert "no class is named 'levle' (did you mean 'level'?)" in error_of(
        "concepts", "run", "levle"
    )
    assert not Path("concepts").exists()
