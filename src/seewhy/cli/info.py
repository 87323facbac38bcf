"""`seewhy data`, `seewhy cache`, `seewhy summary`, `seewhy list` and `seewhy recipes`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

from tyro.conf import OmitArgPrefixes, Positional, arg

from seewhy.cli.arguments import (
    DataOptions,
    Flag,
    OptionalInt,
    OptionalPath,
    OptionalText,
    load_data,
)
from seewhy.errors import SeewhyError, lookup
from seewhy.progress import say


@dataclass(frozen=True)
class Data:
    """Describe a dataset: statistics, class counts, duplicates."""

    name: Annotated[Positional[str], arg(metavar="NAME|PATH")]
    """Dataset: a name, hub:owner/name, or the path of a directory or an archive."""
    loading: Annotated[OmitArgPrefixes[DataOptions], arg(name="data")] = field(
        default_factory=DataOptions
    )
    """How to load the data."""
    recipe: OptionalText = None
    """Draw each augmentation of this recipe before normalization."""
    samples: OptionalInt = None
    """Number of images to draw, spread evenly over the classes (default: 8 of each class)."""
    decimals: int = 4
    """Decimal places of the statistics, from 0 to 15."""
    output: Path = Path("figures")
    """Directory for the figures."""


def data(options: Data) -> None:
    """Print statistics of a dataset, and draw samples of it."""
    from seewhy.cli import tables
    from seewhy.data.statistics import describe
    from seewhy.figures.samples import augmentations_figure, samples_figure
    from seewhy.figures.style import save_figure
    from seewhy.train.recipes import find_recipe

    if not 0 <= options.decimals <= 15:
        raise SeewhyError(f"decimals must be from 0 to 15, found {options.decimals}")
    recipe = None if options.recipe is None else find_recipe(options.recipe)
    dataset = load_data(options.name, options.loading)
    samples = samples_figure(dataset.train, dataset.classes, count=options.samples)
    tables.print_description(describe(dataset), options.decimals)
    stem = re.sub(r"[^\w.-]+", "-", dataset.name)  # hub:owner/name would be a path
    steps, name = ((), "normalized") if recipe is None else (recipe.augment, recipe.name)
    seen = augmentations_figure(dataset.train, steps)  # by a model
    suffix = "-augmentations" if recipe is not None else ""
    written = [
        *save_figure(samples, options.output / f"{stem}-samples"),
        *save_figure(seen, options.output / f"{stem}-{name}{suffix}"),
    ]
    for path in written:
        tables.print_path("figure", path)


@dataclass(frozen=True)
class Cache:
    """List cached datasets, or verify their checksums."""

    verify: Flag = False
    """Read everything and compare it with its checksums."""


def cache(options: Cache) -> int:
    """Print the entries of the cache; returns 1 if one is damaged."""
    from seewhy.data.cache import cache_entries, cache_root, verify_entry

    entries = cache_entries()
    results = {entry: verify_entry(entry) if options.verify else None for entry in entries}
    _print_cache(cache_root(), results)
    return int(any(results.values()))


def _print_cache(root: Path, results: Mapping[Path, str | None]) -> None:
    """The decoded datasets in the cache: for each directory what is damaged, None if unknown."""
    from seewhy.cli.tables import console, print_path, table

    if not results:
        print_path("no datasets in", root)
        return
    rows = table("dataset", "MB", "")
    for path, damage in results.items():
        size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        state = "" if damage is None else f"damaged: {damage}" if damage else "ok"
        rows.add_row(path.name, f"{size / 1e6:,.1f}", state)
    rows.columns[2].justify = "left"
    out = console()
    out.print(rows)
    out.print()
    print_path("in", root / "datasets")
    if any(results.values()):
        out.print("What is damaged is decoded anew when it is loaded.")


@dataclass(frozen=True)
class Summary:
    """Print the layers of a model and their costs, and draw it."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Model, such as resnet18, davidnet:dropout=0.1 or timm:resnet50 (see `seewhy list models`)."""
    image_size: int = 32
    """Height and width of the images."""
    channels: int = 3
    """1 for grayscale, 3 for color."""
    num_classes: int = 10
    """Number of classes."""
    batch_size: int = 1
    """Images that multiply-adds and memory are counted for."""
    figure: OptionalPath = None
    """Also draw the model, to this .svg, .png or .pdf file."""


