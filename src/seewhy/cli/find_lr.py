"""`seewhy find-lr`."""

from dataclasses import dataclass

from seewhy.cli.arguments import Device, OptionalPath, RecipeOptions, load_data
from seewhy.errors import SeewhyError
from seewhy.files import check_file_name
from seewhy.progress import waiting
from seewhy.train.world import is_first_process


@dataclass(frozen=True)
class FindLr(RecipeOptions):
    """Suggest learning rates for a recipe with a range test."""

    start: float = 1e-7
    """Initial learning rate."""
    end: float = 10.0
    """Final learning rate."""
    updates: int = 100
    """Number of updates."""
    beta: float = 0.98
    """Smoothing factor of the loss, in [0, 1)."""
    output: OptionalPath = None
    """Write the figure to PATH.svg and PATH.png (default: no figure)."""
    device: Device = "auto"


def find_lr(options: FindLr) -> None:
    """Run a learning-rate range test and print its suggestions."""
    from seewhy.cli.experiment_tables import print_range_test
    from seewhy.cli.tables import print_path
    from seewhy.figures.lr_finder import lr_finder_figure
    from seewhy.figures.style import save_figure
    from seewhy.runs.lr_search import find_lr as run_range_test
    from seewhy.train.plan import check_recipe

    check_recipe(options.settings)  # before the data is loaded
    if options.output is not None:
        check_file_name(options.output)
    data = load_data(options.data, options.loading)
    if not is_first_process():  # torchrun starts several processes; one is enough
        return
    with waiting("training with rising learning rates"):
        test = run_range_test(
            options.settings,
            data,
            options.start,
            options.end,
            options.updates,
            options.beta,
            options.device,
        )
    print_range_test(test, options.settings)
    if options.output is not None:
        for path in save_figure(lr_finder_figure(test), options.output):
            print_path("figure", path)
    if test.refusal:
        raise SeewhyError(test.refusal)
