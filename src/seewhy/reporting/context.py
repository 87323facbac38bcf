"""The context of a report: a classifier with its predictions and diagnosis, and a baseline."""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

from seewhy.data.dataset import DataOrigin, Dataset
from seewhy.data.labeled_images import as_dataset
from seewhy.data.memory import check_dataset
from seewhy.data.sources import reload_data, source_name
from seewhy.data.thumbnails import Thumbnails, make_thumbnails
from seewhy.diagnosis.calibration import (
    Calibration,
    TemperatureScaling,
    measure_calibration,
    temperature_scaling,
)
from seewhy.diagnosis.diagnosis import MAX_ERRORS, MINUTES, Diagnosis, diagnose
from seewhy.diagnosis.feature_space import MappedSplits, map_splits
from seewhy.diagnosis.image_maps import neighbor_agreement
from seewhy.diagnosis.label_issues import LabelIssue, find_label_issues
from seewhy.diagnosis.metadata import Metadata, subgroups
from seewhy.diagnosis.paired import compare_predictions
from seewhy.diagnosis.predictions import (
    Predictions,
    class_predictions,
    diverse_errors,
    predict_split,
)
from seewhy.diagnosis.slices import Slice
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier, ClassifierLike
from seewhy.models.inspection import evaluating
from seewhy.progress import note, waiting
from seewhy.runs.cross_validation import fold_runs
from seewhy.runs.directory import DIAGNOSIS
from seewhy.runs.prediction import find_split, measured_data
from seewhy.runs.result import RunResult, accuracy_name
from seewhy.runs.run import Run
from seewhy.serialization import load, save
from seewhy.wording import counted

MAP_SHARE = 0.25  # of the time of a diagnosis, for the map of test and training images


@dataclass(frozen=True, eq=False)
class Baseline:
    """The model that a report compares with, on the same test images."""

    title: str
    source: str  # the name of the run's directory, or the title
    predictions: Predictions
    thumbnails: Thumbnails  # of its errors


@dataclass(frozen=True, eq=False)
class ReportContext:
    """The data of a report, shared by its sections."""

    classifier: Classifier | None  # None for predictions alone
    data: DataOrigin
    predictions: Predictions  # of the test split
    diagnosis: Diagnosis
    run: Run | None = None  # a finished one; None for a model that seewhy did not train
    full: bool = False  # show all errors, regardless of the file size
    paths: bool = False  # show image paths with their directories
    baseline: Baseline | None = None
    metadata: Metadata | None = None  # of the test images
    split: str = ""  # of the data as it was loaded, whose images are the test images; "" if unknown
    mapped_splits: MappedSplits | None = None  # the map with training images, on request

    @property
    def result(self) -> RunResult | None:
        """The result of the run; None without one."""
        return None if self.run is None else self.run.result

    @property
    def title(self) -> str:
        """Recipe or model, and dataset, as `resnet18 on cifar10`."""
        return _title(self.run or self.classifier, self.data)

    @property
    def source(self) -> str:
        """The name of the run's directory, or the title."""
        return _source(self.run or self.classifier, self.data)

    @property
    def folds(self) -> int:
        """Number of folds, if the predictions are those of a cross-validation; else 0."""
        return 0 if self.result is None else self.result.folds

    @property
    def accuracy_name(self) -> str:
        """`Test accuracy`, or the accuracy of a cross-validation."""
        return "Test accuracy" if self.result is None else accuracy_name(self.result)

    @property
    def images_noun(self) -> str:
        """What the predicted images are: test images, or images that the folds held out."""
        return "held-out image" if self.folds else "test image"

    @cached_property
    def calibration(self) -> Calibration:
        """Calibration of the test predictions."""
        return measure_calibration(self.predictions)

    @cached_property
    def scaling(self) -> TemperatureScaling | None:
        """Temperature scaling of the test predictions; None for a single image."""
        if len(self.predictions.labels) < 2:
            return None
        return temperature_scaling(self.predictions, self.diagnosis.validation)

    @cached_property
    def subgroups(self) -> tuple[Slice, ...]:
        """The accuracy by the values of the metadata, the most costly groups first."""
        return () if self.metadata is None else subgroups(self.predictions, self.metadata)

    @cached_property
    def label_issues(self) -> tuple[LabelIssue, ...]:
        """The suspected label errors, the most suspicious first."""
        return find_label_issues(self.predictions)

    @cached_property
    def neighbor_agreement(self) -> float | None:
        """How many neighbors on the map have the label of an image; None without a map."""
        mapped = self.diagnosis.mapped
        if mapped is None:
            return None
        labels = self.predictions.labels[mapped.map.indices]
        return neighbor_agreement(mapped.map.positions, labels)

    def name(self, index: int) -> str:
        """The file name of a test image, without directories unless `paths`."""
        return self.shown_name(self.diagnosis.names[index])

    def shown_name(self, name: str) -> str:
        """The file name of an image of any split, without directories unless `paths`."""
        return name if self.paths else PurePath(name).name


