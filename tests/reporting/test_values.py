"""The numbers of a report as JSON."""

import json
from dataclasses import replace

import pytest
import torch

from seewhy.diagnosis.predictions import Predictions
from seewhy.escaping import json_text
from seewhy.reporting.context import ReportContext
from seewhy.reporting.sections.subgroups import subgroups_section
from seewhy.reporting.sprites import Sprites
from seewhy.reporting.values import _classes, plain_values, report_values


def test_values_are_those_of_the_predictions(context: ReportContext) -> None:
    values = json.loads(json_text(report_values(context)))
    labels, predicted = context.predictions.labels, context.predictions.logits.argmax(1)
    assert values["accuracy"]["value"] == pytest.approx((labels == predicted).float().mean().item())
    assert len(values["errors"]) == int((labels != predicted).sum())
    assert sum(row["images"] for row in values["confusions"]) == len(values["errors"])
    for index, row in enumerate(values["classes"]):
        assert row["images"] == int((labels == index).sum())
        assert row["predicted"] == int((predicted == index).sum())
        expected = (predicted == index)[labels == index].float().mean().item()
        assert row["accuracy"] == pytest.approx(expected, abs=1e-6)
    assert [curve["name"] for curve in values["attacks"]] == ["fgsm", "pgd"]
    assert values["attacks"][0]["accuracy"] == pytest.approx(
        context.diagnosis.attacks[0].accuracy.tolist(), abs=1e-6
    )
    assert context.diagnosis.saliency is not None
    assert len(values["explanations"]) == len(context.diagnosis.saliency.scores)
    assert values["data"]["images"] == {"train": 240, "test": 120}


def test_subgroups_are_a_section_and_values(context: ReportContext) -> None:
    assert subgroups_section(context, Sprites({})) is None
    count = len(context.predictions.labels)
    camera = ["A" if right else "B" for right in context.predictions.correct.tolist()]
    known = replace(context, metadata={"camera": camera, "id": list(map(str, range(count)))})
    groups = report_values(known)["subgroups"]
    by_name = {each["description"]: each for each in groups}
    assert by_name["camera: B"]["accuracy"] == 0
    assert by_name["camera: A"]["accuracy"] == 1
    section = subgroups_section(known, Sprites({}))
    assert section is not None
    assert "camera: B" in section.finding
    assert "subgroups" in section.figures
    text = replace(context, metadata={"camera": ["A"] * count})
    empty = subgroups_section(text, Sprites({}))
    assert empty is not None
    assert "no column" in empty.finding


def test_undefined_numbers_are_null(context: ReportContext) -> None:
    """A class without images has no accuracy, one that is never predicted no precision."""
    logits = torch.zeros(3, 4)
    logits[:, 1] = 1.0
    few = Predictions(logits, torch.tensor([0, 0, 2]), context.predictions.classes)
    absent = {"saliency": None, "mapped": None, "nearest": None}
    diagnosis = replace(context.diagnosis, names=("a", "b", "c"), **absent)
    values = report_values(replace(context, predictions=few, diagnosis=diagnosis))
    by_name = {row["name"]: row for row in values["classes"]}
    first, second, third, _ = few.classes
    assert by_name[second]["accuracy"] is None
    assert by_name[first]["precision"] is None
    assert set(by_name) == {first, second, third}
    assert values["explanations"] == values["nearest_training_images"] == []
    assert values["image_map"] is None


def test_map_and_nearest_training_images_are_those_of_the_diagnosis(
    context: ReportContext,
) -> None:
    mapped, found = context.diagnosis.mapped, context.diagnosis.nearest
    assert mapped is not None
    assert found is not None
    values = report_values(context)
    assert values["image_map"]["images"] == len(mapped.map.indices)
    assert 0 < values["image_map"]["neighbor_agreement"] <= 1
    rows = values["nearest_training_images"]
    assert [row["indices"] for row in rows] == found.neighbors.nearest.tolist()
    assert rows[0]["image"] == context.name(int(context.diagnosis.errors[0]))
    assert found.influence is not None
    for row, values in enumerate(rows):
        influential = values["influential"]
        assert influential["indices"] == found.influence.proponents[row].tolist()
        assert influential["opponents"] == found.influence.opponents[row].tolist()
        assert influential["shares"] == plain_values(found.influence.proponent_shares[row])
    without = replace(context.diagnosis, nearest=replace(found, influence=None))
    values = report_values(replace(context, diagnosis=without))
    assert values["nearest_training_images"][0]["influential"] is None


def test_classes_of_one_name_have_their_own_areas(context: ReportContext) -> None:
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    logits = torch.randn(60, 3)
    logits[labels == 0, 0] += 9
    same = Predictions(logits, labels, ("crane", "maillot", "crane"))
    first, _, last = _classes(replace(context, predictions=same))
    assert first["auroc"] == 1 > last["auroc"]
