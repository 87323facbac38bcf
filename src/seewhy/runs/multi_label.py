"""Measuring a model whose labels are independent of each other."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from seewhy.data.csv_table import is_table
from seewhy.data.dataset import Dataset
from seewhy.data.multi_label import MultiLabelImages, as_multi_label, read_multi_label_table
from seewhy.data.sources import reload_data, source_name
from seewhy.diagnosis.multi_label import with_thresholds
from seewhy.diagnosis.predictions import MultiLabelPredictions
from seewhy.errors import SeewhyError, lookup
from seewhy.models.classifier import ClassifierLike, as_classifier
from seewhy.models.inference import compute_logits
from seewhy.runs.prediction_stream import check_image_shape
from seewhy.runs.run import Run


def evaluate_multi_label(
    classifier: ClassifierLike,
    data: object = None,
    validation: object = None,
    split: str = "test",
    *,
    progress: Callable[[int], None] | None = None,
) -> MultiLabelPredictions:
    """Predict images with any number of labels each.

    Args:
        classifier: A run that was trained on such images, or a Classifier with the activation
            "sigmoid".
        data: Images and labels as for `as_multi_label`, such as (images, labels (N, K)) or a torch
            DataLoader; or the path of a table as for `read_multi_label_table`. Labels are matched
            by name. By default the data of the run is loaded again.
        validation: Other images and labels, to choose the threshold of each label on (see
            `choose_thresholds`); by default the thresholds are those of the classifier, else 0.5.
        split: Split of the run's own data, or of a Dataset: "train", "test" or "validation".
        progress: Called with the number of predicted images after each batch.

    Raises:
        SeewhyError: For another activation, images of another shape, a label that the model or the
            data does not have, and as `as_multi_label` and `read_multi_label_table`.
    """
    predictions = _predict(classifier, data, split, progress)
    if validation is None:
        return predictions
    return with_thresholds(predictions, _predict(classifier, validation))


def _predict(
    classifier: ClassifierLike,
    data: object,
    split: str = "test",
    progress: Callable[[int], None] | None = None,
) -> MultiLabelPredictions:
    """Predictions at the thresholds of the classifier."""
    found = find_multi_label(classifier, data, split)
    classifier = as_classifier(classifier)
    logits = compute_logits(classifier, found.images, progress=progress)
    return MultiLabelPredictions(
        logits, found.labels, found.classes, found.names, classifier.thresholds
    )


def find_multi_label(
    classifier: ClassifierLike, data: object = None, split: str = "test"
) -> MultiLabelImages:
    """The images and labels that `data` stands for, with the labels of the classifier.

    For the arguments see `evaluate_multi_label`.
    """
    run = classifier if isinstance(classifier, Run) else None
    classifier = as_classifier(classifier)
    if classifier.activation != "sigmoid":
        raise SeewhyError(
            f"{classifier.name} has the activation {classifier.activation!r}; a model whose labels "
            'are independent of each other is Classifier(model, classes, activation="sigmoid")'
        )
    if data is None and run is None:
        raise SeewhyError("add images and labels, as in data=(images, labels), or data='new.csv'")
    if run is not None and (data is None or _is_own(run, data)):
        data = reload_data(run.data_origin)
    if isinstance(data, Dataset):
        data = replace(data, test=lookup(data.splits, split, "split"))
    if isinstance(data, str | Path):
        if not is_table(data):
            raise SeewhyError(
                f"several labels per image are read from a CSV or TSV file, found {str(data)!r}; "
                "it has a column of image paths, and one of 0 and 1 for each label, as in "
                f"path,{','.join(classifier.classes[:2]) or 'cat,dog'}"
            )
        return read_multi_label_table(
            data,
            check_image_shape(classifier),
            classifier.classes,
            preprocessing=classifier.preprocessing,
        )
    found = as_multi_label(data, classifier.classes)
    if not classifier.classes or found.classes == classifier.classes:
        return found
    missing = [name for name in classifier.classes if name not in found.classes]
    if missing or len(found.classes) != len(classifier.classes):
        raise SeewhyError(
            f"{found.name} has the labels {', '.join(found.classes[:20])}, but the model has "
            f"{', '.join(classifier.classes[:20])}; rename them, or name those of the model"
        )
    order = [found.classes.index(name) for name in classifier.classes]
    return replace(found, classes=classifier.classes, labels=found.labels[:, order])


def _is_own(run: Run, data: object) -> bool:
    """Whether `data` names what the run was trained on."""
    return isinstance(data, str | Path) and source_name(data) == run.data_origin.load_args.get(
        "name"
    )
