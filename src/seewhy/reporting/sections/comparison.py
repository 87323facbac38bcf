"""Comparison: which errors a run fixed relative to another, and which are new."""

from seewhy.diagnosis.paired import PairedComparison, compare_predictions
from seewhy.diagnosis.predictions import Predictions
from seewhy.figures.paired import paired_figure
from seewhy.reporting.context import Baseline, ReportContext
from seewhy.reporting.formatting import p_value, signed_points
from seewhy.reporting.section import Section, figure_html, render
from seewhy.reporting.sprites import Sprites
from seewhy.wording import counted

MOST_IMAGES = 48  # of a gallery
SIGNIFICANCE = 0.05


def comparison_section(context: ReportContext, sprites: Sprites) -> Section | None:
    """Fixed and new errors, and the change of each class; None without a run to compare with."""
    if context.baseline is None:
        return None
    before, after = context.baseline.predictions, context.predictions
    comparison = compare_predictions(before, after)
    galleries = []
    for title, indices, wrong in (
        ("Fixed errors", comparison.fixed, before),
        ("New errors", comparison.broken, after),
    ):
        order = wrong.confidence[indices].argsort(descending=True)
        images = [
            (index, _label(before, after, index))
            for index in indices[order][:MOST_IMAGES].tolist()
            if ("test", index) in sprites.images
        ]
        galleries.append((title, len(indices), images))
    figures = {"comparison": paired_figure(comparison)}
    html = render(
        "sections/comparison.html",
        figure=figure_html(figures["comparison"], "comparison", "Change in accuracy by class"),
        comparison=comparison,
        before=_name(context.baseline),
        after=_name(context),
        galleries=galleries,
        sprites=sprites,
    )
    finding = _finding(comparison, context.baseline.source)
    return Section("Comparison", finding, html, figures=figures)


def _finding(comparison: PairedComparison, baseline: str) -> str:
    low, high = (signed_points(bound, 2) for bound in comparison.interval)
    if comparison.p_value >= SIGNIFICANCE:
        verdict = f"Accuracy is not significantly different from {baseline}"
    else:
        direction = "higher" if comparison.change > 0 else "lower"
        verdict = f"Accuracy is significantly {direction} than {baseline}"
    return (
        f"{verdict}: {signed_points(comparison.change, 2)} points (95% CI {low} to {high}, "
        f"{p_value(comparison.p_value)}); {counted(len(comparison.fixed), 'error')} fixed, "
        f"{len(comparison.broken):,} new."
    )


def _name(model: ReportContext | Baseline) -> str:
    """Recipe or model, data, and the directory of a run."""
    return model.title if model.source == model.title else f"{model.title}, {model.source}"


def _label(before: Predictions, after: Predictions, index: int) -> str:
    """The true class of an image and both predictions."""
    names = after.classes
    prediction_before, prediction_after = (
        f"{names[predictions.predicted[index]]} ({predictions.confidence[index]:.2f})"
        for predictions in (before, after)
    )
    return (
        f"true {names[after.labels[index]]}, before {prediction_before}, after {prediction_after}"
    )
