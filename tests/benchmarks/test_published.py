"""The table of published trainings: both recipes are trained, and rows accumulate."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.published import NOT_MEASURED, PUBLISHED, Row

from benchmarks import published, results
from seewhy.models.registry import MODELS
from seewhy.train.recipes import RECIPES


@pytest.fixture(autouse=True)
def own_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (published, results):
        monkeypatch.setattr(module, "HERE", tmp_path)


def table() -> list[Row]:
    rows = json.loads(Path("results/published.json").read_text(encoding="utf-8"))["rows"]
    return [Row(**row) for row in rows]


def test_every_published_recipe_has_ours() -> None:
    for name in PUBLISHED:
        assert RECIPES[f"{name}-plus"].epochs == RECIPES[name].epochs


def test_rows_accumulate_by_length_and_hardware() -> None:
    row = Row("davidnet-24", "94.12%", "80%", "82%", "+2.00", "5 epochs of 24", "a processor")
    published.save([row, replace(row, hardware="a GPU")])
    published.save([replace(row, ours="83%")])
    rows = [each for each in table() if each.training == "davidnet-24"]
    assert [(each.ours, each.hardware) for each in rows] == [
        ("83%", "a processor"),
        ("82%", "a GPU"),
    ]
    missing = [each.training for each in table() if each.hardware == NOT_MEASURED]
    assert missing == [name for name in PUBLISHED if name != "davidnet-24"]
    assert "| davidnet-24 | 94.12% | 80% | 83% |" in Path("RESULTS.md").read_text(encoding="utf-8")


@pytest.mark.train
@pytest.mark.slow
def test_a_row_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "davidnet", MODELS["speednet"])
    published.measure("shapes:train=60,test=30", ("davidnet-24",), epochs=0.5, images=20)
    [row] = [each for each in table() if each.training == "davidnet-24"]
    runs = sorted(path.name for path in Path("runs/published").iterdir())
    assert runs == [
        "davidnet-24-0.5-epochs-20-images",
        "davidnet-24-plus-0.5-epochs-20-images",
    ]
    summaries = [
        json.loads((Path("runs/published") / name / "summary.json").read_text()) for name in runs
    ]
    assert row.as_published.startswith(f"{100 * summaries[0]['accuracy']:.2f}% in ")
    assert row.ours.startswith(f"{100 * summaries[1]['accuracy']:.2f}% in ")
    points = 100 * (summaries[1]["accuracy"] - summaries[0]["accuracy"])
    assert row.difference.startswith(f"{points:+.2f} points in ")
    assert row.trained_on == "shapes, 20 images, 0.5 epochs of 24"
