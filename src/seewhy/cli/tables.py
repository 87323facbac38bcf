"""What the commands print, as tables that fit a narrow terminal."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from seewhy.attribution.explanation import Explanation
from seewhy.attribution.layers import Layer
from seewhy.attribution.methods import METHODS
from seewhy.attribution.scores import TrustScore
from seewhy.data.statistics import Description
from seewhy.diagnosis.predictions import Predictions
from seewhy.models.summary import ModelSummary, format_summary
from seewhy.runs.console import clock
from seewhy.runs.prediction import ImagePrediction
from seewhy.runs.run import Run
from seewhy.train.recipe import Recipe, as_dict

WRITTEN = {
    "report.html": "where the network fails and why",
    "model.safetensors": "weights; `seewhy predict` and `seewhy.open_run` read them",
    "summary.json": "the result in numbers",
    "metrics.jsonl": "one row an epoch",
    "checkpoints/last.pt": "the training itself",
    "figures/curves.svg": "loss, accuracy, learning rate",
    "figures/lr_range_test.svg": "how the learning rate was found",
    "errors.csv": "every misclassified test image",
    "confusion.csv": "true class by predicted class",
    "predictions.npz": "logits of every test image",
    "diagnosis.npz": "what the report is made of",
    "recipe.toml": "the recipe; `seewhy train recipe.toml` repeats the run",
}


def console() -> Console:
    """Where the tables go: standard output. Names of classes and files are data, so markup is off."""
    return Console(highlight=False, markup=False)


def table(*headings: str, left: int = 1) -> Table:
    """A plain table whose first `left` columns are text and whose others are numbers."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, heading in enumerate(headings):
        made.add_column(heading, justify="left" if place < left else "right", overflow="fold")
    return made


def interval_text(interval: tuple[float, float]) -> str:
    """A 95% interval in percent."""
    return f"{100 * interval[0]:.1f} – {100 * interval[1]:.1f}"


def print_written(directory: Path, purposes: Mapping[str, str]) -> None:
    """Which of these files are in a directory, and what each is for."""
    out = console()
    out.print(f"\nwritten to {directory}")
    rows = table("", "", left=2)
    rows.show_header = False
    for name, purpose in purposes.items():
        if (directory / name).exists():
            rows.add_row(name, purpose)
    out.print(rows)


def print_run(run: Run) -> None:
    """The last lines of a training: how well, how fast, and where everything is."""
    out = console()
    result = run.result
    if result is not None:
        low, high = (100 * bound for bound in result.interval)
        out.print(
            f"\n{100 * result.accuracy:.2f}% of {result.test_images:,} test images correct (95% interval {low:.2f} – {high:.2f})",
            style="bold",
        )
        if run.recipe.tta != "none":
            out.print(
                f"with test-time augmentation {run.recipe.tta}; {100 * result.plain_accuracy:.2f}% without"
            )
        if result.selected_on == "validation":
            out.print(
                f"the weights are those of epoch {result.selected_epoch:g}, the best on the validation split"
            )
        speed = f"{result.images_per_second:,.0f} images/s in {run.environment.precision} on {run.environment.device}"
        out.print(f"{clock(result.train_seconds)} of training, {speed}")
    if run.directory is None:
        return
    print_written(run.directory, WRITTEN)
    written = run.directory / "report.html"
    out.print(
        f"\nnext: open {written}" if written.exists() else f"\nnext: seewhy report {run.directory}"
    )


def print_accuracies(result: Predictions, split: str) -> None:
    """Accuracy in all and of each class, the worst class first."""
    out = console()
    share = f"{100 * result.accuracy:.2f}% of {len(result.labels):,} {'' if split == 'all' else split + ' '}images correct"
    out.print(f"{share} (95% interval {interval_text(result.interval)}%)\n", style="bold")
    rows = table("class", "images", "accuracy %", "95% interval", "")
    for row in sorted(result.by_class, key=lambda row: row.accuracy):
        bar = Bar(1, 0, row.accuracy, width=20) if out.width >= 72 else ""
        rows.add_row(
            Text(row.name),
            f"{row.images:,}",
            f"{100 * row.accuracy:.1f}",
            interval_text(row.interval),
            bar,
        )
    out.print(rows)


