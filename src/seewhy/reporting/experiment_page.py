"""The report of an experiment: its recipes side by side on one page."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from seewhy.comparing.experiment import Experiment
from seewhy.figures.experiment import experiment_figure
from seewhy.figures.style import save_figure
from seewhy.files import make_directory, write_text
from seewhy.reporting.document import document
from seewhy.reporting.section import count
from seewhy.reporting.sections.experiment import experiment_section

FILE = "report.html"  # in the experiment's directory


def report_experiment(experiment: Experiment, path: str | Path | None = None) -> Path:
    """Write the report of an experiment, by default as report.html into its directory, and return where it is.

    It links to the reports of the trials that have one. The figures go to figures/ of the experiment's directory.
    """
    path = experiment.directory / FILE if path is None else Path(path)
    made = experiment_page(experiment, path.parent)
    for name, figure in made.figures.items():
        save_figure(figure, experiment.directory / "figures" / name)
    make_directory(path.parent)
    write_text(path, made.html)
    return path


@dataclass(frozen=True, eq=False)
class ExperimentPage:
    """The report of an experiment in memory."""

    html: str
    figures: Mapping[str, Figure]  # of the section, and "recipes", the curves in one


def experiment_page(experiment: Experiment, directory: Path) -> ExperimentPage:
    """The page as it is to lie in a directory, from where it links to the reports of the trials."""
    section = experiment_section(experiment, links_from=directory)
    recipes, seeds = count(len(experiment.recipes), "recipe"), count(len(experiment.seeds), "seed")
    finished, total = len(experiment.finished), len(experiment.trials)
    spent = sum(trial.result.seconds for trial in experiment.finished if trial.result is not None)
    html = document(
        title=f"{recipes}, {seeds} on {experiment.data['name']}",
        headline=f"{finished} of {count(total, 'training')} finished, {spent:,.0f} s of training in all",
        sections={"experiment": section},
        about=f", experiment {experiment.directory.resolve().name}.",
    )
    figures = {"recipes": experiment_figure(experiment), **section.figures} if experiment.finished else {}
    return ExperimentPage(html, figures)
