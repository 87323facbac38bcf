"""Calibration: confidence against accuracy, temperature scaling, and selective prediction."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.statistics import wilson_interval
from seewhy.errors import SeewhyError

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0
MAX_POINTS = 200  # in a risk-coverage curve


@dataclass(frozen=True, eq=False)
class Calibration:
    """Confidence and accuracy in B bins of equal width, and measures of calibration."""

    edges: Tensor  # (B + 1,) float64 from 0 to 1; a bin includes its upper edge
    images: Tensor  # (B,) int64
    confidence: Tensor  # (B,) float64 in [0, 1], mean; nan for an empty bin
    accuracy: Tensor  # (B,) float64 in [0, 1]; nan for an empty bin
    ece: float  # expected calibration error in [0, 1]
    mce: float  # maximum calibration error in [0, 1]
    brier: float  # Brier score in [0, 2]
    nll: float  # cross entropy in nats


@dataclass(frozen=True, eq=False)
class TemperatureScaling:
    """Calibration before and after temperature scaling, on images it was not fitted on."""

    temperature: float  # fitted on all images available for fitting: the one to use
    fitted_on: str  # "validation", or "cross-fitted": on one half of the images for the other
    before: Calibration
    after: Calibration


@dataclass(frozen=True, eq=False)
class RiskCoverageCurve:
    """Accuracy of selective prediction, which rejects images below a confidence, by coverage."""

    coverage: Tensor  # (M,) float64 in (0, 1], increasing to 1: fraction of images kept
    accuracy: Tensor  # (M,) float64 in [0, 1], of the images kept
    confidence: Tensor  # (M,) float64 in [0, 1], lowest confidence kept
    aurc: float  # area under the curve of risk (1 - accuracy) by coverage, in [0, 1]


@dataclass(frozen=True)
class SelectiveAccuracy:
    """Accuracy of selective prediction at one confidence threshold."""

    threshold: float  # in (0, 1)
    images: int  # kept
    coverage: float  # fraction of images kept, in [0, 1]
    accuracy: float  # of the images kept, in [0, 1]; nan for none
    interval: tuple[float, float]  # 95%; nan for none


def measure_calibration(predictions: Predictions, bins: int = 15) -> Calibration:
    """Measure calibration error, Brier score and cross entropy.

    Expected and maximum calibration error are those of Guo et al. 2017, eqs. 3 and 5 (Naeini et al.
    2015). The Brier score is the mean squared distance between probabilities and one-hot labels,
    summed over classes (Brier 1950, eq. 2).

    Args:
        predictions: Predictions of N images.
        bins: Number of bins of equal width.

    Raises:
        SeewhyError: For less than 1 bin.
    """
    if bins < 1:
        raise SeewhyError(f"bins must be at least 1, found {bins}")
    log_probabilities = predictions.logits.double().log_softmax(1)
    probabilities = log_probabilities.exp()
    log_true = log_probabilities.gather(1, predictions.labels[:, None])[:, 0]
    edges = torch.arange(bins + 1, dtype=torch.float64) / bins
    confidence = probabilities.amax(1).cpu()
    # without the last edge: rounding must not push a confidence past the last bin
    bin_index = torch.bucketize(confidence, edges[1:-1])
    images = torch.bincount(bin_index, minlength=bins)
    # 0 / 0 is nan for empty bins
    mean_confidence = torch.bincount(bin_index, confidence, minlength=bins) / images
    correct = predictions.correct.cpu().double()
    accuracy = torch.bincount(bin_index, correct, minlength=bins) / images
    gaps = (accuracy - mean_confidence).abs().nan_to_num()
    brier = (probabilities.square().sum(1) - 2 * log_true.exp() + 1).clamp(min=0)
    return Calibration(
        edges,
        images,
        mean_confidence,
        accuracy,
        ece=float((gaps * images).sum() / len(bin_index)),
        mce=float(gaps.max()),
        brier=float(brier.mean()),
        nll=float(-log_true.mean()),
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Fit the temperature that minimizes the cross entropy (Guo et al. 2017, section 4.2).

    Args:
        logits: (N, K) float, to be divided by the temperature.
        labels: (N,) int64, the true classes.

    Returns:
        The temperature in [0.01, 100]; 1 if the cross entropy does not depend on it.

    Raises:
        SeewhyError: For wrong shapes, labels out of range, no images, and logits that are not
        finite.
    """
    from scipy.optimize import brentq

    num_classes = logits.shape[1] if logits.ndim == 2 else 0
    _ = Predictions(logits, labels, ("",) * num_classes)  # checks them
    margins = logits.double()
    margins = margins - margins.gather(1, labels[:, None])
    # The cross entropy, the mean of log(sum of exp(margins / temperature)), is convex in the
    # inverse temperature. The root of its slope is exact to the last digits, its minimum is not.
    if _slope(margins, 1.0) == 0:
        return 1.0
    if _slope(margins, 1 / MAX_TEMPERATURE) > 0:
        return MAX_TEMPERATURE
    if _slope(margins, 1 / MIN_TEMPERATURE) < 0:
        return MIN_TEMPERATURE
    log_temperature = brentq(
        lambda log_t: _slope(margins, math.exp(-log_t)),
        math.log(MIN_TEMPERATURE),
        math.log(MAX_TEMPERATURE),
        xtol=1e-14,
    )
    return math.exp(log_temperature)