def print_predictions(answers: Sequence[ImagePrediction]) -> None:
    """The top classes of each image."""
    out = console()
    for answer in answers:
        out.print(Path(answer.image).name, style="bold")
        for guess in answer.top:
            out.print(f"  {100 * guess.probability:6.2f}%  {guess.name}")


def print_description(description: Description) -> None:
    """Sizes, pixel statistics of each channel, class counts, duplicates."""
    out = console()
    shape = " x ".join(map(str, description.image_shape))
    sizes = ", ".join(f"{count:,} {name}" for name, count in description.images.items())
    out.print(
        f"{description.name}: {sizes} images, {len(description.classes)} classes, {shape}\n",
        style="bold",
    )
    pixels = table("split", "channel", "min", "max", "mean", "std", "var")
    names = "RGB" if description.image_shape[0] == 3 else "L"
    for split, found in description.pixels.items():
        for index, channel in enumerate(names):
            numbers = (found.min, found.max, found.mean, found.std, found.var)
            pixels.add_row(
                split if index == 0 else "",
                channel,
                *(f"{values[index]:.4f}" for values in numbers),
            )
    out.print(pixels)
    out.print()
    counts = table("class", *description.counts)
    for index, name in enumerate(description.classes):
        counts.add_row(
            Text(name), *(f"{int(count[index]):,}" for count in description.counts.values())
        )
    out.print(counts)
    out.print()
    repeated, across = description.duplicates.groups, description.duplicates.across
    images = sum(len(group) - 1 for group in repeated)
    out.print(
        f"exact duplicates: {images:,} images repeat another, {len(across):,} pictures are in more than one split"
    )
    for group in across[:5]:
        out.print("  " + " = ".join(f"{split} {index}" for split, index in group))
    if description.skipped:
        out.print(f"left out because they could not be read: {len(description.skipped):,}")
        for name in description.skipped[:10]:
            out.print(f"  {name}")


def print_summary(summary: ModelSummary) -> None:
    """The layer table of a network."""
    out = console()
    width = out.width if out.is_terminal else 200  # nothing is left out of a file or a pipe
    out.print(format_summary(summary, width), soft_wrap=True)


def print_functions(functions: Mapping[str, Callable[..., object]], given: int) -> None:
    """Names of a table with their settings and what they are."""
    rows = table("name", "settings", "", left=3)
    for name, function in sorted(functions.items()):
        rows.add_row(
            name, _settings(function, given), (inspect.getdoc(function) or "").partition("\n")[0]
        )
    console().print(rows)


def print_explanation(explanation: Explanation, directory: Path) -> None:
    """What was explained, how the maps are, and where everything is."""
    out = console()
    count, maps = len(explanation.logits), len(explanation.maps)
    out.print(
        f"{count:,} image{'s' * (count != 1)}, {maps} map{'s' * (maps != 1)} of each\n",
        style="bold",
    )
    rows = table("layer", "method", "map", "ok", "clipped by ReLU", left=2)
    for (layer, method), status in explanation.statuses.items():
        grid = "x".join(map(str, explanation.maps[layer, method].shape[1:]))
        ok = f"{status.kinds.count('ok'):,} of {count:,}"
        rows.add_row(Text(layer), Text(method), grid, ok, f"{100 * status.clipped.mean():.0f}%")
    out.print(rows)
    for sentence in explanation.warnings:
        out.print(f"\nwarning: {sentence}")
    out.print(f"\nwritten to {directory}: grid.svg, grid.png, maps.npz, overlays/")


def print_trust(verdicts: Sequence[TrustScore]) -> None:
    """What was measured of each method and layer, those to be trusted first, and what follows."""
    masks = any(verdict.pointing is not None for verdict in verdicts)
    rows = table(
        "method",
        "layer",
        "gain",
        "road",
        "random net",
        *(["pointing", "inside"] if masks else []),
        "",
        left=2,
    )
    for verdict in verdicts:
        low, high = verdict.gain.interval
        truth = [f"{verdict.pointing:.2f}", f"{verdict.relevance_mass:.2f}"] if masks else []
        rows.add_row(
            Text(verdict.method),
            Text(verdict.layer),
            f"{verdict.gain.mean:+.3f} ± {(high - low) / 2:.3f}",
            f"{verdict.road.mean:+.3f}",
            "–"
            if math.isnan(verdict.sanity.final_similarity)
            else f"{verdict.sanity.final_similarity:.2f}",
            *truth,
            "" if verdict.trusted else "fails" if not verdict.sanity.passed else "chance",
        )
    out = console()
    out.print(rows)
    trusted = [verdict for verdict in verdicts if verdict.trusted]
    if trusted:
        best = trusted[0]
        out.print(f"\nmost faithful: {best.method} at {best.layer}", style="bold")
    else:
        out.print(
            "\nnone of these can be trusted: each is no better than chance, or the same for a random network",
            style="bold",
        )
    out.print(
        "gain: area between insertion and deletion curve above that of random maps, with its 95% interval; road: ROAD; random "
        "net: rank correlation with the maps of the network with random weights, which fails from 0.5 on"
        + ("; pointing, inside: maxima and share of heat on the object" if masks else "")
    )


