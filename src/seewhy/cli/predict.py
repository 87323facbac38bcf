"""`seewhy evaluate` and `seewhy predict`."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from seewhy.cli.arguments import (
    Flag,
    ImageRange,
    MaxPixels,
    MetadataFile,
    OptionalFloat,
    OptionalPath,
    OwnModel,
    RunOrFile,
    range_of_words,
)
from seewhy.cli.own_model import open_model
from seewhy.errors import SeewhyError, lookup
from seewhy.progress import note, progress, say
from seewhy.wording import counted

if TYPE_CHECKING:
    from seewhy.models.classifier import Classifier
    from seewhy.runs.prediction_stream import ImagePrediction
    from seewhy.runs.run import Run


@dataclass(frozen=True)
class Evaluate:
    """Measure accuracy on a dataset, overall and per class."""

    model: RunOrFile
    """Run directory, such as runs/latest, exported file, or published weights such as timm:NAME."""
    data: Annotated[str | None, arg(metavar="NAME|PATH", help_behavior_hint="")] = None
    """Dataset (default: the one the run was trained on; required for a file)."""
    split: Annotated[str | None, arg(metavar="SPLIT", help_behavior_hint="")] = None
    """train, test, validation, or all (default: test, or all images of a folder without splits)."""
    calibrated: Flag = False
    """Divide the logits by the temperature of the run, fitted on validation or test images."""
    abstain_below: OptionalFloat = None
    """Also measure the images with at least this confidence, such as 0.8."""
    metadata: MetadataFile = None
    """CSV file of image paths and other columns: accuracy of the images with each value."""
    json: Flag = False
    """Print JSON."""
    quiet: Flag = False
    """Show no progress."""
    own_model: OwnModel = None
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps; an ONNX file is run on the CPU."""


def evaluate(options: Evaluate) -> None:
    """Print the accuracy with 95% intervals."""
    from seewhy.cli import tables
    from seewhy.diagnosis.calibration import check_threshold, selective_accuracy
    from seewhy.diagnosis.metadata import read_metadata, subgroups
    from seewhy.diagnosis.metrics import uneven_scores
    from seewhy.diagnosis.predictions import accuracies
    from seewhy.models.classifier import as_classifier
    from seewhy.reporting.values import slice_values
    from seewhy.runs.prediction import evaluate as evaluate_classifier
    from seewhy.runs.prediction import find_split, split_names
    from seewhy.runs.run import Run
    from seewhy.train.device import find_device

    if options.abstain_below is not None:
        check_threshold(options.abstain_below, "--abstain-below")
    classifier = open_model(options.model, find_device(options.device))
    if options.data is None and not isinstance(classifier, Run):
        raise SeewhyError(
            f"{options.model} does not say which data it was trained on; add them, as in --data "
            "cifar10"
        )
    if as_classifier(classifier).activation == "sigmoid":
        _evaluate_multi_label(options, classifier)
        return
    data, split = find_split(classifier, options.data, options.split)
    metadata = None
    if options.metadata is not None:
        metadata = read_metadata(options.metadata, split_names(data, split))
    total = len(split_names(data, split))
    with progress("predicting", total, options.quiet) as advance:
        predictions = evaluate_classifier(
            classifier, data, split, calibrated=options.calibrated, progress=advance
        )
    selective = None
    if options.abstain_below is not None:
        selective = selective_accuracy(predictions, options.abstain_below)
    groups = None if metadata is None else subgroups(predictions, metadata)
    if options.json:
        values = {"data": data.name, "split": split, **accuracies(predictions)}
        if uneven := uneven_scores(predictions):
            values |= asdict(uneven)
        if selective is not None:
            values["selective"] = _finite(asdict(selective))
        if groups is not None:
            values["subgroups"] = [slice_values(group) for group in groups]
        say(json.dumps(values, allow_nan=False))
    else:
        tables.print_accuracies(predictions, data.name, split, selective)
        if groups is not None:
            tables.print_subgroups(groups)


def _evaluate_multi_label(options: Evaluate, classifier: "Run | Classifier") -> None:
    """Print the scores of a model whose labels are independent of each other."""
    from seewhy.cli import tables
    from seewhy.diagnosis.multi_label import multi_label_scores
    from seewhy.reporting.values import plain_values
    from seewhy.runs.multi_label import evaluate_multi_label, find_multi_label
    from seewhy.runs.run import Run

    if options.calibrated or options.abstain_below or options.metadata:
        raise SeewhyError(
            "--calibrated, --abstain-below and --metadata are for models that choose one class for "
            f"each image; leave them out with {options.model}"
        )
    own = isinstance(classifier, Run) and options.data is None
    if options.split and not own:
        raise SeewhyError(
            "--split is for the data of the run itself; of a table, all images are measured"
        )
    data = classifier.data_origin.name if isinstance(classifier, Run) and own else options.data
    split = options.split or "test"
    found = find_multi_label(classifier, options.data, split)
    with progress("predicting", len(found.images), options.quiet) as advance:
        predictions = evaluate_multi_label(classifier, found, progress=advance)
    scores = multi_label_scores(predictions)
    if options.json:
        values = {"data": str(data), "images": len(predictions.labels), **asdict(scores)}
        say(json.dumps(plain_values(values), allow_nan=False))
    else:
        tables.print_multi_label(scores, str(data), len(predictions.labels))


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """The values without those of no image."""
    return values if values["images"] else {**values, "accuracy": None, "interval": None}