def temperature_scaling(
    predictions: Predictions, validation: Predictions | None = None, bins: int = 15, seed: int = 0
) -> TemperatureScaling:
    """Measure calibration before and after temperature scaling (Guo et al. 2017, section 4.2).

    Args:
        predictions: Predictions of the N images to measure on.
        validation: Predictions of other images, not trained on either, to fit the temperature on.
            Without them it is cross-fitted: each of two random halves, stratified by class, is
            scaled by the temperature fitted on the other.
        bins: Number of bins of equal width.
        seed: Seed of the halves.

    Raises:
        SeewhyError: If the classes differ, for a single image to halve, and less than 1 bin.
    """
    before = measure_calibration(predictions, bins)
    if validation is not None:
        if validation.classes != predictions.classes:
            raise SeewhyError(
                "validation and predictions must have the same classes, "
                f"found {_list_classes(validation)} and {_list_classes(predictions)}; predict both "
                "with one model"
            )
        temperature = fit_temperature(validation.logits, validation.labels)
        scaled = replace(predictions, logits=predictions.logits.double() / temperature)
        after = measure_calibration(scaled, bins)
        return TemperatureScaling(temperature, "validation", before, after)
    after = measure_calibration(cross_fitted(predictions, seed), bins)
    temperature = fit_temperature(predictions.logits, predictions.labels)
    return TemperatureScaling(temperature, "cross-fitted", before, after)


def cross_fitted(predictions: Predictions, seed: int = 0) -> Predictions:
    """Scale each of two random halves by the temperature fitted on the other.

    Args:
        predictions: Predictions of N images.
        seed: Seed of the halves, which are stratified by class.

    Returns:
        Predictions with scaled logits in float64; the predicted classes are the same.

    Raises:
        SeewhyError: For a single image.
    """
    if len(predictions.labels) < 2:
        raise SeewhyError(
            "cross-fitting a temperature needs at least 2 images, found 1; predict more images, or "
            "pass a validation split"
        )
    logits, labels = predictions.logits.double(), predictions.labels
    scaled_logits = torch.empty_like(logits)
    halves = _halves(labels, seed)
    for half, other in (halves, halves[::-1]):
        scaled_logits[half] = logits[half] / fit_temperature(logits[other], labels[other])
    return replace(predictions, logits=scaled_logits)


