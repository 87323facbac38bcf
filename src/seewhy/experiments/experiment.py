"""An experiment and its trials, read from their directories."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seewhy.data.dataset import DataOrigin
from seewhy.errors import SeewhyError
from seewhy.escaping import json_text, shell_text
from seewhy.files import write_text
from seewhy.runs.directory import (
    RECIPE,
    has_finished,
    read_history,
    read_lr_range_test,
    read_recipe,
    read_result,
    read_status,
)
from seewhy.runs.result import RunResult
from seewhy.serialization import from_plain, reading
from seewhy.train.loop import EpochStats
from seewhy.train.lr_finder import LRRangeTest
from seewhy.train.recipe import Recipe, as_dict, from_dict
from seewhy.wording import counted

FILE = "experiment.json"
SCHEMA_VERSION = 1  # of experiment.json

NOT_STARTED = "not started"


@dataclass(frozen=True, eq=False)
class Trial:
    """A run of one recipe of an experiment with one seed."""

    recipe: str  # name in the experiment
    seed: int
    directory: Path  # run directory; missing until the trial starts
    history: tuple[EpochStats, ...] = ()
    result: RunResult | None = None  # None unless the trial has finished
    unfinished_reason: str = NOT_STARTED  # empty if the trial has finished


@dataclass(frozen=True, eq=False)
class Experiment:
    """Recipes that are trained on the same data with the same seeds."""

    directory: Path
    data: DataOrigin
    recipes: Mapping[str, Recipe]  # by name; lr is "find" until the range test
    seeds: tuple[int, ...]
    seconds: float | None  # training time of each trial; None if the recipes set the epochs
    trials: tuple[Trial, ...]  # by recipe, then by seed
    range_tests: Mapping[str, LRRangeTest]  # which chose the lr, by recipe name

    def __repr__(self) -> str:
        return (
            f"Experiment({counted(len(self.recipes), 'recipe')} with "
            f"{counted(len(self.seeds), 'seed')} on {self.data.name}: {len(self.finished)} of "
            f"{counted(len(self.trials), 'trial')} finished)"
        )

    @property
    def finished(self) -> tuple[Trial, ...]:
        """The trials with a result."""
        return tuple(trial for trial in self.trials if trial.result is not None)

    def finished_of(self, name: str) -> tuple[Trial, ...]:
        """The finished trials of a recipe."""
        return tuple(trial for trial in self.finished if trial.recipe == name)

    def optimizer_bytes(self, name: str) -> int | None:
        """Size of the optimizer state of a recipe; None if no trial of it has finished."""
        results = (trial.result for trial in self.finished_of(name))
        return next((result.optimizer_bytes for result in results if result is not None), None)


def open_experiment(directory: str | Path) -> Experiment:
    """Read an experiment, finished or not, from its directory.

    Args:
        directory: A directory that `run_experiment` wrote.

    Returns:
        The experiment with all trials, also those that have not started.

    Raises:
        SeewhyError: `directory` is not an experiment, or its experiment.json is damaged.
    """
    directory = Path(directory)
    path = directory / FILE
    if not path.is_file():
        reason = "no such directory" if not directory.exists() else f"it contains no {FILE}"
        raise SeewhyError(
            f"{directory} is not an experiment ({reason}); create one with `seewhy compare`"
        )
    with reading(path, "restore it, or run the experiment again"):
        values = json.loads(path.read_text(encoding="utf-8"))
        recipes = {name: from_dict(recipe) for name, recipe in values["recipes"].items()}
        seeds, seconds = tuple(map(int, values["seeds"])), values["seconds"]
        data = from_plain(DataOrigin, values["data"])
    directories = recipe_directories(directory, recipes)
    recipes |= {
        name: read_recipe(path) for name, path in directories.items() if (path / RECIPE).exists()
    }
    trials = tuple(
        read_trial(name, seed, directories[name] / trial_name(seed))
        for name in recipes
        for seed in seeds
    )
    tests = {name: read_lr_range_test(path) for name, path in directories.items()}
    range_tests = {name: test for name, test in tests.items() if test is not None}
    return Experiment(directory, data, recipes, seeds, seconds, trials, range_tests)


def read_trial(recipe: str, seed: int, directory: Path) -> Trial:
    """Read a trial, finished or not, from its run directory."""
    if not has_finished(directory):
        try:
            history = read_history(directory)
        except SeewhyError:  # not started, or killed while it wrote a row
            history = ()
        reason = _unfinished_reason(directory)
        return Trial(recipe, seed, directory, history, unfinished_reason=reason)
    try:
        history, result = read_history(directory), read_result(directory)
    except SeewhyError as error:
        reason = f"{error}; to run the trial again, remove {directory} and resume"
        return Trial(recipe, seed, directory, unfinished_reason=reason)
    return Trial(recipe, seed, directory, history, result, unfinished_reason="")


def _unfinished_reason(directory: Path) -> str:
    # the parent has a status if preparing the recipe failed, so that no trial started
    for path in (directory, directory.parent):
        status, detail = read_status(path)
        if status == "running":
            return "not finished"
        if status:
            return detail or status
    return NOT_STARTED


def write_experiment(experiment: Experiment) -> None:
    """Write experiment.json, with everything except the trials."""
    values: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "data": asdict(experiment.data),
        "seeds": experiment.seeds,
        "seconds": experiment.seconds,
        "recipes": {name: as_dict(recipe) for name, recipe in experiment.recipes.items()},
    }
    write_text(experiment.directory / FILE, json_text(values, indent=2) + "\n")


def recipe_directories(directory: Path, recipes: Mapping[str, Recipe]) -> dict[str, Path]:
    """The directory of each recipe: its number, and its name in safe characters."""
    safe = {name: re.sub(r"[^\w.+-]+", "-", name).strip("-")[:80] for name in recipes}
    return {name: directory / f"{number:02}-{safe[name]}" for number, name in enumerate(recipes, 1)}


def trial_name(seed: int) -> str:
    """The name of a trial's directory, inside that of its recipe."""
    return f"seed-{seed}"


def resume_text(experiment: Experiment) -> str:
    """How much of an experiment is done, and the command that resumes it."""
    finished, trials = len(experiment.finished), counted(len(experiment.trials), "trial")
    remedy = f"Resume with: seewhy resume {shell_text(experiment.directory)}"
    return f"{finished} of {trials} have finished and are kept. {remedy}"
