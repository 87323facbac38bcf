"""What to label next: the images from which the model of a run would learn most."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seewhy.data.dataset import Dataset
from seewhy.data.folders import image_files
from seewhy.data.options import check_integer
from seewhy.diagnosis.selection import select_images
from seewhy.errors import SeewhyError
from seewhy.escaping import csv_cell, csv_text
from seewhy.files import write_text
from seewhy.models.classifier import Classifier, ClassifierLike, as_classifier
from seewhy.models.features import extract_features, predict_with_features
from seewhy.progress import note, progress
from seewhy.runs.prediction import find_split
from seewhy.runs.prediction_stream import ImageSource, predict_stream
from seewhy.runs.run import Run

MAX_LABELED = 5000  # labeled images that the others are compared with


@dataclass(frozen=True)
class ImageToLabel:
    """An image that is worth a label, and why."""

    image: str  # path, or name in its dataset
    predicted: tuple[str, ...]  # the class, or any number of labels
    confidence: float  # probability of the class, or of the most probable label, in [0, 1]
    uncertainty: float  # 1 minus the margin between the two most probable classes, in [0, 1]
    novelty: float  # cosine distance to the nearest labeled image in features, in [0, 2]


def select_to_label(
    classifier: ClassifierLike,
    images: str | Path | Dataset | Sequence[ImageSource],
    count: int = 50,
    data: object = None,
    *,
    failures: list[str] | None = None,
    quiet: bool = True,
) -> list[ImageToLabel]:
    """Select unlabeled images to label next, the most useful first (see `select_images`).

    Args:
        classifier: A run, or a Classifier with an image shape.
        images: The unlabeled images: a directory, image files, Pillow images, or a `Dataset`,
            whose labels are ignored.
        count: Number of images to select, at least 1; all of them if there are fewer.
        data: Labeled images, as for `evaluate`; of a dataset, its training split. By default those
            that the run was trained on.
        failures: A list for the errors of images that cannot be read, which are then left out; by
            default the first one is raised.
        quiet: Show no progress.

    Raises:
        SeewhyError: If `count` is below 1, an image cannot be read, or the labeled images have
            another shape.
    """
    count = check_integer("count", count, minimum=1)
    run = classifier if isinstance(classifier, Run) else None
    classifier = as_classifier(classifier)
    labeled = _labeled(run or classifier, data)
    if isinstance(images, Dataset):
        names = [name for split in images.splits.values() for name in split.names]
        pixels = torch.cat([split.images for split in images.splits.values()])
        logits, features = predict_with_features(classifier, pixels)
    else:
        names, logits, features = _predict(classifier, images, failures, quiet)
    known = None
    if labeled is not None:
        with progress("comparing with labeled images", len(labeled), quiet) as advance:
            known = extract_features(classifier, labeled, progress=advance)
    count = min(count, len(names))
    probabilities = classifier.probabilities(logits)
    selected = select_images(probabilities, features, count, known, classifier.activation)
    classes = classifier.class_names(logits.shape[1])
    rows = []
    for index, uncertainty, novelty in zip(
        selected.indices.tolist(),
        selected.uncertainty.tolist(),
        selected.novelty.tolist(),
        strict=True,
    ):
        if classifier.activation == "sigmoid":
            chosen = classifier.predicted_labels(logits[index]).nonzero().flatten().tolist()
        else:
            chosen = [int(logits[index].argmax())]
        predicted = tuple(classes[each] for each in chosen)
        confidence = float(probabilities[index].max())
        rows.append(ImageToLabel(names[index], predicted, confidence, uncertainty, novelty))
    return rows


def write_to_label(selected: Sequence[ImageToLabel], path: Path, *, several: bool = False) -> None:
    """Write the images as a table with an empty column for the label, which `load` reads.

    Paths are relative to the directory of the table; those of images outside of it are absolute,
    and `load` reads them with a `root` above them.

    Args:
        selected: From `select_to_label`.
        path: The CSV file to write.
        several: Whether an image has any number of labels: the column is called `labels`.
    """
    header = ["file", "labels" if several else "label", "predicted", "confidence"]
    folder = path.parent.resolve()
    files = [Path(row.image).resolve() for row in selected]
    rows = [
        [
            _path_text(file.relative_to(folder) if file.is_relative_to(folder) else file),
            "",
            "|".join(row.predicted),
            f"{row.confidence:.4f}",
            f"{row.uncertainty:.4f}",
            f"{row.novelty:.4f}",
        ]
        for row, file in zip(selected, files, strict=True)
    ]
    write_text(path, csv_text([*header, "uncertainty", "novelty"], rows), newline="")


def _path_text(path: Path) -> str:
    """The path as it is read again: with ./ before what would be a formula of a spreadsheet."""
    text = str(path)
    return text if csv_cell(text) == text else os.path.join(os.curdir, text)  # noqa: PTH118


def _labeled(classifier: Run | Classifier, data: object) -> Tensor | None:
    """At most MAX_LABELED labeled images (L, C, H, W) uint8; None if they are not known."""
    if data is None and not isinstance(classifier, Run):
        return None
    try:
        dataset, _ = find_split(classifier, data, "all")
    except SeewhyError as error:
        if data is not None:
            raise
        note(f"{error}; without them, no image is more novel than another")
        return None
    split = dataset.splits.get("train", dataset.test)
    rows = torch.linspace(0, len(split) - 1, min(len(split), MAX_LABELED)).round().long()
    return split.images[rows]


def _predict(
    classifier: Classifier,
    images: str | Path | Sequence[ImageSource],
    failures: list[str] | None,
    quiet: bool,
) -> tuple[list[str], Tensor, Tensor]:
    """Names, logits (N, K) and features (N, D) of image files."""
    sources = image_files(Path(images)) if isinstance(images, str | Path) else list(images)
    names, logits, features = list[str](), list[Tensor](), list[Tensor]()
    with progress("predicting", len(sources), quiet) as advance:
        for block in predict_stream(classifier, sources, failures=failures, features=True):
            assert block.features is not None
            names += block.names
            logits.append(block.logits)
            features.append(block.features)
            advance(len(block.names))
    if not names:
        raise SeewhyError(f"none of the {len(sources)} images can be read: {(failures or [''])[0]}")
    return names, torch.cat(logits), torch.cat(features)
