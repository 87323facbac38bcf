"""The nearest training images of the errors, for the scripts of the page."""

from typing import Any

import torch

from seewhy.data.thumbnails import downscale, to_rgb
from seewhy.diagnosis.feature_space import ErrorNeighbors
from seewhy.reporting.formatting import count_of
from seewhy.reporting.sprites import data_url, image_sheet

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
        "sheet": data_url(image_sheet(images, COLUMNS), lossless=False),
        "height": images.shape[2],
        "width": images.shape[3],
        "columns": COLUMNS,
        "indices": used.tolist(),
        "labels": found.labels[rows].tolist(),
        "tiles": tiles.tolist(),
        "similarity": [[round(value, 2) for value in row] for row in similarity.tolist()],
        "searched": count_of(found.searched, found.train_images, "training image"),
    }
