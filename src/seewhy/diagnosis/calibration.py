"""Whether confidence can be believed: calibration, temperature scaling, and answering only where the model is sure."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.diagnosis.predictions import Predictions, check_predictions
from seewhy.errors import SeewhyError

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0  # temperatures
MAX_POINTS = 200  # of a coverage curve


@dataclass(frozen=True, eq=False)
class Calibration:
    """Confidence and accuracy in B bins of equal width, and how far they are apart."""

    edges: Tensor  # (B + 1,) float64 from 0 to 1; a bin holds its upper edge
    images: Tensor  # (B,) int64
    confidence: Tensor  # (B,) float64 in [0, 1], mean; nan where the bin is empty
    accuracy: Tensor  # (B,) float64 in [0, 1]; nan where the bin is empty
    ece: float  # expected calibration error in [0, 1]
    mce: float  # maximum calibration error in [0, 1]
    brier: float  # in [0, 2]
    nll: float  # cross entropy in nats


@dataclass(frozen=True, eq=False)
class TemperatureScaling:
    """What dividing the logits by one number does to the calibration of images that the number was not fitted on."""

    temperature: float  # fitted on all images that may be fitted on: what to use from now on
    fitted_on: (
        str  # "validation": fitted on other images; "cross-fitted": on one half for the other
    )
    before: Calibration
    after: Calibration


@dataclass(frozen=True, eq=False)
class RiskCoverageCurve:
    """Accuracy where only images of at least a confidence are answered, by how many these are."""

    coverage: Tensor  # (M,) float64 in (0, 1], share that is answered, rising; the last is 1
    accuracy: Tensor  # (M,) float64 in [0, 1], of those answered
    confidence: Tensor  # (M,) float64 in [0, 1], of the least confident image that is answered
    aurc: float  # area under the curve of risk (1 - accuracy) by coverage, in [0, 1]


def measure_calibration(predictions: Predictions, bins: int = 15) -> Calibration:
    """Expected and maximum calibration error (Guo et al. 2017, eqs. 3 and 5; Naeini et al. 2015), Brier score and cross entropy.

    The Brier score is the mean over images of the squared distance between probabilities and truth, summed over classes (Brier
    1950, eq. 2). Raises SeewhyError for fewer than 1 bin, no images, and logits that are not finite.
    """
    check_predictions(predictions)
    if bins < 1:
        raise SeewhyError(f"bins must be at least 1, found {bins}")
    log_probabilities = predictions.logits.double().log_softmax(1)
    probabilities = log_probabilities.exp()
    own = log_probabilities.gather(1, predictions.labels[:, None])[:, 0]
    edges = torch.arange(bins + 1, dtype=torch.float64) / bins
    confidence = probabilities.amax(1).cpu()
    places = torch.bucketize(
        confidence, edges[1:-1]
    )  # the last bin has no upper end, so that rounding cannot leave it
    images = torch.bincount(places, minlength=bins)
    mean_confidence = (
        torch.bincount(places, confidence, minlength=bins) / images
    )  # nan, 0 / 0, where the bin is empty
    accuracy = torch.bincount(places, predictions.correct.cpu().double(), minlength=bins) / images
    gaps = (accuracy - mean_confidence).abs().nan_to_num()
    ece = float((gaps * images).sum() / len(places))
    brier = (probabilities.square().sum(1) - 2 * own.exp() + 1).clamp(min=0)
    return Calibration(
        edges,
        images,
        mean_confidence,
        accuracy,
        ece=ece,
        mce=float(gaps.max()),
        brier=float(brier.mean()),
        nll=float(-own.mean()),
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:  # (N, K) float, (N,) int64
    """The temperature in [0.01, 100] by which to divide `logits` for the least cross entropy (Guo et al. 2017, section 4.2).

    Raises SeewhyError for shapes that do not fit, labels that are no classes, no images, and logits that are not finite.
    """
    classes = logits.shape[1] if logits.ndim == 2 else 0
    check_predictions(Predictions(logits, labels, ("",) * classes))
    margins = logits.double()
    margins = margins - margins.gather(1, labels[:, None])
    # The cross entropy, the mean of log(sum of exp(margins / temperature)), is convex in the inverse temperature: Newton's steps,
    # and the middle of the bracket where a step would leave it.
    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if _slope(margins, low)[0] > 0:
        return MAX_TEMPERATURE
    if _slope(margins, high)[0] < 0:
        return MIN_TEMPERATURE
    inverse = 1.0
    for _ in range(100):
        slope, curvature = _slope(margins, inverse)
        if (
            abs(slope) <= 1e-12 * inverse * curvature
        ):  # also where nothing depends on the temperature
            break
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        newton = inverse - slope / curvature if curvature > 0 else low
        inverse = newton if low < newton < high else (low * high) ** 0.5
    return 1 / inverse


def temperature_scaling(
    predictions: Predictions, validation: Predictions | None = None, bins: int = 15, seed: int = 0
) -> TemperatureScaling:
    """The calibration of `predictions` before and after temperature scaling (Guo et al. 2017, section 4.2).

    The temperature is fitted on `validation`, images that were not trained on either. Without them it is cross-fitted: either half
    of the images, drawn by `seed` and stratified by class, is scaled by what was fitted on the other. Raises SeewhyError for
    fewer than 2 images to cut in halves, for a `validation` of other classes, and as `calibration` does.
    """
    before = measure_calibration(predictions, bins)
    if validation is not None:
        check_predictions(validation)
        if validation.classes != predictions.classes:
            raise SeewhyError(
                f"validation must have the same classes as the predictions, found {_listed(validation)} and {_listed(predictions)}; predict "
                "both with one model"
            )
        temperature = fit_temperature(validation.logits, validation.labels)
        scaled = replace(predictions, logits=predictions.logits.double() / temperature)
        return TemperatureScaling(
            temperature, "validation", before, measure_calibration(scaled, bins)
        )
    if len(predictions.labels) < 2:
        raise SeewhyError(
            "cross-fitting a temperature needs at least 2 images, found 1; predict more, or give a validation split"
        )
    logits = predictions.logits.double()
    scaled_logits = torch.empty_like(logits)
    halves = _halves(predictions.labels, seed)
    for half, other in (halves, halves[::-1]):
        scaled_logits[half] = logits[half] / fit_temperature(
            logits[other], predictions.labels[other]
        )
    after = measure_calibration(replace(predictions, logits=scaled_logits), bins)
    return TemperatureScaling(
        fit_temperature(logits, predictions.labels), "cross-fitted", before, after
    )


def risk_coverage_curve(predictions: Predictions) -> RiskCoverageCurve:
    """Accuracy of the most confident images by how many these are (Geifman & El-Yaniv 2017), at up to 200 evenly spaced shares.

    Images of one confidence are answered together, so a share is raised to the next that a threshold reaches. The area is the
    mean risk of the 1, 2, ... N most confident images (Geifman et al. 2019, AURC), averaged over all orders within a confidence.
    Raises SeewhyError for no images and for logits that are not finite.
    """
    confidence, ends, right = _answered(predictions)
    images = int(ends[-1])
    counts = np.arange(1, images + 1)
    expected = np.interp(
        counts, F.pad(ends, (1, 0)), F.pad(right, (1, 0))
    )  # that are right, linear within a confidence
    area = float((1 - expected / counts).mean())
    points = min(images, MAX_POINTS)
    wanted = (torch.arange(1, points + 1, dtype=torch.float64) * images / points).ceil()
    chosen = torch.unique(torch.searchsorted(ends, wanted))
    return RiskCoverageCurve(
        ends[chosen] / images, right[chosen] / ends[chosen], confidence[chosen], area
    )


def coverage_at_accuracy(predictions: Predictions, accuracy: float) -> tuple[float, float] | None:
    """The largest share of images that can be answered with at least that accuracy, in (0, 1], and the confidence to ask for.

    Answered are the images whose `Predictions.confidence` is at least that. None where no confidence is enough. Raises
    SeewhyError for an accuracy outside of [0, 1], no images, and logits that are not finite.
    """
    if not 0 <= accuracy <= 1:
        hint = f"; did you mean {accuracy / 100:g}?" if 1 < accuracy <= 100 else ""
        raise SeewhyError(f"accuracy must be from 0 to 1, found {accuracy:g}{hint}")
    confidence, ends, right = _answered(predictions)
    enough = (right / ends >= accuracy).nonzero()
    if len(enough) == 0:
        return None
    place = int(enough[-1])
    return float(ends[place] / ends[-1]), float(confidence[place])


def _slope(margins: Tensor, inverse: float) -> tuple[float, float]:
    """First and second derivative of the cross entropy by the inverse temperature."""
    slope, curvature = margins.new_zeros(2)
    for rows in torch.split(
        margins, 512
    ):  # which stay in the processor's cache: several times as fast
        probabilities = (inverse * rows).softmax(1)
        mean = (probabilities * rows).sum(1)
        slope += mean.sum()
        curvature += (probabilities * (rows - mean[:, None]).square()).sum()
    return float(slope) / len(margins), float(curvature) / len(margins)


def _halves(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of two random halves that hold equally many images of each class, give or take one."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).to(
        labels.device
    )
    order = order[labels[order].argsort(stable=True)]  # class after class, at random within each
    return order[0::2], order[1::2]


def _answered(predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
    """Every confidence that occurs, falling, how many images have at least that, and how many of these are right: float64."""
    check_predictions(predictions)
    # not in float64: a threshold must mean the same to who compares it with Predictions.confidence
    confidence, place, images = torch.unique(
        predictions.confidence.cpu(), return_inverse=True, return_counts=True
    )
    right = torch.bincount(place, predictions.correct.cpu().double(), minlength=len(images))
    return confidence.flip(0).double(), images.double().flip(0).cumsum(0), right.flip(0).cumsum(0)


def _listed(predictions: Predictions) -> str:
    shown = ", ".join(predictions.classes[:3])
    return f"{len(predictions.classes)} ({shown}{', …' if len(predictions.classes) > 3 else ''})"
