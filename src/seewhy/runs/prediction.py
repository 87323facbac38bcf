"""Using a trained classifier: predictions on a split, and the classes of image files."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from seewhy.data.dataset import Dataset, Split, compute_digest, fingerprint
from seewhy.data.labeled_images import as_dataset
from seewhy.data.sources import load, reload_data, source_name
from seewhy.diagnosis.calibration import check_threshold
from seewhy.diagnosis.predictions import Predictions, predict_split
from seewhy.errors import SeewhyError, describe_value, lookup
from seewhy.models.classifier import (
    Classifier,
    ClassifierLike,
    as_classifier,
    check_one_class,
)
from seewhy.models.inference import compute_logits
from seewhy.progress import note
from seewhy.runs.calibration import calibrate_predictions, run_temperature
from seewhy.runs.prediction_stream import ImagePrediction, predict_stream
from seewhy.runs.run import Run
from seewhy.wording import counted


def evaluate(
    classifier: ClassifierLike,
    data: object = None,
    split: str | None = None,
    *,
    calibrated: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Predictions:
    """Predict a split, by default the test split of the data that a run was trained on.

    Args:
        classifier: A run, a Classifier or a module.
        data: Dataset; a source for `load`, with images resized for the classifier; or labeled
            images as for `as_dataset`, such as (images, labels) or a torch DataLoader. By default
            the data of the run is loaded again. Classes are matched by name, so their order may
            differ and some may be missing.
        split: "train", "test", "validation" or "all". By default "test"; or "all" if a source that
            the run was not trained on has no test split, such as a folder of new images.
        calibrated: Divide the logits by the temperature of the run, as from `calibrate`; on the
            test images that it was fitted on, it is cross-fitted.
        progress: Called with the number of images after each batch.

    Returns:
        Predictions on the N images of the split, logits (N, K).

    Raises:
        SeewhyError: If the images have another shape, a class is unknown to the classifier, there
            is no such split, or the data of the run has changed since it was trained.
    """
    found, split = find_split(classifier, data, split)
    check_one_class(as_classifier(classifier))
    if found.multi_label:
        raise SeewhyError(
            f"images of {found.name} have any number of labels, but {as_classifier(classifier)} "
            "chooses one class for each image; pass images with one class each"
        )
    named = _named_for(classifier, found)
    fitted = run_temperature(classifier) if calibrated else None  # fails before minutes of work
    parts = [
        predict_split(named, _relabeled(part, found, named.classes), progress=progress)
        for part in _parts(found, split)
    ]
    predictions = Predictions(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.labels for part in parts]),
        named.classes,
    )
    if fitted is not None:
        predictions, how = calibrate_predictions(predictions, fitted, classifier, found, split)
        note(f"calibrated: {how}")
    return predictions


def measured_data(
    classifier: ClassifierLike, data: object, split: str | None = None
) -> tuple[Classifier, Dataset]:
    """The classifier with class names, and the data with the measured split as its test split.

    Labels index the classes of the classifier. For the arguments and errors see `evaluate`.
    """
    found, split = find_split(classifier, data, split)
    classifier = _named_for(classifier, found)
    classes = classifier.classes
    if split == "test" and classes == found.classes and found.fingerprint and found.folds is None:
        return classifier, found  # without reading all pixels for another fingerprint
    parts = [_relabeled(part, found, classes) for part in _parts(found, split)]
    others = {
        name: _relabeled(part, found, classes)
        for name, part in found.splits.items()
        if split not in (name, "all")
    }
    test = _joined(parts)
    measured = Dataset(
        name=found.name,
        classes=classes,
        train=others.get("train", Split(test.images[:0], test.labels[:0], [])),
        test=test,
        validation=others.get("validation"),
        fingerprint="",
        skipped=found.skipped,
        load_args=found.load_args,
    )
    digests = {name: compute_digest(part) for name, part in measured.splits.items()}
    return classifier, replace(measured, fingerprint=fingerprint(classes, digests))


def _named_for(classifier: ClassifierLike, data: Dataset) -> Classifier:
    """The classifier with names of its classes, by default those of the data.

    Raises SeewhyError if it takes images of another shape.
    """
    classifier = as_classifier(classifier)
    if classifier.image_shape not in (None, data.image_shape):
        size, expected_size = (
            "x".join(map(str, shape)) for shape in (data.image_shape, classifier.image_shape or ())
        )
        raise SeewhyError(f"{data.name} has images of {size}, but the model takes {expected_size}")
    if classifier.classes:
        return classifier
    classes = data.classes
    if classes == tuple(map(str, range(len(classes)))):  # the data may not have all classes
        outputs = compute_logits(classifier, data.test.images[:1]).shape[1]
        classes = tuple(map(str, range(max(outputs, len(classes)))))
    else:
        order = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
        note(
            f"the model has no class names: its outputs are taken in the order of {data.name}: "
            f"{order}; name them if theirs is another"
        )
    return replace(classifier, classes=classes)


def _parts(data: Dataset, split: str) -> list[Split]:
    """The splits that `split` names."""
    splits = {name: [part] for name, part in data.splits.items()}
    splits["all"] = list(data.splits.values())
    return lookup(splits, split, "split")


def split_names(data: Dataset, split: str) -> list[str]:
    """The names of the images that `evaluate` predicts, in their order."""
    return [name for part in _parts(data, split) for name in part.names]


def _joined(parts: Sequence[Split]) -> Split:
    """Several splits as one, copied into memory; a single one as it is."""
    if len(parts) == 1:
        return parts[0]
    masks = [part.masks for part in parts if part.masks is not None]
    return Split(
        torch.cat([part.images for part in parts]),
        torch.cat([part.labels for part in parts]),
        [name for part in parts for name in part.names],
        torch.cat(masks) if len(masks) == len(parts) else None,
    )


def find_split(classifier: ClassifierLike, data: object, split: str | None) -> tuple[Dataset, str]:
    """The dataset and the split to evaluate; for the arguments see `evaluate`."""
    run = classifier if isinstance(classifier, Run) else None
    classifier = as_classifier(classifier)
    if data is not None and not isinstance(data, str | Path):
        return as_dataset(data, classifier.classes), split or "test"
    if data is None and run is None:
        raise SeewhyError("evaluate needs data, as in evaluate(model, 'cifar10')")
    if run is not None and split in (None, "test") and run.data_origin.load_args.get("folds"):
        own = data is None or source_name(data) == run.data_origin.load_args["name"]
        if own:
            return _outside_folds(run), "test"
    if data is None:
        assert run is not None
        return reload_data(run.data_origin), split or "test"
    if run is not None and source_name(data) == run.data_origin.load_args.get("name"):
        # as it was loaded for the training, so that no split contains images of another one
        loaded = load(**run.data_origin.load_args)
        if loaded.fingerprint != run.data_origin.fingerprint:
            _report_change(loaded, split)
        return loaded, split or "test"
    loaded = load(
        data,
        image_size=_square_side(classifier),
        channels=_channels(classifier),
        range=classifier.preprocessing.value_range,
        margin=_margin(classifier),
        resize=classifier.preprocessing.resize,
        interpolation=classifier.preprocessing.interpolation,
        split="test",
    )
    if "test" in loaded.held_out and split != "all":
        note(f"{loaded.name} has no test split of its own: all of its images are measured")
    if split is None and len(loaded.splits) == 1:
        split = "all"
    return loaded, split or "test"


def _outside_folds(run: Run) -> Dataset:
    """The data of a run with their own test split, which is not in the folds or the training."""
    arguments = dict(run.data_origin.load_args)
    folds, fold, chosen = (arguments.pop(name, None) for name in ("folds", "fold", "split"))
    if fold is not None:
        return reload_data(run.data_origin)
    data = None if chosen in ("random", "group") else load(**arguments)
    if data is None or "test" in data.held_out:
        raise SeewhyError(
            f"the model was trained on all images of {run.data_origin.name}; its accuracy is that "
            f"of {folds}-fold cross-validation, in summary.json; evaluate other images, as in "
            "data='new-photos'"
        )
    return data


def _report_change(data: Dataset, split: str | None) -> None:
    """Say that the data of a run has changed; raise SeewhyError if its test split has too."""
    if "test" in data.held_out and split != "all":
        raise SeewhyError(
            f"{data.name} has changed since the run was trained; it has no test split, so the one "
            "that is drawn now may hold training images; restore it, or measure other images"
        )
    note(f"{data.name} has changed since the run was trained; it is measured as it is now")


def predict(
    classifier: ClassifierLike,
    images: str | Path | Sequence[str | Path | Image.Image],
    top: int = 5,
    max_pixels: int | None = None,
    failures: list[str] | None = None,
    abstain_below: float | None = None,
) -> list[ImagePrediction]:
    """Predict the classes of image files or Pillow images.

    The images are decoded, resized and cropped as the training images were.

    Args:
        classifier: A run, or a Classifier with an image shape.
        images: Path of one image, or several paths and Pillow images, of any size and mode.
        top: Number of classes to return for each image.
        max_pixels: Largest number of pixels of an image that is decoded; None for 150 million.
        failures: A list for the errors of images that cannot be read, which are then left out; by
            default the first one is raised.
        abstain_below: Confidence in (0, 1) below which a prediction is marked as abstained; pass
            `calibrate(run)` as the classifier for calibrated confidences. None for no threshold.

    Returns:
        The most probable classes of each image, in the order of `images`.

    Raises:
        SeewhyError: If an image cannot be read, none can be, `top` is less than 1, or
            `abstain_below` is outside (0, 1).
    """
    if abstain_below is not None:
        check_threshold(abstain_below, "abstain_below")
    classifier = as_classifier(classifier)
    if top < 1:
        raise SeewhyError(f"top must be at least 1, found {top}")
    sources = [images] if isinstance(images, str | Path) else list(images)
    if wrong := [each for each in sources if not isinstance(each, str | Path | Image.Image)]:
        raise SeewhyError(
            f"predict takes paths and Pillow images, found {describe_value(wrong[0])}; pass "
            "PIL.Image.fromarray(image) for an image (H, W, 3) uint8; for a tensor (N, C, H, W), "
            "seewhy.models.compute_logits(model, images)"
        )
    if not sources:
        raise SeewhyError("predict needs at least one image, as in predict(run, ['photo.jpg'])")
    found = [
        prediction
        for block in predict_stream(classifier, sources, max_pixels=max_pixels, failures=failures)
        for prediction in block.top(classifier, top, abstain_below)
    ]
    if not found:
        raise SeewhyError(
            f"{counted(len(sources), 'image')}, none can be read: {(failures or [''])[0]}"
        )
    return found


def _channels(classifier: Classifier) -> int | None:
    """1 or 3, to which images can be converted; None for others."""
    channels = (classifier.image_shape or (0,))[0]
    return channels if channels in (1, 3) else None


def _square_side(classifier: Classifier) -> int | None:
    """Side of the classifier's images; they must be square."""
    if classifier.image_shape is None:
        return None
    _, height, width = classifier.image_shape
    return height if height == width else None


