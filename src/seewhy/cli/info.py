"""`seewhy data`, `seewhy summary`, `seewhy models` and `seewhy recipes`."""

import re
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from seewhy.cli.arguments import DataOptions, load_data, parse


def data(arguments: list[str]) -> None:
    """What is in a data set: sizes, pixel statistics, class counts, duplicates, samples."""

    def options(
        name: Annotated[Positional[str], arg(metavar="NAME|PATH")],
        loading: OmitArgPrefixes[DataOptions] = DataOptions(),  # noqa: B008 (frozen)
        recipe: str | None = None,
        figures: Path = Path("figures"),
    ) -> tuple[str, DataOptions, str | None, Path]:
        """Describe a data set and draw labeled samples of it.

        Args:
            name: Data set: a name, hub:owner/name, or a directory of class folders or Parquet files.
            recipe: Also draw the augmentations of this recipe, one by one.
            figures: Directory for the figures.
        """
        return name, loading, recipe, figures

    name, loading, recipe_name, figures = parse("data", options, arguments)
    from seewhy.cli import tables
    from seewhy.data.statistics import describe
    from seewhy.figures.samples import augmentations_figure, samples_figure
    from seewhy.figures.style import save_figure
    from seewhy.train.recipes import find_recipe

    recipe = None if recipe_name is None else find_recipe(recipe_name)
    found = load_data(name, loading)
    tables.print_description(describe(found))
    file_name = re.sub(r"[^\w.-]+", "-", found.name)  # that of hub:owner/name would be a path
    written = [
        *save_figure(samples_figure(found.train, found.classes), figures / f"{file_name}-samples")
    ]
    if recipe is not None:
        stem = figures / f"{file_name}-{recipe.name}-augmentations"
        written += save_figure(augmentations_figure(found.train, recipe.augment), stem)
    print("figures:", *written)


def summary(arguments: list[str]) -> None:
    """Layers, parameters and multiply-adds of a network."""

    def options(
        model: Annotated[Positional[str], arg(metavar="MODEL")],
        image_size: int = 32,
        channels: int = 3,
        num_classes: int = 10,
    ) -> tuple[str, int, int, int]:
        """The layer table of a network: kernel, input, output, parameters and their share, multiply-adds, sizes.

        Args:
            model: Network, such as resnet18, davidnet:dropout=0.1 or timm:resnet50; see `seewhy models`.
            image_size: Height and width of the images.
            channels: 1 for grayscale, 3 for color.
            num_classes: How many classes.
        """
        return model, image_size, channels, num_classes

    model, size, channels, classes = parse("summary", options, arguments)
    from seewhy.cli import tables
    from seewhy.models.summary import model_summary

    tables.print_summary(model_summary(model, (channels, size, size), classes))


def models(arguments: list[str]) -> None:
    """The networks that can be named."""
    parse("models", _nothing, arguments)
    from seewhy.cli import tables
    from seewhy.models.registry import MODELS

    tables.print_functions(MODELS, given=2)


def recipes(arguments: list[str]) -> None:
    """The built-in recipes; with a name, that recipe as TOML."""

    def options(
        recipe: Annotated[Positional[str | None], arg(metavar="RECIPE")] = None,
    ) -> str | None:
        """The built-in recipes, or one of them as TOML, to start your own from.

        Args:
            recipe: Print this recipe as TOML, as in `seewhy recipes davidnet-24 > mine.toml`.
        """
        return recipe

    name = parse("recipes", options, arguments)
    from seewhy.cli import tables
    from seewhy.train.recipe import to_toml
    from seewhy.train.recipes import RECIPES, find_recipe

    if name is None:
        tables.print_recipes(RECIPES)
    else:
        print(to_toml(find_recipe(name)), end="")


def _nothing() -> None:
    """Takes no arguments."""
