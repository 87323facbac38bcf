"""`seewhy evaluate` and `seewhy predict`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from seewhy.cli.arguments import Flag, OptionalInt, OwnModel, RangeWords, RunOrFile, range_of_words
from seewhy.errors import SeewhyError
from seewhy.progress import note, say


@dataclass(frozen=True)
class Evaluate:
    """Measure accuracy on a dataset, overall and per class."""

    model: RunOrFile
    """Run directory, such as runs/latest, or a file of `seewhy export`."""
    data: Annotated[str | None, arg(metavar="NAME|PATH", help_behavior_hint="")] = None
    """Dataset (default: the one the run was trained on; required for a file)."""
    split: Annotated[str | None, arg(metavar="SPLIT", help_behavior_hint="")] = None
    """train, test, validation, or all (default: test, or all images of a folder without splits)."""
    json: Flag = False
    """Print JSON."""
    own_model: OwnModel = None
    """Function that builds the run's model, if it is your own."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps; an ONNX file is run on the CPU."""


def evaluate(options: Evaluate) -> None:
    """Print the accuracy with 95% intervals."""
    from seewhy.cli import tables
    from seewhy.diagnosis.predictions import accuracies
    from seewhy.runs.prediction import evaluate as evaluate_classifier
    from seewhy.runs.prediction import find_split
    from seewhy.runs.run import Run, open_classifier
    from seewhy.train.device import find_device

    classifier = open_classifier(options.model, find_device(options.device))
    if options.data is None and not isinstance(classifier, Run):
        raise SeewhyError(
            f"{options.model} does not say which data it was trained on; add them, as in --data "
            "cifar10"
        )
    data, split = find_split(classifier, options.data, options.split)
    predictions = evaluate_classifier(classifier, data, split)
    if options.json:
        values = {"data": data.name, "split": split, **accuracies(predictions)}
        say(json.dumps(values, allow_nan=False))
    else:
        tables.print_accuracies(predictions, data.name, split)


@dataclass(frozen=True)
class Predict:
    """Predict the classes of image files."""

    model: RunOrFile
    """Run directory, such as runs/latest, or a file of `seewhy export`."""
    images: Annotated[
        Positional[tuple[Path, ...]],
        arg(metavar="IMAGE|DIRECTORY …", help_behavior_hint="(required)"),
    ]
    """Image files or directories; resized and cropped like the training images."""
    top: int = 5
    """Number of classes to show."""
    max_pixels: OptionalInt = None
    """Largest number of pixels of an image that is decoded (default: 150 million)."""
    range: RangeWords = ()
    """Values that become black and white, for images with more than 8 bits: two numbers, that of
    their type, or that of the training images (default: dataset)."""
    json: Flag = False
    """Print JSON."""
    own_model: OwnModel = None
    """Function that builds the run's model, if it is your own."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps; an ONNX file is run on the CPU."""


def predict(options: Predict) -> int:
    """Print the most probable classes of image files; returns 1 if some could not be read."""
    from seewhy.cli import tables
    from seewhy.data.folders import image_files
    from seewhy.models.classifier import as_classifier, with_range
    from seewhy.runs.prediction import predict as predict_images
    from seewhy.runs.run import open_classifier
    from seewhy.train.device import find_device

    if not options.images:
        raise SeewhyError(
            "predict needs at least one image file, as in `seewhy predict runs/latest photo.jpg`"
        )
    files = [file for path in options.images for file in image_files(path)]
    opened = open_classifier(options.model, find_device(options.device))
    classifier = with_range(as_classifier(opened), range_of_words(options.range))
    failures: list[str] = []
    predictions = predict_images(classifier, files, options.top, options.max_pixels, failures)
    if options.json:
        say(json.dumps([asdict(prediction) for prediction in predictions], allow_nan=False))
    else:
        tables.print_predictions(predictions)
    for failure in failures:
        note(f"skipped: {failure}", quiet=False)
    return int(bool(failures))
