"""The report of a model whose labels are independent of each other, as one HTML page."""

import math
from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor

from seewhy import __version__
from seewhy.attribution.explanation import explain
from seewhy.data.multi_label import MultiLabelImages
from seewhy.data.thumbnails import THUMBNAIL_SIDE, downscale
from seewhy.diagnosis.multi_label import (
    LabelScore,
    MultiLabelScores,
    multi_label_scores,
)
from seewhy.diagnosis.predictions import MultiLabelPredictions, round_robin
from seewhy.errors import SeewhyError
from seewhy.escaping import json_text
from seewhy.figures.explanations import overlay
from seewhy.figures.thresholds import precision_recall_figure, roc_figure
from seewhy.files import check_output_file, make_directory, write_text
from seewhy.models.classifier import Classifier, ClassifierLike, as_classifier
from seewhy.models.inspection import evaluating
from seewhy.progress import waiting
from seewhy.reporting.document import render_document
from seewhy.reporting.formatting import percent, percent_interval
from seewhy.reporting.report_files import FILE, JSON_FILE, report_directory
from seewhy.reporting.section import Section, figure_html, render
from seewhy.reporting.sprites import Sprites
from seewhy.reporting.values import plain_values
from seewhy.runs.multi_label import evaluate_multi_label, find_multi_label
from seewhy.runs.run import Run
from seewhy.wording import counted

MOST_LABELS = 100  # in the table
MOST_ERRORS = 24  # shown of missed labels, and of labels that are predicted only
METHOD = "grad-cam"
HEADERS = (
    "label",
    "#images",
    "#predicted",
    "#threshold",
    "#precision",
    "#recall",
    "#F1",
    "#AUROC",
    "#average precision",
)
LEFT_OUT = (
    "Without the confusion matrix, calibration, robustness, weak slices and suspected label "
    "errors, which need one class per image."
)


def report_multi_label(
    classifier: ClassifierLike,
    data: object = None,
    path: str | Path | None = None,
    *,
    validation: object = None,
    json: str | Path | None = None,
    quiet: bool = False,
) -> Path:
    """Write the report of a model whose labels are independent of each other; return its path.

    Args:
        classifier: A run with any number of labels per image, or a Classifier with the activation
            "sigmoid".
        data: Images and labels, as for `evaluate_multi_label`; by default the test split of the
            run.
        path: The HTML file to write; by default report.html in the directory of the run, with
            report.json beside it.
        validation: Other images and labels, to choose the threshold of each label on.
        json: Another file to write, with the numbers of the report.
        quiet: Show no progress.

    Raises:
        SeewhyError: As `evaluate_multi_label`, and if a file cannot be written.
    """
    for file in (path, json):
        if file is not None:
            check_output_file(Path(file))
    if path is None:
        if data is not None:
            raise SeewhyError("add the file to write, as in report(run, data, 'report.html')")
        directory = report_directory(classifier if isinstance(classifier, Run) else None)
        path, json = directory / FILE, json or directory / JSON_FILE
    measured = find_multi_label(classifier, data)
    predictions = _predictions(classifier, data, measured, validation)
    classifier = as_classifier(classifier)
    with waiting("writing the report", quiet):
        html = render_multi_label_page(classifier, measured, predictions)
        make_directory(Path(path).parent)
        write_text(Path(path), html)
        if json is not None:
            make_directory(Path(json).parent)
            title, scores = _title(classifier, measured), multi_label_scores(predictions)
            values = multi_label_values(title, scores, len(measured.images))
            write_text(Path(json), json_text(values, indent=1) + "\n")
    return Path(path)


def _predictions(
    classifier: ClassifierLike, data: object, measured: MultiLabelImages, validation: object
) -> MultiLabelPredictions:
    """Those of the run for its own test images, else new ones."""
    saved = classifier.predictions if isinstance(classifier, Run) and data is None else None
    if isinstance(saved, MultiLabelPredictions) and validation is None:
        return replace(saved, names=measured.names)
    return evaluate_multi_label(classifier, measured, validation)


def multi_label_values(title: str, scores: MultiLabelScores, images: int) -> dict[str, Any]:
    """The numbers of the report as plain values for JSON; None for those that are undefined."""
    values = {"seewhy": __version__, "title": title, "images": images, **asdict(scores)}
    plain: dict[str, Any] = plain_values(values)
    return plain


@dataclass(frozen=True)
class LabelError:
    """A label of an image that the model misses, or predicts although the image lacks it."""

    image: int
    label: int
    probability: float  # of the label, in [0, 1]


def label_errors(
    predictions: MultiLabelPredictions, missed: bool, most: int = MOST_ERRORS
) -> list[LabelError]:
    """The labels that are most confidently missed, or most confidently predicted in error."""
    true, predicted = predictions.labels, predictions.predicted
    wrong = (true & ~predicted if missed else predicted & ~true).nonzero()  # (M, 2)
    probabilities = predictions.probabilities[wrong[:, 0], wrong[:, 1]]
    order = probabilities.argsort(descending=not missed, stable=True)
    order = order[round_robin(wrong[order, 1], most).sort().values]  # of as many labels as possible
    return [
        LabelError(image, label, probability)
        for (image, label), probability in zip(
            wrong[order].tolist(), probabilities[order].tolist(), strict=True
        )
    ]


