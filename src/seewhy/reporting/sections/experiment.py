"""Experiment: the recipes of an experiment compared, with tests of their differences."""

import math
import os
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup
from matplotlib.figure import Figure

from seewhy.errors import SeewhyError
from seewhy.experiments.experiment import FILE, Experiment, Trial, open_experiment
from seewhy.experiments.figures import recipes_figure, seeds_figure
from seewhy.experiments.statistics import (
    METRICS,
    metric_summary,
    pairwise_tests,
    rank_recipes,
    summarize,
)
from seewhy.experiments.tables import differences_table
from seewhy.figures.lr_finder import lr_finder_figure
from seewhy.reporting.context import ReportContext
from seewhy.reporting.section import Section, csv_link, figure_html, render
from seewhy.reporting.sprites import Sprites
from seewhy.significance import LEVEL
from seewhy.wording import counted

TESTED = ("accuracy", "train_loss")  # metrics with a table of pairwise tests
COLUMNS = ("accuracy", "train_loss", "test_nll", "calibration_error", "seconds")
MOST_PAIRS = 100  # in a table
MOST_RANGE_TESTS = 12
REPORT = "report.html"  # of a trial
HEADERS_OF_TESTS = ("#95% CI", "#p", "#adjusted p", "significant")


def experiment_section(context: ReportContext, sprites: Sprites) -> Section | None:
    """The experiment of a run; None for a run that is not a trial."""
    if context.run is None or context.run.directory is None:
        return None
    directory = context.run.directory.resolve()
    root = directory.parent.parent
    if not (root / FILE).is_file():
        return None
    try:
        experiment = open_experiment(root)
    except SeewhyError:
        return None
    trials = [trial for trial in experiment.finished if trial.directory == directory]
    return recipes_section(experiment, trials[0]) if trials else None


def recipes_section(
    experiment: Experiment, trial: Trial | None = None, links_from: Path | None = None
) -> Section:
    """Curves, a table, significance tests of the differences, and unfinished trials.

    `trial` is the trial of the report with this section. `links_from` is the directory of a page
    that links to the reports of the trials.
    """
    figures = _figures(experiment) if experiment.finished else {}
    html = render(
        "sections/experiment.html",
        experiment=experiment,
        trial=trial,
        panels=_panels(experiment, figures),
        headers=_headers(),
        rows=_rows(experiment, links_from),
        trials_csv=_trials_csv(experiment),
        pairs_csv=csv_link(*differences_table(experiment)),
        tests=[_tests(experiment, metric) for metric in TESTED] if experiment.finished else [],
        level=LEVEL,
        range_tests=_range_tests(experiment),
        unfinished=_unfinished(experiment),
    )
    return Section("Experiment", summarize(experiment, "accuracy"), html, figures=figures)


def _figures(experiment: Experiment) -> dict[str, Figure]:
    """The figures by file name."""
    return {
        "recipes-accuracy": seeds_figure(experiment, "accuracy"),
        "recipes-loss": seeds_figure(experiment, "train_loss"),
        "recipes-accuracy-by-epoch": recipes_figure(experiment, "eval_accuracy", "epoch"),
        "recipes-accuracy-by-second": recipes_figure(experiment, "eval_accuracy", "seconds"),
        "recipes-loss-by-epoch": recipes_figure(experiment, "train_loss", "epoch"),
        "recipes-loss-by-second": recipes_figure(experiment, "train_loss", "seconds"),
    }


def _panels(experiment: Experiment, figures: dict[str, Figure]) -> list[tuple[Markup, str]]:
    """Each figure with its caption."""
    if not figures:
        return []
    texts = {  # text alternative and caption
        "recipes-accuracy": (
            summarize(experiment, "accuracy"),
            "After training, with the test-time augmentation of each recipe.",
        ),
        "recipes-loss": (summarize(experiment, "train_loss"), "In the last epoch."),
        "recipes-accuracy-by-epoch": (
            "Accuracy of each recipe by epoch",
            "During training, without test-time augmentation.",
        ),
        "recipes-accuracy-by-second": (
            "Accuracy of each recipe by training time",
            "Curves end with the fastest seed of each recipe.",
        ),
        "recipes-loss-by-epoch": (
            "Training loss of each recipe by epoch",
            "On augmented images, with label smoothing.",
        ),
        "recipes-loss-by-second": (
            "Training loss of each recipe by training time",
            "Evaluation time is excluded.",
        ),
    }
    return [
        (figure_html(figures[name], name, description), caption)
        for name, (description, caption) in texts.items()
    ]


def _headers() -> list[str]:
    metrics = [METRICS[metric] for metric in COLUMNS]
    titles = [
        f"#{metric.title}" + (f", {metric.unit.strip()}" if metric.unit else "")
        for metric in metrics
    ]
    return ["recipe", "#learning rate", "#epochs", *titles, "#optimizer state, MB", "#seeds"]


def _rows(experiment: Experiment, links_from: Path | None) -> list[list[str]]:
    """A row for each recipe, the most accurate first, unfinished ones last."""
    ranked = [row.recipe for row in rank_recipes(experiment, "accuracy")]
    names = ranked + [name for name in experiment.recipes if name not in ranked]
    return [_row(experiment, name, links_from) for name in names]


