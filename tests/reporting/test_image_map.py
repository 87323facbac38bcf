"""The section with the map of images: what its data say, and how mixed the map is."""

import base64
import math
from dataclasses import replace
from pathlib import PurePath

import numpy as np
import pytest
import torch

from seewhy.data.dataset import Dataset
from seewhy.diagnosis import neighbor_agreement
from seewhy.diagnosis.feature_space import map_splits
from seewhy.reporting.context import ReportContext
from seewhy.reporting.images import report_images
from seewhy.reporting.sections.image_map import image_map_section
from seewhy.reporting.sprites import Sprites
from seewhy.reporting.values import report_values


def decoded(text: str, kind: type) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_data_are_those_of_the_predictions(odd: ReportContext) -> None:
    mapped, predictions = odd.diagnosis.mapped, odd.predictions
    section = image_map_section(odd, Sprites(report_images(odd)))
    if mapped is None:  # fewer than ten images
        assert section is None
        return
    assert section is not None
    assert "Choosing a class shows the images with this true or predicted class." in section.html
    rows, data = mapped.map.indices, section.data
    positions = decoded(data["positions"], np.uint16).reshape(-1, 2) / 65535
    np.testing.assert_allclose(positions, mapped.map.positions, atol=1e-5)
    assert decoded(data["labels"], np.uint8).tolist() == predictions.labels[rows].tolist()
    assert decoded(data["predicted"], np.uint8).tolist() == predictions.predicted[rows].tolist()
    confidence = decoded(data["confidence"], np.uint8) / 100
    np.testing.assert_allclose(confidence, predictions.confidence[rows], atol=0.0051)
    indices = data["indices"] or list(range(len(rows)))
    assert indices == rows.tolist()


def test_a_diagnosis_without_features_has_no_map(odd: ReportContext) -> None:
    without = replace(odd, diagnosis=replace(odd.diagnosis, mapped=None))
    assert image_map_section(without, Sprites({})) is None


def test_training_images_follow_the_test_images(context: ReportContext, data: Dataset) -> None:
    assert context.classifier is not None
    splits = map_splits(context.classifier, data, math.inf)
    both = replace(context, mapped_splits=splits)
    plain, section = (
        image_map_section(each, Sprites(report_images(each))) for each in (context, both)
    )
    assert plain is not None
    assert section is not None
    positions = decoded(section.data["positions"], np.uint16).reshape(-1, 2) / 65535
    expected = torch.cat([splits.test.map.positions, splits.train.map.positions])
    np.testing.assert_allclose(positions, expected, atol=1e-5)
    labels = torch.cat([data.test.labels, data.train.labels])
    assert decoded(section.data["labels"], np.uint8).tolist() == labels.tolist()
    assert len(decoded(section.data["confidence"], np.uint8)) == len(data.test)
    assert section.data["train"]["indices"] == list(range(len(data.train)))
    assert section.data["train"]["names"] == [PurePath(name).name for name in data.train.names]
    assert "120 test images and 240 training images" in section.html
    assert "map-split" not in plain.html
    assert "train" not in plain.data
    share = plain.finding.split()[0]
    assert section.finding == (
        f"{share} of an image's nearest neighbors on a map of the test images alone have its class "
        "(120 test images)."
    )
    values = report_values(both)["image_map"]
    assert values.pop("shown") == {"test": 120, "train": 240}
    assert values == report_values(context)["image_map"]


def test_thumbnails_of_both_splits_keep_to_the_limit(
    context: ReportContext, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seewhy.reporting.sections.image_map.MAX_PICTURES", 100)
    assert context.classifier is not None
    both = replace(context, mapped_splits=map_splits(context.classifier, data, math.inf))
    section = image_map_section(both, Sprites(report_images(both)))
    assert section is not None
    assert section.data["every"] == 4
    assert "Thumbnails in the page: 90" in section.html


def test_agreement_is_the_share_of_the_nearest_neighbors_with_the_same_label() -> None:
    generator = torch.Generator().manual_seed(0)
    positions = torch.rand(60, 2, generator=generator)
    labels = torch.randint(3, (60,), generator=generator)
    shares = []
    for n in range(60):
        distances = ((positions - positions[n]) ** 2).sum(1)
        nearest = [row for row in distances.argsort().tolist() if row != n][:10]
        shares.append(sum(labels[row] == labels[n] for row in nearest) / 10)
    assert abs(neighbor_agreement(positions, labels) - float(np.mean(shares))) < 1e-6
    apart = torch.cat([torch.rand(20, 2), 100 + torch.rand(20, 2)])
    assert neighbor_agreement(apart, torch.tensor([0] * 20 + [1] * 20)) == 1


def test_images_are_colored_by_columns_of_few_values(context: ReportContext) -> None:
    mapped = context.diagnosis.mapped
    assert mapped is not None
    count = len(context.predictions.labels)
    metadata = {
        "site": tuple(("north", "south", "")[index % 3] for index in range(count)),
        "name": tuple(f"image {index}" for index in range(count)),  # too many values
        "one": ("same",) * count,
    }
    section = image_map_section(
        replace(context, metadata=metadata), Sprites(report_images(context))
    )
    assert section is not None
    (group,) = section.data["groups"]
    assert (group["name"], group["values"]) == ("site", ["unknown", "north", "south"])
    expected = [group["values"][(row + 1) % 3] for row in mapped.map.indices.tolist()]
    codes = decoded(group["codes"], np.uint8)
    assert [group["values"][code] for code in codes] == expected


def test_images_are_colored_by_ranges_of_numbers(context: ReportContext) -> None:
    mapped = context.diagnosis.mapped
    assert mapped is not None
    count = len(context.predictions.labels)
    ages = tuple(str(index - 20) if index else "" for index in range(count))  # one is unknown
    sizes = tuple(str((9, 10, 100)[index % 3]) for index in range(count))
    changed = replace(context, metadata={"age": ages, "size": sizes})
    section = image_map_section(changed, Sprites(report_images(changed)))
    assert section is not None
    age, size = section.data["groups"]
    assert size["values"] == ["9", "10", "100"]
    unknown, *ranges = age["values"]
    assert unknown == "unknown"
    assert len(ranges) == 4
    lows = [float(each.partition(" to ")[0]) for each in ranges]
    assert lows == sorted(lows)
    assert lows[0] == -19
    codes = decoded(age["codes"], np.uint8)
    for row, code in zip(mapped.map.indices.tolist(), codes, strict=True):
        if row:
            assert code == sum(row - 20 >= low for low in lows)
        else:
            assert code == 0
    described = {group.description for group in changed.subgroups}
    assert {f"age: {each}" for each in ranges} <= described
