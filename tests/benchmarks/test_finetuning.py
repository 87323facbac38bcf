"""The table of fine-tuning: named rows are measured, and each is saved at once."""

import json
from pathlib import Path

import pytest
import torch
from benchmarks.finetuning import NOT_MEASURED, ROWS, Setting, measure

from benchmarks import finetuning, results
from seewhy.data.dataset import Dataset


@pytest.fixture(autouse=True)
def own_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (finetuning, results):
        monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.chdir(tmp_path)


def table() -> dict[str, list[str]]:
    rows = json.loads(Path("results/finetuning.json").read_text(encoding="utf-8"))["rows"]
    return {row["what"]: list(row.values())[1:] for row in rows}


def test_rows_are_saved_as_soon_as_they_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(setting: Setting) -> tuple[str, str, str]:
        raise RuntimeError

    first, second, third = list(ROWS)[:3]
    monkeypatch.setitem(ROWS, second, ("second", lambda setting: (setting.weights, "2 s", "so")))
    monkeypatch.setitem(ROWS, third, ("third", failing))
    with pytest.raises(RuntimeError):
        measure("lite0.pth", names=(second, third))
    assert table()["second"] == ["lite0.pth", "2 s", "so", finetuning.machine()]
    assert table()["third"] == [NOT_MEASURED, "–", "–", NOT_MEASURED]
    monkeypatch.setitem(ROWS, first, ("first", lambda setting: ("96%", "3 s", "so")))
    measure("lite0.pth", names=(first,))
    assert list(table())[:2] == ["first", "second"]
    assert table()["second"][0] == "lite0.pth"


def test_images_of_cifar10_are_the_first_of_each_class(data: Dataset) -> None:
    part = finetuning._first(data.train, 2)
    counts = torch.bincount(part.labels).tolist()
    assert counts == [2] * len(counts)
    assert part.images.shape[2:] == (128, 128)
