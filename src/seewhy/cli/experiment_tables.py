"""What `find-lr` and `compare` print, as tables that fit a narrow terminal."""

import math

from rich.text import Text

from seewhy.cli.tables import console, print_written, table
from seewhy.experiments.experiment import Experiment
from seewhy.experiments.statistics import (
    METRICS,
    MetricSummary,
    metric_summary,
    rank_recipes,
    summarize,
)
from seewhy.train.lr_finder import DEFAULT_SUGGESTION, LRRangeTest
from seewhy.train.recipe import Recipe

WRITTEN = {
    "report.html": "curves, results and every difference; with links to the reports of the trainings",
    "results.csv": "a row a recipe",
    "differences.csv": "a row a pair of recipes, for each metric",
    "curves.csv": "a row an epoch of every training",
}


def print_range_test(test: LRRangeTest, recipe: Recipe) -> None:
    """The rates that a range test suggests, beside that of the recipe."""
    out = console()
    last = f"{test.rates[0]:.2g} to {test.rates[-1]:.2g}"
    out.print(f"{len(test.rates)} updates at rates from {last}, {test.ended}\n", style="bold")
    rows = table("suggestion", "learning rate", "")
    for name, rate in test.suggestions.items():
        rows.add_row(
            name, f"{rate:.3g}", "← lr = find takes this one" if name == DEFAULT_SUGGESTION else ""
        )
    if recipe.lr != "find":
        rows.add_row(f"in {recipe.name}", f"{recipe.lr:.3g}", "")
    rows.columns[2].justify = "left"
    out.print(rows)
    if test.doubt:
        out.print(f"\n{test.doubt}; more --updates tell more", style="yellow")


def print_experiment(experiment: Experiment) -> None:
    """Every recipe's result, the best first; what is real about it; what failed; and where everything is."""
    out = console()
    wide = out.width >= 78  # else the rest is in the files
    rows = table(
        "recipe",
        *(["lr"] if wide else []),
        "test accuracy %",
        "training loss",
        *(["s", "state MB", "seeds"] if wide else []),
    )
    for row in rank_recipes(experiment, "accuracy"):
        loss, seconds = (
            metric_summary(experiment, row.recipe, metric) for metric in ("train_loss", "seconds")
        )
        lr, memory = (
            f"{experiment.recipes[row.recipe].lr:.3g}",
            f"{(experiment.memory(row.recipe) or 0) / 1e6:.1f}",
        )
        measured = _spread(row, "accuracy"), _spread(loss, "train_loss")
        beside = METRICS["seconds"].said(seconds.mean), memory, str(len(row.values))
        rows.add_row(Text(row.recipe), *([lr, *measured, *beside] if wide else measured))
    if rows.row_count:
        out.print()
        out.print(rows)
        key = "; s of training; state of the optimizer" if wide else ""
        out.print(f"\nmean ± standard deviation over the seeds{key}\n")
        for metric in ("accuracy", "train_loss"):
            out.print(summarize(experiment, metric))
    for trial in experiment.trials:
        if trial.result is None:
            out.print(
                f"{trial.recipe}, seed {trial.seed}, has no result: {trial.why_not}", style="red"
            )
    print_written(experiment.directory, WRITTEN)


def _spread(row: MetricSummary, metric: str) -> str:
    about = METRICS[metric]
    return (
        about.said(row.mean)
        if math.isnan(row.std)
        else f"{about.said(row.mean)} ± {about.said(row.std)}"
    )
