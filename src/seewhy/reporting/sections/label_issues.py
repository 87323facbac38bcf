"""Label issues: suspected label errors, and near-duplicates across the splits."""

from collections.abc import Sequence
from typing import Any

import torch

from seewhy.data.corrections import COLUMNS
from seewhy.diagnosis.diagnosis import MAX_DUPLICATES, MAX_LABEL_ISSUES
from seewhy.diagnosis.label_issues import LabelIssue
from seewhy.diagnosis.outliers import UnusualImage
from seewhy.escaping import csv_text
from seewhy.reporting.context import ReportContext
from seewhy.reporting.findings import label_note, unusual_note
from seewhy.reporting.formatting import percent
from seewhy.reporting.section import Section, csv_link, render
from seewhy.reporting.sprites import Sprites
from seewhy.wording import counted, have

CSV_ROWS = 500
CSV_HEADER = (
    *COLUMNS[:4],
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
        unusual=[_unusual(context, each) for each in context.diagnosis.unusual],
        sprites=sprites,
        folds=context.folds,
        csv=csv_link(CSV_HEADER, [_csv_row(context, issue) for issue in issues[:CSV_ROWS]]),
        csv_rows=min(CSV_ROWS, len(issues)),
    )
    parts = (
        unusual_note(context),
        _issues_finding(context),
        label_note(context) if issues else "",
        _leaks_finding(context),
    )
    data = _choices(context, issues[:MAX_LABEL_ISSUES])
    return Section("Label issues", " ".join(filter(None, parts)), html, data)


def _choices(context: ReportContext, issues: Sequence[LabelIssue]) -> dict[str, Any]:
    """What the page writes into labels.csv: lines of suspicious images, and the class names."""
    suggested = {each.index: -1 for each in context.diagnosis.unusual}
    suggested |= {each.index: each.suggested_label for each in issues}
    if not suggested:
        return {}
    labels = context.predictions.labels
    images = {
        str(index): [_csv_line(_csv_image(context, index)), int(labels[index]), suggestion]
        for index, suggestion in suggested.items()
    }
    classes = [_csv_line([name]) for name in context.predictions.classes]
    return {"header": _csv_line(COLUMNS), "images": images, "cells": classes}


def _csv_line(cells: Sequence[str]) -> str:
    return csv_text(cells, []).removesuffix("\r\n")


def _csv_image(context: ReportContext, index: int) -> tuple[str, str, str, str]:
    """The cells of an image: file, split, index and label."""
    label = context.predictions.classes[int(context.predictions.labels[index])]
    number = str(index) if context.split else ""
    return context.name(index), context.split, number, label


def _issues_finding(context: ReportContext) -> str:
    issues = len(context.label_issues)
    if not issues:
        return "No suspected label errors."
    share = percent(issues / len(context.predictions.labels))
    return f"{counted(issues, 'suspected label error')} ({share} of the {context.images_noun}s)."


def _leaks_finding(context: ReportContext) -> str:
    """Number of test images with a near-duplicate in training, and the accuracy on the others."""
    correct, noun = context.predictions.correct, context.images_noun
    training = "another fold" if context.folds else "the training split"
    leaked = leaked_images(context)
    if not context.folds and "train" not in context.diagnosis.other_splits:
        return ""  # the training images are unknown
    if not leaked:
        return f"No {noun} has a near-duplicate in {training}."
    others = torch.ones_like(correct)
    others[leaked] = False
    text = f"{counted(len(leaked), noun)} {have(len(leaked))} a near-duplicate in {training}"
    if not others.any():
        return f"{text}."
    accuracy = correct[others].float().mean().item()
    return f"{text}; accuracy on the other {noun}s is {percent(accuracy, 2)}."


def _unusual(context: ReportContext, image: UnusualImage) -> tuple[int, str, str, str]:
    """Index, name, label and similarity of an unusual image."""
    label = context.predictions.classes[context.predictions.labels[image.index]]
    distinct = ", unlike all others" if image.distinct else ""
    return image.index, context.name(image.index), label, f"{image.similarity:.2f}{distinct}"


def leaked_images(context: ReportContext) -> list[int]:
    """The test images of which the model was trained on a near-duplicate."""
    pairs = [(pair.first, pair.second) for pair in context.diagnosis.duplicates]
    if context.folds:
        return sorted({index for pair in pairs for _, index in pair})
    by_split = [dict(pair) for pair in pairs]
    return sorted({pair["test"] for pair in by_split if pair.keys() == {"test", "train"}})


def _csv_row(context: ReportContext, issue: LabelIssue) -> tuple[object, ...]:
    classes = context.predictions.classes
    probabilities = (issue.self_confidence, issue.probability, issue.threshold)
    return (
        *_csv_image(context, issue.index),
        classes[issue.suggested_label],
        *(f"{probability:.6f}" for probability in probabilities),
    )