def _margin(classifier: Classifier) -> int:
    """The margin whose center crop is that of the classifier's preprocessing."""
    side, crop = _square_side(classifier), classifier.preprocessing.crop
    return 0 if side is None else round(side / crop) - side


def _relabeled(split: Split, data: Dataset, classes: tuple[str, ...]) -> Split:
    """The split with labels that index `classes` instead of the classes of `data`."""
    if data.classes == classes:
        return split
    matches = [_matching(name, classes) for name in data.classes]
    unknown = [
        name
        for label, name in enumerate(data.classes)
        if not matches[label] and split.members(label).any()
    ]
    if unknown:
        shown = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
        raise SeewhyError(
            f"{data.name} has classes unknown to the model: {', '.join(unknown[:20])}; the model "
            f"has {shown}; rename the classes of the data, or name those of the model"
        )
    index = torch.tensor([found[0] if found else 0 for found in matches])
    if split.labels.ndim == 1:
        return replace(split, labels=index[split.labels])
    labels = torch.zeros(len(split), len(classes), dtype=torch.bool)
    for label, found in enumerate(matches):
        labels[:, found] |= split.labels[:, label, None]
    return replace(split, labels=labels)


def _matching(name: str, classes: tuple[str, ...]) -> list[int]:
    """The class with a name, if there is one; else the only one with it as a synonym.

    Names of ImageNet have synonyms, as `ant, emmet, pismire`; a folder may be called `Ant`.
    """
    if name in classes:
        return [classes.index(name)]
    plain = _plain(name)
    found = [
        index
        for index, each in enumerate(classes)
        if plain in (_plain(each), *map(_plain, each.split(",")))
    ]
    return found if len(found) == 1 else []


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())
