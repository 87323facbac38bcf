"""Values as HTML in a notebook: facts, tables and images in the colors of its theme."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from seewhy.attribution.explanation import Explanation
from seewhy.checks.files import number
from seewhy.checks.result import NOT_JUDGED, DataChecks
from seewhy.data.dataset import Dataset, class_counts
from seewhy.data.statistics import Description
from seewhy.data.thumbnails import THUMBNAIL_SIDE, downscale, to_rgb
from seewhy.diagnosis.metrics import UnevenScores, uneven_scores, worst_confusions
from seewhy.diagnosis.predictions import Predictions
from seewhy.escaping import visible
from seewhy.experiments.experiment import Experiment
from seewhy.experiments.figures import seeds_figure
from seewhy.experiments.statistics import (
    METRICS,
    metric_summary,
    pairwise_tests,
    rank_recipes,
    summarize,
)
from seewhy.exporting.check import ExportCheck
from seewhy.figures.curves import curves_figure
from seewhy.figures.lr_finder import lr_finder_figure
from seewhy.figures.slices import heat_images
from seewhy.figures.style import figure_png
from seewhy.models.summary import ModelSummary, shape_text
from seewhy.models.summary_table import MEMORY_NOTE, count_text, summary_columns
from seewhy.reporting.formatting import duration, percent, percent_interval
from seewhy.reporting.section import render
from seewhy.runs.result import RunResult, describe_uneven
from seewhy.runs.run import Run
from seewhy.train.lr_finder import DEFAULT_SUGGESTION, LRRangeTest
from seewhy.train.recipe import Recipe, as_dict
from seewhy.wording import counted

MAX_CLASSES = 20  # with a sample image, or in a table
MAX_IMAGES = 10  # of an explanation
MAX_MAPS = 12  # of each image
SHOWN_METRICS = ("accuracy", "train_loss", "test_nll", "seconds")  # of an experiment


@dataclass(frozen=True)
class Table:
    """A table; a # at the start of a header marks a column of numbers."""

    headers: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    folded: bool = False  # opened by a click


@dataclass(frozen=True)
class Card:
    """What a notebook shows of a value."""

    heading: str
    facts: Mapping[str, object]
    tables: Sequence[Table] = ()
    images: Sequence[tuple[Markup, str]] = ()  # with captions
    figure: str = ""  # Markup
    note: str = ""


def to_html(value: Any) -> str:
    """A value of CARDS as HTML, for IPython. Its text has the color of the notebook's theme."""
    return render("notebook.html", card=CARDS[type(value)](value))


def _dataset(data: Dataset) -> Card:
    counts = {name: class_counts(split, len(data.classes)) for name, split in data.splits.items()}
    rows = [
        (name, f"{len(split):,}", f"{int(counts[name].min()):,}", f"{int(counts[name].max()):,}")
        for name, split in data.splits.items()
    ]
    firsts = [
        (name, int(index[0]))
        for label, name in enumerate(data.classes)
        if len(index := data.train.members(label).nonzero().flatten()[:1])
    ][:MAX_CLASSES]
    images = downscale(data.train.images[[index for _, index in firsts]], THUMBNAIL_SIDE)
    facts = {
        "classes": f"{len(data.classes):,}",
        "image shape": shape_text(data.image_shape),
        "fingerprint": data.fingerprint or "not computed yet",
    }
    if data.skipped:
        facts["skipped"] = counted(len(data.skipped), "unreadable image")
    headers = ("split", "#images", "#smallest class", "#largest class")
    tiles = [(_image(image, name), name) for image, (name, _) in zip(images, firsts, strict=True)]
    return Card(f"Dataset {data.name}", facts, [Table(headers, rows)], tiles)


