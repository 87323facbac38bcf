"""A trial: one training of an experiment, as its run directory shows it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seewhy.errors import SeewhyError
from seewhy.files import write_text
from seewhy.runs.directory import (
    read_history,
    read_lr_range_test,
    read_result,
    read_status,
)
from seewhy.runs.result import RunResult
from seewhy.train.loop import EpochStats
from seewhy.train.lr_finder import LRRangeTest
from seewhy.train.recipe import Recipe, as_dict, from_dict
from seewhy.train.recipes import find_recipe


@dataclass(frozen=True, eq=False)
class Trial:
    """One training of an experiment."""

    recipe: str  # its name in the experiment
    seed: int
    directory: Path  # an ordinary run directory, once it has begun
    history: tuple[EpochStats, ...] = ()
    result: RunResult | None = None  # None where it has not come to its end
    calibration_error: float = float("nan")  # of the test split, in [0, 1]
    why_not: str = "not begun"  # why there is no result; empty where there is one


def read_trial(recipe: str, seed: int, directory: Path) -> Trial:
    """The trial in a directory, as far as it has come."""
    if not (directory / "summary.json").exists():
        try:
            history = read_history(directory)
        except SeewhyError:  # not begun, or ended in the middle of a row: a training that goes on writes its rows anew
            history = ()
        return Trial(recipe, seed, directory, history, why_not=_why_not(directory))
    try:
        history = read_history(directory)
        result = read_result(directory)
    except SeewhyError as error_:
        why = f"{error_}; remove {directory} and resume, and it is trained again"
        return Trial(recipe, seed, directory, why_not=why)
    return Trial(recipe, seed, directory, history, result, result.calibration_error, why_not="")


def _why_not(directory: Path) -> str:
    for home in (
        directory,
        directory.parent,
    ):  # the second says why none of a recipe's trials could begin
        status, detail = read_status(home)
        if status == "running":
            return "not finished"
        if status:
            return detail or status
    return "not begun"


FILE = "experiment.json"
RECIPE = "recipe.toml"  # of one recipe, once nothing about it is open any more
SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class Experiment:
    """Recipes that were, or are to be, trained on the same data with the same seeds."""

    directory: Path
    data: Mapping[str, Any]  # name, fingerprint, load_args
    recipes: Mapping[
        str, Recipe
    ]  # by their names in the experiment; an lr of "find" is one that has not been found yet
    seeds: tuple[int, ...]
    seconds: (
        float | None
    )  # of training that each recipe's epochs are to take; None where the recipes say how many
    trials: tuple[Trial, ...]  # of all recipes, then of all seeds
    range_tests: Mapping[
        str, LRRangeTest
    ]  # those that found a learning rate, by the name of the recipe

    @property
    def finished(self) -> tuple[Trial, ...]:
        """The trials that came to their end."""
        return tuple(trial for trial in self.trials if trial.result is not None)

    def of(self, name: str) -> tuple[Trial, ...]:
        """The finished trials of a recipe."""
        return tuple(trial for trial in self.finished if trial.recipe == name)

    def memory(self, name: str) -> int | None:
        """Bytes that the optimizers of a recipe remember; None where none of its trials has finished."""
        return next(
            (trial.result.optimizer_bytes for trial in self.of(name) if trial.result is not None),
            None,
        )


def open_experiment(directory: str | Path) -> Experiment:
    """The experiment in a directory, as far as it has come. Raises SeewhyError where there is none."""
    directory = Path(directory)
    path = directory / FILE
    if not path.is_file():
        found = "no such directory" if not directory.exists() else f"it holds no {FILE}"
        raise SeewhyError(f"{directory} is not an experiment ({found}); `seewhy compare` makes one")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        recipes = {name: from_dict(recipe) for name, recipe in values["recipes"].items()}
        seeds, seconds, data = tuple(values["seeds"]), values["seconds"], values["data"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SeewhyError(
            f"{path} is damaged ({type(error).__name__}: {error}); restore it, or compare again"
        ) from error
    homes = recipe_directories(directory, recipes)
    recipes |= {
        name: find_recipe(home / RECIPE) for name, home in homes.items() if (home / RECIPE).exists()
    }
    trials = [
        read_trial(name, seed, homes[name] / f"seed-{seed}") for name in recipes for seed in seeds
    ]
    tests = {
        name: test for name, home in homes.items() if (test := read_lr_range_test(home)) is not None
    }
    return Experiment(directory, data, recipes, seeds, seconds, tuple(trials), tests)


def write_experiment(experiment: Experiment) -> None:
    """Write what the experiment is; its trials write themselves."""
    values = {
        "schema_version": SCHEMA_VERSION,
        "data": experiment.data,
        "seeds": experiment.seeds,
        "seconds": experiment.seconds,
        "recipes": {name: as_dict(recipe) for name, recipe in experiment.recipes.items()},
    }
    write_text(experiment.directory / FILE, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def recipe_directories(directory: Path, recipes: Mapping[str, Recipe]) -> dict[str, Path]:
    """The directory of each recipe's trials: its place and its name, as far as a file may be called so."""
    plain = {name: re.sub(r"[^\w.+-]+", "-", name).strip("-")[:80] for name in recipes}
    return {name: directory / f"{place:02}-{plain[name]}" for place, name in enumerate(recipes, 1)}
