"""Runs whose images have any number of labels: training, thresholds, files, and all uses."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from labeled_bars import CLASSES, RECIPE, labeled_bars, write_images
from sklearn.linear_model import LogisticRegression
from torch import nn

from seewhy.cli.main import main
from seewhy.data.dataset import Dataset
from seewhy.data.sources import SOURCES
from seewhy.diagnosis.multi_label import choose_thresholds, multi_label_scores
from seewhy.diagnosis.predictions import MultiLabelPredictions
from seewhy.errors import SeewhyError
from seewhy.exporting.exporter import export
from seewhy.models.classifier import Classifier
from seewhy.models.inference import compute_logits
from seewhy.models.onnx_file import onnx_classifier
from seewhy.reporting.page import report
from seewhy.runs import training
from seewhy.runs.calibration import run_temperature
from seewhy.runs.checkpoint import CheckpointPolicy
from seewhy.runs.multi_label import evaluate_multi_label
from seewhy.runs.prediction import evaluate, predict
from seewhy.runs.run import Run, open_run
from seewhy.runs.training import fit, resume
from seewhy.train.logistic import fit_one_vs_rest
from seewhy.train.loop import train

THRESHOLDS = (0.3, 0.5, 0.6)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return replace(labeled_bars(), load_args={"name": "labeled-bars"})


@pytest.fixture(autouse=True)
def source(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "labeled-bars", lambda: data)


@pytest.fixture(scope="module")
def run(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(RECIPE, data, tmp_path_factory.mktemp("runs") / "bars", quiet=True)


def test_thresholds_are_chosen_on_validation_and_kept(run: Run, data: Dataset) -> None:
    assert data.validation is not None
    assert run.directory is not None
    validation = data.validation
    on_validation = MultiLabelPredictions(
        compute_logits(run.classifier, validation.images), validation.labels, CLASSES
    )
    thresholds = choose_thresholds(on_validation)
    predictions, result = run.predictions, run.result
    assert isinstance(predictions, MultiLabelPredictions)
    assert result is not None
    assert predictions.thresholds == result.thresholds == run.classifier.thresholds
    assert thresholds == pytest.approx(run.classifier.thresholds, abs=1e-6)
    scores = multi_label_scores(predictions)
    assert scores.mean_average_precision > 0.8
    assert (result.accuracy, result.plain_accuracy) == (scores.exact_match, scores.exact_match)
    assert result.average_precision == scores.mean_average_precision
    assert result.macro_f1 == scores.macro_f1
    assert result.test_nll == pytest.approx(
        nn.BCEWithLogitsLoss()(predictions.logits, data.test.labels.float()).item(), rel=1e-5
    )
    best = max(run.history, key=lambda row: row.eval_average_precision or 0)
    assert result.selected_epoch == best.epoch
    again = open_run(run.directory)
    assert again.classifier.thresholds == run.classifier.thresholds
    assert again.classifier.activation == "sigmoid"
    assert isinstance(again.predictions, MultiLabelPredictions)
    assert torch.equal(again.predictions.logits, predictions.logits)
    assert again.result == result
    rows = (run.directory / "errors.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + int((~predictions.correct).sum())


@pytest.mark.train
def test_resumed_run_ends_as_without_the_stop(
    run: Run, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(state, plan):  # type: ignore[no-untyped-def]
        for event in train(state, plan):
            if state.step == 5:
                raise KeyboardInterrupt
            yield event

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit(RECIPE, data, tmp_path / "part", quiet=True, checkpoint=CheckpointPolicy(0))
    resumed = resume(tmp_path / "part", data, quiet=True)
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor)
    assert [row.eval_average_precision for row in resumed.history] == [
        row.eval_average_precision for row in run.history
    ]
    assert resumed.classifier.thresholds == run.classifier.thresholds
    assert run.predictions is not None
    assert resumed.predictions is not None
    assert torch.equal(resumed.predictions.logits, run.predictions.logits)


def test_uses_of_a_run(
    run: Run, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.directory is not None
    assert isinstance(run.predictions, MultiLabelPredictions)
    directory = str(run.directory)
    write_images(data.test, tmp_path)
    chosen = run.predictions.predicted
    paths = [str(tmp_path / name) for name in data.test.names]
    for row, own in zip(predict(run, paths), chosen, strict=True):
        assert row.labels == tuple(np.array(CLASSES)[own.numpy()])
    assert torch.equal(evaluate_multi_label(run).predicted, chosen)
    assert len(evaluate_multi_label(run, split="validation").labels) == 40
    assert main(["evaluate", directory, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["exact_match"] == run.predictions.exact_match
    assert main(["predict", directory, paths[0], "--format", "csv"]) == 0
    listed = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert {row["class"] for row in listed if row["predicted"] == "true"} == {
        name for name, own in zip(CLASSES, chosen[0], strict=True) if own
    }
    assert report(run, quiet=True) == run.directory / "report.html"
    assert "Mean average precision" in (run.directory / "report.html").read_text(encoding="utf-8")
    assert json.loads((run.directory / "report.json").read_text(encoding="utf-8"))["exact_match"]
    for use in (evaluate, run_temperature):
        with pytest.raises(SeewhyError, match="does not choose one class for each image"):
            use(run)
    for options in ({"split": "train"}, {"map_train": True}):
        with pytest.raises(SeewhyError, match="metadata, markdown and map_train are for models"):
            report(run, **options)


@pytest.mark.slow
def test_exported_file_has_labels_and_thresholds(data: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    classifier = Classifier(
        model,
        CLASSES,
        (1, 8, 8),
        activation="sigmoid",
        thresholds=THRESHOLDS,
        returns="logits",
    )
    path = tmp_path / "model.onnx"
    check = export(classifier, path, data=data, probabilities=True, quiet=True)
    assert check.same_class == check.images == 40
    opened, original = (
        evaluate_multi_label(each, data) for each in (onnx_classifier(path), classifier)
    )
    assert opened.thresholds == original.thresholds == THRESHOLDS
    torch.testing.assert_close(opened.probabilities, original.probabilities, rtol=0, atol=1e-5)


def test_logits_in_the_unit_interval_are_no_probabilities(run: Run) -> None:
    class Half(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((1, 2, 3))[:, None].expand(-1, 3)

    logits = compute_logits(
        replace(run.classifier, model=Half()), torch.full((1, 1, 8, 8), 51).byte()
    )
    torch.testing.assert_close(logits, torch.full((1, 3), 0.2))


def test_folds_predict_every_image(data: Dataset) -> None:
    folds = replace(
        data,
        test=data.train,
        validation=None,
        folds=torch.arange(120) % 2,
        fingerprint="",
        load_args={},
    )
    run = fit(replace(RECIPE, epochs=1), folds, quiet=True)
    assert run.result is not None
    assert (run.result.folds, run.result.test_images) == (2, 120)
    assert run.result.thresholds == ()


def test_probe_is_a_logistic_regression_for_each_label() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(80, 5))
    labels = features @ generator.normal(size=(5, 2)) + generator.normal(size=(80, 2)) > 0.3
    mean, scale = features.mean(0), np.sqrt(features.var(0).mean())
    fit = fit_one_vs_rest(features[None], labels, 2, np.array([2.0, 1.0]), c=0.1)
    for label in range(2):
        # two classes have two weight vectors, w/2 and -w/2, so that half the penalty is on w
        oracle = LogisticRegression(C=0.2, class_weight={0: 1, 1: [2.0, 1.0][label]}, tol=1e-10)
        oracle.fit((features - mean) / scale, labels[:, label])
        weight = oracle.coef_[0] / scale
        np.testing.assert_allclose(fit.weight[label], weight, rtol=1e-3, atol=1e-5)
        bias = oracle.intercept_[0] - weight @ mean
        np.testing.assert_allclose(fit.bias[label], bias, rtol=1e-3, atol=1e-4)


def test_probe_sets_the_head(data: Dataset) -> None:
    recipe = replace(RECIPE, probe="logistic:c=0.1", epochs=0, augment=(), label_smoothing=0.0)
    run = fit(recipe, data, quiet=True)
    assert run.probe is not None
    assert run.probe.validation is None
    assert len(run.classifier.thresholds) == 3
    assert run.history[0].eval_average_precision is not None
