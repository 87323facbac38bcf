"""A trial: one training of an experiment, as its run directory shows it."""

from dataclasses import dataclass
from pathlib import Path

from seewhy.diagnosing.calibration import calibration
from seewhy.errors import SeewhyError
from seewhy.run import Result, read_history, read_predictions, read_result, read_status
from seewhy.train.loop import EpochStats


@dataclass(frozen=True, eq=False)
class Trial:
    """One training of an experiment."""

    recipe: str  # its name in the experiment
    seed: int
    directory: Path  # an ordinary run directory, once it has begun
    history: tuple[EpochStats, ...] = ()
    result: Result | None = None  # None where it has not come to its end
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
        result, error = read_result(directory), calibration(read_predictions(directory)).ece
    except SeewhyError as error_:
        why = f"{error_}; remove {directory} and resume, and it is trained again"
        return Trial(recipe, seed, directory, why_not=why)
    return Trial(recipe, seed, directory, history, result, error, why_not="")


def _why_not(directory: Path) -> str:
    for home in (directory, directory.parent):  # the second says why none of a recipe's trials could begin
        status, detail = read_status(home)
        if status == "running":
            return "not finished"
        if status:
            return detail or status
    return "not begun"
