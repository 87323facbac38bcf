"""The command line: thin functions over the Python API, one a command."""

import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from seewhy import __version__
from seewhy.arguments import parse
from seewhy.errors import SeewhyError, lookup
from seewhy.train.recipe import Recipe

Name = Annotated[str, arg(metavar="NAME|PATH")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for what the user can mend, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(f"seewhy {__version__}")
        return 0
    try:
        lookup(COMMANDS, arguments[0], "command")(arguments[1:])
    except SeewhyError as error:
        if debug:
            traceback.print_exc()
        print(f"seewhy: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("seewhy: interrupted; what was written stays", file=sys.stderr)
        return 130
    return 0


def overview() -> str:
    """What `seewhy --help` prints."""
    rows = [f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "seewhy trains image classifiers fast, then shows why they are right and why they are wrong.",
            "",
            "usage: seewhy COMMAND …",
            "",
            *rows,
            "",
            "`seewhy COMMAND --help` lists what a command takes; --debug shows the traceback of an error.",
        ]
    )


@dataclass(frozen=True)
class Loading:
    """How to load the data."""

    image_size: int | None = None
    """Side of the square that images are resized and cropped to; by default what most of them have."""
    validation: float = 0.0
    """Share of the training images to hold out, stratified."""
    label: str | None = None
    """Column of the labels, where a data set has several."""
    skip_bad_images: bool = False
    """Leave out images that cannot be read, and count them."""


@dataclass(frozen=True)
class Train:
    """Train a network on a data set, and write a run directory."""

    start: Annotated[Positional[str], arg(metavar="RECIPE|FILE.toml")]
    """A built-in recipe, see `seewhy recipes`, or a file."""
    data: Name
    """Data set: a name, hub:owner/name, or a directory of class folders or Parquet files."""
    loading: OmitArgPrefixes[Loading]
    recipe: OmitArgPrefixes[Recipe]
    output: Path | None = None
    """Run directory to make; by default runs/DATE-TIME-RECIPE."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    quiet: bool = False
    """Show nothing while training."""


def train(arguments: list[str]) -> None:
    """Train a network on a data set, and write a run directory."""
    from seewhy.train.recipe import find_recipe

    named = arguments and not arguments[0].startswith("-")
    recipe = find_recipe(arguments[0]) if named else Recipe()
    default = Train(tyro.MISSING, tyro.MISSING, Loading(), recipe)
    options = parse("train", Train, arguments, default)

    from seewhy import tables
    from seewhy.data import load
    from seewhy.fitting import fit
    from seewhy.run import check_free, new_directory

    directory = options.output or new_directory(recipe.name)
    check_free(directory)
    data = load(options.data, seed=options.recipe.seed, **vars(options.loading))
    print(data)
    tables.print_run(fit(options.recipe, data, directory, options.device, options.quiet))


def demo(arguments: list[str]) -> None:
    """Train on the embedded handwritten digits in under a minute."""

    def options(output: Path | None = None) -> Path | None:
        """Train on the 1,797 handwritten digits that come with scikit-learn; nothing is downloaded.

        Args:
            output: Run directory to make; by default runs/DATE-TIME-demo.
        """
        return output

    output = parse("demo", options, arguments)
    print("Training on the embedded digits: `seewhy train demo --data digits`\n")
    train(["demo", "--data", "digits", *([] if output is None else ["--output", str(output)])])


def evaluate(arguments: list[str]) -> None:
    """Accuracy of a run on a data set, in all and of each class."""

    def options(
        run: Annotated[Positional[Path], arg(metavar="RUN")], data: Name | None = None, json: bool = False
    ) -> tuple[Path, str | None, bool]:
        """Accuracy of a run on the test images of a data set, with 95 % intervals.

        Args:
            run: Run directory, such as runs/latest.
            data: Data set; by default the one the run was trained on.
            json: Print JSON.
        """
        return run, data, json

    directory, data, as_json = parse("evaluate", options, arguments)
    from seewhy import tables
    from seewhy.diagnose.predictions import accuracies
    from seewhy.evaluation import evaluate as evaluate_run
    from seewhy.run import open_run

    result = evaluate_run(open_run(directory), data)
    if as_json:
        print(json.dumps(accuracies(result)))
    else:
        tables.print_accuracies(result)


def predict(arguments: list[str]) -> None:
    """Classes of image files."""

    def options(
        run: Annotated[Positional[Path], arg(metavar="RUN")],
        images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE [IMAGE …]")],
        top: int = 5,
        json: bool = False,
    ) -> tuple[Path, tuple[Path, ...], int, bool]:
        """The most probable classes of image files.

        Args:
            run: Run directory, such as runs/latest.
            images: Image files of any kind; resized and cropped as the training images were.
            top: How many classes to show.
            json: Print JSON.
        """
        return run, images, top, json

    directory, images, top, as_json = parse("predict", options, arguments)
    from seewhy import tables
    from seewhy.evaluation import predict as predict_images
    from seewhy.run import open_run

    if not images:
        raise SeewhyError("predict needs at least one image file, as in `seewhy predict runs/latest photo.jpg`")
    answers = predict_images(open_run(directory), images, top)
    if as_json:
        print(json.dumps([asdict(answer) for answer in answers]))
    else:
        tables.print_answers(answers)


def data(arguments: list[str]) -> None:
    """What is in a data set: sizes, pixel statistics, class counts, duplicates, samples."""

    def options(
        name: Annotated[Positional[str], arg(metavar="NAME|PATH")],
        loading: OmitArgPrefixes[Loading] = Loading(),
        recipe: str | None = None,
        figures: Path = Path("figures"),
    ) -> tuple[str, Loading, str | None, Path]:
        """Describe a data set and draw labelled samples of it.

        Args:
            name: Data set: a name, hub:owner/name, or a directory of class folders or Parquet files.
            recipe: Also draw the augmentations of this recipe, one by one.
            figures: Directory for the figures.
        """
        return name, loading, recipe, figures

    name, loading, recipe_name, figures = parse("data", options, arguments)
    from seewhy import tables
    from seewhy.data import describe, load
    from seewhy.figures.samples import augmentations_figure, samples_figure
    from seewhy.figures.style import save_figure
    from seewhy.train.recipe import find_recipe

    recipe = None if recipe_name is None else find_recipe(recipe_name)
    loaded = load(name, **vars(loading))
    tables.print_description(describe(loaded))
    written = [*save_figure(samples_figure(loaded.train, loaded.classes), figures / f"{loaded.name}-samples")]
    if recipe is not None:
        stem = figures / f"{loaded.name}-{recipe.name}-augmentations"
        written += save_figure(augmentations_figure(loaded.train, recipe.augment), stem)
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
            channels: 1 for grayscale, 3 for colour.
            num_classes: How many classes.
        """
        return model, image_size, channels, num_classes

    model, size, channels, classes = parse("summary", options, arguments)
    from seewhy import tables
    from seewhy.models import summary as summarise

    tables.print_summary(summarise(model, (channels, size, size), classes))


def models(arguments: list[str]) -> None:
    """The networks that can be named."""
    parse("models", _nothing, arguments)
    from seewhy import tables
    from seewhy.models import MODELS

    tables.print_functions(MODELS, given=2)


def recipes(arguments: list[str]) -> None:
    """The built-in recipes; with a name, that recipe as TOML."""

    def options(recipe: Annotated[Positional[str | None], arg(metavar="RECIPE")] = None) -> str | None:
        """The built-in recipes, or one of them as TOML, to start your own from.

        Args:
            recipe: Print this recipe as TOML, as in `seewhy recipes davidnet-24 > mine.toml`.
        """
        return recipe

    name = parse("recipes", options, arguments)
    from seewhy import tables
    from seewhy.train.recipe import find_recipe, to_toml
    from seewhy.train.recipes import RECIPES

    if name is None:
        tables.print_recipes(RECIPES)
    else:
        print(to_toml(find_recipe(name)), end="")


def _nothing() -> None:
    """Takes no arguments."""


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "demo": demo,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "data": data,
    "summary": summary,
    "models": models,
    "recipes": recipes,
}
