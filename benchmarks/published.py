"""Published training runs on CIFAR-10 beside our recipes for the same number of epochs.

`python -m benchmarks.published PATH --names davidnet-24` trains a published recipe and ours on the
same data, and adds their row to the table. `--epochs 5 --images 10000` shortens both, in the same
shape, where the full length takes too long; the row says so. A finished run is not repeated.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.results import HERE, keep
from seewhy.data.sources import load
from seewhy.reporting.formatting import duration
from seewhy.runs.directory import has_finished
from seewhy.runs.run import Run, open_run
from seewhy.runs.training import fit
from seewhy.train.recipes import RECIPES, find_recipe

PUBLISHED = {  # accuracy on the lossless CIFAR-10, on a GPU
    "davidnet-24": "94.12% in 24 epochs of 6 s",
    "resnet18-adam-onecycle": "92.22% in 20 epochs of 60 s",
    "resnet18-onecycle": "88.28% in 20 epochs of 13 s",
    "resnet18-plateau": "89.41% in 20 epochs",
    "resnet18-steplr": "91.75% in 150 epochs of 68 s",
    "resnet18-steplr-cutout": "88.96% in 150 epochs of 68 s",
}
COPIES = {"4ec11f70b10fd621c63a2c431e2eacfd": "JPEG copy"}  # of CIFAR-10, by fingerprint
NOT_MEASURED = "not measured"
COLUMNS = (
    "training",
    "published result",
    "as published, here",
    "ours (`-plus`), here",
    "difference",
    "trained on",
    "hardware",
)
NOTE = (
    "Published accuracies are on the lossless CIFAR-10. Ours are on a JPEG copy (quality 75), on "
    "which accuracies are a few points lower, so a row compares its two measurements only. Both "
    "train for the same number of epochs on the same images, with seed 0. Rows without a "
    "measurement need a GPU or a day: `python -m benchmarks.published PATH --names NAME`."
)


@dataclass(frozen=True)
class Row:
    """A published training: its result, and two measurements of the same length."""

    training: str
    published: str
    as_published: str
    ours: str
    difference: str
    trained_on: str
    hardware: str


def measure(
    path: str,
    names: tuple[str, ...] = tuple(PUBLISHED),
    epochs: float | None = None,
    images: int | None = None,
) -> None:
    """Train the named recipes and ours, and save a row for each.

    Args:
        path: First argument of `seewhy.load`.
        names: Published recipes.
        epochs: Epochs of both; by default those of the published recipe.
        images: Training images, balanced by class; by default all.
    """
    for name in names:
        pair = [_run(path, each, epochs, images) for each in (name, f"{name}-plus")]
        save([_row(name, *pair)])


def save(rows: list[Row]) -> None:
    """Add rows to the table; a row replaces that of the same training, length and hardware."""
    file = HERE / "results" / "published.json"
    saved = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    table = {_key(row): row for row in [*(Row(**row) for row in saved), *rows]}
    measured = {row.training for row in table.values() if row.hardware != NOT_MEASURED}
    missing = [name for name in PUBLISHED if name not in measured]
    table = {key: row for key, row in table.items() if row.hardware != NOT_MEASURED}
    rows = [*table.values(), *map(_empty, missing)]
    order = list(PUBLISHED)
    rows.sort(key=lambda row: order.index(row.training))
    keep("published", "Published training runs", rows, note=NOTE, columns=COLUMNS)


def _key(row: Row) -> tuple[str, str, str]:
    return row.training, row.trained_on, row.hardware


def _empty(name: str) -> Row:
    return Row(name, PUBLISHED[name], NOT_MEASURED, NOT_MEASURED, "–", "–", NOT_MEASURED)


def _run(path: str, name: str, epochs: float | None, images: int | None) -> Run:
    recipe = find_recipe(name, epochs=RECIPES[name].epochs if epochs is None else epochs)
    directory = Path(f"runs/published/{name}-{recipe.epochs:g}-epochs-{images or 'all'}-images")
    if not (directory.exists() and has_finished(directory)):
        fit(recipe, load(path, limit=images), directory)
    return open_run(directory)


def _row(name: str, published: Run, ours: Run) -> Row:
    theirs, mine = published.result, ours.result
    assert theirs is not None
    assert mine is not None
    points = 100 * (mine.accuracy - theirs.accuracy)
    ratio = mine.train_seconds / theirs.train_seconds
    data, environment = published.data_origin, published.environment
    copy = COPIES.get(data.fingerprint, "JPEG copy" if "cifar" in data.name else data.name)
    epochs, full_length = published.recipe.epochs, RECIPES[name].epochs
    length = f"{epochs:g} epochs" + ("" if epochs == full_length else f" of {full_length:g}")
    processor = environment.accelerator or f"{environment.processor}, {environment.cores} cores"
    return Row(
        name,
        PUBLISHED[name],
        _measured(published),
        _measured(ours),
        f"{points:+.2f} points in {ratio:.2f} of the time",
        f"{copy}, {data.images['train']:,} images, {length}",
        f"{processor}, {environment.precision}",
    )


def _measured(run: Run) -> str:
    result = run.result
    assert result is not None
    return (
        f"{100 * result.accuracy:.2f}% in {duration(result.train_seconds)}, "
        f"{result.images_per_second:,.0f} images/s"
    )


if __name__ == "__main__":
    tyro.cli(measure)
