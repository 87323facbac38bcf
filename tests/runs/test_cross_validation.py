"""Cross-validation: every image is predicted by the model that was not trained on its fold."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.data.dataset import Dataset
from seewhy.data.sources import load, take_fold
from seewhy.errors import SeewhyError
from seewhy.models import feature_cache
from seewhy.runs.cross_validation import fold_runs, predict_folds
from seewhy.runs.directory import read_status
from seewhy.runs.prediction import evaluate
from seewhy.runs.run import Run, open_run
from seewhy.runs.training import fit, resume
from seewhy.train import probe as probe_module
from seewhy.train.recipe import Recipe

pytestmark = [pytest.mark.usefixtures("blank_figures", "source"), pytest.mark.train]


@pytest.fixture
def folded() -> Dataset:
    return load("bars", folds=3, limit=90, quiet=True)


@pytest.fixture(scope="module")
def short(recipe: Recipe) -> Recipe:
    return replace(recipe, epochs=1, batch_size=30)


def test_folds_predict_what_they_were_not_trained_on(
    short: Recipe, folded: Dataset, tmp_path: Path
) -> None:
    assert folded.folds is not None
    run = fit(short, folded, tmp_path / "run", quiet=True)
    assert run.result is not None
    assert run.predictions is not None
    assert (run.result.folds, run.result.test_images) == (3, 90)
    assert all(row.eval_accuracy is None for row in run.history)  # no accuracy of training images
    by_hand = torch.empty_like(run.predictions.logits)
    for fold in range(3):
        held_out = (folded.folds == fold).nonzero()[:, 0]
        kept = (folded.folds != fold).nonzero()[:, 0]
        part = replace(
            folded,
            train=folded.train.take(kept),
            test=folded.train.take(held_out),
            folds=None,
            fingerprint="",
        )
        predictions = fit(short, part, quiet=True).predictions
        assert predictions is not None
        by_hand[held_out] = predictions.logits
    torch.testing.assert_close(run.predictions.logits, by_hand)
    assert torch.equal(run.predictions.labels, folded.train.labels)
    whole = replace(folded, folds=None, test=load("bars", quiet=True).test, fingerprint="")
    last = fit(short, whole, quiet=True).model.state_dict()  # on all images
    torch.testing.assert_close(dict(run.model.state_dict()), dict(last))
    opened = open_run(tmp_path / "run")
    assert opened.result == run.result
    assert [fold.data_origin.load_args["fold"] for fold in fold_runs(opened)] == [1, 2, 3]
    assert not (tmp_path / "run/folds/1/checkpoints").exists()
    assert len(evaluate(opened).labels) == 60  # the test split, which no fold has seen
    with pytest.raises(SeewhyError, match=r"trained on all images of bars; .* 3-fold"):
        evaluate(
            replace(
                opened,
                data_origin=replace(
                    opened.data_origin,
                    load_args={**opened.data_origin.load_args, "split": "random"},
                ),
            )
        )


def test_folds_that_have_finished_are_kept(
    short: Recipe, folded: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def dying(recipe: Recipe, data: Dataset, path: Path, *rest: Any) -> Run:
        trained.append(path.name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return fit(recipe, data, path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("seewhy.runs.training.fit", dying)
        with pytest.raises(KeyboardInterrupt, match=f"seewhy resume {tmp_path / 'run'}$"):
            fit(short, folded, tmp_path / "run", quiet=True)
    assert read_status(tmp_path / "run").status == "interrupted"
    kept = (tmp_path / "run/folds/2/summary.json").read_bytes()
    with pytest.raises(SeewhyError, match="lr is for the run of one fold"):
        resume(tmp_path / "run", quiet=True, lr=0.1)
    resumed = resume(tmp_path / "run", quiet=True)
    assert (tmp_path / "run/folds/2/summary.json").read_bytes() == kept
    whole = fit(short, folded, quiet=True)
    assert resumed.predictions is not None
    assert whole.predictions is not None
    torch.testing.assert_close(resumed.predictions.logits, whole.predictions.logits)
    assert read_status(tmp_path / "run").status == "finished"


def test_a_cross_validation_that_cannot_start_leaves_no_files(
    short: Recipe, folded: Dataset, tmp_path: Path
) -> None:
    wrong = replace(short, lookahead=3)  # updates: one fold has 2, all images have 3
    with pytest.raises(SeewhyError, match="lookahead 3 is more than the updates of this run, 2"):
        fit(wrong, folded, tmp_path / "run", quiet=True)
    assert not list((tmp_path / "run").iterdir())
    watching = replace(short, schedule="plateau:on=test")
    with pytest.raises(SeewhyError, match="on=test would read the images that the folds hold out"):
        fit(watching, folded, quiet=True)


def test_features_are_computed_once_for_all_folds(
    short: Recipe, folded: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "cache_root", lambda: tmp_path)
    computed, extract = [], probe_module._extract

    def counting(classifier: Any, images: Tensor) -> Tensor:
        computed.append(len(images))
        return extract(classifier, images)

    monkeypatch.setattr(probe_module, "_extract", counting)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    fit(replace(short, epochs=0, probe="logistic"), folded, quiet=True, model=model)
    verified = 2 * (3 - 1 + 1)  # two images by each later fit
    assert sum(computed) == 90 + verified


def test_folds_of_bad_input_are_one_line() -> None:
    for arguments, message in (
        ({"folds": 1}, "folds must be at least 2, found 1"),
        ({"folds": 2.5}, "folds must be a whole number"),
        ({"folds": 100}, r"bars: folds=100 needs 100 training images of each class, found 80"),
        ({"folds": 3, "validation": 0.1}, "folds are not for validation=0.1"),
        ({"folds": 3, "fold": 4}, "bars has no fold 4"),
        ({"fold": 1}, "bars has no fold 1"),
    ):
        with pytest.raises(SeewhyError, match=message):
            load("bars", **arguments, quiet=True)  # type: ignore[arg-type]


def test_one_fold_is_loaded_again(folded: Dataset) -> None:
    assert folded.folds is not None
    part = take_fold(folded, 2)
    assert load(**part.load_args, quiet=True).fingerprint == part.fingerprint  # type: ignore[arg-type]
    names = np.array(folded.train.names)
    assert list(part.test.names) == names[folded.folds.numpy() == 1].tolist()
    assert not set(part.test.names) & set(part.train.names)


def test_a_fold_that_fails_removes_no_other_fold(folded: Dataset, tmp_path: Path) -> None:
    second = tmp_path / "folds" / "2" / "summary.json"
    second.parent.mkdir(parents=True)
    second.write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")

    def fail(data: Dataset, path: Path | None) -> Run:
        raise SeewhyError("no")

    for kept in (True, False):
        with pytest.raises(SeewhyError, match="no"):
            predict_folds(folded, tmp_path, fail, torch.device("cpu"), quiet=True)
        assert (tmp_path / "notes.txt").exists()
        assert second.exists() == (tmp_path / "status.json").exists() == kept
        second.unlink(missing_ok=True)
