"""The temperature of a run, what it is fitted on, and the predictions that use it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.data.dataset import Dataset
from seewhy.data.memory import check_dataset
from seewhy.data.sources import SOURCES
from seewhy.diagnosis.calibration import temperature_scaling
from seewhy.diagnosis.predictions import Predictions, predict_split
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.inference import compute_logits
from seewhy.models.onnx_file import FileModel
from seewhy.runs.calibration import FittedTemperature, calibrate, run_temperature
from seewhy.runs.prediction import evaluate, predict
from seewhy.runs.prediction_files import predictions_csv, predictions_jsonl
from seewhy.runs.prediction_stream import top_predictions
from seewhy.runs.run import Run

pytestmark = pytest.mark.train


def best_temperature(predictions: Predictions) -> float:
    """The best of many temperatures, 0.1% apart."""
    temperatures = torch.logspace(-2, 2, 9211, dtype=torch.float64)
    logits = predictions.logits.double()
    losses = torch.stack([F.cross_entropy(logits / t, predictions.labels) for t in temperatures])
    return float(temperatures[losses.argmin()])


@pytest.fixture
def validated(
    weak_run: Run, loadable: Dataset, monkeypatch: pytest.MonkeyPatch
) -> tuple[Run, Dataset]:
    """The run as if its data had a validation split, and these data, which can be loaded."""
    data = replace(loadable, validation=loadable.train.take(torch.arange(50)), fingerprint="a" * 32)
    monkeypatch.setitem(SOURCES, "bars", lambda: data)
    return replace(weak_run, directory=None, data_origin=data.origin), data


def test_run_temperature_is_fitted_on_the_test_predictions(weak_run: Run) -> None:
    assert weak_run.predictions is not None
    fitted = run_temperature(weak_run)
    assert fitted.temperature == pytest.approx(best_temperature(weak_run.predictions), rel=2e-3)
    assert (fitted.fitted_on, fitted.images) == ("test", 60)
    assert str(fitted) == f"temperature {fitted.temperature:.3f}, fitted on 60 test images"


def test_run_temperature_is_fitted_on_the_validation_split(
    validated: tuple[Run, Dataset],
) -> None:
    run, data = validated
    fitted = run_temperature(run)
    assert data.validation is not None
    expected = best_temperature(predict_split(run, data.validation))
    assert fitted.temperature == pytest.approx(expected, rel=2e-3)
    assert (fitted.fitted_on, fitted.images) == ("validation", 50)


def test_run_temperature_uses_the_validation_predictions_of_the_diagnosis(
    validated: tuple[Run, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data are not loaded then; a diagnosis of another version is left alone."""
    run = replace(validated[0], directory=tmp_path)
    (tmp_path / "diagnosis.npz").write_bytes(b"of another version")
    expected = run_temperature(run)
    saved = predict_split(run, validated[1].validation or validated[1].test)
    monkeypatch.setattr("seewhy.runs.calibration.load", lambda kind, path: SimpleDiagnosis(saved))
    monkeypatch.setattr("seewhy.runs.calibration.reload_data", lambda origin: pytest.fail("loaded"))
    assert run_temperature(run).temperature == pytest.approx(expected.temperature)


class SimpleDiagnosis:
    """As much of a diagnosis as is read."""

    def __init__(self, validation: Predictions) -> None:
        self.validation = validation


