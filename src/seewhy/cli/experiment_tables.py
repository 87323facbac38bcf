"""The tables of `seewhy find-lr` and `seewhy compare`; they fit a terminal of 60 columns."""

import math

from seewhy.cli.tables import console, print_files, table
from seewhy.escaping import shell_text, visible
from seewhy.experiments.experiment import Experiment
from seewhy.experiments.statistics import (
    METRICS,
    MetricSummary,
    metric_summary,
    rank_recipes,
    summarize,
)
from seewhy.progress import clock
from seewhy.train.lr_finder import DEFAULT_SUGGESTION, LRRangeTest
from seewhy.train.recipe import Recipe
from seewhy.wording import counted

EXPERIMENT_FILES = {
    "report.html": "curves, results and differences, with links to the runs",
    "results.csv": "one row per recipe",
    "differences.csv": "one row per pair of recipes and metric",
    "curves.csv": "one row per run and epoch",
}
WIDE = 78  # columns of the terminal from which the whole table is printed


def print_range_test(test: LRRangeTest, recipe: Recipe) -> None:
    """The suggested learning rates of a range test, and that of the recipe."""
    out = console()
    span = f"{test.lrs[0]:.2g} to {test.lrs[-1]:.2g}"
    out.print(f"{counted(len(test.lrs), 'update')}, lr {span}, {test.ended}\n", style="bold")
    rows = table("suggestion", "learning rate", "")
    for name, lr in test.suggestions.items():
        rows.add_row(name, f"{lr:.3g}", "← default" if name == DEFAULT_SUGGESTION else "")
    if not recipe.needs_lr:
        rows.add_row(f"recipe {recipe.name}", f"{recipe.lr:.3g}", "")
    rows.columns[2].justify = "left"
    out.print(rows)
    if test.warning and not test.refusal:
        out.print(f"\nwarning: {test.warning}; try more --updates", style="yellow")


def print_experiment(experiment: Experiment) -> None:
    """The result of each recipe, the best first; the significant differences; failures; files."""
    out = console()
    wide = out.width >= WIDE  # the files have the other columns
    rows = table(
        "recipe",
        *(["lr"] if wide else []),
        "test accuracy",
        "training loss",
        *(["time", "state MB", "seeds"] if wide else []),
    )
    for row in rank_recipes(experiment, "accuracy"):
        loss = metric_summary(experiment, row.recipe, "train_loss")
        seconds = metric_summary(experiment, row.recipe, "seconds")
        before = [f"{experiment.recipes[row.recipe].lr:.3g}"]
        megabytes = f"{(experiment.optimizer_bytes(row.recipe) or 0) / 1e6:.1f}"
        after = [clock(seconds.mean), megabytes, str(len(row.values))]
        measured = [_spread(row, "accuracy"), _spread(loss, "train_loss")]
        rows.add_row(row.recipe, *([*before, *measured, *after] if wide else measured))
    if rows.row_count:
        out.print()
        out.print(rows)
        more = "; time: training; state: optimizer" if wide else ""
        out.print(f"\nmean ± standard deviation over seeds{more}\n")
        for metric in ("accuracy", "train_loss"):
            out.print(summarize(experiment, metric))
    failed = [trial for trial in experiment.trials if trial.result is None]
    for trial in failed:
        out.print(
            visible(f"{trial.recipe}, seed {trial.seed} failed: {trial.unfinished_reason}"),
            style="red",
        )
    if failed:
        total = len(experiment.trials)
        out.print(f"\n{len(failed)} of {counted(total, 'trial')} failed. Try again with:")
        out.print(f"seewhy resume {shell_text(experiment.directory)}", soft_wrap=True)
    print_files(experiment.directory, EXPERIMENT_FILES)


def _spread(row: MetricSummary, name: str) -> str:
    """Mean ± standard deviation with the metric's unit."""
    metric = METRICS[name]
    text = metric.format(row.mean)
    if not math.isnan(row.std):
        text += f" ± {metric.format(row.std)}"
    return text + metric.unit.strip()
