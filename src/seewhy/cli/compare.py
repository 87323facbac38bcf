"""`seewhy compare`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from seewhy.cli.arguments import DataName, DataOptions, load_data, parse
from seewhy.errors import SeewhyError
from seewhy.experiments.parallel import Parallel
from seewhy.train.recipe import Recipe

if TYPE_CHECKING:
    from seewhy.experiments.experiment import Experiment


@dataclass(frozen=True)
class Compare:
    """Train recipes that differ in some fields, each with the same seeds, and say which differences are real."""

    start_from: Annotated[Positional[str], arg(name="RECIPE", metavar="RECIPE|FILE.toml")]
    """A built-in recipe, see `seewhy recipes`, or a file."""
    data: DataName
    """Data set: a name, hub:owner/name, or a directory of class folders or Parquet files."""
    vary: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FIELD=VALUE,VALUE")]
    """What differs, as in optimizer=sgd:momentum=0.9,adam or augment="none,crop:4 flip"; several make a grid."""
    loading: OmitArgPrefixes[DataOptions]
    recipe: OmitArgPrefixes[Recipe]
    fan_out: OmitArgPrefixes[Parallel]
    seeds: int = 5
    """How many trainings of each recipe."""
    seconds: float | None = None
    """Train every recipe about so long, instead of so many epochs."""
    images: int | None = None
    """Train every recipe on so many images in all, instead of so many epochs."""
    output: Path | None = None
    """Directory to make; by default runs/DATE-TIME-compare-RECIPE."""
    quiet: bool = False
    """Show only the result."""


@dataclass(frozen=True)
class Resume:
    """Go on with a comparison: what has finished stays, what was interrupted goes on, what failed is tried again."""

    resume: Path
    """Directory of the comparison."""
    fan_out: OmitArgPrefixes[Parallel]
    quiet: bool = False
    """Show only the result."""


def compare(arguments: list[str]) -> None:
    """Train recipes side by side over several seeds: --vary optimizer=sgd,adam."""
    if any(argument.split("=")[0] == "--resume" for argument in arguments):
        resumed = parse("compare", Resume, arguments, Resume(tyro.MISSING, Parallel()))

        from seewhy.experiments.runner import resume_experiment

        _finish(resume_experiment(resumed.resume, fan_out=resumed.fan_out, quiet=resumed.quiet))
        return
    from seewhy.train.recipes import find_recipe

    def parsed(recipe: Recipe) -> Compare:
        return parse(
            "compare",
            Compare,
            arguments,
            Compare(tyro.MISSING, tyro.MISSING, (), DataOptions(), recipe, Parallel()),
        )

    first = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    options = parsed(find_recipe(first) if first else Recipe())
    if options.start_from != first:
        options = parsed(find_recipe(options.start_from))

    from seewhy.experiments.grid import parse_vary, recipe_grid
    from seewhy.experiments.runner import run_experiment
    from seewhy.runs.directory import check_empty, run_directory

    vary = parse_vary(options.vary)
    if not vary:
        raise SeewhyError(
            "say what is to differ, as in --vary optimizer=sgd,adam --vary lr=0.1,0.3"
        )
    if any(argument.split("=")[0] == "--lr" for argument in arguments):
        vary = {"lr": [options.recipe.lr]} | vary
    _check_budget(options, arguments, vary)
    recipe_grid(options.recipe, vary)  # what it says about bad values does not need the data
    if options.output is not None:
        check_empty(options.output)
    data = load_data(options.data, options.loading)
    recipe = options.recipe
    if options.images is not None:
        recipe = replace(recipe, epochs=options.images / len(data.train))
    recipes = recipe_grid(recipe, vary)
    with run_directory(f"compare-{options.recipe.name}", options.output) as directory:
        made = run_experiment(
            recipes, data, directory, options.seeds, options.seconds, options.fan_out, options.quiet
        )
    _finish(made)


def _check_budget(options: Compare, arguments: list[str], vary: dict[str, list[Any]]) -> None:
    """Raise SeewhyError where more than one thing says how long to train."""
    epochs = "epochs" in vary or any(argument.split("=")[0] == "--epochs" for argument in arguments)
    budgets = {"seconds": options.seconds, "images": options.images}
    said = ["epochs"] * epochs + [name for name, value in budgets.items() if value is not None]
    if len(said) > 1:
        raise SeewhyError(
            f"how long to train is said by one of epochs, seconds and images, found {' and '.join(said)}"
        )
    for name, value in budgets.items():
        if value is not None and not value > 0:
            raise SeewhyError(f"{name} must be more than 0, found {value:g}")


def _finish(experiment: "Experiment") -> None:
    """Write the report, print the result, and end with an error where a training has none."""
    from seewhy.cli.experiment_tables import print_experiment
    from seewhy.reporting.page import report_experiment

    try:
        if experiment.finished:
            report_experiment(experiment)
    finally:
        print_experiment(experiment)
    missing = len(experiment.trials) - len(experiment.finished)
    if missing:
        raise SeewhyError(
            f"{missing} of {len(experiment.trials)} trainings have no result; `seewhy compare --resume {experiment.directory}` "
            "tries them again"
        )