@pytest.mark.usefixtures("changed_source")
def test_run_temperature_without_validation_images_says_so(
    weak_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = replace(weak_run.data_origin, images={"validation": 50})
    run = replace(weak_run, directory=None, data_origin=origin)
    assert run_temperature(run).fitted_on == "test"
    assert "is fitted on the test images instead" in capsys.readouterr().err


def test_run_temperature_of_a_cross_validation_is_fitted_on_held_out_images(weak_run: Run) -> None:
    assert weak_run.result is not None
    pooled = replace(weak_run, result=replace(weak_run.result, folds=3))
    assert str(run_temperature(pooled)).endswith("fitted on 60 held-out images")


def test_run_temperature_needs_predictions(weak_run: Run) -> None:
    with pytest.raises(SeewhyError, match=r"has no test predictions .* finish it with `seewhy"):
        run_temperature(replace(weak_run, predictions=None))
    for classifier in (weak_run.model, weak_run.classifier):
        with pytest.raises(SeewhyError, match=r"^calibrated predictions need a run, or a file"):
            run_temperature(classifier)
    broken = FileModel(lambda pixels: pixels, calibration={"temperature": "hot"})
    with pytest.raises(SeewhyError, match=r"no valid temperature .*; export it again"):
        run_temperature(broken)


def test_calibrate_divides_the_logits(weak_run: Run, data: Dataset) -> None:
    classifier, fitted = calibrate(weak_run), run_temperature(weak_run)
    assert classifier.temperature == fitted.temperature
    raw, scaled = (compute_logits(each, data.test.images) for each in (weak_run, classifier))
    torch.testing.assert_close(scaled, raw / fitted.temperature)
    assert f"temperature {fitted.temperature:.3g}" in repr(classifier)
    again = calibrate(classifier)
    assert again.temperature == classifier.temperature  # not twice


def test_temperature_leaves_out_no_view_of_test_time_augmentation(
    weak_run: Run, data: Dataset
) -> None:
    """Which images are augmented depends on the confidence of the model itself."""
    plain = replace(weak_run.classifier, tta="flip:confidence_below=0.6")
    confidence = compute_logits(replace(plain, tta="none"), data.test.images).softmax(1).amax(1)
    assert 0 < (confidence < 0.6).sum() < len(confidence)
    expected = compute_logits(plain, data.test.images) / 0.3
    found = compute_logits(replace(plain, temperature=0.3), data.test.images)
    torch.testing.assert_close(found, expected)


def test_evaluate_cross_fits_on_the_test_images_of_the_run(
    weak_run: Run, loadable: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert weak_run.predictions is not None
    unchecked = replace(loadable, fingerprint="")  # as made by hand
    run = replace(weak_run, data_origin=check_dataset(unchecked).origin)
    predictions = evaluate(run, unchecked, calibrated=True)
    expected = temperature_scaling(weak_run.predictions).after
    found = temperature_scaling(predictions).before
    assert found.nll == pytest.approx(expected.nll, rel=1e-4)
    assert predictions.accuracy == weak_run.predictions.accuracy
    assert "cross-fitted: each half of the test images" in capsys.readouterr().err


def test_evaluate_of_other_images_uses_the_temperature_of_the_run(
    weak_run: Run, loadable: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, fitted = evaluate(weak_run, loadable, "train"), run_temperature(weak_run)
    found = evaluate(weak_run, loadable, "train", calibrated=True)
    torch.testing.assert_close(found.logits, raw.logits.double() / fitted.temperature)
    assert f"calibrated: {fitted}" in capsys.readouterr().err
    scaled = evaluate(calibrate(weak_run), loadable, "train", calibrated=True)
    torch.testing.assert_close(scaled.logits.double(), found.logits, rtol=1e-4, atol=1e-5)


def test_evaluate_with_a_temperature_of_validation_images_scales_the_test_images(
    validated: tuple[Run, Dataset],
) -> None:
    run, data = validated
    found, raw = evaluate(run, data, calibrated=True), evaluate(run, data)
    temperature = run_temperature(run).temperature
    torch.testing.assert_close(found.logits, raw.logits.double() / temperature)


def test_evaluate_without_a_temperature_fails_before_it_predicts(
    weak_run: Run, loadable: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seewhy.runs.prediction.predict_split", lambda *_: pytest.fail("too late"))
    with pytest.raises(SeewhyError, match=r"^calibrated predictions need a run"):
        evaluate(weak_run.classifier, loadable, calibrated=True)


def logits_of(confidences: list[float]) -> Tensor:
    p = torch.tensor(confidences)
    return torch.stack([p, 1 - p], 1).log()


def test_predictions_below_the_threshold_are_abstained_from() -> None:
    logits = torch.cat([logits_of([0.9, 0.8, 0.75]), torch.full((1, 2), torch.nan)])
    found = top_predictions(logits, ("a", "b"), list("wxyz"), 1, abstain_below=0.8)
    assert [each.abstained for each in found] == [False, False, True, True]
    assert [len(each.top) for each in found] == [1, 1, 1, 0]  # what it would have been is kept
    assert predictions_csv(found, header=True).splitlines() == [
        "image,rank,class,probability,abstained",
        "w,1,a,0.900000,false",
        "x,1,a,0.800000,false",
        "y,1,a,0.750000,true",
    ]
    rows = [json.loads(line) for line in predictions_jsonl(found, header=False).splitlines()]
    assert [row["abstained"] for row in rows] == [False, False, True, True]


def test_predictions_without_a_threshold_have_no_column_for_it() -> None:
    found = top_predictions(logits_of([0.9]), ("a", "b"), ["x"], 1)
    assert predictions_csv(found, header=True).startswith("image,rank,class,probability\n")
    assert set(json.loads(predictions_jsonl(found, header=False))) == {"image", "top"}


@pytest.mark.parametrize("threshold", [0, 1, 80, float("nan")], ids=str)
def test_predict_rejects_a_threshold_that_is_no_confidence(weak_run: Run, threshold: float) -> None:
    with pytest.raises(SeewhyError, match=r"abstain_below must be above 0 and below 1, found"):
        predict(weak_run, ["missing.png"], abstain_below=threshold)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")], ids=str)
def test_classifier_rejects_a_temperature_that_is_not_positive(temperature: float) -> None:
    with pytest.raises(SeewhyError, match=f"temperature must be above 0, found {temperature}"):
        Classifier(torch.nn.Linear(2, 2), temperature=temperature)


def test_fitted_temperature_of_unknown_origin() -> None:
    assert str(FittedTemperature(1.5, "", 0)) == "temperature 1.500"
