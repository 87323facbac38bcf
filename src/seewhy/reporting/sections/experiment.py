"""The recipes of an experiment side by side, and which of their differences are real."""

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
    LEVEL,
    METRICS,
    metric_summary,
    pairwise_tests,
    rank_recipes,
    summarize,
)
from seewhy.experiments.tables import differences_table
from seewhy.figures.lr_finder import lr_finder_figure
from seewhy.reporting.context import ReportContext
from seewhy.reporting.section import Section, count, csv_link, panel, render
from seewhy.reporting.sprites import Sprites

TESTED = ("accuracy", "train_loss")  # the metrics of which the page says which differences are real
COLUMNS = ("accuracy", "train_loss", "test_loss", "calibration_error", "seconds")
MOST_PAIRS = 100  # in a table
MOST_TESTS = 12  # range tests that are drawn
REPORT = "report.html"  # of a trial


def experiment(study: ReportContext, album: Sprites) -> Section | None:
    """The experiment that a run is a trial of; None for any other run, and where the experiment cannot be read."""
    if study.run.directory is None:
        return None
    directory = study.run.directory.resolve()
    home = directory.parent.parent
    if not (home / FILE).is_file():
        return None
    try:
        found = open_experiment(home)
    except SeewhyError:
        return None
    own = next((trial for trial in found.finished if trial.directory == directory), None)
    return None if own is None else experiment_section(found, own)


def experiment_section(
    experiment: Experiment, own: Trial | None = None, links_from: Path | None = None
) -> Section:
    """Curves and seeds of every recipe, a table of what they came to, which differences are real, and what did not finish.

    `own` is the trial whose report this is a part of. A page in the directory `links_from` links to the reports of the trials.
    """
    figures = _figures(experiment) if experiment.finished else {}
    html = render(
        "sections/experiment.html",
        experiment=experiment,
        own=own,
        panels=[
            (panel(figures[name], name, description), caption)
            for name, (description, caption) in _panels(experiment, figures)
        ],
        headers=_headers(),
        rows=_rows(experiment, links_from),
        trials_csv=_trials_csv(experiment),
        pairs_csv=csv_link(*differences_table(experiment)),
        tested=[_tested(experiment, metric) for metric in TESTED] if experiment.finished else [],
        level=LEVEL,
        tests=_range_tests(experiment),
        unfinished=_unfinished(experiment),
    )
    return Section("Recipes side by side", summarize(experiment, "accuracy"), html, figures=figures)


def _figures(experiment: Experiment) -> dict[str, Figure]:
    """By the names of their files."""
    return {
        "recipes-accuracy": seeds_figure(experiment, "accuracy"),
        "recipes-loss": seeds_figure(experiment, "train_loss"),
        "recipes-accuracy-by-epoch": recipes_figure(experiment, "eval_accuracy", "epoch"),
        "recipes-accuracy-by-second": recipes_figure(experiment, "eval_accuracy", "seconds"),
        "recipes-loss-by-epoch": recipes_figure(experiment, "train_loss", "epoch"),
        "recipes-loss-by-second": recipes_figure(experiment, "train_loss", "seconds"),
    }


def _panels(
    experiment: Experiment, figures: dict[str, Figure]
) -> list[tuple[str, tuple[str, str]]]:
    """Of each figure its name, what it shows, and its caption."""
    if not figures:
        return []
    measured = "While the network trains, without test-time augmentation."
    said = {
        "recipes-accuracy": (
            summarize(experiment, "accuracy"),
            "At the end, with each recipe's test-time augmentation.",
        ),
        "recipes-loss": (summarize(experiment, "train_loss"), "Of the last epoch."),
        "recipes-accuracy-by-epoch": ("Accuracy of each recipe by epoch", measured),
        "recipes-accuracy-by-second": (
            "Accuracy of each recipe by second of training",
            "As far as all seeds of a recipe reach.",
        ),
        "recipes-loss-by-epoch": (
            "Training loss of each recipe by epoch",
            "Measured on augmented images and smoothed labels.",
        ),
        "recipes-loss-by-second": (
            "Training loss of each recipe by second of training",
            "Without the time that evaluation takes.",
        ),
    }
    return list(said.items())


def _headers() -> list[str]:
    measured = [
        f"#{METRICS[metric].title}"
        + (f", {unit.strip()}" if (unit := METRICS[metric].unit) else "")
        for metric in COLUMNS
    ]
    return ["recipe", "#learning rate", "#epochs", *measured, "#optimizer's memory, MB", "#seeds"]


