"""Cross-validation: every image is predicted by the model that was not trained on its fold."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from seewhy.data.dataset import Dataset
from seewhy.data.sources import take_fold
from seewhy.diagnosis.predictions import AnyPredictions, MultiLabelPredictions, Predictions
from seewhy.errors import SeewhyError
from seewhy.escaping import shell_text
from seewhy.progress import note
from seewhy.runs.directory import (
    CHECKPOINTS,
    FOLDS,
    STATUS,
    WRITTEN_FIRST,
    has_finished,
    write_status,
)
from seewhy.runs.run import Run, open_run
from seewhy.wording import counted


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """The predictions of all images, each by the run of its fold."""

    predictions: AnyPredictions
    plain_accuracy: float  # without test-time augmentation, in [0, 1]
    runs: tuple[Run, ...]  # one per fold


def predict_folds(
    data: Dataset,
    directory: Path | None,
    train: Callable[[Dataset, Path | None], Run],
    device: torch.device,
    quiet: bool,
) -> OutOfFold:
    """Train a run for each fold, in FOLDS/1, FOLDS/2, …; those that have finished are kept.

    Args:
        data: A dataset with folds.
        directory: Directory of the cross-validation, in which everything is written.
        train: Trains a fold, or resumes it, in its directory.
        device: For the models of folds that have finished.
        quiet: Show nothing.

    Raises:
        SeewhyError: If a fold cannot be trained; then nothing remains of a run none of whose
            folds has started.
        KeyboardInterrupt: After a signal.
    """
    assert data.folds is not None
    runs: list[Run] = []
    try:
        for number in range(1, data.num_folds + 1):
            path = None if directory is None else directory / FOLDS / str(number)
            if path is not None and has_finished(path):
                run = open_run(path, device)
            else:
                part = take_fold(data, number)
                sizes = f"{counted(len(part.train), 'image')} to train on"
                sizes += f", {len(part.test):,} to predict"
                note(f"fold {number} of {data.num_folds}: {sizes}", quiet)
                run = train(part, path)
            if path is not None:  # never resumed
                shutil.rmtree(path / CHECKPOINTS, ignore_errors=True)
            runs.append(run)
    except BaseException as error:
        if directory is not None:
            _record_failure(directory, error)
        if isinstance(error, KeyboardInterrupt) and directory is not None:
            raise type(error)(
                f"Interrupted. Folds that have finished are kept. Resume with: seewhy resume "
                f"{shell_text(directory)}"
            ) from error
        raise
    return _pooled(data, runs)


def fold_runs(run: Run) -> tuple[Run, ...]:
    """The runs of the folds of a cross-validation; empty for another run."""
    if run.folds or run.result is None or not run.result.folds or run.directory is None:
        return run.folds
    device = run.classifier.device
    numbers = range(1, run.result.folds + 1)
    return tuple(open_run(run.directory / FOLDS / str(number), device) for number in numbers)


def _pooled(data: Dataset, runs: list[Run]) -> OutOfFold:
    """The predictions of the folds in the order of the images."""
    assert data.folds is not None
    logits = torch.zeros(len(data.folds), len(data.classes))
    plain = 0.0
    for number, run in enumerate(runs):
        rows = (data.folds == number).nonzero()[:, 0]
        predictions, result = run.predictions, run.result
        assert predictions is not None
        assert result is not None
        if not torch.equal(predictions.labels, data.test.labels[rows]):
            raise SeewhyError(
                f"fold {number + 1} in {run.directory} is not of these data; train again"
            )
        logits[rows] = predictions.logits
        plain += result.plain_accuracy * len(rows)
    kind = MultiLabelPredictions if data.multi_label else Predictions
    predictions = kind(logits, data.test.labels, data.classes)
    return OutOfFold(predictions, plain / len(data.folds), tuple(runs))


def _record_failure(directory: Path, error: BaseException) -> None:
    """Write why folds are missing; if no fold has a file, remove what was written before them."""
    if not any((directory / FOLDS).glob("*/*")):  # a run that cannot start leaves no files
        for name in (*WRITTEN_FIRST, STATUS):
            if (directory / name).is_file():
                (directory / name).unlink()
        shutil.rmtree(directory / FOLDS, ignore_errors=True)
        return
    status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
    write_status(directory, status, f"{type(error).__name__}: {error}")
