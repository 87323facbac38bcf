"""`seewhy find-lr`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from seewhy.cli.arguments import DataName, DataOptions, load_data, parse
from seewhy.train.recipe import Recipe
from seewhy.train.world import is_first_process


@dataclass(frozen=True)
class FindLr:
    """Train for a moment while the learning rate grows, and see where the loss falls and where it diverges."""

    start_from: Annotated[Positional[str], arg(name="RECIPE", metavar="RECIPE|FILE.toml")]
    """A built-in recipe, see `seewhy recipes`, or a file."""
    data: DataName
    """Data set: a name, hub:owner/name, or a directory of class folders or Parquet files."""
    loading: OmitArgPrefixes[DataOptions]
    recipe: OmitArgPrefixes[Recipe]
    start: float = 1e-7
    """Learning rate of the first update."""
    end: float = 10.0
    """And of the last."""
    updates: int = 100
    """How many updates."""
    beta: float = 0.98
    """How smooth the loss is made, in [0, 1)."""
    out: Path | None = None
    """Where to write the figure, as OUT.svg and OUT.png; by default nowhere."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""


def find_lr(arguments: list[str]) -> None:
    """A learning-rate range test: which rates a recipe could train at."""
    from seewhy.train.recipes import find_recipe

    def parsed(recipe: Recipe) -> FindLr:
        return parse(
            "find-lr", FindLr, arguments, FindLr(tyro.MISSING, tyro.MISSING, DataOptions(), recipe)
        )

    first = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    options = parsed(find_recipe(first) if first else Recipe())
    if options.start_from != first:
        options = parsed(find_recipe(options.start_from))

    from seewhy.cli.experiment_tables import print_range_test
    from seewhy.figures.lr_finder import lr_finder_figure
    from seewhy.figures.style import save_figure
    from seewhy.runs.lr_search import find_lr as find

    data = load_data(options.data, options.loading)
    if not is_first_process():  # torchrun starts several, and one is enough
        return
    found = find(
        options.recipe,
        data,
        options.start,
        options.end,
        options.updates,
        options.beta,
        options.device,
    )
    print_range_test(found, options.recipe)
    if options.out is not None:
        for path in save_figure(lr_finder_figure(found), options.out):
            print(path)
