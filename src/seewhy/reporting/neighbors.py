"""The nearest training images of the errors, for the scripts of the page."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.data.thumbnails import downscale, to_rgb
from seewhy.diagnosis.feature_space import ErrorNeighbors
from seewhy.reporting.formatting import count_of
from seewhy.reporting.sprites import data_url

SIDE = 48  # maximum side of an image in pixels
COLUMNS = 20  # images in a row of the sheet


def neighbors_data(found: ErrorNeighbors | None) -> dict[str, Any] | None:
    """The nearest training images and the nearest one of the true class; one sheet has all images.

    The type NeighborsData in state.js; None without neighbors.
    """
    if found is None or not len(found.neighbors.nearest):
        return None
    neighbors, known = found.neighbors, found.thumbnails.indices
    shown = torch.cat([neighbors.nearest, neighbors.of_label[:, :1]], 1)  # (M, K + 1)
    similarity = torch.cat([neighbors.similarity, neighbors.of_label_similarity[:, :1]], 1)
    used = torch.tensor(sorted(set(shown.flatten().tolist()) - {-1}), dtype=torch.int64)
    tiles = torch.where(shown < 0, -1, torch.searchsorted(used, shown))
    rows = torch.searchsorted(known, used)
    images = to_rgb(downscale(found.thumbnails.images[rows], SIDE))
    return {
        "sheet": data_url(_sheet(images), lossless=False),
        "height": images.shape[2],
        "width": images.shape[3],
        "columns": COLUMNS,
        "indices": used.tolist(),
        "labels": found.labels[rows].tolist(),
        "tiles": tiles.tolist(),
        "similarity": [[round(value, 2) for value in row] for row in similarity.tolist()],
        "searched": count_of(found.searched, found.train_images, "training image"),
    }


def _sheet(images: Tensor) -> Tensor:  # (height, width, 3) uint8
    """Images (N, 3, h, w) in rows of 20."""
    padded = F.pad(images, (0, 0, 0, 0, 0, 0, 0, -len(images) % COLUMNS))
    grid = padded.reshape(-1, COLUMNS, *images.shape[1:])
    return grid.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
