"""Calibrated predictions of a run: its temperature, and what it was fitted on."""

from dataclasses import dataclass, replace

from seewhy.data.dataset import Dataset
from seewhy.data.memory import check_dataset
from seewhy.data.sources import reload_data
from seewhy.diagnosis.calibration import cross_fitted, fit_temperature
from seewhy.diagnosis.diagnosis import Diagnosis
from seewhy.diagnosis.predictions import Predictions, class_predictions, predict_split
from seewhy.errors import SeewhyError
from seewhy.models.classifier import (
    Classifier,
    ClassifierLike,
    as_classifier,
    check_one_class,
)
from seewhy.models.onnx_file import FileModel
from seewhy.progress import note
from seewhy.runs.directory import DIAGNOSIS
from seewhy.runs.run import Run
from seewhy.serialization import from_plain, load

VALIDATION, TEST, HELD_OUT = "validation", "test", "held-out"  # images, see FittedTemperature


@dataclass(frozen=True)
class FittedTemperature:
    """The temperature of a classifier, and the images it was fitted on."""

    temperature: float  # divides the logits
    fitted_on: str  # "validation", "test", or "held-out": by the folds; "" if unknown
    images: int  # that it was fitted on; 0 if unknown

    def __str__(self) -> str:
        text = f"temperature {self.temperature:.3f}"
        return f"{text}, fitted on {self.images:,} {self.fitted_on} images" if self.images else text


def run_temperature(classifier: ClassifierLike) -> FittedTemperature:
    """Fit the temperature of a run (Guo et al. 2017, section 4.2).

    It is fitted on predictions of the validation split if the run has one: those of its diagnosis,
    or new ones, for which the data are loaded. Without a validation split, or if the data cannot be
    loaded, it is fitted on the saved predictions of the test split, or of a cross-validation on
    those of the images that each fold held out.

    Args:
        classifier: A run; or a classifier that is calibrated already, such as that of a file from
            `export(…, calibrated=True)`.

    Raises:
        SeewhyError: If the run has not finished, and for another classifier, of which there are no
            predictions to fit a temperature on.
    """
    known = _known_temperature(as_classifier(classifier))
    if known is not None:
        return known
    if not isinstance(classifier, Run):
        raise SeewhyError(
            "calibrated predictions need a run, or a file exported with calibration: the model has "
            "no predictions of labeled images to fit a temperature on; pass the directory of a run"
        )
    check_one_class(classifier.classifier)
    validation = _validation_predictions(classifier)
    if validation is not None:
        return _fit(validation, VALIDATION)
    predictions = class_predictions(classifier.predictions)
    if predictions is None:
        name = classifier.directory or "the run"
        raise SeewhyError(
            f"{name} has no test predictions to fit a temperature on; if it was interrupted, "
            "finish it with `seewhy resume` first"
        )
    folds = classifier.result is not None and classifier.result.folds
    return _fit(predictions, HELD_OUT if folds else TEST)


def calibrate(classifier: ClassifierLike, fitted: FittedTemperature | None = None) -> Classifier:
    """The classifier of a run with its temperature, which all of its predictions then use.

    Args:
        classifier: As for `run_temperature`.
        fitted: Its temperature; by default that of `run_temperature`.

    Raises:
        SeewhyError: As from `run_temperature`.
    """
    fitted = run_temperature(classifier) if fitted is None else fitted
    classifier = as_classifier(classifier)
    if _known_temperature(classifier) is None:
        classifier = replace(classifier, temperature=fitted.temperature)
    return classifier


def calibrate_predictions(
    predictions: Predictions,
    fitted: FittedTemperature,
    classifier: ClassifierLike,
    data: Dataset,
    split: str,
) -> tuple[Predictions, str]:
    """Scale a classifier's predictions of a split by its temperature, and describe how.

    A temperature that was fitted on the same test images is cross-fitted.
    """
    if _known_temperature(as_classifier(classifier)) is not None:
        return predictions, str(fitted)  # scaled already
    if split == fitted.fitted_on == TEST and _is_data_of(classifier, data):
        how = (
            f"temperature {fitted.temperature:.3f}, cross-fitted: each half of the test images is "
        )
        return cross_fitted(predictions), f"{how}scaled with the temperature of the other half"
    logits = predictions.logits.double() / fitted.temperature
    return replace(predictions, logits=logits), str(fitted)


def _known_temperature(classifier: Classifier) -> FittedTemperature | None:
    """The temperature that a classifier applies already; None if it is not calibrated."""
    model = classifier.model
    if isinstance(model, FileModel) and model.calibration is not None:
        try:
            return from_plain(FittedTemperature, model.calibration)
        except ValueError as error:
            raise SeewhyError(
                f"the file has no valid temperature ({error}); export it again"
            ) from None
    if classifier.temperature != 1:
        return FittedTemperature(classifier.temperature, "", 0)
    return None


def _is_data_of(classifier: ClassifierLike, data: Dataset) -> bool:
    """Whether a classifier is a run that was trained on these data."""
    if not isinstance(classifier, Run):
        return False
    return check_dataset(data).fingerprint == classifier.data_origin.fingerprint


def _fit(predictions: Predictions, fitted_on: str) -> FittedTemperature:
    temperature = fit_temperature(predictions.logits, predictions.labels)
    return FittedTemperature(temperature, fitted_on, len(predictions.labels))


def _validation_predictions(run: Run) -> Predictions | None:
    """Predictions of the validation split; None without one, or if it cannot be predicted."""
    if not run.data_origin.images.get(VALIDATION):
        return None
    if run.directory is not None and (run.directory / DIAGNOSIS).exists():
        try:
            saved = load(Diagnosis, run.directory / DIAGNOSIS).validation
        except SeewhyError:  # of another version: predicted anew
            saved = None
        if saved is not None:
            return saved
    try:
        data = reload_data(run.data_origin)
    except SeewhyError as error:
        note(f"{error}; the temperature is fitted on the test images instead")
        return None
    return None if data.validation is None else predict_split(run, data.validation)
