"""Tables of an experiment as CSV files."""

from dataclasses import asdict

from seewhy.escaping import csv_text
from seewhy.experiments.experiment import Experiment
from seewhy.experiments.statistics import METRICS, metric_summary, pairwise_tests
from seewhy.files import write_text

UNEVEN_FIELDS = ("balanced_accuracy", "macro_f1")  # empty if the test classes are even

Table = tuple[list[str], list[list[object]]]  # header and rows


def write_tables(experiment: Experiment) -> None:
    """Write results.csv, differences.csv and curves.csv into the directory of an experiment."""
    tables = {
        "results": results_table(experiment),
        "differences": differences_table(experiment),
        "curves": curves_table(experiment),
    }
    for name, (header, rows) in tables.items():
        write_text(experiment.directory / f"{name}.csv", csv_text(header, rows), newline="")


def results_table(experiment: Experiment) -> Table:
    """A row per recipe: mean, standard deviation and 95% interval of each metric."""
    header = ["recipe", "lr", "epochs", "seeds"]
    header += [f"{metric}_{part}" for metric in METRICS for part in ("mean", "std", "low", "high")]
    rows: list[list[object]] = []
    for name, recipe in experiment.recipes.items():
        row: list[object] = [
            name,
            recipe.lr,
            recipe.epochs,
            len(experiment.finished_of(name)),
        ]
        for metric in METRICS:
            summary = metric_summary(experiment, name, metric)
            row += [summary.mean, summary.std, *summary.interval]
        uneven = [_mean_of(experiment, name, field) for field in UNEVEN_FIELDS]
        rows.append([*row, *uneven, experiment.optimizer_bytes(name)])
    return [*header, *(f"{field}_mean" for field in UNEVEN_FIELDS), "optimizer_bytes"], rows


def _mean_of(experiment: Experiment, name: str, field: str) -> float | None:
    """The mean of a result over the trials of a recipe; None if there is none."""
    results = [trial.result for trial in experiment.finished_of(name) if trial.result is not None]
    values = [value for result in results if (value := getattr(result, field)) is not None]
    return sum(values) / len(values) if values else None


def differences_table(experiment: Experiment) -> Table:
    """A row per pair of recipes and metric."""
    header = ["metric", "better", "worse", "seeds", "difference", "low", "high"]
    header += ["p_value", "adjusted_p_value", "significant"]
    rows: list[list[object]] = [
        [
            metric,
            test.better,
            test.worse,
            test.seeds,
            test.difference,
            *test.interval,
            test.p_value,
            test.adjusted_p_value,
            test.significant,
        ]
        for metric in METRICS
        for test in pairwise_tests(experiment, metric)
    ]
    return header, rows


def curves_table(experiment: Experiment) -> Table:
    """A row per epoch of each trial."""
    rows = [
        {"recipe": trial.recipe, "seed": trial.seed} | asdict(row)
        for trial in experiment.trials
        for row in trial.history
    ]
    header = list(rows[0]) if rows else ["recipe", "seed"]
    return header, [list(row.values()) for row in rows]