def _description(description: Description) -> Card:
    channels = "RGB" if description.image_shape[0] == 3 else "L"
    pixels = []
    for split, each in description.pixels.items():
        statistics = torch.stack([each.min, each.max, each.mean, each.std, each.var], 1)
        for channel, numbers in zip(channels, statistics.tolist(), strict=True):
            pixels.append((split, channel, *(f"{number:.4f}" for number in numbers)))
    counts = [
        (name, *(f"{int(each[index]):,}" for each in description.counts.values()))
        for index, name in enumerate(description.classes)
    ]
    duplicates = sum(len(group) - 1 for group in description.duplicates.groups)
    facts = {
        "images": ", ".join(f"{number:,} {name}" for name, number in description.images.items()),
        "image shape": shape_text(description.image_shape),
        "duplicate images": f"{duplicates:,}, {len(description.duplicates.across):,} across splits",
    }
    headers = ("split", "channel", "#min", "#max", "#mean", "#std", "#var")
    tables = [
        Table(headers, pixels, "Pixels, from 0 to 1"),
        Table(("class", *(f"#{name}" for name in description.counts)), counts, "Classes", True),
    ]
    return Card(f"Dataset {description.name}", facts, tables)


def _recipe(recipe: Recipe) -> Card:
    values, default = as_dict(recipe), as_dict(Recipe())
    texts = {
        field.name: " ".join(value) or "none"
        if isinstance(value := values[field.name], list)
        else value
        for field in fields(recipe)
    }
    changed = [(name, texts[name]) for name in texts if values[name] != default[name]]
    unchanged = [(name, texts[name]) for name in texts if values[name] == default[name]]
    headers = ("field", "value")
    tables = [Table(headers, changed), Table(headers, unchanged, "Defaults", folded=True)]
    return Card(f"Recipe {recipe.name}", {}, tables)


def _model_summary(summary: ModelSummary) -> Card:
    columns = summary_columns(summary)
    headers = ("layer", "type", "#input", "#output", "#parameters", "#%", "#multiply-adds")
    facts = {
        "image": shape_text(summary.image_shape),
        "batch size": f"{summary.batch_size:,}",
        "parameters": f"{summary.parameters:,}, {summary.trainable:,} trainable",
        "multiply-adds": count_text(summary.multiply_adds),
        "memory": f"{summary.total_mb:,.2f} MB (input {summary.input_mb:,.2f}, activations "
        f"{summary.activations_mb:,.2f}, parameters {summary.parameters_mb:,.2f})",
    }
    table = Table(headers, list(zip(*columns.values(), strict=True)))
    return Card(summary.title, facts, [table], note=f"Memory {MEMORY_NOTE}.")


def _run(run: Run) -> Card:
    held_out = "validation" if run.data_origin.images.get("validation") else "test"
    facts: dict[str, object] = {"data": run.data_origin.name}
    if run.result is None:
        facts["status"] = "not finished"
    else:
        result = run.result
        facts |= {
            "accuracy": f"{percent(result.accuracy, 2)} ({percent_interval(result.interval, 2)})",
            **_uneven(result),
            f"{'held-out' if result.folds else 'test'} images": f"{result.test_images:,}",
            "training time": duration(result.train_seconds),
            "speed": f"{result.images_per_second:,.0f} images/s",
        }
    facts["device"] = f"{run.environment.device}, {run.environment.precision}"
    facts["directory"] = run.directory or "nothing written"
    headers = ["epoch", "#learning rate", "#train loss", "#train accuracy"]
    headers += [f"#{held_out} loss", f"#{held_out} accuracy", "#time"]
    rows = [
        (
            f"{row.epoch:g}",
            f"{row.lr:.6f}",
            f"{row.train_loss:.4f}",
            percent(row.train_accuracy, 2),
            "–" if row.eval_loss is None else f"{row.eval_loss:.4f}",
            "–" if row.eval_accuracy is None else percent(row.eval_accuracy, 2),
            duration(row.seconds),
        )
        for row in run.history
    ]
    figure = ""
    if run.history:
        figure = _plot(curves_figure(run.history, held_out), "Loss, accuracy and learning rate")
    tables = [Table(headers, rows, counted(len(rows), "epoch"), folded=True)] if rows else []
    return Card(f"Run {run.recipe.name}", facts, tables, figure=figure)


