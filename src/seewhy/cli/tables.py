"""The tables that the commands print; they fit a terminal of 60 columns."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.bar import Bar
from rich.console import Console
from rich.table import Table

from seewhy.attribution.explanation import Explanation
from seewhy.attribution.layers import Layer
from seewhy.attribution.scores import TrustScore
from seewhy.cli.data_table import DataTable
from seewhy.data.statistics import Description
from seewhy.diagnosis.calibration import SelectiveAccuracy
from seewhy.diagnosis.metrics import uneven_scores
from seewhy.diagnosis.multi_label import MultiLabelScores
from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.slices import Slice
from seewhy.escaping import shell_text, visible
from seewhy.models.summary import ModelSummary
from seewhy.models.summary_table import format_summary
from seewhy.progress import clock, make_console
from seewhy.runs.prediction_stream import ImagePrediction
from seewhy.runs.result import describe_folds, describe_labels, describe_test_use, describe_uneven
from seewhy.runs.run import Run
from seewhy.wording import counted, counted_splits

RUN_FILES = {
    "report.html": "where the model fails and why",
    "report.json": "the numbers of the report",
    "report.md": "the main results, for a pull request",
    "model.safetensors": "weights, for `seewhy predict` and `seewhy.open_run`",
    "summary.json": "the result in numbers",
    "metrics.jsonl": "one row per epoch",
    "checkpoints/last.pt": "last checkpoint",
    "figures/curves.svg": "loss, accuracy and learning rate by epoch",
    "figures/lr_range_test.svg": "learning-rate range test",
    "probe.json": "how the head was set, with the cross-validation",
    "errors.csv": "misclassified test images",
    "confusion.csv": "confusion matrix",
    "predictions.npz": "logits of the test images",
    "diagnosis.npz": "the results that the report shows",
    "recipe.toml": "the recipe; `seewhy train recipe.toml` trains it again",
}


def console() -> Console:
    """Standard output. Names of classes and files are data, so markup is off."""
    return make_console()


def table(*headings: str, left: int = 1) -> Table:
    """An empty table. The first `left` columns are text, the others numbers."""
    rows = DataTable()
    for index, heading in enumerate(headings):
        rows.add_column(heading, justify="left" if index < left else "right", overflow="fold")
    return rows


def percent(fraction: float, digits: int = 2) -> str:
    """A fraction in [0, 1] as in `95.30%`."""
    return f"{100 * fraction:.{digits}f}%"


def interval_text(interval: tuple[float, float], digits: int = 2) -> str:
    """A 95% interval of a fraction in percent, as in `94.87–95.70`."""
    return f"{100 * interval[0]:.{digits}f}–{100 * interval[1]:.{digits}f}"


def print_path(label: str, path: Path) -> None:
    """A path on one line, however long it is, so that it can be copied."""
    console().print(visible(f"{label}: {path}"), soft_wrap=True)


def print_command(label: str, command: str) -> None:
    """A command on one line, whose arguments are from `shell_text`."""
    console().print(f"{label}: {command}", soft_wrap=True)


def print_files(directory: Path, purposes: Mapping[str, str]) -> None:
    """The files of `purposes` that exist in a directory, each with its purpose."""
    out = console()
    out.print()
    print_path("written to", directory)
    rows = table("", "", left=2)
    rows.show_header = False
    for name, purpose in purposes.items():
        if (directory / name).exists():
            rows.add_row(name, purpose)
    out.print(rows)


def print_run(run: Run) -> None:
    """The result of a run, its speed, and its files."""
    out = console()
    result = run.result
    if result is not None:
        images = counted(result.test_images, "image" if result.folds else "test image")
        out.print(
            f"\n{percent(result.accuracy)} of {images} "
            f"{'with all labels right' if describe_labels(result) else 'correct'} "
            f"(95% interval {interval_text(result.interval)})",
            style="bold",
        )
        if result.folds:
            out.print(describe_folds(result))
        if labels := describe_labels(result):
            out.print(labels)
        if uneven := describe_uneven(result):
            out.print(f"classes are uneven: {uneven}")
        if run.recipe.tta != "none":
            plain = percent(result.plain_accuracy)
            out.print(f"{plain} without test-time augmentation ({run.recipe.tta})")
        if result.selected_on == "validation":
            out.print(f"best validation epoch: {result.selected_epoch:g}")
        if result.test_used_by:
            out.print(describe_test_use(result.test_used_by), style="yellow")
        environment = run.environment
        out.print(
            f"training time {clock(result.train_seconds)}, "
            f"{result.images_per_second:,.0f} images/s in {environment.precision} "
            f"on {environment.device}"
        )
    if run.directory is None:
        return
    print_files(run.directory, RUN_FILES)
    report = run.directory / "report.html"
    out.print()
    command, path = ("open", report) if report.exists() else ("seewhy report", run.directory)
    print_command("next", f"{command} {shell_text(path)}")


def print_accuracies(
    predictions: Predictions, data: str, split: str, selective: SelectiveAccuracy | None = None
) -> None:
    """Accuracy overall and per class, the worst class first; `data` is the name of the dataset."""
    out = console()
    count = len(predictions.labels)
    images = (
        f"all {counted(count, 'image')}" if split == "all" else counted(count, f"{split} image")
    )
    out.print(
        f"{percent(predictions.accuracy)} of {images} of {visible(data)} correct "
        f"(95% interval {interval_text(predictions.interval)})",
        style="bold",
    )
    if uneven := describe_uneven(uneven_scores(predictions)):
        out.print(f"classes are uneven: {uneven}")
    if selective is not None:
        out.print(_selective_text(selective, len(predictions.labels)))
    out.print()
    rows = table("class", "images", "accuracy", "95% interval", "")
    for row in sorted(predictions.by_class, key=lambda row: row.accuracy):
        bar = Bar(1, 0, row.accuracy, width=20) if out.width >= 72 else ""
        rows.add_row(
            row.name,
            f"{row.images:,}",
            percent(row.accuracy, 1),
            interval_text(row.interval, 1),
            bar,
        )
    out.print(rows)


def print_multi_label(scores: MultiLabelScores, data: str, images: int) -> None:
    """The scores of all labels, and of each, the lowest F1 first; `data` names the images."""
    out = console()
    out.print(
        f"all labels right for {percent(scores.exact_match)} of {counted(images, 'image')} of "
        f"{visible(data)} (95% interval {interval_text(scores.exact_match_interval)})",
        style="bold",
    )
    means = {
        "mean average precision": scores.mean_average_precision,
        "macro F1": scores.macro_f1,
        "micro F1": scores.micro_f1,
    }
    out.print(", ".join(f"{name} {_share(value)}" for name, value in means.items()))
    out.print()
    rows = table("label", "images", "predicted", "precision", "recall", "F1", "AP")
    for row in sorted(scores.labels, key=lambda row: (math.isnan(row.f1), row.f1)):
        shares = (row.precision, row.recall, row.f1, row.average_precision)
        rows.add_row(row.name, f"{row.images:,}", f"{row.predicted:,}", *map(_share, shares))
    out.print(rows)


def _share(value: float) -> str:
    return "–" if math.isnan(value) else percent(value, 1)


def print_subgroups(groups: Sequence[Slice]) -> None:
    """The accuracy of each group, the most costly first."""
    out = console()
    out.print()
    if not groups:
        out.print("the metadata have no column whose values group the images")
        return
    rows = table("group", "images", "accuracy", "95% interval", "others", "p")
    for group in groups:
        rows.add_row(
            group.description,
            f"{group.images:,}",
            percent(group.accuracy, 1),
            interval_text(group.interval, 1),
            percent(group.rest_accuracy, 1),
            f"{group.p_value:.2g}" if group.p_value >= 1e-4 else "<1e-4",
        )
    out.print(rows)
    out.print(
        "\np: more errors than among the others; Fisher's test, corrected for all groups (Holm)"
    )


def _selective_text(selective: SelectiveAccuracy, images: int) -> str:
    """Coverage and accuracy of the images that are not abstained from."""
    coverage = (
        f"coverage {percent(selective.coverage)}: {selective.images:,} of "
        f"{counted(images, 'image')} with a confidence of at least {selective.threshold:g}"
    )
    if not selective.images:
        return coverage
    return (
        f"{coverage}; {percent(selective.accuracy)} of these correct "
        f"(95% interval {interval_text(selective.interval)})"
    )


def print_predictions(predictions: Sequence[ImagePrediction]) -> None:
    """The most probable classes of each image."""
    out = console()
    for prediction in predictions:
        abstained = ", abstained" if prediction.abstained else ""
        if prediction.labels is not None:
            abstained += f": {', '.join(map(visible, prediction.labels)) or 'no label'}"
        out.print(visible(Path(prediction.image).name) + abstained, style="bold")
        for row in prediction.top:
            out.print(f"  {percent(row.probability):>7}  {visible(row.name)}")


def print_description(description: Description, decimals: int) -> None:
    """Sizes, pixel statistics of each channel, class counts, duplicates."""
    out = console()
    shape = "x".join(map(str, description.image_shape))
    sizes, classes = counted_splits(description.images), counted(len(description.classes), "class")
    out.print(f"{visible(description.name)}: {sizes}, {classes}, {shape}\n", style="bold")
    out.print(_pixel_table(description, decimals))
    out.print()
    counts = table("class", *description.counts)
    for index, name in enumerate(description.classes):
        counts.add_row(name, *(f"{int(each[index]):,}" for each in description.counts.values()))
    out.print(counts)
    out.print()
    groups, shared = description.duplicates.groups, description.duplicates.across
    duplicates = sum(len(group) - 1 for group in groups)
    out.print(f"{counted(duplicates, 'duplicate image')}, {len(shared):,} shared across splits")
    for group in shared[:5]:
        out.print("  " + " = ".join(f"{split} {index}" for split, index in group))
    if description.skipped:
        out.print(f"{counted(len(description.skipped), 'unreadable image')} skipped")
        for name in description.skipped[:10]:
            out.print(f"  {visible(name)}", soft_wrap=True)


def _pixel_table(description: Description, decimals: int) -> Table:
    rows = table("split", "", "min", "max", "mean", "std", "var", left=2)
    channels = "RGB" if description.image_shape[0] == 3 else "L"
    for split, statistics in description.pixels.items():
        for index, channel in enumerate(channels):
            of_channels = (
                statistics.min,
                statistics.max,
                statistics.mean,
                statistics.std,
                statistics.var,
            )
            numbers = [f"{values[index]:.{decimals}f}" for values in of_channels]
            name = split[:5] if decimals > 4 else split  # fits 60 columns
            rows.add_row(name if index == 0 else "", channel, *numbers)
    return rows


def print_summary(summary: ModelSummary) -> None:
    """The layer table of a model."""
    out = console()
    width = out.width if out.is_terminal else 200  # nothing is left out of a file or a pipe
    out.print(format_summary(summary, width), soft_wrap=True)


def print_explanation(explanation: Explanation, directory: Path) -> None:
    """Size and status of the maps of each layer and method, and the files."""
    out = console()
    count, maps = len(explanation.logits), len(explanation.maps)
    out.print(f"{counted(count, 'image')}, {counted(maps, 'map')} per image\n", style="bold")
    rows = table("layer", "method", "size", "ok", "clipped by ReLU", left=2)
    for (layer, method), status in explanation.statuses.items():
        size = "x".join(map(str, explanation.maps[layer, method].shape[1:]))
        ok = f"{status.kinds.count('ok'):,} of {count:,}"
        rows.add_row(layer, method, size, ok, percent(status.clipped.mean().item(), 0))
    out.print(rows)
    for sentence in explanation.warnings:
        out.print(f"\nwarning: {sentence}")
    out.print()
    print_path("written to", directory)
    out.print("grid.svg, grid.png, maps.npz, predictions.csv, overlays/")


def print_trust(scores: Sequence[TrustScore]) -> None:
    """The scores of each method and layer, the trusted ones first, and the conclusion."""
    masks = any(score.pointing is not None for score in scores)
    mosaics = any(score.mosaic is not None for score in scores)
    rows = table(
        "method",
        "layer",
        "gain",
        "ROAD",
        "random",
        *(["mosaic"] if mosaics else []),
        *(["pointing", "inside"] if masks else []),
        "fails",
        left=2,
    )
    for score in scores:
        low, high = score.gain.interval
        correlation = score.sanity.final_similarity
        rows.add_row(
            score.method,
            score.layer,
            f"{score.gain.mean:+.2f}±{(high - low) / 2:.2f}",
            "–" if score.road is None else f"{score.road.mean:+.2f}",
            "–" if math.isnan(correlation) else f"{correlation:.2f}",
            *([_mosaic_mass(score)] if mosaics else []),
            *([f"{score.pointing:.2f}", f"{score.relevance_mass:.2f}"] if masks else []),
            " ".join(score.failed_checks[:1]),
        )
    out = console()
    out.print(rows)
    out.print()
    best = next((score for score in scores if score.trusted), None)
    conclusion = (
        "no method passes: each is no better than random maps, ignores the weights, or points "
        "elsewhere in mosaics"
        if best is None
        else f"most faithful: {best.method} at {best.layer}"
    )
    out.print(conclusion, style="bold")
    out.print(
        "\ngain: area between insertion and deletion curves, minus random maps; 0 is chance\n"
        "ROAD: remove and debias; 0 is chance\n"
        "random: rank correlation with the maps of a random-weight model; fails from 0.5"
    )
    if mosaics:
        out.print("mosaic: relevance on the one of four images that has the class; 0.25 is chance")
    if masks:
        out.print("pointing: maxima on the object\ninside: fraction of the relevance on the object")
    out.print(
        "fails: the first check that is not passed; gain and mosaic must be above chance with 95% "
        "confidence"
    )


def _mosaic_mass(score: TrustScore) -> str:
    return "–" if score.mosaic is None else f"{score.mosaic.relevance_mass.mean:.2f}"


def print_layers(layers: Sequence[Layer]) -> None:
    """Name, type, channels and size of each layer; those of auto with a star."""
    rows = table("", "layer", "type", "channels", "size", left=3)
    for layer in layers:
        rows.add_row(
            "*" * layer.auto,
            layer.name,
            layer.type,
            f"{layer.channels:,}",
            "x".join(map(str, layer.grid)),
        )
    out = console()
    out.print(rows)
    out.print("\nStarred layers are those of `--layers auto`.")
