"""The nearest training images in the data of the page."""

import base64
import io
from dataclasses import replace

import numpy as np
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
    for row, tiles in enumerate(data["tiles"]):
        shown = [data["indices"][tile] for tile in tiles]
        assert shown[:3] == found.neighbors.nearest[row].tolist()
        assert shown[3] == found.neighbors.of_label[row, 0]
        assert data["labels"][tiles[3]] == labels[row]
        top, left = (place * data["height"] for place in divmod(tiles[0], COLUMNS))
        tile = pixels[top : top + data["height"], left : left + data["width"]]
        thumbnail = found.thumbnails.images[found.thumbnails.indices == shown[0]][0]
        assert abs(tile.mean((0, 1)) - thumbnail.float().mean((1, 2)).numpy()).max() < 12
    assert data["searched"] == "240 training images"


def test_missing_neighbors_have_no_tile() -> None:
    missing = torch.tensor([[-1, -1]])
    neighbors = Neighbors(torch.tensor([[4, -1]]), torch.tensor([[0.5, 0]]), missing, 0.0 * missing)
    thumbnails = make_thumbnails_of(4)
    data = neighbors_data(ErrorNeighbors(neighbors, torch.tensor([1]), thumbnails, 16, 60))
    assert data is not None
    assert data["tiles"] == [[0, -1, -1]]
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
    for index, row in zip(limited.errors, limited.nearest.neighbors.nearest, strict=True):
        assert torch.equal(row, full.nearest.neighbors.nearest[full.errors == index][0])
    few = replace(full.nearest, neighbors=full.nearest.neighbors.take(torch.tensor([0])))
    shown = limit_errors(replace(context, diagnosis=replace(full, nearest=few)), 3)
    assert shown.diagnosis.nearest is not None
    assert len(shown.diagnosis.nearest.neighbors.nearest) <= 1