def _uneven(scores: RunResult | UnevenScores | None) -> dict[str, str]:
    """A row with the scores that count each class alike, if the classes are uneven."""
    text = describe_uneven(scores)
    return {"uneven classes": text} if text else {}


def _predictions(predictions: Predictions) -> Card:
    by_class = sorted(predictions.by_class, key=lambda row: row.accuracy)[:MAX_CLASSES]
    confusions = worst_confusions(predictions, 5)
    facts = {
        "images": f"{len(predictions.labels):,}",
        "errors": f"{int((~predictions.correct).sum()):,}",
        "accuracy": f"{percent(predictions.accuracy, 2)} "
        f"({percent_interval(predictions.interval, 2)})",
        **_uneven(uneven_scores(predictions)),
    }
    classes = [
        (row.name, f"{row.images:,}", percent(row.accuracy), percent_interval(row.interval))
        for row in by_class
    ]
    pairs = [
        (predictions.classes[row.true], predictions.classes[row.predicted], f"{row.images:,}")
        for row in confusions
    ]
    caption = "Accuracy by class, worst first"
    tables = [Table(("class", "#images", "#accuracy", "#95% interval"), classes, caption)]
    if pairs:
        headers = ("true class", "predicted class", "#errors")
        tables.append(Table(headers, pairs, "Most frequent errors"))
    return Card("Predictions", facts, tables)


def _explanation(explanation: Explanation) -> Card:
    keys = list(explanation.maps)[:MAX_MAPS]
    shown = min(len(explanation.logits), MAX_IMAGES)
    heats = {key: heat_images(explanation.maps[key][:shown].clamp_min(0)) for key in keys}
    rows = []
    for index in range(shown):
        predicted = explanation.classes[int(explanation.predicted[index])]
        labels = explanation.labels
        true = "–" if labels is None else explanation.classes[int(labels[index])]
        cells = [_image(heats[key][index], " ".join(key)) for key in keys]
        probability = f"{explanation.confidence[index]:.2f}"
        rows.append((index, true, predicted, probability, *cells))
    value = "#score" if explanation.activation == "none" else "#probability"
    headers = ("image", "true", "predicted", value, *map(" ".join, keys))
    facts: dict[str, object] = {
        "images": f"{len(explanation.logits):,}",
        "methods": ", ".join(explanation.methods),
        "layers": ", ".join(explanation.layers),
    }
    if explanation.warnings:
        facts["warnings"] = "; ".join(explanation.warnings)
    note = "seewhy.figures.explanation_figure(images, explanation) draws the maps on the images."
    return Card("Explanation", facts, [Table(headers, rows)], note=note)


def _lr_range_test(test: LRRangeTest) -> Card:
    rows = [
        (f"{name} (default)" if name == DEFAULT_SUGGESTION else name, f"{lr:.3g}")
        for name, lr in test.suggestions.items()
    ]
    facts = {"updates": f"{len(test.lrs):,}", "ended": test.ended}
    if test.refusal or test.warning:
        facts["warning"] = test.refusal or test.warning
    figure = _plot(lr_finder_figure(test), "Loss by learning rate")
    table = Table(("suggestion", "#learning rate"), rows)
    return Card("Learning-rate range test", facts, [table], figure=figure)


