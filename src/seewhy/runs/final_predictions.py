"""The predictions of a run at its end: those of the test split, and thresholds for them."""

from dataclasses import replace
from functools import partial

from torch import Tensor

from seewhy.data.dataset import Split
from seewhy.diagnosis.multi_label import choose_thresholds
from seewhy.diagnosis.predictions import AnyPredictions, MultiLabelPredictions, Predictions
from seewhy.models.classifier import Classifier
from seewhy.models.inference import compute_logits
from seewhy.models.tta import bind_tta
from seewhy.train.plan import TrainingPlan
from seewhy.train.probe import ProbeStats, head_logits


def predict_test(
    classifier: Classifier, plan: TrainingPlan, probe: ProbeStats | None
) -> AnyPredictions:
    """Predict the test split; after a probe alone, from the features in the cache."""
    return _predictions(classifier, plan, probe, plan.data.test)


def with_thresholds(
    classifier: Classifier, plan: TrainingPlan, probe: ProbeStats | None
) -> Classifier:
    """The classifier with the thresholds of the highest F1 on the validation split.

    As it is without a validation split, and if an image has one class.
    """
    validation = plan.data.validation
    if validation is None or not plan.data.multi_label:
        return classifier
    predictions = _predictions(classifier, plan, probe, validation)
    assert isinstance(predictions, MultiLabelPredictions)
    return replace(classifier, thresholds=choose_thresholds(predictions))


def fraction_correct(predictions: AnyPredictions) -> float:
    """Accuracy; for any number of labels, the fraction of images that have all of them right."""
    if isinstance(predictions, MultiLabelPredictions):
        return predictions.exact_match
    return predictions.accuracy


def _predictions(
    classifier: Classifier, plan: TrainingPlan, probe: ProbeStats | None, split: Split
) -> AnyPredictions:
    logits = _logits(classifier, plan, probe, split)
    if plan.data.multi_label:
        return MultiLabelPredictions(
            logits, split.labels, classifier.classes, thresholds=classifier.thresholds
        )
    return Predictions(logits, split.labels, classifier.classes)


def _logits(
    classifier: Classifier, plan: TrainingPlan, probe: ProbeStats | None, split: Split
) -> Tensor:
    if probe is None or plan.steps > 0 or plan.world.size > 1:
        return compute_logits(classifier, split.images, reproducible=True)
    return bind_tta(classifier.tta)(
        partial(head_logits, classifier.model, plan, probe), split.images
    )