def make_context(
    classifier: ClassifierLike | Predictions,
    data: object = None,
    against: ClassifierLike | None = None,
    *,
    split: str | None = None,
    full: bool = False,
    fresh: bool = False,
    quiet: bool = False,
    keep: bool = True,
    minutes: float | None = MINUTES,
    map_train: bool = False,
) -> ReportContext:
    """The context of a report.

    The diagnosis of a run is read from its directory, unless it has none, or is to be measured on
    other data.

    Args:
        classifier: A finished run, another classifier, or predictions of the test split of `data`.
        data: Labeled images, as for `evaluate`. Those of a run are loaded again by default; they
            are only needed to diagnose it.
        against: A run or classifier to compare with, on the same test images.
        split: The split to measure, as for `evaluate`; of a run's own data, it is the test split.
        full: Explain and show all errors.
        fresh: Diagnose again even if there is a diagnosis.
        quiet: Show no progress.
        keep: Save a new diagnosis in the run directory.
        minutes: Time for a new diagnosis, as in `diagnose`.
        map_train: Map test and training images together, in at most a quarter of that time more;
            this needs the data.

    Raises:
        SeewhyError: If a run has not finished, the two have different test images, the run
            directory cannot be written, there are no training images to map, and as for `evaluate`.
    """
    if isinstance(classifier, Run) and is_own_data(classifier, data, split):
        return _run_context(classifier, data, against, full, fresh, quiet, keep, minutes, map_train)
    named: Classifier | None
    mapped: MappedSplits | None = None
    if isinstance(classifier, Predictions):
        if map_train:
            raise SeewhyError(
                "map_train needs a model, whose features place the images; these are predictions "
                "alone"
            )
        named, measured, predictions, split = None, as_dataset(data), classifier, None
    else:
        found, split = find_split(classifier, data, split)
        named, measured = measured_data(classifier, found, split)
        if map_train:  # its errors come before minutes of work
            mapped = _map_splits(named, measured, minutes, quiet)
        with waiting(f"predicting {counted(len(measured.test), 'image')}", quiet):
            predictions = predict_split(named, measured.test)
    baseline = None if against is None else _measured_baseline(against, predictions, measured)
    with nullcontext() if named is None else evaluating(named.model):
        diagnosis = diagnose(named, measured, predictions, full=full, quiet=quiet, minutes=minutes)
    return ReportContext(
        named,
        measured.origin,
        predictions,
        diagnosis,
        full=full,
        baseline=baseline,
        split=split if split in ("train", "test", "validation") else "",
        mapped_splits=mapped,
    )


def is_own_data(run: Run, data: object, split: str | None) -> bool:
    """Whether the data are those that a run was tested on."""
    if split not in (None, "test"):
        return False
    if data is None:
        return True
    if isinstance(data, str | Path):
        return source_name(data) == run.data_origin.load_args.get("name")
    return isinstance(data, Dataset) and check_dataset(data).fingerprint == (
        run.data_origin.fingerprint
    )


