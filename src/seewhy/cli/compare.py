"""`seewhy compare`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, get_origin

from tyro.conf import OmitArgPrefixes, UseAppendAction, arg

from seewhy.cli.arguments import (
    Flag,
    OptionalFloat,
    OptionalInt,
    OptionalPath,
    RecipeOptions,
    load_data,
)
from seewhy.errors import SeewhyError
from seewhy.experiments.parallel import Parallel
from seewhy.train.recipe import LearningRate, Recipe

if TYPE_CHECKING:
    from seewhy.experiments.experiment import Experiment


@dataclass(frozen=True)
class Compare(RecipeOptions):
    """Compare variants of a recipe over several seeds."""

    vary: Annotated[UseAppendAction[tuple[tuple[str, ...], ...]], arg(metavar="FIELD VALUE …")] = ()
    """Field and values to compare, as in --vary optimizer sgd adam; several fields make a grid."""
    parallel: OmitArgPrefixes[Parallel] = field(default_factory=Parallel)
    """Where to train."""
    seeds: int = 5
    """Number of seeds, and so of runs per recipe."""
    seconds: OptionalFloat = None
    """Training time per run in seconds, instead of a number of epochs."""
    images: OptionalInt = None
    """Training images per run over all epochs, instead of a number of epochs."""
    output: OptionalPath = None
    """Directory to create (default: runs/DATE-TIME-compare-NAME)."""
    quiet: Flag = False
    """Print only the result."""

    def base_recipe(self) -> Recipe:
        """The recipe; its learning rate is found for each optimizer if optimizers vary."""
        recipe = super().base_recipe()
        varies_optimizer = any(words[:1] == ("optimizer",) for words in self.vary)
        return replace(recipe, lr="find") if varies_optimizer else recipe


def compare(options: Compare) -> int:
    """Run the experiment and print its result; returns 1 if a run has no result."""
    from seewhy.experiments.grid import recipe_grid
    from seewhy.experiments.runner import run_experiment
    from seewhy.runs.output import check_empty, run_directory

    recipe = options.settings
    vary = {"lr": [recipe.lr]} | parse_vary(options.vary)
    if len(vary) == 1 and not options.vary:
        raise SeewhyError("compare needs at least one --vary, as in --vary optimizer sgd adam")
    _check_budget(options, vary)
    recipe_grid(recipe, vary)  # bad values fail before the data is loaded
    if options.output is not None:
        check_empty(options.output)
    data = load_data(options.data, options.loading, quiet=options.quiet)
    if options.images is not None:
        recipe = replace(recipe, epochs=options.images / len(data.train))
    recipes = recipe_grid(recipe, vary)
    with run_directory(f"compare-{recipe.name}", options.output) as directory:
        experiment = run_experiment(
            recipes,
            data,
            directory,
            options.seeds,
            options.seconds,
            options.parallel,
            options.quiet,
        )
    return finish(experiment)


def parse_vary(options: Sequence[Sequence[str]]) -> dict[str, list[Any]]:
    """Values by field, from the command line.

    Args:
        options: A field and its values each, such as `["optimizer", "sgd:momentum=0.9", "adam"]`
            or `["augment", "crop:4 flip", "none"]`: spaces separate the entries of a list, and
            `none` is the empty list.

    Returns:
        Values of the type of each field. A value that does not fit stays text, which `recipe_grid`
        rejects.

    Raises:
        SeewhyError: A field has no values, does not exist, cannot vary, or occurs twice.
    """
    from seewhy.experiments.grid import check_field

    vary: dict[str, list[Any]] = {}
    for words in options:
        if len(words) < 2 or not all(word.strip() for word in words):
            raise SeewhyError(
                "--vary needs a field and its values, as in --vary optimizer sgd adam, "
                f"found {' '.join(words)!r}"
            )
        field = words[0].strip().replace("-", "_")
        if field in vary:
            raise SeewhyError(f"{field} varies twice; give all its values to one --vary")
        check_field(field)
        vary[field] = [_parse_value(field, word.strip()) for word in words[1:]]
    return vary


def _parse_value(field: str, text: str) -> Any:
    """`text` as the type of a field of Recipe."""
    kind = Recipe.__dataclass_fields__[field].type
    if get_origin(kind) is tuple:
        return () if text == "none" else tuple(text.split())
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind in (int, float, LearningRate):
        try:
            return int(text) if kind is int else float(text)
        except ValueError:
            return text
    return text


def _check_budget(options: Compare, vary: dict[str, list[Any]]) -> None:
    """Raise SeewhyError if the length of training is set twice, or is not positive."""
    epochs = "epochs" in vary or options.settings.epochs != options.base_recipe().epochs
    budgets = {"seconds": options.seconds, "images": options.images}
    set_by = ["epochs"] * epochs + [name for name, value in budgets.items() if value is not None]
    if len(set_by) > 1:
        raise SeewhyError(
            f"set only one of epochs, seconds and images, found {' and '.join(set_by)}"
        )
    for name, value in budgets.items():
        if value is not None and not value > 0:
            raise SeewhyError(f"{name} must be more than 0, found {value:g}")


def finish(experiment: "Experiment") -> int:
    """Write the report and print the result of an experiment; returns 1 if a run has none."""
    from seewhy.cli.experiment_tables import print_experiment
    from seewhy.reporting.page import report_experiment

    try:
        if experiment.finished:
            report_experiment(experiment)
    finally:
        print_experiment(experiment)
    return int(len(experiment.finished) < len(experiment.trials))