def _experiment(experiment: Experiment) -> Card:
    finished, trials = len(experiment.finished), len(experiment.trials)
    facts: dict[str, object] = {
        "data": experiment.data.name,
        "trials": f"{finished:,} of {trials:,} finished, {counted(len(experiment.seeds), 'seed')}",
        "directory": experiment.directory,
    }
    headers = ["recipe", "#learning rate"]
    headers += [f"#{METRICS[metric].title}" for metric in SHOWN_METRICS]
    rows = []
    for ranked in rank_recipes(experiment, "accuracy"):
        name = ranked.recipe
        size = experiment.optimizer_bytes(name)
        rows.append(
            (
                name,
                f"{experiment.recipes[name].lr:.3g}",
                *(_mean_text(experiment, name, metric) for metric in SHOWN_METRICS),
                "–" if size is None else f"{size / 1e6:.1f} MB",
            )
        )
    figure = ""
    if finished:
        figure = _plot(seeds_figure(experiment, "accuracy"), "Accuracy of every seed, by recipe")
    tests = [
        (
            test.better,
            test.worse,
            METRICS["accuracy"].format(test.difference),
            f"{test.adjusted_p_value:.2g}",
            "yes" if test.significant else "no",
        )
        for test in pairwise_tests(experiment, "accuracy")
    ]
    caption = "Differences in accuracy of all pairs, with p-values corrected for their number"
    columns = ("better", "worse", "#points", "#adjusted p", "significant")
    tables = [
        Table([*headers, "#optimizer state"], rows, "Mean ± standard deviation of the seeds"),
        Table(columns, tests, caption, folded=True),
    ]
    note = summarize(experiment, "accuracy")
    return Card("Experiment", facts, [t for t in tables if t.rows], figure=figure, note=note)


def _mean_text(experiment: Experiment, name: str, metric: str) -> str:
    summary, info = metric_summary(experiment, name, metric), METRICS[metric]
    spread = "" if len(summary.values) < 2 else f" ± {info.format(summary.std)}"
    return f"{info.format(summary.mean)}{spread}{info.unit}"


def _export_check(check: ExportCheck) -> Card:
    facts = {
        "images": f"{check.images:,} {check.source}",
        "same predicted class": f"{check.same_class:,} of {check.images:,}",
        "largest difference of probabilities": f"{check.largest_difference:.1e}",
        "speed of the file": f"{check.file_speed:,.0f} images/s",
        "speed of torch": f"{check.model_speed:,.0f} images/s",
    }
    return Card(f"Exported to {check.path}", facts)


def _image(image: Tensor, label: str) -> Markup:
    """An image (C, H, W) uint8 as an <img> element."""
    stream = io.BytesIO()
    Image.fromarray(to_rgb(image).permute(1, 2, 0).numpy()).save(stream, "PNG", optimize=True)
    return _png_image(stream.getvalue(), label)


def _plot(figure: Figure, description: str) -> Markup:
    """A figure as an <img> element: notebooks that are not trusted show no <svg>."""
    return _png_image(figure_png(figure, colors=64), description)  # lines and text


def _png_image(content: bytes, label: str) -> Markup:
    data = base64.b64encode(content).decode()
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(visible(label), data)


def _data_checks(results: DataChecks) -> Card:
    rows = [
        (name, each.verdict, "", "", "", each.sentence)
        if each.verdict == NOT_JUDGED
        else (
            name,
            each.verdict,
            f"{each.found:,}",
            number(each.value),
            "–"
            if each.threshold is None
            else f"{'<' if each.below else '>'} {number(each.threshold)}",
            each.sentence,
        )
        for name, each in results.checks.items()
    ]
    facts = {"images": ", ".join(f"{size:,} {name}" for name, size in results.images.items())}
    if results.model:
        facts["features"] = results.model
    facts["found"] = ", ".join(results.found) or "nothing"
    headers = ("check", "verdict", "#found", "#worst", "#limit", "")
    return Card(f"Check of {results.data}", facts, [Table(headers, rows)])


CARDS: dict[type, Callable[[Any], Card]] = {
    DataChecks: _data_checks,
    Dataset: _dataset,
    Description: _description,
    Experiment: _experiment,
    Explanation: _explanation,
    ExportCheck: _export_check,
    LRRangeTest: _lr_range_test,
    ModelSummary: _model_summary,
    Predictions: _predictions,
    Recipe: _recipe,
    Run: _run,
}
