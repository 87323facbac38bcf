"""Label issues: suspected label errors, and near-duplicates across the splits."""

import torch

from seewhy.diagnosis.diagnosis import MAX_DUPLICATES, MAX_LABEL_ISSUES
from seewhy.diagnosis.label_issues import LabelIssue
from seewhy.reporting.context import ReportContext
from seewhy.reporting.findings import label_note
from seewhy.reporting.formatting import count, percent
from seewhy.reporting.section import Section, csv_link, render
from seewhy.reporting.sprites import Sprites

CSV_ROWS = 500
CSV_HEADER = (
    "index",
    "name",
    "label",
    "suggested_label",
    "label_probability",
    "suggested_probability",
    "threshold",
)


def label_issues_section(context: ReportContext, sprites: Sprites) -> Section:
    """Suspected label errors with reasons, and near-duplicates across the splits."""
    issues, pairs = context.label_issues, context.diagnosis.duplicates
    html = render(
        "sections/label_issues.html",
        issues=issues[:MAX_LABEL_ISSUES],
        total=len(issues),
        pairs=pairs[:MAX_DUPLICATES],
        total_pairs=len(pairs),
        classes=context.predictions.classes,
        names={issue.index: context.name(issue.index) for issue in issues},
        sprites=sprites,
        csv=csv_link(CSV_HEADER, [_csv_row(context, issue) for issue in issues[:CSV_ROWS]]),
        csv_rows=min(CSV_ROWS, len(issues)),
    )
    parts = (
        _issues_finding(context),
        label_note(context) if issues else "",
        _leaks_finding(context),
    )
    return Section("Label issues", " ".join(filter(None, parts)), html)


def _issues_finding(context: ReportContext) -> str:
    issues = len(context.label_issues)
    if not issues:
        return "No suspected label errors."
    share = percent(issues / len(context.predictions.labels))
    return f"{count(issues, 'suspected label error')} ({share} of the test images)."


def _leaks_finding(context: ReportContext) -> str:
    """Number of test images with a near-duplicate in training, and the accuracy on the others."""
    correct = context.predictions.correct
    pairs = [dict((pair.first, pair.second)) for pair in context.diagnosis.duplicates]
    leaked = sorted({pair["test"] for pair in pairs if pair.keys() == {"test", "train"}})
    if not leaked:
        return "No test image has a near-duplicate in the training split."
    others = torch.ones_like(correct)
    others[leaked] = False
    text = (
        f"{count(len(leaked), 'test image')} {'has' if len(leaked) == 1 else 'have'} "
        "a near-duplicate in the training split"
    )
    if not others.any():
        return f"{text}."
    accuracy = correct[others].float().mean().item()
    return f"{text}; accuracy on the other test images is {percent(accuracy, 2)}."


def _csv_row(context: ReportContext, issue: LabelIssue) -> tuple[object, ...]:
    classes = context.predictions.classes
    probabilities = (issue.self_confidence, issue.probability, issue.threshold)
    return (
        issue.index,
        context.name(issue.index),
        classes[issue.given_label],
        classes[issue.suggested_label],
        *(f"{probability:.6f}" for probability in probabilities),
    )
