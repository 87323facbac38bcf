"""Metrics of a finished run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F

from seewhy.diagnosis.calibration import measure_calibration
from seewhy.diagnosis.metrics import UnevenScores, uneven_scores
from seewhy.diagnosis.multi_label import multi_label_scores
from seewhy.diagnosis.predictions import AnyPredictions, MultiLabelPredictions, Predictions
from seewhy.train.loop import EpochStats
from seewhy.train.optimizers import optimizer_state_bytes
from seewhy.train.plan import TrainingPlan
from seewhy.train.state import TrainState


@dataclass(frozen=True)
class RunResult:
    """Metrics of a finished run; summary.json has the same names."""

    accuracy: float  # of the test split, in [0, 1], with the recipe's test-time augmentation; for
    # any number of labels, the fraction of images that have all of them right (subset accuracy)
    plain_accuracy: float  # without test-time augmentation
    interval: tuple[float, float]  # 95% confidence interval of the accuracy
    test_images: int
    test_nll: float  # mean negative log-likelihood in nats, of one class or of each label
    calibration_error: float  # expected calibration error of the test split, in [0, 1]; of any
    # number of labels, that of all labels of all images
    selected_on: str  # "validation", or "last epoch" without a validation split
    selected_epoch: float
    epochs: float  # passes over the training images
    steps: int  # batches
    train_seconds: float  # without evaluation
    images_per_second: float  # training images, with those of a probe
    parameters: int
    optimizer_bytes: int  # size of the optimizer state (such as momentum)
    balanced_accuracy: float | None = None  # mean recall; None unless the test classes are uneven
    macro_f1: float | None = None  # likewise, and of any number of labels
    test_used_by: str = ""  # setting that read the test loss during training; empty for none
    average_precision: float | None = None  # mean over the labels (macro), of any number of them
    thresholds: tuple[float, ...] = ()  # of each label, chosen on the validation split
    folds: int = 0  # of a cross-validation, whose held-out predictions are measured; 0 for none


def make_result(
    predictions: AnyPredictions,
    plain_accuracy: float,
    history: Sequence[EpochStats],
    selected: EpochStats | None,
    state: TrainState,
    plan: TrainingPlan,
) -> RunResult:
    """The result of a finished run.

    `plain_accuracy` is that without test-time augmentation, `selected` is the best epoch on a
    validation split.
    """
    last = history[-1]
    probed = 0 if state.probe is None else state.probe.images * state.probe.views
    return RunResult(
        **_measured(predictions),
        plain_accuracy=plain_accuracy,
        test_images=len(predictions.labels),
        test_nll=predictions.losses.mean().item(),
        selected_on="last epoch" if plan.data.validation is None else "validation",
        selected_epoch=(selected or last).epoch,
        epochs=last.epoch,
        steps=last.step,
        train_seconds=last.seconds,
        images_per_second=(probed + plan.images_before(last.step)) / last.seconds,
        parameters=sum(parameter.numel() for parameter in state.model.parameters()),
        optimizer_bytes=optimizer_state_bytes(state.optimizers),
        test_used_by=plan.test_used_by,
        folds=plan.data.num_folds,
    )


def _measured(predictions: AnyPredictions) -> dict[str, Any]:
    """The metrics of RunResult that are measured otherwise for any number of labels."""
    if isinstance(predictions, MultiLabelPredictions):
        scores = multi_label_scores(predictions)
        each_label = Predictions(  # as two classes: no and yes
            F.pad(predictions.logits.flatten()[:, None], (1, 0)),  # a logit of 0 for no
            predictions.labels.long().flatten(),
            ("no", "yes"),
        )
        return {
            "accuracy": scores.exact_match,
            "interval": scores.exact_match_interval,
            "calibration_error": measure_calibration(each_label).ece,
            "macro_f1": None if math.isnan(scores.macro_f1) else scores.macro_f1,
            "average_precision": (
                None if math.isnan(scores.mean_average_precision) else scores.mean_average_precision
            ),
            "thresholds": predictions.thresholds,
        }
    uneven = uneven_scores(predictions)
    return {
        "accuracy": predictions.accuracy,
        "interval": predictions.interval,
        "calibration_error": measure_calibration(predictions).ece,
        "balanced_accuracy": None if uneven is None else uneven.balanced_accuracy,
        "macro_f1": None if uneven is None else uneven.macro_f1,
    }


def describe_labels(result: RunResult) -> str:
    """Average precision and F1 over the labels in words; empty for one class per image."""
    if result.average_precision is None:
        return ""
    text = f"mean average precision {100 * result.average_precision:.2f}%"
    if result.macro_f1 is not None:
        text += f", macro F1 {100 * result.macro_f1:.2f}%"
    chosen = "chosen on the validation images" if result.thresholds else "of 0.5"
    return f"{text}, at thresholds {chosen}"


def describe_uneven(scores: RunResult | UnevenScores | None) -> str:
    """Balanced accuracy and macro F1 in words; empty if the classes are not uneven."""
    if scores is None or scores.balanced_accuracy is None or scores.macro_f1 is None:
        return ""
    balanced, f1 = 100 * scores.balanced_accuracy, 100 * scores.macro_f1
    return f"balanced accuracy {balanced:.2f}%, macro F1 {f1:.2f}%"


def accuracy_name(result: RunResult) -> str:
    """`Test accuracy`, or the accuracy of a cross-validation."""
    return "Cross-validated accuracy" if result.folds else "Test accuracy"


def describe_folds(result: RunResult) -> str:
    """What the accuracy of a cross-validation is of, and what the model is; empty for others."""
    if not result.folds:
        return ""
    return (
        f"{result.folds}-fold cross-validation: each image was predicted by a model that was not "
        f"trained on its fold. The model of this run was then trained on all {result.test_images:,}"
        " images."
    )


def describe_test_use(test_used_by: str) -> str:
    """A sentence for a run whose `test_used_by` is not empty."""
    return (
        f"The test set was used in training: {test_used_by} watched the test loss, "
        "so the accuracy may be too high."
    )
