"""`compare_recipes`: the trials of an experiment, fanned out over the processes of a machine or over a cluster."""

import os
import shutil
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import joblib

from seewhy.data.augment import AUGMENTATIONS
from seewhy.data.dataset import Dataset
from seewhy.data.sources import SOURCES, check_dataset, load
from seewhy.errors import SeewhyError
from seewhy.experiments.experiment import (
    RECIPE,
    Experiment,
    Trial,
    open_experiment,
    read_trial,
    recipe_directories,
    write_experiment,
)
from seewhy.experiments.parallel import Parallel, WorkerDied, run_parallel
from seewhy.experiments.tables import write_results
from seewhy.files import make_directory, write_text
from seewhy.models.registry import MODELS
from seewhy.models.tta import TTA
from seewhy.progress import note
from seewhy.runs.checkpoint import CheckpointPolicy, newest_checkpoint
from seewhy.runs.directory import (
    DirectoryLocked,
    check_empty,
    lock_directory,
    read_lr_range_test,
    read_status,
    write_lr_range_test,
    write_status,
)
from seewhy.runs.lr_search import images_per_second, resolve_lr
from seewhy.runs.training import fit, resume
from seewhy.train.device import find_device
from seewhy.train.optimizers import OPTIMIZERS
from seewhy.train.plan import check_recipe
from seewhy.train.recipe import Recipe, to_toml
from seewhy.train.recipes import find_recipe
from seewhy.train.schedules import SCHEDULES

TABLES: tuple[dict[str, Any], ...] = (AUGMENTATIONS, MODELS, OPTIMIZERS, SCHEDULES, SOURCES, TTA)
ONE_AT_A_TIME = (
    threading.Lock()
)  # in a process: a worker of dask has several threads, which share the random generators


def run_experiment(
    recipes: Mapping[str, Recipe],
    data: Dataset,
    directory: str | Path,
    seeds: int = 5,
    seconds: float | None = None,
    fan_out: Parallel | None = None,
    quiet: bool = False,
) -> Experiment:
    """Train every recipe with the same seeds, each training in a run directory of its own below `directory`.

    `seewhy.grid` makes recipes that differ in some fields. A learning rate of "find" is found once for all seeds of a recipe.
    `seconds` sets the epochs of each recipe, so that all train as long; otherwise their epochs do. A training that fails costs
    the others nothing, and an interrupted comparison goes on with `resume_comparison`. Raises SeewhyError where nothing can be
    compared, and where a process dies.
    """
    recipes, directory, fan_out = dict(recipes), Path(directory), fan_out or Parallel()
    for recipe in recipes.values():
        check_recipe(recipe)
    _check(recipes, seeds, seconds, fan_out)
    check_empty(directory)
    data = _as_loaded(check_dataset(data))
    first = min(recipe.seed for recipe in recipes.values())
    about = {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "load_args": dict(data.load_args),
    }
    experiment = Experiment(
        directory, about, recipes, tuple(range(first, first + seeds)), seconds, (), {}
    )
    make_directory(directory)
    write_experiment(experiment)
    return _finished(experiment, data, fan_out, quiet)


def resume_experiment(
    directory: str | Path,
    data: Dataset | None = None,
    fan_out: Parallel | None = None,
    quiet: bool = False,
) -> Experiment:
    """Go on with an experiment: what has finished stays, what was interrupted goes on, what failed is tried again.

    `data` is needed only where it was made in memory. Raises as `compare_recipes` does.
    """
    experiment, fan_out = open_experiment(directory), fan_out or Parallel()
    _check(experiment.recipes, len(experiment.seeds), None, fan_out)
    if data is None:
        if not experiment.data["load_args"]:
            raise SeewhyError(
                f"{experiment.data['name']} was made in memory; give resume_comparison() the data of {directory}"
            )
        data = load(**experiment.data["load_args"])
    data = check_dataset(data)
    if data.fingerprint != experiment.data["fingerprint"]:
        raise SeewhyError(f"{data.name} is not the data of {directory}: its fingerprint differs")
    return _finished(experiment, data, fan_out, quiet)


def _as_loaded(data: Dataset) -> Dataset:
    """The data, no longer said to be loaded where it is not what loading gives: a data set may be changed after that."""
    if not data.load_args:
        return data
    content, loaded = (
        check_dataset(replace(data, fingerprint="")),
        load(**data.load_args, quiet=True),
    )
    if content.fingerprint in (
        loaded.fingerprint,
        check_dataset(replace(loaded, fingerprint="")).fingerprint,
    ):
        return data
    return replace(content, load_args={})


