"""Using a trained run: accuracy on a data set, classes of image files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from seewhy.data import load
from seewhy.data.dataset import Dataset, Split
from seewhy.data.decode import decode_image
from seewhy.diagnose.predictions import Predictions, predictions
from seewhy.errors import SeewhyError
from seewhy.models.inference import logits
from seewhy.run import Run


@dataclass(frozen=True)
class Guess:
    """A class and the probability that a network gives it."""

    name: str
    probability: float  # in [0, 1]


@dataclass(frozen=True)
class Answer:
    """What a network says of one image: its most probable classes, best first."""

    image: str  # as it was given
    top: tuple[Guess, ...]


def evaluate(run: Run, data: Dataset | str | None = None) -> Predictions:
    """Predictions on the test split of `data`, by default of the data that the run was trained on.

    Classes are matched by name, so another data set may order them differently or lack some. Raises SeewhyError for a
    class that the network does not know.
    """
    if data is None:
        if not run.summary["loaded_with"]:
            raise SeewhyError(
                f"{run.summary['data']} was made in memory, so it cannot be loaded again; say which data to evaluate on"
            )
        data = load(**run.summary["loaded_with"])
    elif isinstance(data, str):
        _, height, width = run.image_shape
        size = height if height == width else None
        data = load(**run.summary["loaded_with"] | {"name": data, "image_size": size})
    if data.image_shape != run.image_shape:
        found, expected = ("x".join(map(str, shape)) for shape in (data.image_shape, run.image_shape))
        raise SeewhyError(f"{data.name} has images of {found}, but {run.recipe.model} was trained on {expected}")
    return predictions(run.model, _relabelled(data.test, data, run.classes), run.classes, run.summary["precision"])


def predict(run: Run, images: Sequence[str | Path], top: int = 5) -> list[Answer]:
    """The `top` classes of each image file, decoded, resized and cropped as the training images were."""
    if top < 1:
        raise SeewhyError(f"top must be at least 1, found {top}")
    channels, height, width = run.image_shape
    pixels = torch.stack([decode_image(Path(path), (height, width), channels) for path in images])
    probabilities = logits(run.model, pixels, precision=run.summary["precision"]).softmax(1)
    best = probabilities.topk(min(top, len(run.classes)))
    return [
        Answer(str(path), tuple(Guess(run.classes[index], value) for value, index in zip(values, indices, strict=True)))
        for path, values, indices in zip(images, best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def _relabelled(split: Split, data: Dataset, classes: tuple[str, ...]) -> Split:
    """The split with labels that index `classes` rather than the classes of `data`."""
    if data.classes == classes:
        return split
    unknown = [name for name in data.classes if name not in classes]
    if unknown:
        known = ", ".join(classes)
        raise SeewhyError(f"{data.name} has classes that the network does not know: {', '.join(unknown)}; it knows {known}")
    places = torch.tensor([classes.index(name) for name in data.classes])
    return replace(split, labels=places[split.labels])