@dataclass(frozen=True)
class Predict:
    """Predict the classes of image files."""

    model: RunOrFile
    """Run directory, such as runs/latest, exported file, or published weights such as timm:NAME."""
    images: Annotated[
        Positional[tuple[Path, ...]],
        arg(metavar="IMAGE|DIRECTORY|PATTERN …", help_behavior_hint="(required)"),
    ]
    """Image files, directories, or patterns such as "photos/**/*.jpg", resized as in training."""
    top: int = 5
    """Number of classes to show."""
    calibrated: Flag = False
    """Divide the logits by the temperature of the run, fitted on validation or test images."""
    abstain_below: OptionalFloat = None
    """Mark predictions with a lower confidence, such as 0.8, as abstained."""
    format: Annotated[str | None, arg(metavar="csv|jsonl", help_behavior_hint="")] = None
    """text, csv (a row per image and class) or jsonl (default: by suffix of --output, or text)."""
    output: OptionalPath = None
    """File to write instead of standard output."""
    embed: Annotated[Path | None, arg(metavar="FILE.npy|.npz|.csv", help_behavior_hint="")] = None
    """File for image names and features, which are the inputs of the last layer."""
    max_pixels: MaxPixels = None
    range: ImageRange = ()
    own_model: OwnModel = None
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps; an ONNX file is run on the CPU."""


def predict(options: Predict) -> int:
    """Print the most probable classes as images are read; returns 1 if some could not be read."""
    from seewhy.data.folders import image_files
    from seewhy.diagnosis.calibration import check_threshold
    from seewhy.models.classifier import as_classifier, with_range
    from seewhy.runs.calibration import calibrate, run_temperature
    from seewhy.runs.prediction_files import check_feature_path
    from seewhy.train.device import find_device

    if not options.images:
        raise SeewhyError(
            "predict needs at least one image file, as in `seewhy predict runs/latest photo.jpg`"
        )
    if options.top < 1:
        raise SeewhyError(f"--top must be at least 1, found {options.top}")
    if options.abstain_below is not None:
        check_threshold(options.abstain_below, "--abstain-below")
    write = _format_of(options)
    if options.embed is not None:
        check_feature_path(options.embed)
        if options.embed == options.output:
            raise SeewhyError("--output and --embed name one file; name two")
    files, failures = [], []
    for path in options.images:
        try:
            files += image_files(path)
        except SeewhyError as error:
            failures.append(str(error))
    if not files:
        raise SeewhyError(failures[0])
    opened = open_model(options.model, find_device(options.device))
    if options.calibrated:
        fitted = run_temperature(opened)
        opened = calibrate(opened, fitted)
        note(f"calibrated: {fitted}")
    classifier = with_range(as_classifier(opened), range_of_words(options.range))
    for failure in failures:
        note(f"skipped: {failure}")
    count = _predict_files(classifier, files, options, write)
    return int(bool(failures) or count < len(files))


Format = Callable[["Sequence[ImagePrediction]", bool], str]


def _format_of(options: Predict) -> "Format | None":
    """How predictions are written; None for text on standard output."""
    from seewhy.runs.prediction_files import FORMATS

    name = options.format
    if name is None and options.output is not None:
        name = options.output.suffix.removeprefix(".")
        if name not in FORMATS:
            raise SeewhyError(
                f"the format of {options.output} is unknown; add --format csv or --format jsonl"
            )
    return None if name is None else lookup(FORMATS, name, "format")


def _predict_files(
    classifier: "Classifier", files: "list[Path]", options: Predict, write: "Format | None"
) -> int:
    """Predict files and write the results; returns the number of files that could be read."""
    from seewhy.cli import tables
    from seewhy.files import write_text, writing_atomically
    from seewhy.runs.prediction_files import FeatureFile, names_text
    from seewhy.runs.prediction_stream import predict_stream

    failures: list[str] = []
    count, abstained, features, lines = 0, 0, None, None
    with ExitStack() as stack:
        if options.output is not None:
            temporary = stack.enter_context(writing_atomically(options.output))
            lines = stack.enter_context(temporary.open("w", encoding="utf-8", newline=""))
        if options.embed is not None:
            temporary = stack.enter_context(writing_atomically(options.embed))
            features = FeatureFile(temporary, options.embed.suffix)
        for block in predict_stream(
            classifier,
            files,
            max_pixels=options.max_pixels,
            failures=failures,
            features=features is not None,
        ):
            predictions = block.top(classifier, options.top, options.abstain_below)
            abstained += sum(bool(each.abstained) for each in predictions)
            if write is None:
                tables.print_predictions(predictions)
            elif lines is not None:
                lines.write(write(predictions, not count))
            else:
                say(write(predictions, not count).removesuffix("\n"))
            if features is not None and block.features is not None:
                features.add(block.names, block.features)
            count += len(block.names)
            while failures:
                note(f"skipped: {failures.pop(0)}")
        if not count:
            raise SeewhyError(f"{counted(len(files), 'image')}, none can be read: {failures[0]}")
        for failure in failures:
            note(f"skipped: {failure}")
        if options.abstain_below is not None:
            note(
                f"abstained from {abstained:,} of {counted(count, 'image')}: confidence "
                f"below {options.abstain_below:g}"
            )
        if features is not None:
            features.finish()
    if features is not None and options.embed is not None and options.embed.suffix == ".npy":
        write_text(options.embed.with_suffix(".names.txt"), names_text(features.names))
    return count
