"""Metrics of a finished run."""

from collections.abc import Sequence
from dataclasses import dataclass

from seewhy.diagnosis.calibration import measure_calibration
from seewhy.diagnosis.metrics import UnevenScores, uneven_scores
from seewhy.diagnosis.predictions import Predictions
from seewhy.train.loop import EpochStats
from seewhy.train.optimizers import optimizer_state_bytes
from seewhy.train.plan import TrainingPlan
from seewhy.train.state import TrainState


@dataclass(frozen=True)
class RunResult:
    """Metrics of a finished run; summary.json has the same names."""

    accuracy: float  # of the test split, in [0, 1], with the recipe's test-time augmentation
    plain_accuracy: float  # without test-time augmentation
    interval: tuple[float, float]  # 95% confidence interval of the accuracy
    test_images: int
    test_nll: float  # mean negative log-likelihood in nats
    calibration_error: float  # expected calibration error of the test split, in [0, 1]
    selected_on: str  # "validation", or "last epoch" without a validation split
    selected_epoch: float
    epochs: float  # passes over the training images
    steps: int  # batches
    train_seconds: float  # without evaluation
    images_per_second: float  # training images, with those of a probe
    parameters: int
    optimizer_bytes: int  # size of the optimizer state (such as momentum)
    balanced_accuracy: float | None = None  # mean recall; None unless the test classes are uneven
    macro_f1: float | None = None  # likewise
    test_used_by: str = ""  # setting that read the test loss during training; empty for none
    folds: int = 0  # of a cross-validation, whose held-out predictions are measured; 0 for none


def make_result(
    predictions: Predictions,
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
    uneven = uneven_scores(predictions)
    probed = 0 if state.probe is None else state.probe.images * state.probe.views
    return RunResult(
        accuracy=predictions.accuracy,
        plain_accuracy=plain_accuracy,
        interval=predictions.interval,
        test_images=len(predictions.labels),
        test_nll=predictions.losses.mean().item(),
        calibration_error=measure_calibration(predictions).ece,
        selected_on="last epoch" if plan.data.validation is None else "validation",
        selected_epoch=(selected or last).epoch,
        epochs=last.epoch,
        steps=last.step,
        train_seconds=last.seconds,
        images_per_second=(probed + plan.images_before(last.step)) / last.seconds,
        parameters=sum(parameter.numel() for parameter in state.model.parameters()),
        optimizer_bytes=optimizer_state_bytes(state.optimizers),
        balanced_accuracy=None if uneven is None else uneven.balanced_accuracy,
        macro_f1=None if uneven is None else uneven.macro_f1,
        test_used_by=plan.test_used_by,
        folds=plan.data.num_folds,
    )


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