def summary(options: Summary) -> None:
    """Print the layer table of a model, and draw it."""
    from seewhy.cli import tables
    from seewhy.figures.model import model_figure
    from seewhy.figures.style import check_figure_path, write_figure
    from seewhy.models.summary import model_summary

    if options.figure is not None:
        check_figure_path(options.figure)
    shape = (options.channels, options.image_size, options.image_size)
    classes = options.num_classes
    tables.print_summary(model_summary(options.model, shape, classes, options.batch_size))
    if options.figure is not None:
        write_figure(model_figure(options.model, shape, classes), options.figure)
        tables.print_path("figure", options.figure)


@dataclass(frozen=True)
class List:
    """List the names of models, optimizers and other entries."""

    table: Annotated[Positional[str | None], arg(metavar="[TABLE]", help_behavior_hint="")] = None
    """Describe the entries of this table, such as optimizers; by default all names are listed."""
    pretrained: OptionalText = None
    """With models: find published weights, as in "resnet size<=224 parameters<30M accuracy>75"."""


class Listed(NamedTuple):
    """A table of functions, and the number of arguments that their caller passes."""

    functions: Mapping[str, Callable[..., object]]
    n_supplied: int


def list_(options: List) -> None:
    """Print all names by table, or the entries of a table with their settings."""
    from seewhy.cli import listings

    if options.pretrained is not None:
        from seewhy.models.pretrained_list import find_published

        if options.table != "models":
            raise SeewhyError("--pretrained is for models: seewhy list models --pretrained WORD")
        listings.print_published(*find_published(options.pretrained))
        return
    listed = _listed_tables()
    if options.table is None:
        listings.print_names({name: sorted(table.functions) for name, table in listed.items()})
    else:
        table = lookup(listed, options.table, "table")
        listings.print_functions(table.functions, table.n_supplied)


def _listed_tables() -> dict[str, Listed]:
    """The tables whose entries are written in the notation, with the names of `seewhy list`."""
    from seewhy.data.augment import AUGMENTATIONS
    from seewhy.data.sources import SOURCES
    from seewhy.diagnosis.attacks import ATTACKS
    from seewhy.diagnosis.corruptions import CORRUPTIONS
    from seewhy.models.registry import MODELS
    from seewhy.models.tta import TTA
    from seewhy.train.loss_scale import LOSS_SCALES
    from seewhy.train.optimizers import OPTIMIZERS
    from seewhy.train.samplers import SAMPLERS
    from seewhy.train.schedules import SCHEDULES

    return {
        "attacks": Listed(ATTACKS, 3),
        "augmentations": Listed(AUGMENTATIONS, 2),
        "corruptions": Listed(CORRUPTIONS, 3),
        "datasets": Listed(SOURCES, 0),
        "loss-scales": Listed(LOSS_SCALES, 2),
        "models": Listed(MODELS, 2),
        "optimizers": Listed(OPTIMIZERS, 3),
        "samplers": Listed(SAMPLERS, 3),
        "schedules": Listed(SCHEDULES, 2),
        "tta": Listed(TTA, 2),
    }


@dataclass(frozen=True)
class Recipes:
    """List the built-in recipes, or print one as TOML."""

    recipe: Annotated[Positional[str | None], arg(metavar="[RECIPE]", help_behavior_hint="")] = None
    """Print this recipe as TOML, as in `seewhy recipes davidnet-24 > mine.toml`."""


def recipes(options: Recipes) -> None:
    """Print the built-in recipes, or one of them as TOML."""
    from seewhy.cli import listings
    from seewhy.train.recipe import to_toml
    from seewhy.train.recipes import RECIPES, find_recipe

    if options.recipe is None:
        listings.print_recipes(RECIPES)
    else:
        say(to_toml(find_recipe(options.recipe)).rstrip("\n"))
