"""`run_experiment` and `resume_experiment`: prepare the recipes, run the trials."""

import os
import shutil
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from seewhy.data.augment import AUGMENTATIONS
from seewhy.data.dataset import DataOrigin, Dataset
from seewhy.data.memory import check_dataset
from seewhy.data.sources import SOURCES, load, reload_data
from seewhy.errors import SeewhyError
from seewhy.experiments.experiment import (
    Experiment,
    Trial,
    open_experiment,
    read_trial,
    recipe_directories,
    resume_text,
    trial_name,
    write_experiment,
)
from seewhy.experiments.parallel import Parallel, WorkerDied, number_of_jobs, run_parallel
from seewhy.experiments.tables import write_tables
from seewhy.files import make_directory, write_text
from seewhy.models.registry import MODELS
from seewhy.models.tta import TTA
from seewhy.progress import note
from seewhy.runs.checkpoint import CheckpointPolicy, checkpoint_files, newest_checkpoint
from seewhy.runs.directory import (
    CHECKPOINTS,
    RECIPE,
    STATUS,
    has_finished,
    read_lr_range_test,
    read_recipe,
    read_status,
    write_lr_range_test,
    write_recipe,
    write_status,
)
from seewhy.runs.lr_search import images_per_second, resolve_lr
from seewhy.runs.output import DirectoryLocked, check_empty, claim_directory, lock_directory
from seewhy.runs.training import fit, resume
from seewhy.train.device import find_device
from seewhy.train.optimizers import OPTIMIZERS
from seewhy.train.plan import check_recipe
from seewhy.train.recipe import Recipe
from seewhy.train.schedules import SCHEDULES
from seewhy.wording import counted

TRACEBACK = "traceback.txt"  # of an error that is not a SeewhyError

_TABLES: tuple[dict[str, Any], ...] = (AUGMENTATIONS, MODELS, OPTIMIZERS, SCHEDULES, SOURCES, TTA)
# The threads of a Dask worker share the random generators, so only one of them trains at a time.
_ONE_AT_A_TIME = threading.Lock()


def run_experiment(
    recipes: Mapping[str, Recipe],
    data: Dataset,
    directory: str | Path,
    seeds: int = 5,
    seconds: float | None = None,
    parallel: Parallel | None = None,
    quiet: bool = False,
) -> Experiment:
    """Train several recipes on the same data with the same seeds.

    A trial that fails does not stop the others. An interrupted experiment can be resumed.

    Args:
        recipes: Recipes by name (see `seewhy.experiments.recipe_grid`). With an lr of "find", one
            range test chooses the lr for all seeds.
        data: Data to train and test on.
        directory: Directory to write; must be empty or missing. Each trial has a run directory in
            it.
        seeds: Number of trials of each recipe. Their seeds count up from the smallest seed of the
            recipes.
        seconds: Training time of each trial: the speed of each recipe is measured, and its epochs
            are set. By default the recipes set their epochs.
        parallel: Where and how many trials run at the same time.
        quiet: Show nothing.

    Returns:
        The experiment with all trials.

    Raises:
        SeewhyError: A recipe cannot be trained in an experiment, an argument is out of range,
            `directory` is not empty, or a worker process died.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, once the running trials have stopped.
    """
    recipes, directory, parallel = dict(recipes), Path(directory), parallel or Parallel()
    _check(recipes, seeds, seconds, parallel)
    check_empty(directory)
    data = _with_valid_load_args(check_dataset(data))
    first_seed = min(recipe.seed for recipe in recipes.values())
    seed_range = tuple(range(first_seed, first_seed + seeds))
    trials = tuple(
        Trial(name, seed, path / trial_name(seed))
        for name, path in recipe_directories(directory, recipes).items()
        for seed in seed_range
    )
    experiment = Experiment(directory, data.origin, recipes, seed_range, seconds, trials, {})
    with claim_directory(directory):
        make_directory(directory)
        write_experiment(experiment)
    return _run(experiment, data, parallel, quiet)


def resume_experiment(
    directory: str | Path,
    data: Dataset | None = None,
    parallel: Parallel | None = None,
    quiet: bool = False,
) -> Experiment:
    """Resume an experiment.

    Finished trials are kept, interrupted ones are resumed, and failed ones are tried again.

    Args:
        directory: Directory of the experiment.
        data: The data of the experiment; needed only if it was made in memory.
        parallel: Where and how many trials run at the same time.
        quiet: Show nothing.

    Returns:
        The experiment with all trials.

    Raises:
        SeewhyError: The directory is not that of an experiment, `data` is not its data, or a
            worker process died.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, once the running trials have stopped.
    """
    experiment, parallel = open_experiment(directory), parallel or Parallel()
    _check(experiment.recipes, len(experiment.seeds), None, parallel)
    return _run(experiment, reload_data(experiment.data, data), parallel, quiet)


