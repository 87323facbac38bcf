"""An experiment as tables that other programs read."""

from dataclasses import asdict

from seewhy.experiments.experiment import Experiment
from seewhy.experiments.statistics import METRICS, metric_summary, pairwise_tests
from seewhy.files import csv_text, write_text

Table = tuple[list[str], list[list[object]]]  # a header, and rows


def write_results(experiment: Experiment) -> None:
    """Write results.csv, a row a recipe; differences.csv, a row a pair and metric; curves.csv, a row an epoch."""
    for name, (header, rows) in {
        "results": _results(experiment),
        "differences": differences_table(experiment),
        "curves": _curves(experiment),
    }.items():
        write_text(experiment.directory / f"{name}.csv", csv_text(header, rows), newline="")


def differences_table(experiment: Experiment) -> Table:
    """Every pair of recipes by every metric."""
    header = [
        "metric",
        "better",
        "worse",
        "seeds",
        "difference",
        "low",
        "high",
        "p_value",
        "adjusted_p_value",
        "real",
    ]
    rows: list[list[object]] = [
        [
            metric,
            row.better,
            row.worse,
            row.seeds,
            row.difference,
            *row.interval,
            row.p_value,
            row.adjusted,
            row.significant,
        ]
        for metric in METRICS
        for row in pairwise_tests(experiment, metric)
    ]
    return header, rows


def _results(experiment: Experiment) -> Table:
    header = ["recipe", "lr", "epochs", "seeds"]
    header += [f"{metric}_{part}" for metric in METRICS for part in ("mean", "std", "low", "high")]
    rows: list[list[object]] = []
    for name, recipe in experiment.recipes.items():
        found = [metric_summary(experiment, name, metric) for metric in METRICS]
        numbers = [number for row in found for number in (row.mean, row.std, *row.interval)]
        rows.append(
            [
                name,
                recipe.lr,
                recipe.epochs,
                len(experiment.of(name)),
                *numbers,
                experiment.memory(name),
            ]
        )
    return [*header, "optimizer_bytes"], rows


def _curves(experiment: Experiment) -> Table:
    rows = [
        {"recipe": trial.recipe, "seed": trial.seed} | asdict(row)
        for trial in experiment.trials
        for row in trial.history
    ]
    header = list(rows[0]) if rows else ["recipe", "seed"]
    return header, [list(row.values()) for row in rows]