def _rows(experiment: Experiment, links_from: Path | None) -> list[list[str]]:
    """A row for each recipe, the most accurate first, those that have not finished last."""
    ranked = [row.recipe for row in rank_recipes(experiment, "accuracy")]
    names = ranked + [name for name in experiment.recipes if name not in ranked]
    rows = []
    for name in names:
        recipe, memory = experiment.recipes[name], experiment.memory(name)
        lr = recipe.lr if isinstance(recipe.lr, str) else f"{recipe.lr:.3g}"
        rows.append(
            [
                Markup(",<wbr>").join(name.split(",")),  # where a long name may break
                Markup("{}<br><small>found</small>").format(lr)
                if name in experiment.range_tests
                else lr,
                f"{recipe.epochs:.4g}",
                *(_measured(experiment, name, metric) for metric in COLUMNS),
                "–" if memory is None else f"{memory / 1e6:,.1f}",
                _seeds(experiment, name, links_from),
            ]
        )
    return rows


def _measured(experiment: Experiment, name: str, metric: str) -> str:
    """Mean and standard deviation, and the interval of an accuracy."""
    about, found = METRICS[metric], metric_summary(experiment, name, metric)
    if math.isnan(found.mean):
        return "–"
    if math.isnan(found.std):
        return about.said(found.mean)
    said = f"{about.said(found.mean)} ± {about.said(found.std)}"
    if metric != "accuracy":
        return said
    low, high = map(about.said, found.interval)
    return Markup("{}<br><small>{} to {}</small>").format(said, low, high)


def _seeds(experiment: Experiment, name: str, links_from: Path | None) -> str:
    """How many seeds have finished, or each of them with a link to its report where there is one."""
    trials, total = experiment.of(name), len(experiment.seeds)
    reports = [trial for trial in trials if (trial.directory / REPORT).is_file()]
    if links_from is None or not reports:
        return str(total) if len(trials) == total else f"{len(trials)} of {total}"
    start = links_from.resolve()

    def said(trial: Trial) -> str:
        if trial not in reports:
            return str(trial.seed)
        address = quote(Path(os.path.relpath(trial.directory.resolve() / REPORT, start)).as_posix())
        return Markup('<a href="{}" aria-label="report of {}, seed {}">{}</a>').format(
            address, name, trial.seed, trial.seed
        )

    return Markup(" ").join(map(said, trials))


def _tested(experiment: Experiment, metric: str) -> dict[str, object]:
    """Which differences of a metric are real: in words, and a row for each pair."""
    about, pairs = METRICS[metric], pairwise_tests(experiment, metric)
    rows = [
        [
            f"{pair.better} over {pair.worse}",
            str(pair.seeds),
            *_interval(about.said, pair.difference, pair.interval),
            f"{pair.p_value:.2g}",
            f"{pair.adjusted:.2g}",
            "real" if pair.significant else "may be luck",
        ]
        for pair in pairs[:MOST_PAIRS]
    ]
    real = sum(pair.significant for pair in pairs)
    unit = ", points" if about.unit.strip() == "%" else ""
    return {
        "title": about.title,
        "said": summarize(experiment, metric),
        "headers": [
            "recipes",
            "#seeds",
            f"#difference{unit}",
            "#95% interval",
            "#p",
            "#adjusted p",
            "difference is",
        ],
        "rows": rows,
        "summary": f"{real} of {count(len(pairs), 'pair')} by {about.title}"
        + (f", the first {MOST_PAIRS}" if len(pairs) > MOST_PAIRS else ""),
    }


def _interval(
    said: Callable[..., str], difference: float, interval: tuple[float, float]
) -> tuple[str, str]:
    """A difference and its interval with their signs."""
    if math.isnan(difference):
        return "–", "–"
    ends = "–" if math.isnan(interval[0]) else " to ".join(said(end, "+") for end in interval)
    return said(difference, "+"), ends


def _trials_csv(experiment: Experiment) -> str:
    """Every finished trial with its metrics, to be downloaded."""
    rows = [
        [trial.recipe, trial.seed, *(about.of(trial, trial.result) for about in METRICS.values())]
        for trial in experiment.finished
        if trial.result is not None
    ]
    return csv_link(["recipe", "seed", *METRICS], rows)


def _range_tests(experiment: Experiment) -> list[tuple[Markup, str]]:
    """The range tests that found learning rates, with the names of their recipes."""
    found = list(experiment.range_tests.items())[:MOST_TESTS]
    return [
        (
            panel(
                lr_finder_figure(test),
                f"range-{place}",
                f"Range test of {name}: the loss by learning rate",
            ),
            name,
        )
        for place, (name, test) in enumerate(found)
    ]


def _unfinished(experiment: Experiment) -> list[tuple[str, str, str]]:
    """Of the trials without a result the recipe, the seeds, and why."""
    left = [trial for trial in experiment.trials if trial.result is None]
    groups = groupby(left, key=lambda trial: (trial.recipe, trial.why_not))
    return [
        (name, ", ".join(str(trial.seed) for trial in trials), why)
        for (name, why), trials in groups
    ]
