"""The context of a report: a run, its predictions, its diagnosis, and a run to compare with."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath

from seewhy.data.dataset import Dataset
from seewhy.data.memory import check_dataset
from seewhy.data.sources import reload_data
from seewhy.diagnosis.calibration import (
    Calibration,
    TemperatureScaling,
    measure_calibration,
    temperature_scaling,
)
from seewhy.diagnosis.diagnosis import MINUTES, Diagnosis, diagnose
from seewhy.diagnosis.label_issues import LabelIssue, find_label_issues
from seewhy.diagnosis.paired import compare_predictions
from seewhy.diagnosis.predictions import Predictions
from seewhy.errors import SeewhyError
from seewhy.files import is_writable
from seewhy.progress import note
from seewhy.runs.cross_validation import fold_runs
from seewhy.runs.result import RunResult
from seewhy.runs.run import Run
from seewhy.serialization import load, save

FILE = "diagnosis.npz"  # in the run directory


@dataclass(frozen=True, eq=False)
class ReportContext:
    """The data of a report, shared by its sections."""

    run: Run
    result: RunResult
    predictions: Predictions  # of the test split
    diagnosis: Diagnosis
    full: bool = False  # show all errors, regardless of the file size
    paths: bool = False  # show image paths with their directories
    baseline: "ReportContext | None" = None  # the run to compare with

    @property
    def title(self) -> str:
        """Recipe and dataset, as `resnet18 on cifar10`."""
        return f"{self.run.recipe.name} on {self.run.data_origin.name}"

    @property
    def images_noun(self) -> str:
        """What the predicted images are: test images, or images that the folds held out."""
        return "held-out image" if self.result.folds else "test image"

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
    def label_issues(self) -> tuple[LabelIssue, ...]:
        """The suspected label errors, the most suspicious first."""
        return find_label_issues(self.predictions)

    def name(self, index: int) -> str:
        """The file name of a test image, without directories unless `paths`."""
        name = self.diagnosis.names[index]
        return name if self.paths else PurePath(name).name


def make_context(
    run: Run,
    against: Run | None = None,
    data: Dataset | None = None,
    *,
    full: bool = False,
    fresh: bool = False,
    quiet: bool = False,
    keep: bool = True,
    minutes: float | None = MINUTES,
) -> ReportContext:
    """The context of the report of a run.

    The diagnosis is read from the run directory. If there is none, the run is diagnosed.

    Args:
        run: A finished run.
        against: A run on the same test images to compare with.
        data: The dataset of the run; loaded again by default. Only needed to diagnose.
        full: Explain and show all errors.
        fresh: Diagnose again even if there is a diagnosis.
        quiet: Show no progress.
        keep: Save a new diagnosis in the run directory.
        minutes: Time for a new diagnosis, as in `diagnose`.

    Raises:
        SeewhyError: If a run has not finished, the two have different test images, or the run
            directory cannot be written.
    """
    result, predictions = _finished(run)
    data = None if data is None else check_dataset(data)
    if against is not None:
        compare_predictions(
            _finished(against)[1], predictions
        )  # fails early, before minutes of work
    diagnosis = None if fresh else _read_diagnosis(run, full, quiet)
    if diagnosis is None:
        diagnosis = _diagnose(run, data, full, quiet, keep, minutes)
    baseline = None
    if against is not None:
        shared = data is not None and data.fingerprint == against.data_origin.fingerprint
        keep = keep and against.directory is not None and is_writable(against.directory)
        baseline = make_context(
            against,
            data=data if shared else None,
            full=full,
            quiet=quiet,
            keep=keep,
            minutes=minutes,
        )
    return ReportContext(run, result, predictions, diagnosis, full, baseline=baseline)


def _finished(run: Run) -> tuple[RunResult, Predictions]:
    """Result and predictions of a finished run."""
    if run.predictions is None or run.result is None:
        name = run.directory or "this run"
        raise SeewhyError(f"{name} has not finished; resume it with `seewhy resume` first")
    return run.result, run.predictions


def _read_diagnosis(run: Run, full: bool, quiet: bool) -> Diagnosis | None:
    """The diagnosis in the run directory; None if it is missing or incomplete."""
    if run.directory is None or not (run.directory / FILE).exists():
        return None
    try:
        diagnosis = load(Diagnosis, run.directory / FILE)
    except SeewhyError as error:
        note(f"{error}; diagnosing again", quiet)
        return None
    _, predictions = _finished(run)
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
    _, predictions = _finished(run)
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
        save(diagnosis, run.directory / FILE)
    return diagnosis
