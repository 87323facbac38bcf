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
from seewhy.models.registry import build_model


@pytest.fixture
def result() -> Predictions:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 4, generator=generator)
    labels = torch.randint(0, 3, (200,), generator=generator)  # no image of the last class
    return Predictions(logits, labels, ("a", "b", "c", "d"))


def test_confusion_is_the_one_of_scikit_learn(result: Predictions) -> None:
    theirs = sklearn_metrics.confusion_matrix(
        result.labels.numpy(), result.logits.numpy().argmax(1), labels=range(4)
    )
    assert np.array_equal(confusion_matrix(result).numpy(), theirs)


def test_accuracies_add_up(result: Predictions) -> None:
    counts = confusion_matrix(result)
    assert result.accuracy == pytest.approx(counts.diagonal().sum().item() / 200)
    assert [row.name for row in result.by_class] == ["a", "b", "c"]
    for index, row in enumerate(result.by_class):
        assert row.images == counts[index].sum()
        assert row.accuracy == pytest.approx((counts[index, index] / counts[index].sum()).item())
        assert row.interval[0] < row.accuracy < row.interval[1]
    assert accuracies(result)["images"] == 200


def test_confidence_and_losses(result: Predictions) -> None:
    exponentials = np.exp(result.logits.double().numpy())
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    np.testing.assert_allclose(result.confidence, probabilities.max(1), rtol=1e-5)
    assert result.losses.mean().item() == pytest.approx(
        log_loss(result.labels, probabilities, labels=range(4)), rel=1e-5
    )


def test_predictions_run_the_model_as_it_is_used_and_leave_its_mode(data: Dataset) -> None:
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
