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
from seewhy.reporting.context import FILE, ReportContext, make_context
from seewhy.runs.run import Run, open_run
from seewhy.serialization import load, save

Same = Any


@pytest.fixture
def copy(asked: ReportContext, tmp_path: Path) -> Run:
    """The run with its diagnosis in a directory that a test may change."""

    assert asked.run.directory is not None
    return open_run(shutil.copytree(asked.run.directory, tmp_path / "copy"))


@pytest.fixture
def diagnosed(asked: ReportContext, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Says for each diagnosis that is made whether it is a full one; what is found is known already."""
    made: list[bool] = []

    def diagnose(
        classifier: Classifier, data: Dataset, predictions: Predictions, *, full: bool, quiet: bool
    ) -> Diagnosis:
        assert (classifier.precision, classifier.tta) == ("fp32", "none")
        made.append(full)
        return asked.diagnosis

    monkeypatch.setattr("seewhy.reporting.context.diagnose", diagnose)
    return made


def path_of(run: Run) -> Path:
    assert run.directory is not None
    return run.directory / FILE


def test_what_was_kept_is_read_without_data(
    copy: Run,
    asked: ReportContext,
    diagnosed: list[bool],
    same: Same,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_data(origin: DataOrigin, data: Dataset | None = None) -> Dataset:
        raise AssertionError("no data is needed")

    monkeypatch.setattr("seewhy.reporting.context.reload_data", no_data)
    assert same(make_context(copy, quiet=True).diagnosis, asked.diagnosis)
    assert same(
        make_context(copy, full=True, quiet=True).diagnosis, asked.diagnosis
    )  # which holds all mistakes anyway
    assert diagnosed == []


def test_fresh_asks_anew_and_keeps_that(
    copy: Run, data: Dataset, asked: ReportContext, diagnosed: list[bool], same: Same
) -> None:
    stale = replace(asked.diagnosis, saliency_error="stale")
    save(stale, path_of(copy))
    assert make_context(copy, data=data, quiet=True).diagnosis.saliency_error == "stale"
    found = make_context(copy, data=data, fresh=True, quiet=True)
    assert diagnosed == [False]
    assert found.diagnosis.saliency_error == ""
    assert same(load(Diagnosis, path_of(copy)), asked.diagnosis)


def test_full_asks_anew_where_only_some_mistakes_were_kept(
    copy: Run, data: Dataset, asked: ReportContext, diagnosed: list[bool]
) -> None:
    save(replace(asked.diagnosis, errors=asked.diagnosis.errors[:4]), path_of(copy))
    assert len(make_context(copy, data=data, quiet=True).diagnosis.errors) == 4
    assert diagnosed == []
    found = make_context(copy, data=data, full=True, quiet=True)
    assert diagnosed == [True]
    assert found.full
    assert (
        len(found.diagnosis.errors)
        == int((~asked.test.correct).sum())
        == len(load(Diagnosis, path_of(copy)).errors)
    )


def test_without_a_directory_nothing_is_kept(
    run: Run, data: Dataset, diagnosed: list[bool], tmp_path: Path
) -> None:
    memory = replace(run, directory=None)
    for _ in range(2):
        make_context(memory, data=data, quiet=True)
    assert diagnosed == [False, False]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lacks", ["test", "result"])
def test_an_unfinished_run_is_refused(
    copy: Run, data: Dataset, lacks: str, diagnosed: list[bool]
) -> None:
    unfinished = replace(copy, **{lacks: None})  # type: ignore[arg-type]
    with pytest.raises(
        SeewhyError, match=r"copy did not come to its end, .*; `seewhy train --resume` goes on"
    ):
        make_context(unfinished, data=data, quiet=True)
    path_of(copy).unlink()
    with pytest.raises(SeewhyError, match=r"copy did not come to its end"):
        make_context(replace(copy, directory=None), against=unfinished, data=data, quiet=True)
    assert diagnosed == []


def test_changed_data_are_refused(copy: Run, data: Dataset, diagnosed: list[bool]) -> None:
    path_of(copy).unlink()
    with pytest.raises(
        SeewhyError,
        match=r"bars is not the data that was trained on: .*; restore the data, or train again",
    ):
        make_context(copy, data=replace(data, fingerprint="6" * 32), quiet=True)
    with pytest.raises(SeewhyError, match="bars was made in memory, so it cannot be loaded again"):
        make_context(copy, quiet=True)
    assert diagnosed == []
    assert not path_of(copy).exists()


def test_a_damaged_diagnosis_is_named_and_made_anew(
    copy: Run, data: Dataset, diagnosed: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    path = path_of(copy)
    path.write_bytes(path.read_bytes()[:-2000])
    make_context(copy, data=data)
    assert re.search(r"diagnosis\.npz is damaged .*; diagnosing anew", capsys.readouterr().err)
    path.write_bytes(path.read_bytes()[:-2000])
    make_context(copy, data=data, fresh=True, quiet=True)  # which does not look at it
    path.write_bytes(b"")
    path.unlink()
    make_context(copy, data=data, quiet=True)
    assert diagnosed == [False, False, False]


def test_runs_on_different_images_are_refused_before_anything_is_diagnosed(
    copy: Run, later: Run, data: Dataset, diagnosed: list[bool]
) -> None:
    path_of(copy).unlink()
    assert later.test is not None
    for other, said in (
        (
            Predictions(later.test.logits[:50], later.test.labels[:50], later.test.classes),
            "120 images",
        ),
        (
            Predictions(later.test.logits, later.test.labels.flip(0), later.test.classes),
            "compare two runs",
        ),
        (
            Predictions(later.test.logits, later.test.labels, ("a", "b", "c", "d")),
            "compare two runs",
        ),
    ):
        with pytest.raises(SeewhyError, match=said):
            make_context(copy, replace(later, test=other), data, quiet=True)
    assert diagnosed == []
    assert not path_of(copy).exists()


def test_another_run_is_studied_on_the_same_data(
    copy: Run, later: Run, data: Dataset, diagnosed: list[bool]
) -> None:
    found = make_context(copy, replace(later, directory=None), data, quiet=True)
    assert diagnosed == [False]  # the data are at hand, though they cannot be loaded
    assert found.other is not None
    assert found.other.test is later.test
    assert found.other.other is None


def test_names(asked: ReportContext) -> None:
    assert asked.title == "small on bars"
    assert asked.name(3) == "bar-3.png"
    assert replace(asked, paths=True).name(3) == "photos/2/bar-3.png"