def _run_context(
    run: Run,
    data: object,
    against: ClassifierLike | None,
    full: bool,
    fresh: bool,
    quiet: bool,
    keep: bool,
    minutes: float | None,
    map_train: bool,
) -> ReportContext:
    """The context of the report of a run on its own data."""
    predictions = _finished(run)
    dataset = check_dataset(data) if isinstance(data, Dataset) else None
    mapped: MappedSplits | None = None
    if map_train:
        dataset = reload_data(run.data_origin, dataset)
        mapped = _map_splits(run.classifier, dataset, minutes, quiet)
    baseline = None
    if isinstance(against, Run):
        baseline = _run_baseline(against, run, dataset, quiet)
    elif against is not None:
        dataset = reload_data(run.data_origin, dataset)
        baseline = _measured_baseline(against, predictions, dataset)
    diagnosis = None if fresh else _read_diagnosis(run, full, quiet)
    if diagnosis is None:
        diagnosis = _diagnose(run, dataset, full, quiet, keep, minutes)
    return ReportContext(
        run.classifier,
        run.data_origin,
        predictions,
        diagnosis,
        run,
        full,
        baseline=baseline,
        split="train" if run.data_origin.load_args.get("folds") else "test",
        mapped_splits=mapped,
    )


def _map_splits(
    classifier: Classifier, data: Dataset, minutes: float | None, quiet: bool
) -> MappedSplits:
    """The map of test and training images, within its share of the time."""
    seconds = math.inf if minutes is None else MAP_SHARE * 60 * minutes
    with waiting("mapping test and training images", quiet), evaluating(classifier.model):
        return map_splits(classifier, data, seconds)


def _run_baseline(against: Run, run: Run, data: Dataset | None, quiet: bool) -> Baseline:
    """A run to compare with another; its images are those of its diagnosis, or of the data."""
    predictions = _finished(against)
    compare_predictions(predictions, _finished(run))  # fails early, before minutes of work
    diagnosis = _read_diagnosis(against, False, quiet)
    if diagnosis is None:
        thumbnails = _of_errors(predictions, reload_data(run.data_origin, data))
    else:
        thumbnails = diagnosis.thumbnails
    origin = against.data_origin
    return Baseline(_title(against, origin), _source(against, origin), predictions, thumbnails)


def _measured_baseline(
    against: ClassifierLike, predictions: Predictions, data: Dataset
) -> Baseline:
    """Another classifier, predicting the same test images."""
    classifier, same = measured_data(against, data)
    others = predict_split(classifier, same.test)
    compare_predictions(others, predictions)
    model = against if isinstance(against, Run) else classifier
    title, source = _title(model, data.origin), _source(model, data.origin)
    return Baseline(title, source, others, _of_errors(others, data))


def _of_errors(predictions: Predictions, data: Dataset) -> Thumbnails:
    return make_thumbnails(data.test, diverse_errors(predictions, MAX_ERRORS).tolist())


def _title(model: Run | Classifier | None, data: DataOrigin) -> str:
    name = model.recipe.name if isinstance(model, Run) else model.name if model else "predictions"
    return f"{name} on {data.name}"


def _source(model: Run | Classifier | None, data: DataOrigin) -> str:
    directory = model.directory if isinstance(model, Run) else None
    return _title(model, data) if directory is None else directory.name


def _finished(run: Run) -> Predictions:
    """The predictions of a finished run."""
    predictions = class_predictions(run.predictions)
    if predictions is None or run.result is None:
        name = run.directory or "this run"
        raise SeewhyError(f"{name} has not finished; resume it with `seewhy resume` first")
    return predictions


def _read_diagnosis(run: Run, full: bool, quiet: bool) -> Diagnosis | None:
    """The diagnosis in the run directory; None if it is missing or incomplete."""
    if run.directory is None or not (run.directory / DIAGNOSIS).exists():
        return None
    try:
        diagnosis = load(Diagnosis, run.directory / DIAGNOSIS)
    except SeewhyError as error:
        note(f"{error}; diagnosing again", quiet)
        return None
    predictions = _finished(run)
    if full and len(diagnosis.errors) < int((~predictions.correct).sum()):
        return None
    return diagnosis


def _diagnose(
    run: Run,
    data: Dataset | None,
    full: bool,
    quiet: bool,
    keep: bool,
    minutes: float | None,
) -> Diagnosis:
    """Diagnose a run on its data; with `keep`, save the diagnosis in its directory."""
    predictions = _finished(run)
    data = reload_data(run.data_origin, data)
    diagnosis = diagnose(
        run.classifier,
        data,
        predictions,
        full=full,
        quiet=quiet,
        minutes=minutes,
        folds=fold_runs(run),
    )
    if run.directory is not None and keep:
        save(diagnosis, run.directory / DIAGNOSIS)
    return diagnosis
