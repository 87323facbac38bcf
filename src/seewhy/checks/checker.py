"""`check`: all entries of CHECKS on a dataset."""

from collections.abc import Callable, Collection
from pathlib import Path

from seewhy.checks.classes import class_imbalance, label_drift, small_classes
from seewhy.checks.copies import duplicates, near_duplicate_images
from seewhy.checks.drift import drift, property_drift
from seewhy.checks.features import label_issues, outliers
from seewhy.checks.images import (
    blurry,
    dark,
    gray,
    light,
    low_information,
    odd_aspect_ratio,
    odd_size,
)
from seewhy.checks.inputs import CheckInputs
from seewhy.checks.result import Check, DataChecks, NotJudged
from seewhy.checks.shortcuts import shortcuts
from seewhy.data.dataset import check_one_label
from seewhy.data.labeled_images import as_dataset
from seewhy.data.sources import load
from seewhy.errors import SeewhyError, lookup
from seewhy.models.classifier import ClassifierLike, as_classifier
from seewhy.progress import progress

CHECKS: dict[str, Callable[[CheckInputs], Check]] = {
    "dark": dark,
    "light": light,
    "blurry": blurry,
    "low-information": low_information,
    "gray": gray,
    "odd-size": odd_size,
    "odd-aspect": odd_aspect_ratio,
    "duplicates": duplicates,
    "near-duplicates": near_duplicate_images,
    "outliers": outliers,
    "label-issues": label_issues,
    "class-imbalance": class_imbalance,
    "small-classes": small_classes,
    "shortcuts": shortcuts,
    "drift": drift,
    "property-drift": property_drift,
    "label-drift": label_drift,
}


def check(
    data: object,
    model: ClassifierLike | None = None,
    *,
    only: str | Collection[str] = (),
    quiet: bool = True,
) -> DataChecks:
    """Judge labeled images without training on them.

    Args:
        data: A Dataset, a source for `load` such as the path of a folder, or what `as_dataset`
            takes, such as (images, labels) or a torch DataLoader.
        model: A pretrained model whose features are used, such as that of
            `pretrained_classifier("timm:resnet50")`, or a run. Without one, outliers and label
            issues are not judged, and drift is judged by layout and colors.
        only: Names of checks in CHECKS; by default all.
        quiet: Show no progress.

    Returns:
        The verdict of each check.

    Raises:
        SeewhyError: If the data cannot be loaded, the model cannot take the images, or there is no
            such check.
    """
    only = (only,) if isinstance(only, str) else only
    names = [name for name in CHECKS if not only or name in only]
    for name in only:
        lookup(CHECKS, name, "check")
    dataset = load(data, quiet=quiet) if isinstance(data, str | Path) else as_dataset(data)
    check_one_label(dataset, "checking data")
    classifier = None if model is None else as_classifier(model)
    inputs = CheckInputs(dataset, classifier, quiet)
    if not inputs.splits:
        raise SeewhyError(f"{dataset.name} has no images; add some")
    if classifier is not None:
        _ = inputs.features  # with a progress bar of their own
    checks = {}
    with progress("checking images", len(names), quiet) as advance:
        for name in names:
            try:
                checks[name] = CHECKS[name](inputs)
            except NotJudged as reason:
                checks[name] = Check("", sentence=str(reason))
            advance(1)
    sizes = {name: len(split) for name, split in inputs.splits.items()}
    model_name = "" if classifier is None else classifier.name
    return DataChecks(dataset.name, sizes, dataset.classes, model_name, checks)