def _check(
    recipes: Mapping[str, Recipe], seeds: int, seconds: float | None, fan_out: Parallel
) -> None:
    """Raise SeewhyError for what cannot be compared, before anything is written."""
    if not recipes:
        raise SeewhyError("there is no recipe to train")
    if not isinstance(seeds, int) or seeds < 1:
        raise SeewhyError(f"seeds must be at least 1, found {seeds}")
    if seconds is not None and not seconds > 0:
        raise SeewhyError(f"seconds must be more than 0, found {seconds:g}")
    if seconds is not None and len({recipe.epochs for recipe in recipes.values()}) > 1:
        raise SeewhyError(
            "seconds set the epochs of every recipe, so these cannot differ from recipe to recipe too"
        )
    for name, recipe in recipes.items():
        if not isinstance(recipe, Recipe):
            raise SeewhyError(
                f"{name!r} must be a Recipe, as in RECIPES or made by grid(), found {recipe!r}"
            )
        if any(callable(step) for step in recipe.augment):
            raise SeewhyError(
                f"{name}: an experiment keeps recipes as text; give the augmentation a name in AUGMENTATIONS"
            )
        replace(recipe, seed=recipe.seed + seeds - 1)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SeewhyError(
            "a comparison starts its own processes, see --jobs; start it without torchrun"
        )
    if fan_out.backend == "processes":
        find_device(fan_out.device)


def _finished(experiment: Experiment, data: Dataset, fan_out: Parallel, quiet: bool) -> Experiment:
    """Prepare the recipes, run the trials, and write what comes of it."""
    directory = (
        experiment.directory.absolute()
    )  # worker processes that live on may have begun in another directory
    homes = recipe_directories(directory, experiment.recipes)
    sent = (
        None if data.load_args else data
    )  # what can be loaded is loaded from its cache, and memory is shared
    work = _Work(sent, dict(data.load_args), fan_out.device, experiment.seconds, _additions())
    missing = [trial for trial in open_experiment(directory).trials if trial.result is None]
    jobs = _jobs(
        fan_out, len(missing)
    )  # for both: a recipe's speed is to be measured as it will be trained
    try:
        unfixed = [
            (name, experiment.recipes[name], home)
            for name, home in homes.items()
            if not (home / RECIPE).exists()
        ]
        for name in run_parallel(_prepare, unfixed, work, fan_out.backend, jobs):
            note(_prepared_line(name, homes[name]), quiet)
        ready = open_experiment(directory).recipes
        left = [trial for trial in missing if (homes[trial.recipe] / RECIPE).exists()]
        left.sort(
            key=lambda trial: trial.seed
        )  # so that an interruption leaves every recipe as many seeds
        tasks = [(replace(ready[trial.recipe], seed=trial.seed), trial) for trial in left]
        for done, trial in enumerate(run_parallel(_try, tasks, work, fan_out.backend, jobs), 1):
            note(
                f"{done} of {len(left)}: {_line(read_trial(trial.recipe, trial.seed, trial.directory))}",
                quiet,
            )
    except WorkerDied as error:
        raise SeewhyError(f"{error}. {_kept(experiment)}") from error
    except KeyboardInterrupt as interruption:
        write_results(open_experiment(experiment.directory))
        raise type(interruption)(f"Interrupted. {_kept(experiment)}") from None
    finished = open_experiment(experiment.directory)
    write_results(finished)
    return finished


def _kept(experiment: Experiment) -> str:
    done = len(open_experiment(experiment.directory).finished)
    total = len(experiment.recipes) * len(experiment.seeds)
    return (
        f"{done} of {total} runs have finished. Resume with: seewhy resume {experiment.directory}"
    )


def _jobs(fan_out: Parallel, most: int) -> int:
    """Trainings at a time, in processes of this machine; what a cluster has room for, it knows."""
    if fan_out.backend != "processes":
        return -1
    cores = joblib.cpu_count() if find_device(fan_out.device).type == "cpu" else 1
    return max(1, min(most, fan_out.jobs or cores))