def render_multi_label_page(
    classifier: Classifier, data: MultiLabelImages, predictions: MultiLabelPredictions
) -> str:
    """The HTML of the report."""
    scores = multi_label_scores(predictions)
    missed, added = (label_errors(predictions, each) for each in (True, False))
    shown = missed + added
    heat, reason = _heat_maps(classifier, data, shown)
    images: dict[Hashable, Tensor] = {
        **{
            each.image: downscale(data.images[each.image][None], THUMBNAIL_SIDE)[0]
            for each in shown
        },
        **{("heat", each.image, each.label): map_ for each, map_ in zip(shown, heat, strict=False)},
    }
    sprites = Sprites(images)
    sections = {
        "overview": _overview(scores, len(data.images)),
        "labels": _labels(predictions, scores),
        "errors": _errors(data, missed, added, reason, sprites),
    }
    title = _title(classifier, data)
    return render_document(
        title=title,
        headline=(
            f"Mean average precision {percent(scores.mean_average_precision)} "
            f"({counted(len(data.images), 'image')}, {counted(len(scores.labels), 'label')})"
        ),
        sections=sections,
        source=f"{title}.",
        sheets=sprites.sheets(),
    )


def _title(classifier: Classifier, data: MultiLabelImages) -> str:
    return f"{classifier.name} on {data.name}"


def _overview(scores: MultiLabelScores, images: int) -> Section:
    finding = (
        f"All labels of an image are right for {percent(scores.exact_match)} of "
        f"{counted(images, 'image')} (exact match, 95% CI "
        f"{percent_interval(scores.exact_match_interval)})."
    )
    ranked = [row for row in scores.labels if not math.isnan(row.average_precision)]
    worst = min(ranked, key=lambda row: row.average_precision, default=None)
    if worst is not None and worst.average_precision < scores.mean_average_precision:
        finding += (
            f" {worst.name} has the lowest average precision: {percent(worst.average_precision)} "
            f"({counted(worst.images, 'image')})."
        )
    never = [row.name for row in scores.labels if row.images and not row.predicted]
    if never:
        finding += f" Never predicted: {', '.join(never[:10])}{', …' * (len(never) > 10)}."
    numbers = [
        (percent(scores.mean_average_precision), "mean average precision", "labels"),
        (_number(scores.macro_auroc), "mean AUROC", "labels"),
        (percent(scores.macro_f1), "macro F1", "labels"),
        (percent(scores.micro_f1), "micro F1", "labels"),
        (percent(scores.micro_precision), "micro precision", "labels"),
        (percent(scores.micro_recall), "micro recall", "labels"),
        (percent(scores.label_accuracy), "accuracy of all labels", "errors"),
    ]
    html = render("sections/multi_label_overview.html", numbers=numbers, left_out=LEFT_OUT)
    return Section("Overview", finding, html)


def _labels(predictions: MultiLabelPredictions, scores: MultiLabelScores) -> Section:
    ranked = sorted(scores.labels, key=lambda row: (math.isnan(row.f1), row.f1))
    best = max(scores.labels, key=lambda row: -math.inf if math.isnan(row.f1) else row.f1)
    curves = {
        "roc": (roc_figure(predictions), "True-positive rate by false-positive rate"),
        "precision_recall": (precision_recall_figure(predictions), "Precision by recall"),
    }
    html = render(
        "sections/multi_label_labels.html",
        headers=HEADERS,
        rows=[_row(row) for row in ranked[:MOST_LABELS]],
        total=len(ranked),
        curves=[
            (figure_html(figure, name, text), f"{text}, of the labels with the lowest area.")
            for name, (figure, text) in curves.items()
        ],
        chosen=bool(predictions.thresholds),
    )
    uneven = ranked[0].f1 < best.f1
    finding = f"F1 is highest for {best.name} ({percent(best.f1)})"
    finding += f" and lowest for {ranked[0].name} ({percent(ranked[0].f1)})." if uneven else "."
    figures = {name: figure for name, (figure, _) in curves.items()}
    return Section("Labels", finding, html, figures=figures)


def _row(row: LabelScore) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.images:,}",
        f"{row.predicted:,}",
        _number(row.threshold),
        percent(row.precision),
        percent(row.recall),
        percent(row.f1),
        _number(row.auroc),
        percent(row.average_precision),
    )


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _errors(
    data: MultiLabelImages,
    missed: list[LabelError],
    added: list[LabelError],
    reason: str,
    sprites: Sprites,
) -> Section:
    names = [PurePath(name).name for name in data.names]
    html = render(
        "sections/multi_label_errors.html",
        groups=[
            ("Missed labels", "no label is missed", missed),
            ("Labels predicted in error", "no label is predicted in error", added),
        ],
        classes=data.classes,
        names=names,
        method=METHOD,
        reason=reason,
        sprites=sprites,
    )
    finding = "The most confident errors; a confident one may be a wrong label of the data."
    return Section("Errors", finding, html)


def _heat_maps(
    classifier: Classifier, data: MultiLabelImages, errors: list[LabelError]
) -> tuple[list[Tensor], str]:
    """A heat map (3, h, w) uint8 of the label of each error; or the reason why there are none."""
    if not errors:
        return [], ""
    images = data.images[[each.image for each in errors]]
    target = torch.tensor([each.label for each in errors])
    try:
        with evaluating(classifier.model):
            found = explain(
                replace(classifier, precision="fp32"), images, METHOD, target=target, warn=False
            )
    except SeewhyError as error:
        return [], str(error)
    overlays = overlay(images, found.at(found.layers[-1]).nan_to_num(0, 0, 0))
    return list(downscale(overlays.permute(0, 3, 1, 2), THUMBNAIL_SIDE)), ""