def risk_coverage_curve(predictions: Predictions) -> RiskCoverageCurve:
    """Measure selective accuracy against coverage (Geifman & El-Yaniv 2017).

    The curve has up to 200 evenly spaced coverages. Images of equal confidence are kept or rejected
    together, so each coverage is rounded up to the next one that a threshold can produce. AURC is
    the mean risk of the 1, 2, ... N most confident images (Geifman et al. 2019), averaged over all
    orders of images of equal confidence.
    """
    confidence, accepted, correct = _by_confidence(predictions)
    images = int(accepted[-1])
    counts = np.arange(1, images + 1)
    # expected number of correct images: linear within equal confidence
    expected = np.interp(counts, F.pad(accepted, (1, 0)), F.pad(correct, (1, 0)))
    points = min(images, MAX_POINTS)
    targets = (torch.arange(1, points + 1, dtype=torch.float64) * images / points).ceil()
    chosen = torch.unique(torch.searchsorted(accepted, targets))
    return RiskCoverageCurve(
        coverage=accepted[chosen] / images,
        accuracy=correct[chosen] / accepted[chosen],
        confidence=confidence[chosen],
        aurc=float((1 - expected / counts).mean()),
    )


def coverage_at_accuracy(predictions: Predictions, accuracy: float) -> tuple[float, float] | None:
    """Find the largest coverage with at least the given selective accuracy.

    Args:
        predictions: Predictions of N images.
        accuracy: Required accuracy of the images kept, in [0, 1].

    Returns:
        The coverage in (0, 1] and the threshold: images with a `Predictions.confidence` of at least
        that are kept. None if no threshold reaches the accuracy.

    Raises:
        SeewhyError: For an accuracy outside [0, 1].
    """
    if not 0 <= accuracy <= 1:
        hint = f"; did you mean {accuracy / 100:g}?" if 1 < accuracy <= 100 else ""
        raise SeewhyError(f"accuracy must be from 0 to 1, found {accuracy:g}{hint}")
    confidence, accepted, correct = _by_confidence(predictions)
    reached = (correct / accepted >= accuracy).nonzero()
    if len(reached) == 0:
        return None
    last = int(reached[-1])
    return float(accepted[last] / accepted[-1]), float(confidence[last])


def selective_accuracy(predictions: Predictions, threshold: float) -> SelectiveAccuracy:
    """Measure the images that are kept if those below a confidence are rejected.

    Args:
        predictions: Predictions of N images.
        threshold: Images with a `Predictions.confidence` of at least that are kept; in (0, 1).

    Raises:
        SeewhyError: For a threshold outside (0, 1).
    """
    check_threshold(threshold)
    kept = predictions.confidence >= threshold
    images, correct = int(kept.sum()), int(predictions.correct[kept].sum())
    return SelectiveAccuracy(
        threshold,
        images,
        coverage=images / len(kept),
        accuracy=correct / images if images else math.nan,
        interval=wilson_interval(correct, images) if images else (math.nan, math.nan),
    )


def check_threshold(threshold: float, name: str = "threshold") -> None:
    """Raise SeewhyError unless a threshold of the confidence is above 0 and below 1."""
    if not 0 < threshold < 1:
        hint = f"; did you mean {threshold / 100:g}?" if 1 < threshold < 100 else ""
        raise SeewhyError(f"{name} must be above 0 and below 1, found {threshold:g}{hint}")


def _slope(margins: Tensor, inverse: float) -> float:
    """Derivative of the cross entropy with respect to the inverse temperature."""
    total = 0.0
    for rows in torch.split(margins, 512):  # fits in a CPU's cache: several times faster
        total += float(((inverse * rows).softmax(1) * rows).sum())
    return total / len(margins)


def _halves(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of two random halves, stratified by class."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    order = order[labels[order].argsort(stable=True)]  # by class, random within each
    return order[0::2], order[1::2]


def _by_confidence(predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct confidences, decreasing, and the numbers of all and of correct images above each."""
    # not in float64: a threshold must mean the same compared with Predictions.confidence
    confidence, inverse, images = torch.unique(
        predictions.confidence.cpu(), return_inverse=True, return_counts=True
    )
    correct = torch.bincount(inverse, predictions.correct.cpu().double(), minlength=len(images))
    accepted = images.double().flip(0).cumsum(0)
    return confidence.flip(0).double(), accepted, correct.flip(0).cumsum(0)


def _list_classes(predictions: Predictions) -> str:
    names = ", ".join(predictions.classes[:3])
    more = ", …" if len(predictions.classes) > 3 else ""
    return f"{len(predictions.classes)} ({names}{more})"