@dataclass(frozen=True)
class _Work:
    """What all tasks share, sent to where they run."""

    data: Dataset | None
    load_args: Mapping[str, Any]
    device: str
    seconds: float | None
    additions: Sequence[
        Mapping[str, Any]
    ]  # to each of TABLES: a new process knows the built-in entries only

    def loaded(self) -> Dataset:
        """The data, after the tables know everything."""
        for table, more in zip(TABLES, self.additions, strict=True):
            table.update(more)
        return load(**self.load_args, quiet=True) if self.data is None else self.data


def _additions() -> list[dict[str, Any]]:
    return [
        {name: entry for name, entry in table.items() if not _built_in(entry)} for table in TABLES
    ]


def _built_in(entry: object) -> bool:
    return (
        str(getattr(getattr(entry, "func", entry), "__module__", "")).partition(".")[0] == "seewhy"
    )


def _prepare(name: str, recipe: Recipe, home: Path, work: _Work) -> str:
    """Fix what is still open of a recipe, the same for all seeds, and write it down."""
    make_directory(home)

    def prepare() -> None:
        with lock_directory(home):
            if not (home / RECIPE).exists():
                write_text(home / RECIPE, to_toml(_fixed(recipe, home, work)))
                (home / "status.json").unlink(missing_ok=True)

    _noting_failure(home, prepare)
    return name


def _fixed(recipe: Recipe, home: Path, work: _Work) -> Recipe:
    """The recipe with its learning rate found and its epochs set, where that was asked for."""
    if recipe.needs_lr:
        recipe, test = resolve_lr(recipe, work.loaded(), work.device)
        assert test is not None
        write_lr_range_test(home, test)
    if work.seconds is not None:
        data = work.loaded()
        recipe = replace(
            recipe,
            epochs=work.seconds * images_per_second(recipe, data, work.device) / len(data.train),
        )
    return recipe


def _try(recipe: Recipe, trial: Trial, work: _Work) -> Trial:
    """One training, from its start or from its last checkpoint."""
    home = trial.directory

    def train() -> None:
        with lock_directory(home):
            if (home / "summary.json").exists():
                return
            data = work.loaded()
            if _has_checkpoint(home):
                resume(home, data, work.device, quiet=True)
                return
            _put_aside(home)
            fit(recipe, data, home, work.device, quiet=True, checkpoint=CheckpointPolicy())

    _noting_failure(home, train)
    return trial


def _put_aside(home: Path) -> None:
    """Make room for a training anew: what holds no checkpoint is removed, and what does, though it cannot be read, renamed."""
    if any((home / "checkpoints").glob("*.pt")):
        number = next(
            number
            for number in count(1)
            if not home.with_name(f"{home.name}.damaged-{number}").exists()
        )
        home.rename(home.with_name(f"{home.name}.damaged-{number}"))
    else:
        shutil.rmtree(home, ignore_errors=True)


def _has_checkpoint(home: Path) -> bool:
    """Whether there is one that is whole: a process may have been killed while it wrote its first."""
    try:
        newest_checkpoint(home / "checkpoints")
    except SeewhyError:
        return False
    return True


def _noting_failure(home: Path, work: Callable[[], None]) -> None:
    """Let what goes wrong be seen in status.json of `home`, and all else go on."""
    try:
        with ONE_AT_A_TIME:
            work()
        (home / "traceback.txt").unlink(missing_ok=True)
    except DirectoryLocked as error:  # as the workers of a killed comparison may for a while
        note(str(error), quiet=False)
    except Exception as error:
        make_directory(home)
        if not isinstance(error, SeewhyError):
            write_text(home / "traceback.txt", traceback.format_exc())
        write_status(
            home,
            "failed",
            str(error) if isinstance(error, SeewhyError) else f"{type(error).__name__}: {error}",
        )


def _prepared_line(name: str, home: Path) -> str:
    if not (home / RECIPE).exists():
        return f"{name}: {read_status(home)[1]}"
    recipe = find_recipe(home / RECIPE)
    found = read_lr_range_test(home)
    doubt = f"; {found.warning}" if found is not None and found.warning else ""
    return f"{name}: lr {recipe.lr:.3g}, {recipe.epochs:.3g} epochs{doubt}"


def _line(trial: Trial) -> str:
    if trial.result is None:
        return f"{trial.recipe}, seed {trial.seed}: {trial.why_not}"
    return f"{trial.recipe}, seed {trial.seed}: {100 * trial.result.accuracy:.2f}% in {trial.result.train_seconds:,.0f} s"
