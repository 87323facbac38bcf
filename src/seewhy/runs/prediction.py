"""Using a trained run: accuracy on a data set, classes of image files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from seewhy.data.dataset import Dataset, Split
from seewhy.data.decode import decode_image
from seewhy.data.sources import load
from seewhy.diagnosis.predictions import Predictions, predict_split
from seewhy.errors import SeewhyError, lookup
from seewhy.models.classifier import Classifier
from seewhy.models.inference import compute_logits
from seewhy.models.inspection import device_of
from seewhy.runs.run import Run
from seewhy.train.device import find_precision


@dataclass(frozen=True)
class ClassProbability:
    """A class and the probability that a network gives it."""

    name: str
    probability: float  # in [0, 1]


@dataclass(frozen=True)
class ImagePrediction:
    """What a network says of one image: its most probable classes, best first."""

    image: str  # as it was given
    top: tuple[ClassProbability, ...]


def evaluate(
    run: Run, data: Dataset | str | Path | None = None, split: str = "test"
) -> Predictions:
    """Predictions on a split of `data`, by default the test split of the data that the run was trained on.

    `split` is train, test, validation or all; all is for a folder of new images that comes without splits. Images are
    resized to what the network takes. Classes are matched by name, so another data set may order them differently or lack
    some. Raises SeewhyError for a class that the network does not know.
    """
    if data is None:
        data = data_of(run)
    elif not isinstance(data, Dataset):
        _, height, width = run.image_shape
        data = load(data, image_size=height if height == width else None)
    if data.image_shape != run.image_shape:
        found, expected = (
            "x".join(map(str, shape)) for shape in (data.image_shape, run.image_shape)
        )
        raise SeewhyError(
            f"{data.name} has images of {found}, but {run.recipe.model} was trained on {expected}"
        )
    chosen = lookup(
        {
            **{name: (part,) for name, part in data.splits.items()},
            "all": tuple(data.splits.values()),
        },
        split,
        "split",
    )
    parts = [
        predict_split(
            run.model,
            _relabeled(part, data, run.classes),
            run.classes,
            _precision(run),
            run.recipe.tta,
        )
        for part in chosen
    ]
    return Predictions(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.labels for part in parts]),
        run.classes,
    )


def data_of(run: Run) -> Dataset:
    """The data that a run was trained on. Raises SeewhyError where it was made in memory."""
    load_args = run.setting["data"]["load_args"]
    if not load_args:
        name = run.setting["data"]["name"]
        raise SeewhyError(
            f"{name} was made in memory, so it cannot be loaded again; name data or images"
        )
    return load(**load_args)


def predict(
    run: Run, images: str | Path | Sequence[str | Path | Image.Image], top: int = 5
) -> list[ImagePrediction]:
    """The `top` classes of each image, a file or Pillow's, decoded, resized and cropped as the training images were."""
    if top < 1:
        raise SeewhyError(f"top must be at least 1, found {top}")
    given = [images] if isinstance(images, str | Path) else list(images)
    if not given:
        raise SeewhyError("predict needs at least one image, as in predict(run, ['photo.jpg'])")
    channels, height, width = run.image_shape
    pixels = torch.stack([decode_image(image, (height, width), channels) for image in given])
    classifier = Classifier(run.model, precision=_precision(run), tta=run.recipe.tta)
    probabilities = compute_logits(classifier, pixels).softmax(1)
    best = probabilities.topk(min(top, len(run.classes)))
    names = [
        f"image {place}" if isinstance(image, Image.Image) else str(image)
        for place, image in enumerate(given)
    ]
    return [
        ImagePrediction(
            name,
            tuple(
                ClassProbability(run.classes[index], value)
                for value, index in zip(values, indices, strict=True)
            ),
        )
        for name, values, indices in zip(
            names, best.values.tolist(), best.indices.tolist(), strict=True
        )
    ]


def _precision(run: Run) -> str:
    """What the run was trained in, where the model's device computes in it: then its result is repeated exactly."""
    trained_in = str(run.setting["precision"])
    device = device_of(run.model)
    same = trained_in == "fp16" and str(run.setting["device"]).startswith(device.type)
    return trained_in if same or find_precision("auto", device) == trained_in else "fp32"


def _relabeled(split: Split, data: Dataset, classes: tuple[str, ...]) -> Split:
    """The split with labels that index `classes` rather than the classes of `data`."""
    if data.classes == classes:
        return split
    unknown = [name for name in data.classes if name not in classes]
    if unknown:
        known = ", ".join(classes)
        raise SeewhyError(
            f"{data.name} has classes that the network does not know: {', '.join(unknown)}; it knows {known}"
        )
    places = torch.tensor([classes.index(name) for name in data.classes])
    return replace(split, labels=places[split.labels])
