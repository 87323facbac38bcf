"""The nearest and the most influential training images of the errors, for the scripts."""

from typing import Any

import torch

from seewhy.data.thumbnails import downscale, to_rgb
from seewhy.diagnosis.feature_space import ErrorNeighbors
from seewhy.reporting.formatting import count_of
from seewhy.reporting.sprites import data_url, image_sheet

SIDE = 48  # maximum side of an image in pixels
COLUMNS = 20  # images in a row of the sheet


def neighbors_data(found: ErrorNeighbors | None) -> dict[str, Any] | None:
    """The nearest and the most influential training images; one sheet has all of them.

    The type NeighborsData in state.js; None without neighbors.
    """
    if found is None or not len(found.neighbors.nearest):
        return None
    neighbors, influence = found.neighbors, found.influence
    groups = {  # the image of the last column is another one: of the true class, an opponent
        "nearest": (
            torch.cat([neighbors.nearest, neighbors.of_label[:, :1]], 1),
            torch.cat([neighbors.similarity, neighbors.of_label_similarity[:, :1]], 1),
        )
    }
    if influence is not None:
        groups["influential"] = (
            torch.cat([influence.proponents, influence.opponents[:, :1]], 1),
            torch.cat([influence.proponent_shares, influence.opponent_shares[:, :1]], 1),
        )
    shown = torch.cat([indices for indices, _ in groups.values()], 1)
    used = torch.tensor(sorted(set(shown.flatten().tolist()) - {-1}), dtype=torch.int64)
    rows = torch.searchsorted(found.thumbnails.indices, used)
    images = to_rgb(downscale(found.thumbnails.images[rows], SIDE))
    return {
        "sheet": data_url(image_sheet(images, COLUMNS), lossless=False),
        "height": images.shape[2],
        "width": images.shape[3],
        "columns": COLUMNS,
        "indices": used.tolist(),
        "labels": found.labels[rows].tolist(),
        "influential": None,
        "searched": count_of(found.searched, found.train_images, "training image"),
    } | {
        name: {
            "tiles": torch.where(indices < 0, -1, torch.searchsorted(used, indices)).tolist(),
            "values": [[round(value, 2) for value in row] for row in values.tolist()],
        }
        for name, (indices, values) in groups.items()
    }
