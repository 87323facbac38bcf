"""Calibration: reliability, temperature scaling, and selective prediction."""

from seewhy.diagnosis.calibration import (
    Calibration,
    TemperatureScaling,
    coverage_at_accuracy,
    risk_coverage_curve,
)
from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.statistics import wilson_interval
from seewhy.figures.calibration import MIN_IMAGES, reliability_figure, risk_coverage_figure
from seewhy.reporting.context import ReportContext
from seewhy.reporting.formatting import percent, percent_interval
from seewhy.reporting.section import Section, figure_html, render
from seewhy.reporting.sprites import Sprites

ACCURACIES = (0.95, 0.99)  # at which the coverage is reported


def calibration_section(context: ReportContext, sprites: Sprites) -> Section:
    """Reliability and its metrics before and after temperature scaling, and risk–coverage."""
    predictions = context.predictions
    before, scaling = context.calibration, helpful_scaling(context)
    after = None if scaling is None else scaling.after
    curve = risk_coverage_curve(predictions)
    coverages = [(accuracy, coverage_at_accuracy(predictions, accuracy)) for accuracy in ACCURACIES]
    figures = {
        "reliability": reliability_figure(before, after),
        "coverage": risk_coverage_figure(curve),
    }
    panels = [
        (
            figure_html(
                figures["reliability"], "reliability", "Reliability diagram: accuracy by confidence"
            ),
            "Below the diagonal: overconfident. Hollow points: bins with fewer than "
            f"{MIN_IMAGES} images.",
        ),
        (
            figure_html(
                figures["coverage"], "coverage", "Accuracy of the accepted images by coverage"
            ),
            "Accuracy of the accepted images if the least confident ones are rejected.",
        ),
    ]
    rows = [_row("uncalibrated", before)]
    if after is not None:
        rows.append(_row("temperature scaling", after))
    html = render(
        "sections/calibration.html",
        panels=panels,
        rows=rows,
        scaling=scaling,
        reached=[(accuracy, *found) for accuracy, found in coverages if found is not None],
        unreached=[accuracy for accuracy, found in coverages if found is None],
    )
    finding = f"{confidence_summary(predictions)}, ECE {percent(before.ece)}."
    return Section("Calibration", finding, html, figures=figures)


def confidence_summary(predictions: Predictions) -> str:
    """Mean confidence and accuracy, and whether one is significantly higher."""
    confidence, accuracy = predictions.confidence.mean().item(), predictions.accuracy
    interval = wilson_interval(int(predictions.correct.sum()), len(predictions.labels))
    if interval[0] <= confidence <= interval[1]:
        return (
            f"Mean confidence ({percent(confidence)}) agrees with the accuracy "
            f"({percent(accuracy)}, 95% CI {percent_interval(interval)})"
        )
    direction = "overconfident" if confidence > accuracy else "underconfident"
    return (
        f"The model is {direction}: mean confidence {percent(confidence)}, "
        f"accuracy {percent(accuracy)}"
    )


def helpful_scaling(context: ReportContext) -> TemperatureScaling | None:
    """Temperature scaling, if it reduces the ECE and the negative log-likelihood."""
    scaling = context.scaling
    if scaling is None or percent(scaling.after.ece) == percent(scaling.before.ece):
        return None
    before, after = scaling.before, scaling.after
    return scaling if after.ece < before.ece and after.nll < before.nll else None


def _row(name: str, calibration: Calibration) -> tuple[str, ...]:
    return (
        name,
        percent(calibration.ece, 2),
        percent(calibration.mce, 1),
        f"{calibration.brier:.4f}",
        f"{calibration.nll:.4f}",
    )