def as_values(verdict: TrustScore) -> dict[str, Any]:
    """A verdict as plain values for JSON."""
    return {
        "method": verdict.method,
        "layer": verdict.layer,
        "trusted": verdict.trusted,
        "gain": verdict.gain.mean,
        "gain_interval": verdict.gain.interval,
        "road": verdict.road.mean,
        "road_interval": verdict.road.interval,
        "random_network_correlation": None
        if math.isnan(verdict.sanity.final_similarity)
        else verdict.sanity.final_similarity,
        "pointing": verdict.pointing,
        "relevance_mass": verdict.relevance_mass,
        "non_empty": verdict.non_empty,
    }


def print_layers(layers: Sequence[Layer]) -> None:
    """Name, type, channels and grid of each layer; a star at those that auto takes."""
    rows = table("", "layer", "type", "channels", "grid", left=3)
    for layer in layers:
        rows.add_row(
            "*" * layer.auto,
            Text(layer.name),
            Text(layer.type),
            f"{layer.channels:,}",
            "x".join(map(str, layer.grid)),
        )
    console().print(rows)


def print_methods(functions: Mapping[str, Callable[..., object]]) -> None:
    """Every method of explaining, with its settings; METHODS knows its paper, cost, and whether it tells classes apart."""
    rows = table("method", "passes", "by class", "paper", left=4)
    rows.columns[0].no_wrap = True
    settings = {}
    for name, function in functions.items():
        facts = METHODS.get(name)
        rows.add_row(
            name,
            *(
                (facts.passes, "yes" if facts.discriminative else "no", facts.paper)
                if facts
                else ("", "", "")
            ),
        )
        settings[name] = _settings(function, given=1)
    out = console()
    out.print(rows)
    out.print(
        "\nF forward, B backward; those that share a pass need one in all. Settings, as in `rise:masks=500`:"
    )
    for name, written in settings.items():
        if written:
            out.print(Padding(Text(f"{name}: {written}"), (0, 0, 0, 2)))


def print_recipes(recipes: Mapping[str, Recipe]) -> None:
    """The built-in recipes, a paragraph each: what makes a training, and whatever else is not as in every recipe."""
    out = console()
    usual = as_dict(Recipe())
    said = (
        "name",
        "model",
        "epochs",
        "batch_size",
        "accumulate",
        "lr",
        "optimizer",
        "weight_decay",
        "schedule",
        "augment",
    )
    for recipe in recipes.values():
        batches = f"batches of {recipe.batch_size}" + (
            f" x {recipe.accumulate}" if recipe.accumulate > 1 else ""
        )
        others = {
            key: value
            for key, value in as_dict(recipe).items()
            if key not in said and value != usual[key]
        }
        lines = (
            f"{recipe.model}, {recipe.epochs:g} epochs, {batches}, lr {_short(recipe.lr)}",
            f"{recipe.optimizer}, weight decay {recipe.weight_decay:g}",
            recipe.schedule,
            " ".join(map(str, recipe.augment)),
            ", ".join(f"{key.replace('_', ' ')} {_listed(value)}" for key, value in others.items()),
        )
        out.print(recipe.name, style="bold")
        out.print(Padding(Text("\n".join(filter(None, lines))), (0, 0, 1, 2)))
    out.print("`seewhy recipes NAME > mine.toml` writes one to start your own from")


def _settings(function: Callable[..., object], given: int) -> str:
    """The parameters of a function that the notation can set, with their defaults."""
    settings = list(inspect.signature(function).parameters.values())[given:]
    return ", ".join(
        p.name if p.default is p.empty else f"{p.name}={_short(p.default)}" for p in settings
    )


def _listed(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else _short(value)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
