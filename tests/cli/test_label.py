"""`seewhy label`: a table of the images to label, which is filled in and loaded."""

import csv
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seewhy.cli.main import main
from seewhy.data.dataset import Dataset, Split
from seewhy.data.decode import Preprocessing
from seewhy.data.sources import load
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.runs.labeling import select_to_label, write_to_label


class Colors(nn.Module):
    """Red, green or blue; the features are the mean colors."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)
        self.head.weight.data = 20 * torch.eye(3)
        self.head.bias.data.zero_()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(images.mean((2, 3)))
        return logits


MODEL = Classifier(Colors().eval(), ("red", "green", "blue"), (3, 8, 8))


def images(color: tuple[int, int, int], count: int, seed: int) -> torch.Tensor:
    noise = np.random.default_rng(seed).integers(-20, 20, (count, 1, 1, 3))
    pixels = (np.array(color) + noise).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(pixels.repeat(8, 1).repeat(8, 2)).permute(0, 3, 1, 2).contiguous()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve red images, like the labeled ones, and four yellow ones, unlike them."""
    pixels = torch.cat([images((220, 30, 30), 12, 0), images((200, 190, 30), 4, 1)])
    for index, image in enumerate(pixels):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{index}.png")
    return tmp_path


def labeled() -> Dataset:
    pixels = torch.cat([images((220, 30, 30), 6, 2), images((30, 220, 30), 6, 3)])
    split = Split(pixels, torch.arange(12) // 6, [str(index) for index in range(12)])
    return Dataset("colors", ("red", "green"), split, split, None, fingerprint="")


def test_images_unlike_the_labeled_ones_are_written_and_loaded(folder: Path) -> None:
    selected = select_to_label(MODEL, folder, 2, labeled())
    assert Path(selected[0].image).name in {"12.png", "13.png", "14.png", "15.png"}
    assert selected[0].novelty > selected[1].novelty
    write_to_label(selected, folder / "to_label.csv")
    rows = list(csv.DictReader((folder / "to_label.csv").read_text("utf-8").splitlines()))
    assert [row["file"] for row in rows] == [Path(each.image).name for each in selected]
    with pytest.raises(SeewhyError, match="2 of 2 rows have no label, the first in line 2"):
        load(folder / "to_label.csv")
    text = (folder / "to_label.csv").read_text("utf-8").replace(".png,,", ".png,yellow,")
    (folder / "filled.csv").write_text(text, "utf-8")
    assert len(load(folder / "filled.csv", split="test").test) == 2


def test_files_named_like_formulas_are_written_and_loaded(folder: Path) -> None:
    names = ["=1.png", "-a.png", "@b.png"]
    for name in names:
        (folder / name).write_bytes((folder / "0.png").read_bytes())
    selected = select_to_label(MODEL, [folder / name for name in names], 3, labeled())
    write_to_label(selected, folder / "to_label.csv")
    text = (folder / "to_label.csv").read_text("utf-8")
    assert "\n./=1.png," in text
    (folder / "filled.csv").write_text(text.replace(".png,,", ".png,red,"), "utf-8")
    assert len(load(folder / "filled.csv", split="test", quiet=True).test) == 3


def test_pool_may_be_a_dataset_or_pillow_images(folder: Path) -> None:
    pool = Image.open(folder / "12.png"), Image.open(folder / "0.png")
    assert select_to_label(MODEL, pool, 1, labeled())[0].image == "image 0"
    assert select_to_label(MODEL, labeled(), 3)[0].novelty == 1  # no labeled images


def test_labeled_files_are_loaded_as_the_model_takes_them(tmp_path: Path) -> None:
    """Wide images, letterboxed by the preprocessing, in gray: the same ones are not novel."""
    wide = np.full((2, 8, 24, 3), 200, np.uint8)
    wide[0, :, :8] = wide[1, :, 16:] = 20  # outside of the center crop
    for name, index in (("pool", 0), ("labeled/a", 0), ("labeled/b", 1)):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(wide[index]).save(tmp_path / name / "0.png")
    gray = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    preprocessing = Preprocessing(resize="letterbox")
    model = Classifier(gray, ("a", "b"), (1, 8, 8), preprocessing=preprocessing)
    (selected,) = select_to_label(model, tmp_path / "pool", 1, tmp_path / "labeled")
    assert selected.novelty == pytest.approx(0, abs=1e-6)


def test_command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("seewhy.cli.label.open_model", lambda *_: MODEL)
    (folder / "broken.png").write_bytes(b"no image")
    assert main(["label", "model", ".", "--number", "3"]) == 1
    printed = capsys.readouterr()
    assert "label these: to_label.csv\nthen: seewhy train --data to_label.csv\n" in printed.out
    assert "broken.png" in printed.err
    assert len((folder / "to_label.csv").read_text("utf-8").splitlines()) == 4
    assert main(["label", "model", "."]) == 2
    assert "to_label.csv exists; name another file with --output" in capsys.readouterr().err
    assert main(["label", "model", ".", "--number", "0", "--output", "b.csv"]) == 2
    assert "--number must be at least 1, found 0" in capsys.readouterr().err
    assert main(["label", "model", ".", "--number", "99", "--output", "b.csv"]) == 1
    assert len((folder / "b.csv").read_text("utf-8").splitlines()) == 17  # all of them


def test_table_elsewhere_is_loaded_with_a_root(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    elsewhere = tmp_path / "to label"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr("seewhy.cli.label.open_model", lambda *_: MODEL)
    assert main(["label", "model", str(folder), "--number", "4", "--output", "a b.csv"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[-4:] == ["--data", "a b.csv", "--root", str(folder.resolve())]
    text = Path("a b.csv").read_text("utf-8").replace(".png,,", ".png,yellow,")
    Path("a b.csv").write_text(text, "utf-8")
    assert len(load("a b.csv", root=command[-1], split="test").test) == 4