def _with_valid_load_args(data: Dataset) -> Dataset:
    """The data, without its load_args if it was changed after loading."""
    if not data.load_args:
        return data
    loaded = load(**data.load_args, quiet=True)
    content = check_dataset(replace(data, fingerprint=""))
    loaded_content = check_dataset(replace(loaded, fingerprint=""))
    if content.fingerprint == loaded_content.fingerprint:
        return replace(data, fingerprint=loaded.fingerprint)
    return replace(content, load_args={})


def _check(
    recipes: Mapping[str, Recipe], seeds: int, seconds: float | None, parallel: Parallel
) -> None:
    """Raise SeewhyError if the recipes cannot be trained in an experiment."""
    if not recipes:
        raise SeewhyError("no recipes to train; pass at least one")
    if not isinstance(seeds, int) or seeds < 1:
        raise SeewhyError(f"seeds must be at least 1, found {seeds}")
    if seconds is not None and not seconds > 0:
        raise SeewhyError(f"seconds must be more than 0, found {seconds:g}")
    if seconds is not None and len({recipe.epochs for recipe in recipes.values()}) > 1:
        raise SeewhyError(
            "seconds sets the epochs of each recipe, so the recipes cannot differ in epochs; "
            "leave out one of the two"
        )
    for name, recipe in recipes.items():
        if not isinstance(recipe, Recipe):
            raise SeewhyError(
                f"{name!r} must be a Recipe, as in RECIPES or from recipe_grid(), found {recipe!r}"
            )
        if any(callable(step) for step in recipe.augment):
            raise SeewhyError(
                f"{name}: an experiment saves recipes as text, which is not possible for a "
                "function; add it to AUGMENTATIONS and use its name"
            )
        replace(recipe, seed=recipe.seed + seeds - 1)  # the largest seed must be valid
        check_recipe(recipe)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SeewhyError(
            "an experiment starts its own processes (see --jobs); start it without torchrun"
        )
    if parallel.backend == "processes":
        find_device(parallel.device)


@dataclass(frozen=True)
class _Shared:
    """What all tasks share, sent to the workers."""

    origin: DataOrigin
    data: Dataset | None  # None if it can be loaded from the cache, so that memory is shared
    device: str
    seconds: float | None
    additions: Sequence[
        Mapping[str, Any]
    ]  # added to each of _TABLES; a new process has only the built-in entries

    def load_data(self) -> Dataset:
        """Add the entries to the tables, and load the data."""
        for table, added in zip(_TABLES, self.additions, strict=True):
            table.update(added)
        return reload_data(self.origin, self.data)


def _run(experiment: Experiment, data: Dataset, parallel: Parallel, quiet: bool) -> Experiment:
    """Prepare the recipes, run the trials without a result, and write the tables."""
    shared = _Shared(
        data.origin,
        None if data.load_args else data,
        parallel.device,
        experiment.seconds,
        _table_additions(),
    )
    unfinished = len(experiment.trials) - len(experiment.finished)
    # also for the preparation, so that it measures the speed of parallel trials
    jobs = number_of_jobs(parallel, unfinished)
    try:
        experiment = _prepare_recipes(experiment, shared, parallel, jobs, quiet)
        experiment = _run_trials(experiment, shared, parallel, jobs, quiet)
    except WorkerDied as error:
        remedy = resume_text(open_experiment(experiment.directory))
        raise SeewhyError(f"{error}. {remedy}") from error
    except KeyboardInterrupt as interrupt:
        experiment = open_experiment(experiment.directory)
        write_tables(experiment)
        raise type(interrupt)(f"Interrupted. {resume_text(experiment)}") from None
    write_tables(experiment)
    return experiment


def _table_additions() -> list[dict[str, Any]]:
    """The entries of _TABLES that a process does not have by importing seewhy."""

    def is_added(entry: object) -> bool:
        function = getattr(entry, "func", entry)  # of a functools.partial
        outside = str(getattr(function, "__module__", "")).partition(".")[0] != "seewhy"
        # a function made in a function, as around a model of one's own
        return outside or "<locals>" in getattr(function, "__qualname__", "")

    return [{key: entry for key, entry in table.items() if is_added(entry)} for table in _TABLES]


def _absolute_directories(experiment: Experiment) -> dict[str, Path]:
    """Directories of the recipes; absolute, because workers may have another working directory."""
    return recipe_directories(experiment.directory.absolute(), experiment.recipes)


# Preparing recipes


def _prepare_recipes(
    experiment: Experiment, shared: _Shared, parallel: Parallel, jobs: int, quiet: bool
) -> Experiment:
    """Set the learning rate and the epochs of recipes without them."""
    directories = _absolute_directories(experiment)
    recipes, range_tests = dict(experiment.recipes), dict(experiment.range_tests)
    tasks = [
        (name, recipes[name], path)
        for name, path in directories.items()
        if not (path / RECIPE).exists()
    ]
    for name in run_parallel(_prepare, tasks, shared, parallel.backend, jobs):
        path = directories[name]
        if not (path / RECIPE).exists():
            note(f"{name}: {read_status(path).detail}", quiet)
            continue
        recipe, test = read_recipe(path), read_lr_range_test(path)
        recipes[name] = recipe
        if test is not None:
            range_tests[name] = test
        warning = f"; {test.warning}" if test is not None and test.warning else ""
        note(f"{name}: lr {recipe.lr:.3g}, {counted(recipe.epochs, 'epoch')}{warning}", quiet)
    return replace(experiment, recipes=recipes, range_tests=range_tests)


