import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seewhy.data.dataset import DataOrigin, Dataset
from seewhy.diagnosis.diagnosis import Diagnosis
from seewhy.diagnosis.predictions import Predictions
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.reporting.context import ReportContext, make_context
from seewhy.reporting.page import report
from seewhy.runs.directory import DIAGNOSIS
from seewhy.runs.run import Run, open_run
from seewhy.serialization import load, save

Same = Any


@pytest.fixture
def copy(context: ReportContext, tmp_path: Path) -> Run:
    """The run with its diagnosis, in a directory that a test may change."""

    assert context.run.directory is not None
    return open_run(shutil.copytree(context.run.directory, tmp_path / "copy"))


@pytest.fixture
def diagnosed(context: ReportContext, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each diagnosis that is made, whether it is a full one; it takes no time."""
    made: list[bool] = []

    def diagnose(
        classifier: Classifier,
        data: Dataset,
        predictions: Predictions,
        *,
        full: bool,
        quiet: bool,
        minutes: float,
        folds: tuple[Run, ...],
    ) -> Diagnosis:
        assert (classifier.precision, classifier.tta) == ("fp32", "none")
        assert (minutes, folds) == (2, ())
        made.append(full)
        return context.diagnosis

    monkeypatch.setattr("seewhy.reporting.context.diagnose", diagnose)
    return made


def path_of(run: Run) -> Path:
    assert run.directory is not None
    return run.directory / DIAGNOSIS


def test_make_context_reads_the_diagnosis_without_data(
    copy: Run,
    context: ReportContext,
    diagnosed: list[bool],
    same: Same,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_data(origin: DataOrigin, data: Dataset | None = None) -> Dataset:
        raise AssertionError("no data is needed")

    monkeypatch.setattr("seewhy.reporting.context.reload_data", no_data)
    assert same(make_context(copy, quiet=True).diagnosis, context.diagnosis)
    assert same(
        make_context(copy, full=True, quiet=True).diagnosis, context.diagnosis
    )  # it has all errors
    assert diagnosed == []


def test_fresh_diagnoses_again(
    copy: Run, data: Dataset, context: ReportContext, diagnosed: list[bool], same: Same
) -> None:
    stale = replace(context.diagnosis, saliency_error="stale")
    save(stale, path_of(copy))
    assert make_context(copy, data=data, quiet=True).diagnosis.saliency_error == "stale"
    found = make_context(copy, data=data, fresh=True, quiet=True)
    assert diagnosed == [False]
    assert found.diagnosis.saliency_error == ""
    assert same(load(Diagnosis, path_of(copy)), context.diagnosis)


def test_full_diagnoses_again_if_errors_are_missing(
    copy: Run, data: Dataset, context: ReportContext, diagnosed: list[bool]
) -> None:
    save(replace(context.diagnosis, errors=context.diagnosis.errors[:4]), path_of(copy))
    assert len(make_context(copy, data=data, quiet=True).diagnosis.errors) == 4
    assert diagnosed == []
    found = make_context(copy, data=data, full=True, quiet=True)
    assert diagnosed == [True]
    assert found.full
    assert (
        len(found.diagnosis.errors)
        == int((~context.predictions.correct).sum())
        == len(load(Diagnosis, path_of(copy)).errors)
    )


def test_make_context_writes_nothing_without_directory(
    run: Run, data: Dataset, diagnosed: list[bool], tmp_path: Path
) -> None:
    memory = replace(run, directory=None)
    for _ in range(2):
        make_context(memory, data=data, quiet=True)
    assert diagnosed == [False, False]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lacks", ["predictions", "result"])
def test_unfinished_runs_are_rejected(
    copy: Run, data: Dataset, lacks: str, diagnosed: list[bool]
) -> None:
    unfinished = replace(copy, **{lacks: None})  # type: ignore[arg-type]
    with pytest.raises(
        SeewhyError, match=r"copy has not finished; resume it with `seewhy resume` first"
    ):
        make_context(unfinished, data=data, quiet=True)
    path_of(copy).unlink()
    with pytest.raises(SeewhyError, match=r"copy has not finished"):
        make_context(replace(copy, directory=None), against=unfinished, data=data, quiet=True)
    assert diagnosed == []


def test_changed_data_are_rejected(copy: Run, data: Dataset, diagnosed: list[bool]) -> None:
    path_of(copy).unlink()
    with pytest.raises(SeewhyError, match="not those that the run was tested on; add the file"):
        report(copy, replace(data, fingerprint="6" * 32), quiet=True)
    with pytest.raises(SeewhyError, match="bars was made in memory, so it cannot be loaded again"):
        make_context(copy, quiet=True)
    assert diagnosed == []
    assert not path_of(copy).exists()


def test_damaged_diagnosis_is_replaced(
    copy: Run, data: Dataset, diagnosed: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    path = path_of(copy)
    path.write_bytes(path.read_bytes()[:-2000])
    make_context(copy, data=data)
    assert re.search(
        r"diagnosis\.npz is missing or damaged .*; diagnosing again", capsys.readouterr().err
    )
    path.write_bytes(path.read_bytes()[:-2000])
    make_context(copy, data=data, fresh=True, quiet=True)  # which does not look at it
    path.write_bytes(b"")
    path.unlink()
    make_context(copy, data=data, quiet=True)
    assert diagnosed == [False, False, False]


def test_runs_on_different_images_are_rejected_before_diagnosing(
    copy: Run, later: Run, data: Dataset, diagnosed: list[bool]
) -> None:
    path_of(copy).unlink()
    assert later.predictions is not None
    for other, message in (
        (
            Predictions(
                later.predictions.logits[:50],
                later.predictions.labels[:50],
                later.predictions.classes,
            ),
            "120 images",
        ),
        (
            Predictions(
                later.predictions.logits,
                later.predictions.labels.flip(0),
                later.predictions.classes,
            ),
            "compare two runs",
        ),
        (
            Predictions(later.predictions.logits, later.predictions.labels, ("a", "b", "c", "d")),
            "compare two runs",
        ),
    ):
        with pytest.raises(SeewhyError, match=message):
            make_context(copy, data, replace(later, predictions=other), quiet=True)
    assert diagnosed == []
    assert not path_of(copy).exists()


def test_baseline_is_not_diagnosed(
    copy: Run, later: Run, data: Dataset, diagnosed: list[bool]
) -> None:
    found = make_context(copy, data, replace(later, directory=None), quiet=True)
    assert diagnosed == []
    assert found.baseline is not None
    assert found.baseline.predictions is later.predictions
    errors = (~found.baseline.predictions.correct).nonzero()[:, 0]
    assert set(errors.tolist()) == set(found.baseline.thumbnails.indices.tolist())


def test_training_images_are_mapped_on_request(
    copy: Run, data: Dataset, context: ReportContext, diagnosed: list[bool]
) -> None:
    assert context.mapped_splits is None
    mapped = make_context(copy, data, quiet=True, map_train=True).mapped_splits
    assert mapped is not None
    assert len(mapped.train.map.indices) == len(data.train)
    assert not diagnosed  # the saved diagnosis is kept
    with pytest.raises(SeewhyError, match="map_train needs training images besides"):
        make_context(copy, data, split="train", quiet=True, map_train=True)
    with pytest.raises(SeewhyError, match="map_train needs a model, whose features"):
        make_context(context.predictions, data, quiet=True, map_train=True)


def test_name_has_directories_with_paths(context: ReportContext) -> None:
    assert context.title == "small on bars"
    assert context.name(3) == "bar-3.png"
    assert replace(context, paths=True).name(3) == "photos/2/bar-3.png"
