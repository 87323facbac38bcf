"""`seewhy tcav`."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.cli import main

Capture = pytest.CaptureFixture[str]


def write_images(directory: str, count: int, bright: slice) -> None:
    """Noise with bright rows."""
    Path(directory).mkdir()
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 100, (12, 12, 3), np.uint8)
        pixels[bright] += 120
        Image.fromarray(pixels).save(f"{directory}/{index}.png")


@pytest.mark.slow
def test_concepts_are_tested_for_each_class(trained: Path, capsys: Capture) -> None:
    write_images("bright top", 12, slice(0, 6))
    write_images("dots", 10, slice(0, 0))
    Path("dots/bad.png").write_text("no image")
    command = ["tcav", "run", "bright top", "nothing=dots"]
    assert main.main([*command, "--random", "dots", "--explain", "level", "--json"]) == 1
    printed = capsys.readouterr()
    assert "bad.png" in printed.err
    rows = json.loads(printed.out)
    assert [(row["concept"], row["class"]) for row in rows] == [
        ("bright top", "level"),
        ("nothing", "level"),
    ]
    assert rows[0]["accuracy"] > 0.9 > 0.7 > rows[1]["accuracy"]
    Path("dots/bad.png").unlink()
    assert main.main(command) == 0
    printed = capsys.readouterr()
    assert "testing concepts: 0 of 5" in printed.err
    assert re.search(r"^layer \w", printed.out, re.M)
    assert re.search(r"^bright top +level +\d+ +[01]\.\d\d ", printed.out, re.M)
    assert main.main([*command, "--quiet"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_concept_that_the_layer_does_not_represent_is_named(
    trained: Path, capsys: Capture
) -> None:
    write_images("a", 14, slice(0, 0))
    write_images("b", 12, slice(0, 0))
    assert main.main(["tcav", "run", "a", "--random", "b", "--explain", "level"]) == 0
    assert "hardly represents a (accuracy " in " ".join(capsys.readouterr().out.split())


def test_errors_say_what_is_missing(trained: Path, error_of: Callable[..., str]) -> None:
    assert "as in `seewhy tcav runs/latest stripes`" in error_of("tcav", "run")
    assert "nowhere does not exist" in error_of("tcav", "run", "nowhere")
    write_images("few", 3, slice(0, 6))
    assert "at least 10 images with the concept" in error_of("tcav", "run", "few")
    assert "two concepts are named 'few'" in error_of("tcav", "run", "few", "few=run")
    assert "no class is named 'levle'" in error_of("tcav", "run", "few", "--explain", "levle")
