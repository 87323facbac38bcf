"""The nearest and the most influential training images in the data of the page."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.data.thumbnails import Thumbnails
from seewhy.diagnosis.feature_space import ErrorNeighbors
from seewhy.diagnosis.nearest import Neighbors
from seewhy.reporting.context import ReportContext
from seewhy.reporting.neighbors import COLUMNS, neighbors_data
from seewhy.reporting.page import limit_errors


def test_neighbors_data_show_the_training_images(context: ReportContext) -> None:
    found = context.diagnosis.nearest
    assert found is not None
    data = neighbors_data(found)
    assert data is not None
    sheet = base64.b64decode(data["sheet"].partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(sheet))).astype(int)
    labels = context.predictions.labels[context.diagnosis.errors].tolist()
    for row, tiles in enumerate(data["nearest"]["tiles"]):
        shown = [data["indices"][tile] for tile in tiles]
        assert shown[:3] == found.neighbors.nearest[row].tolist()
        assert shown[3] == found.neighbors.of_label[row, 0]
        assert data["labels"][tiles[3]] == labels[row]
        top, left = (place * data["height"] for place in divmod(tiles[0], COLUMNS))
        tile = pixels[top : top + data["height"], left : left + data["width"]]
        thumbnail = found.thumbnails.images[found.thumbnails.indices == shown[0]][0]
        assert abs(tile.mean((0, 1)) - thumbnail.float().mean((1, 2)).numpy()).max() < 12
    assert data["searched"] == "240 training images"
    influence, influential = found.influence, data["influential"]
    assert influence is not None
    for row, (tiles, shares) in enumerate(
        zip(influential["tiles"], influential["values"], strict=True)
    ):
        expected = torch.cat([influence.proponents[row], influence.opponents[row, :1]])
        assert [-1 if tile < 0 else data["indices"][tile] for tile in tiles] == expected.tolist()
        assert shares[:3] == pytest.approx(influence.proponent_shares[row].tolist(), abs=0.006)
        assert shares[3] == pytest.approx(float(influence.opponent_shares[row, 0]), abs=0.006)


def test_missing_neighbors_have_no_tile() -> None:
    missing = torch.tensor([[-1, -1]])
    neighbors = Neighbors(torch.tensor([[4, -1]]), torch.tensor([[0.5, 0]]), missing, 0.0 * missing)
    thumbnails = make_thumbnails_of(4)
    data = neighbors_data(ErrorNeighbors(neighbors, torch.tensor([1]), thumbnails, 16, 60))
    assert data is not None
    assert data["nearest"]["tiles"] == [[0, -1, -1]]
    assert data["influential"] is None
    assert data["searched"] == "16 of 60 training images"
    assert neighbors_data(None) is None


def make_thumbnails_of(index: int) -> Thumbnails:
    return Thumbnails(torch.tensor([index]), torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


def test_fewer_errors_keep_their_neighbors(context: ReportContext) -> None:
    limited = limit_errors(context, 3).diagnosis
    full = context.diagnosis
    assert limited.nearest is not None
    assert full.nearest is not None
    assert len(limited.nearest.neighbors.nearest) == len(limited.errors)
    assert limited.nearest.influence is not None
    assert full.nearest.influence is not None
    for row, index in enumerate(limited.errors):
        same = full.errors == index
        nearest, influence = limited.nearest.neighbors, limited.nearest.influence
        assert torch.equal(nearest.nearest[row], full.nearest.neighbors.nearest[same][0])
        assert torch.equal(influence.proponents[row], full.nearest.influence.proponents[same][0])
    few = full.nearest.take(torch.tensor([0]))
    shown = limit_errors(replace(context, diagnosis=replace(full, nearest=few)), 3)
    assert shown.diagnosis.nearest is not None
    assert len(shown.diagnosis.nearest.neighbors.nearest) <= 1
