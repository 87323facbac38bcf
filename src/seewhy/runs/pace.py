"""Fitting a recipe into a given time, by the pace of a few steps."""

from dataclasses import replace

from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.runs.lr_search import images_per_second
from seewhy.train.probes import bind_probe
from seewhy.train.recipe import Recipe
from seewhy.train.world import world_size
from seewhy.wording import counted

FORWARD_SHARE = 1 / 3  # of a training step that a pass without gradients takes
LONGEST_MEASUREMENT = 5.0  # seconds
RESERVE = 0.9  # of the time that is planned, as the pace varies


def fit_into(
    recipe: Recipe, data: Dataset, minutes: float, device: str = "auto"
) -> tuple[Recipe, str]:
    """The recipe with as many of its epochs as fit into a time, measured on a few steps.

    Args:
        recipe: The recipe.
        data: Data to train on.
        minutes: Time for training and evaluating, without the report.
        device: Device to train on.

    Returns:
        The recipe, and a line that says what fits.

    Raises:
        SeewhyError: If not even a hundredth of an epoch fits, minutes is not above 0, or several
            processes train together: each would measure another pace.
    """
    if not minutes > 0:
        raise SeewhyError(f"minutes must be more than 0, found {minutes:g}")
    if world_size() > 1:
        raise SeewhyError(
            f"minutes is for one process, found {world_size()}; set epochs, or start it without "
            "torchrun"
        )
    if recipe.epochs == 0:
        return recipe, f"{recipe.name} has no epochs to fit into {counted(minutes, 'minute')}"
    seconds = 60 * minutes
    measured = replace(recipe, probe="none", lr=1e-9)
    pace = images_per_second(measured, data, device, min(LONGEST_MEASUREMENT, 0.05 * seconds))
    held_out = len(data.test if data.validation is None else data.validation)
    evaluation = FORWARD_SHARE * held_out / pace
    probe = bind_probe(recipe.probe)
    views = 0 if probe is None else probe.num_views
    fixed = FORWARD_SHARE * views * len(data.train) / pace + 2 * evaluation
    per_epoch = len(data.train) / pace + (
        evaluation / recipe.eval_every if recipe.eval_every else 0
    )
    epochs = int(100 * (RESERVE * seconds - fixed) / per_epoch) / 100
    if epochs <= 0 and views:
        epochs = 0.0
    elif epochs <= 0:
        raise SeewhyError(
            f"not even a hundredth of an epoch of {recipe.name} fits into "
            f"{counted(minutes, 'minute')}, at {pace:,.0f} images/s; give more minutes, or choose "
            "a smaller model or smaller images"
        )
    fitted = replace(recipe, epochs=min(recipe.epochs, epochs))
    return fitted, (
        f"{fitted.epochs:g} of {counted(recipe.epochs, 'epoch')} of {recipe.name} fit into "
        f"{counted(minutes, 'minute')}, at {pace:,.0f} images/s"
    )
