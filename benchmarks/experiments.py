"""The finished experiments of examples/experiments, one row per recipe.

`python examples/experiments/NAME.py PATH` runs one; this script only reads runs/experiment-NAME.
"""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import keep
from seewhy.experiments.experiment import Experiment, open_experiment
from seewhy.experiments.statistics import METRICS, metric_summary, rank_recipes

COLUMNS = (
    "experiment",
    "recipe",
    "learning rate",
    "test accuracy (%)",
    "training loss",
    "test NLL",
    "calibration error (%)",
    "optimizer state (MB)",
)
SHOWN = ("accuracy", "train_loss", "test_nll", "calibration_error")


@dataclass(frozen=True)
class Measured:
    """A recipe of an experiment; mean ± standard deviation over the seeds."""

    experiment: str
    recipe: str
    lr: str
    accuracy: str
    train_loss: str
    test_nll: str
    calibration_error: str
    memory: str


def main() -> None:
    """Read and save."""
    experiments = [
        open_experiment(path.parent)
        for path in sorted(Path("runs").glob("experiment-*/experiment.json"))
    ]
    note = (
        "Mean ± standard deviation over five seeds, best accuracy first. `speednet:width=0.25` "
        "trains on 10,000 images of a JPEG copy of CIFAR-10 in batches of 250, for five epochs "
        "(augmentation: eight), and is tested on all 10,000 test images. The scripts are in "
        "`examples/experiments`."
    )
    rows = [
        _row(experiment, row.recipe)
        for experiment in experiments
        for row in rank_recipes(experiment, "accuracy")
    ]
    keep("experiments", "Experiments", rows, note=note, columns=COLUMNS)


def _row(experiment: Experiment, name: str) -> Measured:
    values = [_spread(experiment, name, metric) for metric in SHOWN]
    memory = (experiment.optimizer_bytes(name) or 0) / 1e6
    lr = f"{experiment.recipes[name].lr:.3g}"
    return Measured(
        experiment.directory.name.removeprefix("experiment-"), name, lr, *values, f"{memory:.1f}"
    )


def _spread(experiment: Experiment, name: str, metric: str) -> str:
    row, about = metric_summary(experiment, name, metric), METRICS[metric]
    return f"{about.format(row.mean)} ± {about.format(row.std)}"


if __name__ == "__main__":
    main()
