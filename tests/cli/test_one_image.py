"""What commands print where there is one image, one error or one class: `1 image`."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
import torch
from PIL import Image

from seewhy.cli import main
from seewhy.data.dataset import Dataset
from seewhy.data.sources import SOURCES

NOUNS = "images|classes|errors|maps|labels|layers|files|concepts|steps|methods|seeds|recipes"
WRONG = re.compile(rf"(?<![\d.,])1 (?:(?!class )[a-z-]+ )?(?:{NOUNS})\b")


@pytest.fixture
def one(workspace: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dataset `one`, with one test image, which the model of the run mistakes."""
    test = data.test.take(torch.tensor([0]))
    test = replace(test, labels=(test.labels + 1) % 3)
    monkeypatch.setitem(SOURCES, "one", lambda: replace(data, test=test))
    Image.new("RGB", (8, 8)).save("photo.png")
    Path("damaged.png").write_text("no image")


@pytest.mark.usefixtures("one", "trained")
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("data one", "test image"),
        ("check one", "1 test image"),
        ("evaluate run --data one", "1 test image"),
        ("predict run photo.png --abstain-below 0.999999", "1 image"),
        ("predict run damaged.png", "1 image"),
        ("explain run photo.png --methods gradients", "1 image"),
        ("find-lr tiny.toml --data one --updates 20", "updates"),
    ],
)
def test_one_image(command: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    main.main(command.split())
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert expected in text
    assert not WRONG.findall(text)


@pytest.mark.slow
@pytest.mark.usefixtures("one", "trained")
def test_a_report_of_one_image() -> None:
    command = "report run --data one --output one.html --report-minutes 0.001 --quiet"
    assert main.main(command.split()) == 0
    html = Path("one.html").read_text(encoding="utf-8")
    text = " ".join(unescape(re.sub(r"<script.*?</script>|<[^>]*>", " ", html, flags=re.S)).split())
    assert "1 image" in text
    assert not WRONG.findall(text)
