"""Find the concepts of a class in a run's test images or in image files, and write them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from seewhy.attribution.concepts import MIN_IMAGES, Concepts
from seewhy.data.sources import reload_data
from seewhy.diagnosis.predictions import class_predictions
from seewhy.errors import SeewhyError, did_you_mean
from seewhy.escaping import json_text
from seewhy.figures.concepts import concepts_figure
from seewhy.figures.style import save_figure
from seewhy.files import write_text
from seewhy.runs.run import Run
from seewhy.serialization import write_arrays
from seewhy.wording import be, counted

MAX_IMAGES = 64


def class_index(classes: Sequence[str], name: str) -> int:
    """The index of a class. Raises SeewhyError if no class, or several, have this name."""
    indices = [index for index, each in enumerate(classes) if each == name]
    if len(indices) == 1:
        return indices[0]
    if indices:
        raise SeewhyError(f"{len(indices)} classes are named {name!r}; rename them to tell one")
    listed = ", ".join(classes[:12]) + (", …" if len(classes) > 12 else "")
    raise SeewhyError(
        f"no class is named {name!r}{did_you_mean(name, classes)}; possible: {listed}"
    )


def images_of_class(run: Run, index: int) -> tuple[Tensor, list[str]]:
    """Test images that a run predicts as a class, most confident first, and their names.

    Args:
        run: A finished run with data that can be loaded again.
        index: The class.

    Returns:
        At most 64 images (N, C, H, W) uint8, and their N names.

    Raises:
        SeewhyError: If the run has not finished, or predicts fewer than 4 images as the class.
    """
    predictions = class_predictions(run.predictions)
    if predictions is None:
        raise SeewhyError(
            f"{run.directory} has not finished, so its predictions are unknown; pass image files"
        )
    confidence = predictions.confidence.where(predictions.predicted == index, -1)
    order = confidence.argsort(descending=True, stable=True)[:MAX_IMAGES]
    chosen = order[confidence[order] >= 0]
    if len(chosen) < MIN_IMAGES:
        raise SeewhyError(
            f"{counted(len(chosen), 'test image')} {be(len(chosen))} predicted as "
            f"{run.classes[index]!r}, and concepts need {MIN_IMAGES}; choose another class, or "
            "pass image files"
        )
    test = reload_data(run.data_origin).test
    return test.images[chosen], [test.names[row] for row in chosen.tolist()]


def write_concepts(
    concepts: Concepts, images: Tensor, names: Sequence[str], class_name: str, directory: Path
) -> None:
    """Write concepts.svg and .png, concepts.json, and directions and maps as concepts.npz."""
    save_figure(concepts_figure(images, concepts), directory / "concepts")
    rows = [
        {
            "importance": round(drop.mean, 6),
            "interval": [round(end, 6) for end in drop.interval],
            "stability": round(stability, 6),
            "strongest": [names[row] for row in strongest.tolist()],
        }
        for drop, stability, strongest in zip(
            concepts.importance,
            concepts.stability.tolist(),
            concepts.maps.mean((2, 3)).argsort(dim=0, descending=True, stable=True)[:10].T,
            strict=True,
        )
    ]
    values = {
        "class": class_name,
        "layer": concepts.layer,
        "images": len(names),
        "explained": round(concepts.explained, 6),
        "concepts": rows,
    }
    write_text(directory / "concepts.json", json_text(values, indent=1) + "\n")
    arrays = {
        "directions": concepts.directions.numpy(),
        "maps": concepts.maps.numpy(),
        "names": np.array(names),
    }
    write_arrays(directory / "concepts.npz", arrays)