def _row(experiment: Experiment, name: str, links_from: Path | None) -> list[str]:
    recipe, memory = experiment.recipes[name], experiment.optimizer_bytes(name)
    lr = recipe.lr if isinstance(recipe.lr, str) else f"{recipe.lr:.3g}"
    if name in experiment.range_tests:
        lr = Markup("{}<br><small>LR finder</small>").format(lr)
    return [
        Markup(",<wbr>").join(name.split(",")),  # allows line breaks in long names
        lr,
        f"{recipe.epochs:.4g}",
        *(_metric_cell(experiment, name, metric) for metric in COLUMNS),
        "–" if memory is None else f"{memory / 1e6:,.1f}",
        _seeds_cell(experiment, name, links_from),
    ]


def _metric_cell(experiment: Experiment, name: str, metric: str) -> str:
    """Mean and standard deviation over the seeds, and for the accuracy also the interval."""
    format_value = METRICS[metric].format
    summary = metric_summary(experiment, name, metric)
    if math.isnan(summary.mean):
        return "–"
    if math.isnan(summary.std):
        return format_value(summary.mean)
    text = f"{format_value(summary.mean)} ± {format_value(summary.std)}"
    if metric != "accuracy":
        return text
    low, high = map(format_value, summary.interval)
    return Markup("{}<br><small>{}–{}</small>").format(text, low, high)


def _seeds_cell(experiment: Experiment, name: str, links_from: Path | None) -> str:
    """The number of finished seeds; or the seeds, with links to the reports that exist."""
    trials, total = experiment.finished_of(name), len(experiment.seeds)
    reports = [trial for trial in trials if (trial.directory / REPORT).is_file()]
    if links_from is None or not reports:
        return str(total) if len(trials) == total else f"{len(trials)} of {total}"
    return Markup(" ").join(
        _report_link(trial, links_from) if trial in reports else str(trial.seed) for trial in trials
    )


def _report_link(trial: Trial, links_from: Path) -> Markup:
    report = trial.directory.resolve() / REPORT
    address = quote(Path(os.path.relpath(report, links_from.resolve())).as_posix())
    return Markup('<a href="{}" aria-label="report of {}, seed {}">{}</a>').format(
        address, trial.recipe, trial.seed, trial.seed
    )


def _tests(experiment: Experiment, metric: str) -> dict[str, object]:
    """The differences of a metric: a sentence, and a row for each pair of recipes."""
    info, pairs = METRICS[metric], pairwise_tests(experiment, metric)
    rows = [
        [
            f"{pair.better} vs. {pair.worse}",
            str(pair.seeds),
            *_difference_cells(info.format, pair.difference, pair.interval),
            f"{pair.p_value:.2g}" if pair.tested else "–",
            f"{pair.adjusted_p_value:.2g}" if pair.tested else "–",
            ("yes" if pair.significant else "no") if pair.tested else "no test",
        ]
        for pair in pairs[:MOST_PAIRS]
    ]
    significant = sum(pair.significant for pair in pairs)
    unit = ", points" if info.unit.strip() == "%" else ""
    summary = f"{info.title.capitalize()}: {significant} of {counted(len(pairs), 'difference')} "
    summary += "significant" if any(pair.tested for pair in pairs) else "significant: no test"
    if len(pairs) > MOST_PAIRS:
        summary += f" (first {MOST_PAIRS} shown)"
    return {
        "title": info.title,
        "finding": summarize(experiment, metric),
        "headers": ["recipes", "#seeds", f"#difference{unit}", *HEADERS_OF_TESTS],
        "rows": rows,
        "summary": summary,
    }


def _difference_cells(
    format_value: Callable[..., str], difference: float, interval: tuple[float, float]
) -> tuple[str, str]:
    """A difference and its interval, with signs."""
    if math.isnan(difference):
        return "–", "–"
    low, high = interval
    bounds = f"{format_value(low, '+')} to {format_value(high, '+')}"
    return format_value(difference, "+"), "–" if math.isnan(low) else bounds


def _trials_csv(experiment: Experiment) -> str:
    """A data URL with the metrics of every finished trial."""
    rows = [
        [
            trial.recipe,
            trial.seed,
            *(info.measure(trial, trial.result) for info in METRICS.values()),
        ]
        for trial in experiment.finished
        if trial.result is not None
    ]
    return csv_link(["recipe", "seed", *METRICS], rows)


def _range_tests(experiment: Experiment) -> list[tuple[Markup, str]]:
    """The first learning rate range tests with their recipe names."""
    tests = list(experiment.range_tests.items())[:MOST_RANGE_TESTS]
    return [
        (
            figure_html(
                lr_finder_figure(test),
                f"range-test-{index}",
                f"Loss by learning rate in the range test of {name}",
            ),
            name,
        )
        for index, (name, test) in enumerate(tests)
    ]


def _unfinished(experiment: Experiment) -> list[tuple[str, str, str]]:
    """Recipe, seeds and reason of unfinished trials."""
    trials = [trial for trial in experiment.trials if trial.result is None]
    groups = groupby(trials, key=lambda trial: (trial.recipe, trial.unfinished_reason))
    return [
        (name, ", ".join(str(trial.seed) for trial in group), reason)
        for (name, reason), group in groups
    ]
