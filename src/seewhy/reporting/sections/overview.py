"""The overview: the main results in a few sentences."""

from seewhy.reporting.context import ReportContext
from seewhy.reporting.formatting import count, duration, percent, percent_interval
from seewhy.reporting.section import Section, render
from seewhy.reporting.sections.calibration import confidence_summary, helpful_scaling
from seewhy.reporting.sections.classes import confusion_summary
from seewhy.reporting.sections.robustness import (
    attack_summary,
    corruption_summary,
    smallest_attack,
)
from seewhy.reporting.sprites import Sprites
from seewhy.runs.result import describe_test_use

Item = tuple[str, str, str]  # key and title of a section, and its main result


def overview_section(context: ReportContext, sprites: Sprites) -> Section:
    """Accuracy, the most frequent confusion, calibration, robustness, and where to start."""
    result = context.result
    finding = (
        f"Test accuracy is {percent(result.accuracy, 2)} "
        f"(95% CI {percent_interval(result.interval, 2)}, {count(result.test_images, 'image')})."
    )
    if result.test_used_by:
        finding += f" {describe_test_use(result.test_used_by)}"
    diagnosis = context.diagnosis
    items = [
        ("classes", "Classes", confusion_summary(context.predictions)),
        ("calibration", "Calibration", _calibration(context)),
        (
            "robustness",
            "Robustness",
            f"{attack_summary(diagnosis)} {corruption_summary(diagnosis)}",
        ),
        _starting_point(context),
    ]
    html = render(
        "sections/overview.html",
        items=[item for item in items if item is not None],
        numbers=_numbers(context),
    )
    return Section("Overview", finding, html)


def _calibration(context: ReportContext) -> str:
    text = f"{confidence_summary(context.predictions)}, ECE {percent(context.calibration.ece)}"
    scaling = helpful_scaling(context)
    if scaling is not None:
        text += (
            f", reduced to {percent(scaling.after.ece)} by temperature scaling "
            f"(T = {scaling.temperature:.2f})"
        )
    return f"{text}."


def _starting_point(context: ReportContext) -> Item | None:
    """The weak slice with the most errors, else the suspected label errors, else the errors."""
    predictions, slices = context.predictions, context.diagnosis.slices
    errors = int((~predictions.correct).sum())
    issues = len(context.label_issues)
    if slices and errors:
        worst = slices[0]
        share = int((~predictions.correct[worst.members]).sum()) / errors
        text = (
            f"Start with the slice “{worst.description}”: {count(worst.images, 'image')}, "
            f"accuracy {percent(worst.accuracy)}, {percent(share)} of all errors."
        )
        return "slices", "Weak slices", text
    if issues:
        text = (
            f"Start with the {count(issues, 'suspected label error')}: "
            "wrong labels count correct predictions as errors."
        )
        return "label-issues", "Label issues", text
    return ("errors", "Errors", "Start with the most confident ones.") if errors else None


def _numbers(context: ReportContext) -> list[tuple[str, str, str]]:
    """Value, name and section of each number that the overview highlights."""
    errors = int((~context.predictions.correct).sum())
    attack = smallest_attack(context.diagnosis)
    return [
        (percent(context.result.accuracy, 2), "test accuracy", "classes"),
        (f"{errors:,}", "error" if errors == 1 else "errors", "errors"),
        (percent(context.calibration.ece), "calibration error (ECE)", "calibration"),
        (
            percent(attack.accuracy),
            f"adversarial accuracy (ε\u00a0=\u00a0{attack.epsilon})",
            "robustness",
        ),
        (
            f"{len(context.label_issues):,}",
            "suspected label error" + "s" * (len(context.label_issues) != 1),
            "label-issues",
        ),
        (duration(context.result.train_seconds), "training time", "training"),
    ]
