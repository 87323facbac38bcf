"""The overview: the main results in a few sentences."""

from seewhy.diagnosis.metrics import uneven_scores
from seewhy.reporting.context import ReportContext
from seewhy.reporting.findings import ranked_findings, unusual_note, weakness_note
from seewhy.reporting.formatting import duration, percent, percent_interval
from seewhy.reporting.section import Section, render
from seewhy.reporting.sections.calibration import confidence_summary, helpful_scaling
from seewhy.reporting.sections.robustness import (
    attack_summary,
    corruption_summary,
    is_attacked,
    is_harmed,
    smallest_attack,
    worst_corruption,
)
from seewhy.reporting.sprites import Sprites
from seewhy.runs.result import (
    describe_folds,
    describe_test_use,
    describe_uneven,
)
from seewhy.wording import counted

START = "Look at the most confident ones first."
UNUSUAL = "Look at it, and remove what is not an image of any class."


def overview_section(context: ReportContext, sprites: Sprites) -> Section:
    """Accuracy, what explains the errors, calibration, robustness, and what to do next."""
    result, predictions = context.result, context.predictions
    finding = (
        f"{context.accuracy_name} is {percent(predictions.accuracy, 2)} (95% CI "
        f"{percent_interval(predictions.interval, 2)}, "
        f"{counted(len(predictions.labels), 'image')})."
    )
    if result is not None and result.folds:
        finding += (
            f" {describe_folds(result)} Heat maps of an image are those of the model that "
            "predicted it; attacks, corruptions and explanation quality are measured on the model "
            f"without the first fold, with the {counted(context.diagnosis.fold_images, 'image')} "
            "of that fold."
        )
    if uneven := describe_uneven(result or uneven_scores(predictions)):
        finding += f" Classes are uneven: {uneven}."
    if result is not None and result.test_used_by:
        finding += f" {describe_test_use(result.test_used_by)}"
    findings = ranked_findings(context)
    items = [
        *((each.key, each.title, each.text, each.next_step) for each in findings),
        ("calibration", "Calibration", *_calibration(context)),
    ]
    if context.diagnosis.corruptions:
        items.append(("robustness", "Robustness", *_robustness(context)))
    if not context.predictions.correct.all() and not findings:
        items.insert(0, ("errors", "Errors", "The errors have nothing in common.", START))
    if unusual := unusual_note(context):
        items.insert(0, ("label-issues", "Label issues", unusual, UNUSUAL))
    html = render("sections/overview.html", items=items, numbers=_numbers(context))
    return Section("Overview", finding, html)


def _calibration(context: ReportContext) -> tuple[str, str]:
    """The calibration error, and what to do about it."""
    text = f"{confidence_summary(context.predictions)}, ECE {percent(context.calibration.ece)}"
    scaling = helpful_scaling(context)
    if scaling is None:
        return f"{text}.", "Use the probabilities as they are: scaling does not improve them."
    text += (
        f", reduced to {percent(scaling.after.ece)} by temperature scaling "
        f"(T = {scaling.temperature:.2f})"
    )
    return f"{text}.", f"Divide the logits by {scaling.temperature:.2f} if you use probabilities."


def _robustness(context: ReportContext) -> tuple[str, str]:
    """The smallest attack, the worst corruption, and what to do about them."""
    diagnosis = context.diagnosis
    text = f"{attack_summary(diagnosis)} {corruption_summary(diagnosis)}"
    note = weakness_note(context, "attacks and corruptions")
    worst = worst_corruption(diagnosis)
    if diagnosis.attack_error and not is_harmed(diagnosis):
        return (
            f"{text} {note}".strip(),
            "See there why the model is not attacked, and what to do about it.",
        )
    action = f"If the corruption {worst.name} occurs in use, train with an augmentation like it."
    if not is_harmed(diagnosis):
        action = "If the pixels may be tampered with, train on adversarial images."
        if not is_attacked(diagnosis):
            action = "Allow the report more time (--report-minutes), to measure more images."
    return f"{text} {note}".strip(), action


def _numbers(context: ReportContext) -> list[tuple[str, str, str]]:
    """Value, name and section of each number that the overview highlights."""
    errors = int((~context.predictions.correct).sum())
    numbers = [
        (percent(context.predictions.accuracy, 2), context.accuracy_name.lower(), "classes"),
        (f"{errors:,}", "error" if errors == 1 else "errors", "errors"),
        (percent(context.calibration.ece), "calibration error (ECE)", "calibration"),
    ]
    if is_attacked(context.diagnosis):
        attack = smallest_attack(context.diagnosis)
        name = f"adversarial accuracy (ε\u00a0=\u00a0{attack.epsilon})"
        numbers.append((percent(attack.accuracy), name, "robustness"))
    issues = len(context.label_issues)
    numbers.append((f"{issues:,}", "suspected label error" + "s" * (issues != 1), "label-issues"))
    if context.result is not None:
        numbers.append((duration(context.result.train_seconds), "training time", "training"))
    return numbers
