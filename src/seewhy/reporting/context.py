"""Everything that a report reads: a run, its predictions, its diagnosis, and another run to compare it with."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath

from seewhy.data.dataset import Dataset
from seewhy.data.sources import reload_data
from seewhy.diagnosis.calibration import (
    Calibration,
    TemperatureScaling,
    measure_calibration,
    temperature_scaling,
)
from seewhy.diagnosis.diagnosis import Diagnosis, diagnose
from seewhy.diagnosis.label_issues import LabelIssue, find_label_issues
from seewhy.diagnosis.paired import compare_predictions
from seewhy.diagnosis.predictions import Predictions
from seewhy.errors import SeewhyError
from seewhy.progress import note
from seewhy.runs.result import RunResult
from seewhy.runs.run import Run
from seewhy.serialization import load, save

FILE = "diagnosis.npz"  # in the run directory


@dataclass(frozen=True, eq=False)
class ReportContext:
    """A finished run with its diagnosis; `other` is what it is compared with."""

    run: Run
    result: RunResult
    test: Predictions
    diagnosis: Diagnosis
    full: bool = False  # show everything, whatever the size
    paths: bool = False  # say in which directories the images were
    other: "ReportContext | None" = None

    @property
    def title(self) -> str:
        """What was trained on what."""
        return f"{self.run.recipe.name} on {self.run.data.name}"

    @cached_property
    def calibration(self) -> Calibration:
        """Of the probabilities as they are."""
        return measure_calibration(self.test)

    @cached_property
    def scaling(self) -> TemperatureScaling | None:
        """What a temperature makes of them; None for a single image."""
        return (
            None
            if len(self.test.labels) < 2
            else temperature_scaling(self.test, self.diagnosis.validation)
        )

    @cached_property
    def suspects(self) -> tuple[LabelIssue, ...]:
        """The labels in doubt, the most suspicious first."""
        return find_label_issues(self.test)

    def name(self, index: int) -> str:
        """The file name of a test image, without directories unless they are asked for."""
        name = self.diagnosis.names[index]
        return name if self.paths else PurePath(name).name


def make_context(
    run: Run,
    against: Run | None = None,
    data: Dataset | None = None,
    full: bool = False,
    fresh: bool = False,
    paths: bool = False,
    quiet: bool = False,
) -> ReportContext:
    """The study of a run, and of the one it is compared with.

    A diagnosis that was made before is read from the run directory, so that no data is needed; otherwise it is made, on `data`
    or what the run was trained on, and kept there. `fresh` makes it anew. Raises SeewhyError for a run without a result, and for
    two that were tested on different images.
    """
    result, test = _finished(run)
    if against is not None:
        compare_predictions(
            _finished(against)[1], test
        )  # says what cannot be compared, before minutes of work rather than after
    diagnosis = None
    path = None if run.directory is None else run.directory / FILE
    if path is not None and path.exists() and not fresh:
        try:
            diagnosis = load(Diagnosis, path)
        except SeewhyError as error:
            note(f"{error}; diagnosing anew", quiet)
        if diagnosis is not None and full and len(diagnosis.errors) < int((~test.correct).sum()):
            diagnosis = None  # it does not hold all that is asked for
    if diagnosis is None:
        shown = reload_data(run.data, data)
        diagnosis = diagnose(run.classifier, shown, test, full=full, quiet=quiet)
        if path is not None:
            save(diagnosis, path)
    other = None
    if against is not None:
        shared = data is not None and data.fingerprint == against.data.fingerprint
        other = make_context(against, data=data if shared else None, full=full, quiet=quiet)
    return ReportContext(run, result, test, diagnosis, full, paths, other)


def _finished(run: Run) -> tuple[RunResult, Predictions]:
    """What a run came to."""
    if run.predictions is None or run.result is None:
        found = run.directory or "this run"
        raise SeewhyError(
            f"{found} did not come to its end, so there is nothing to report; resume it with `seewhy resume`"
        )
    return run.result, run.predictions
