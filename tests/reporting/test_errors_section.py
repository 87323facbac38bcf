"""The heat maps that the gallery of errors gives to the scripts."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from seewhy.diagnosis.saliency import Saliency
from seewhy.reporting.context import ReportContext
from seewhy.reporting.sections.errors import COLUMNS, LEVELS, SPACING, maps_data


@pytest.fixture
def saliency(context: ReportContext) -> Saliency:
    assert context.diagnosis.saliency is not None
    return context.diagnosis.saliency


def decode(url: str) -> np.ndarray:  # (height, width, 3)
    content = base64.b64decode(url.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("fully_explained", [100, 5, 0])
def test_maps_data_holds_the_maps_within_half_a_level(
    context: ReportContext, saliency: Saliency, fully_explained: int
) -> None:
    maps, images = saliency.maps, len(context.diagnosis.errors)
    data = maps_data(saliency, images, fully_explained)
    assert data["methods"] == maps.methods
    assert data["needs_layer"] == [method != "lrp" for method in maps.methods]
    best = maps.methods.index(saliency.best.method)
    for method in range(len(maps.methods)):
        count = images if method <= best else min(fully_explained, images)
        assert data["counts"][method] == count
        at_layers = data["sizes"][method], data["sheets"][method]
        for values, size, url in zip(maps.of(maps.methods[method]), *at_layers, strict=True):
            height, width = values.shape[2:]
            assert tuple(size) == (height, width)
            if count == 0:
                assert url == ""
                continue
            pixels = decode(url).astype(int)
            assert (pixels == pixels[..., :1]).all()
            for image in range(count):
                row, column = divmod(image, COLUMNS)
                for target in range(2):
                    left = (2 * column + target) * width
                    gray = pixels[row * height : (row + 1) * height, left : left + width, 0]
                    levels = gray / SPACING - LEVELS
                    expected = LEVELS * values[image, target].double().numpy() / 127
                    assert np.abs(levels - expected).max() <= 0.5 + 1e-6


def test_maps_data_is_empty_without_maps() -> None:
    data = maps_data(None, 3, 100)
    assert (data["methods"], data["counts"], data["sizes"], data["sheets"]) == ([], [], [], [])
    assert (data["levels"], data["columns"], data["spacing"]) == (LEVELS, COLUMNS, SPACING)


def test_sheets_of_many_maps_grow_wider(
    monkeypatch: pytest.MonkeyPatch, context: ReportContext, saliency: Saliency
) -> None:
    """WebP allows a height of 16,383 pixels."""
    images = len(context.diagnosis.errors)
    monkeypatch.setattr("seewhy.reporting.sections.errors.TALLEST", 24)
    data = maps_data(saliency, images, images)
    assert data["columns"] >= images / 2
    for (height, width), url in zip(data["sizes"][0], data["sheets"][0], strict=True):
        shape = decode(url).shape
        assert shape[0] <= 24 + height
        assert shape[1] == 2 * width * data["columns"]
