"""What an interrupted run is resumed from: its recipe, its data, and its checkpoints."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from seewhy.data.dataset import DataOrigin
from seewhy.errors import SeewhyError
from seewhy.files import write_error
from seewhy.models.registry import build_model, untrained_spec
from seewhy.progress import note
from seewhy.runs.checkpoint import (
    LoadedCheckpoint,
    best_weights,
    checkpoint_files,
    newest_checkpoint,
)
from seewhy.runs.directory import (
    CHECKPOINTS,
    RECIPE,
    has_finished,
    read_environment,
    read_history,
    write_status,
)
from seewhy.runs.environment import Environment
from seewhy.runs.output import is_unused, lock_directory
from seewhy.serialization import from_plain, reading
from seewhy.train.averaging import Weights
from seewhy.train.loop import EpochStats
from seewhy.train.plan import TrainingPlan
from seewhy.train.recipe import Recipe, as_dict, from_dict, read_toml
from seewhy.train.state import TrainState, check_progress, load_state_dict, new_state
from seewhy.train.world import World
from seewhy.wording import counted


def read_resumable(directory: Path) -> tuple[Environment, DataOrigin]:
    """The environment and the data of a run. Raises SeewhyError if it cannot be resumed."""
    if has_finished(directory):
        # a run that is killed late does not say so; it may be read-only
        with suppress(SeewhyError), lock_directory(directory):
            write_status(directory, "finished")
        raise SeewhyError(
            f"{directory} has already finished; use it, for example with `seewhy evaluate "
            f"{directory}`"
        )
    if directory.is_dir() and is_unused(directory):
        raise SeewhyError(
            f"{directory} ended before its first step; start it again with its command and "
            f"--output {directory}"
        )
    return read_environment(directory)


def recipe_of(directory: Path, recipe: Recipe | None) -> Recipe:
    """The recipe of a run; `recipe` must equal it. Raises SeewhyError if it does not."""
    path = directory / RECIPE
    values = as_dict(Recipe()) | read_toml(path)
    if recipe is not None:
        if recipe.needs_lr:
            recipe = replace(recipe, lr=values["lr"])
        if as_dict(recipe) != values:
            raise SeewhyError(
                f"the given recipe is not the one in {path}; to change it, start a new run"
            )
        return recipe
    if isinstance(values["augment"], list):
        functions = [step for step in values["augment"] if str(step).startswith("<")]
        if functions:
            raise SeewhyError(
                f"{directory} has augmentations that are Python functions "
                f"({', '.join(functions)}); pass the recipe to resume()"
            )
    try:
        return from_dict(values)
    except SeewhyError as error:
        raise SeewhyError(f"{path}: {error}") from error


def checkpoint_to_resume(
    directory: Path, recipe: Recipe, lr_changed: bool
) -> LoadedCheckpoint | None:
    """The checkpoint to resume from; None if the run ended before its first one.

    With `lr_changed`, it may have another learning rate than the recipe. Raises SeewhyError if the
    checkpoints of a run were removed: to start again would overwrite its epochs.
    """
    if not checkpoint_files(directory / CHECKPOINTS):
        epochs = len(read_history(directory))
        if epochs > 1:  # several processes may end before the checkpoint of the first epoch
            raise SeewhyError(
                f"{directory} has {counted(epochs, 'epoch')}, but {CHECKPOINTS}/ holds no "
                "checkpoint of them; restore it, or start a new run"
            )
        return None
    loaded = newest_checkpoint(directory / CHECKPOINTS)
    values = as_dict(Recipe()) | loaded.content["recipe"]
    if lr_changed:
        values["lr"] = recipe.lr
    if values != as_dict(recipe):
        raise SeewhyError(
            f"{directory / RECIPE} has changed since the run started; "
            "restore it, or start a new run"
        )
    return loaded


def set_damaged_aside(loaded: LoadedCheckpoint) -> None:
    """Report and rename damaged checkpoints, lest they become previous.pt."""
    for path, error_text in loaded.damaged.items():
        note(f"seewhy: {error_text}; resuming from {loaded.path.name}")
        try:
            if path.exists():
                path.replace(path.with_suffix(".damaged"))
        except OSError as error:
            raise write_error(path, error) from error


def best_weights_so_far(
    directory: Path, history: Sequence[EpochStats], step: int, world: World
) -> Weights | None:
    """The weights of the best epoch so far, if one was evaluated."""
    if not any(row.eval_accuracy is not None for row in history):
        return None
    try:
        return best_weights(directory, step)
    except SeewhyError as error:
        if world.is_first:
            note(f"seewhy: {error}; keeping the best of the remaining epochs")
        return None


def restored_state(
    plan: TrainingPlan, loaded: LoadedCheckpoint | None
) -> tuple[TrainState, list[EpochStats]]:
    """The state and history of a checkpoint; those of a new run without one."""
    if loaded is None:
        return new_state(plan), []
    model = untrained_spec(plan.recipe.model)  # the checkpoint has the weights
    state = new_state(plan, build_model(model, len(plan.data.classes), plan.data.splits["train"]))
    with reading(loaded.path, "it does not fit the run; remove it, or train again"):
        load_state_dict(state, loaded.content["state"])
        check_progress(state, plan)
        return state, [from_plain(EpochStats, row) for row in loaded.content["history"]]
