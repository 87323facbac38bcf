import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from sklearn.metrics import log_loss

from seewhy.data.dataset import Dataset
from seewhy.diagnosis.predictions import (
    Predictions,
    accuracies,
    confusion_matrix,
    predict_split,
)
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.features import predict_with_features
from seewhy.models.registry import build_model


@pytest.fixture
def predictions() -> Predictions:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 4, generator=generator)
    labels = torch.randint(0, 3, (200,), generator=generator)  # no image of the last class
    return Predictions(logits, labels, ("a", "b", "c", "d"))


def test_confusion_matrix_equals_scikit_learn(predictions: Predictions) -> None:
    theirs = sklearn_metrics.confusion_matrix(
        predictions.labels.numpy(), predictions.logits.numpy().argmax(1), labels=range(4)
    )
    assert np.array_equal(confusion_matrix(predictions).numpy(), theirs)


def test_accuracies_add_up(predictions: Predictions) -> None:
    counts = confusion_matrix(predictions)
    assert predictions.accuracy == pytest.approx(counts.diagonal().sum().item() / 200)
    assert [row.name for row in predictions.by_class] == ["a", "b", "c"]
    for index, row in enumerate(predictions.by_class):
        assert row.images == counts[index].sum()
        assert row.accuracy == pytest.approx((counts[index, index] / counts[index].sum()).item())
        assert row.interval[0] < row.accuracy < row.interval[1]
    assert accuracies(predictions)["images"] == 200


def test_confidence_and_losses(predictions: Predictions) -> None:
    exponentials = np.exp(predictions.logits.double().numpy())
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    np.testing.assert_allclose(predictions.confidence, probabilities.max(1), rtol=1e-5)
    assert predictions.losses.mean().item() == pytest.approx(
        log_loss(predictions.labels, probabilities, labels=range(4)), rel=1e-5
    )


def test_predict_split_runs_in_evaluation_mode(data: Dataset) -> None:
    model = build_model("speednet:width=0.125", 3, data.train).train()
    found = predict_split(Classifier(model, data.classes), data.test)
    assert model.training
    with torch.no_grad():
        expected = model.eval()(data.test.images.float() / 255)
    torch.testing.assert_close(found.logits, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.labels, data.test.labels)
    assert found.classes == data.classes
    assert predict_split(model, data.test).classes == ("0", "1", "2")
    with pytest.raises(SeewhyError, match="the model has 3 classes"):
        predict_split(Classifier(model, ("a", "b")), data.test)


def test_a_model_that_returns_probabilities_keeps_its_confidences(data: Dataset) -> None:
    model = build_model("speednet:width=0.125", 3, data.train).eval()
    softmax = torch.nn.Sequential(model, torch.nn.Softmax(1)).eval()
    expected, found = predict_split(model, data.test), predict_split(softmax, data.test)
    torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-3, atol=1e-4)
    logits, _ = predict_with_features(softmax, data.test.images)
    torch.testing.assert_close(logits, found.logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[0.0, torch.nan], [1.0, 0.0]], [0, 1], "the logits of 1 of 2 images are not finite"),
        ([[torch.inf, 0.0], [-torch.inf, 0.0]], [0, 1], "the logits of 2 of 2 images are not"),
        ([[0.0] * 1000] * 2, [0, 1], r"2 labels and 2 classes need logits \(2, 2\), found \(2, 10"),
        ([[0.0, 1.0]], [2], "labels must be from 0 to 1, because there are 2 classes, found 2"),
        ([[0.0, 1.0]], [0.5], r"labels must be a tensor \(1,\) int64"),
        ([], [], "there are no predictions to measure"),
    ],
)
def test_predictions_that_cannot_be_measured_are_refused(
    logits: list[list[float]], labels: list[int], message: str
) -> None:
    with pytest.raises(SeewhyError, match=message):
        Predictions(torch.tensor(logits), torch.tensor(labels), ("a", "b"))