def _prepare(name: str, recipe: Recipe, directory: Path, shared: _Shared) -> str:
    """Write the recipe that all seeds share into its directory."""

    def prepare() -> None:
        with lock_directory(directory):
            if not (directory / RECIPE).exists():
                write_recipe(directory, _complete(recipe, directory, shared))
                (directory / STATUS).unlink(missing_ok=True)

    make_directory(directory)
    _record_failure(directory, prepare)
    return name


def _complete(recipe: Recipe, directory: Path, shared: _Shared) -> Recipe:
    """The recipe with its learning rate from a range test, and epochs for the training time."""
    if recipe.needs_lr:
        recipe, test = resolve_lr(recipe, shared.load_data(), shared.device)
        assert test is not None
        write_lr_range_test(directory, test)
    if shared.seconds is not None:
        data = shared.load_data()
        images = shared.seconds * images_per_second(recipe, data, shared.device)
        recipe = replace(recipe, epochs=images / len(data.train))
    return recipe


# Running trials


def _run_trials(
    experiment: Experiment, shared: _Shared, parallel: Parallel, jobs: int, quiet: bool
) -> Experiment:
    """Run the unfinished trials of the prepared recipes."""
    directories = _absolute_directories(experiment)
    trials = {(trial.recipe, trial.seed): trial for trial in experiment.trials}
    tasks = []
    for trial in experiment.trials:
        path = directories[trial.recipe]
        if trial.result is None and (path / RECIPE).exists():
            recipe = replace(experiment.recipes[trial.recipe], seed=trial.seed)
            tasks.append((trial.recipe, recipe, path / trial_name(trial.seed)))
        elif trial.result is None:  # the preparation has failed
            trials[trial.recipe, trial.seed] = read_trial(trial.recipe, trial.seed, trial.directory)
    # seed by seed, so that after an interruption recipes have equally many seeds
    tasks.sort(key=lambda task: task[1].seed)
    for done, trial in enumerate(
        run_parallel(_run_trial, tasks, shared, parallel.backend, jobs), 1
    ):
        key = trial.recipe, trial.seed
        trials[key] = replace(trial, directory=trials[key].directory)
        note(f"{done} of {len(tasks)}: {_summary_line(trial)}", quiet)
    return replace(experiment, trials=tuple(trials.values()))


def _run_trial(name: str, recipe: Recipe, directory: Path, shared: _Shared) -> Trial:
    """Run a trial from its start or its last checkpoint; the trial without a result if it fails."""

    def run() -> None:
        with lock_directory(directory):
            if has_finished(directory):
                return
            data = shared.load_data()
            if _has_checkpoint(directory):
                resume(directory, data, shared.device, quiet=True)
                return
            _clear(directory)
            fit(recipe, data, directory, shared.device, quiet=True, checkpoint=CheckpointPolicy())

    _record_failure(directory, run)
    return read_trial(name, recipe.seed, directory)


def _clear(directory: Path) -> None:
    """Remove the directory, or rename it if it has checkpoints, which are damaged."""
    if checkpoint_files(directory / CHECKPOINTS):
        names = (directory.with_name(f"{directory.name}.damaged-{i}") for i in count(1))
        directory.rename(next(path for path in names if not path.exists()))
    else:
        shutil.rmtree(directory, ignore_errors=True)


def _has_checkpoint(directory: Path) -> bool:
    """Whether there is an undamaged checkpoint."""
    try:
        newest_checkpoint(directory / CHECKPOINTS)
    except SeewhyError:
        return False
    return True


def _record_failure(directory: Path, work: Callable[[], None]) -> None:
    """Call `work`, and write an error into status.json instead of raising it."""
    try:
        with _ONE_AT_A_TIME:
            work()
        (directory / TRACEBACK).unlink(missing_ok=True)
    except DirectoryLocked as error:  # by a worker of a killed experiment that is still running
        note(str(error), quiet=False)
    except Exception as error:
        make_directory(directory)
        detail = str(error)
        if not isinstance(error, SeewhyError):
            detail = f"{type(error).__name__}: {error}"
            write_text(directory / TRACEBACK, traceback.format_exc())
        write_status(directory, "failed", detail)


def _summary_line(trial: Trial) -> str:
    title = f"{trial.recipe}, seed {trial.seed}"
    if trial.result is None:
        return f"{title}: {trial.unfinished_reason}"
    result = trial.result
    return f"{title}: {100 * result.accuracy:.2f}% in {result.train_seconds:,.0f} s"
