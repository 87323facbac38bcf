"""The section on an experiment, in the report of a trial and in that of the experiment."""

import base64
import csv
import hashlib
import io
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import t as student
from scipy.stats import ttest_rel

from seewhy.data.dataset import DataOrigin
from seewhy.experiments.experiment import (
    FILE,
    Experiment,
    open_experiment,
    recipe_directories,
    write_experiment,
)
from seewhy.experiments.statistics import summarize
from seewhy.reporting.context import ReportContext
from seewhy.reporting.page import render_experiment_page, report_experiment
from seewhy.reporting.section import Section
from seewhy.reporting.sections import SECTIONS
from seewhy.reporting.sections.experiment import experiment_section, recipes_section
from seewhy.reporting.sprites import Sprites
from seewhy.runs.run import Run
from seewhy.train.lr_finder import LRRangeTest
from seewhy.train.recipe import Recipe

Make = Callable[..., Experiment]
MARKUP = "<b>a & b</b>"
ACCURACIES = {"sgd": (0.80, 0.82, 0.81), MARKUP: (0.90, 0.91, 0.93), "adam": (0.905, 0.90, 0.91)}
RANGE_TEST = LRRangeTest(
    tuple(np.logspace(-5, 0, 40)),
    tuple(np.linspace(3, 1, 40)),
    tuple(np.linspace(3, 1, 40)),
    "diverged",
)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The text alternatives of the figures, which are not drawn."""
    descriptions: list[str] = []

    def record(figure: object, name: str, description: str) -> str:
        descriptions.append(description)
        return "<svg></svg>"

    monkeypatch.setattr("seewhy.reporting.section.inline_svg", record)
    for name in ("recipes_figure", "seeds_figure", "lr_finder_figure"):
        monkeypatch.setattr(f"seewhy.reporting.sections.experiment.{name}", lambda *_: Figure())
    return descriptions


@pytest.fixture
def made(experiment_of: Make) -> Experiment:
    """Three recipes over three seeds, one of them with an LR range test, and one that failed."""
    histories = {
        name: [[(1, 2.0, 0.5), (2, 2 * (1 - value), value)] for value in each]
        for name, each in ACCURACIES.items()
    }
    experiment = experiment_of(
        histories | {"bad": ["the loss is <nan>", "the loss is <nan>", "not begun"]}
    )
    return replace(experiment, range_tests={"adam": RANGE_TEST})


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def tables(html: str) -> list[list[list[str]]]:
    """The cells of every table, row by row."""
    return [
        [
            [text_of(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)]
            for row in re.findall(r"<tr>(.*?)</tr>", each)
        ]
        for each in re.findall(r"<table.*?</table>", html, re.S)
    ]


def csvs(html: str) -> dict[str, list[dict[str, str]]]:
    """The rows of each CSV link, by file name."""
    links = re.findall(
        r'href="data:text/csv;charset=utf-8;base64,([^"]*)" download="([^"]*)"', html
    )
    return {
        name: list(csv.DictReader(io.StringIO(base64.b64decode(text).decode())))
        for text, name in links
    }


@pytest.mark.usefixtures("no_figures")
def test_table_has_means_deviations_and_intervals_by_rank(
    made: Experiment,
) -> None:
    section = recipes_section(made)
    [head, *rows] = tables(section.html)[0]
    assert [row[0] for row in rows] == [MARKUP, "adam", "sgd", "bad"]
    column = {name: place for place, name in enumerate(head)}
    for row in rows[:3]:
        values = 100 * np.array(ACCURACIES[row[0]])
        low, high = student.interval(0.95, 2, values.mean(), values.std(ddof=1) / np.sqrt(3))
        assert (
            row[column["test accuracy, %"]]
            == f"{values.mean():.2f} ± {values.std(ddof=1):.2f} {low:.2f}–{high:.2f}"
        )
        losses = 2 * (1 - values / 100)
        assert row[column["training loss"]] == f"{losses.mean():.3f} ± {losses.std(ddof=1):.3f}"
        assert row[column["calibration error, %"]] == "3.00 ± 1.00"
        assert row[column["optimizer state, MB"]] == "4.0"
        assert row[column["seeds"]] == "3"
        assert row[column["learning rate"]] == ("0.1 LR finder" if row[0] == "adam" else "0.1")
    assert rows[3][1:] == ["0.1", "4", "–", "–", "–", "–", "–", "–", "0 of 3"]
    assert section.finding == summarize(made, "accuracy")
    assert MARKUP not in section.html


@pytest.mark.usefixtures("no_figures")
def test_table_of_differences_tests_every_pair(made: Experiment) -> None:
    html = recipes_section(made).html
    _, by_accuracy, by_loss = tables(html)
    pairs = {
        f"{MARKUP} vs. sgd": (MARKUP, "sgd"),
        f"{MARKUP} vs. adam": (MARKUP, "adam"),
        "adam vs. sgd": ("adam", "sgd"),
    }
    tests = {
        name: ttest_rel(*(ACCURACIES[recipe] for recipe in pair)) for name, pair in pairs.items()
    }
    order = sorted(tests, key=lambda name: tests[name].pvalue)
    assert [row[0] for row in by_accuracy[1:]] == order
    highest = 0.0
    for place, row in enumerate(by_accuracy[1:]):
        found = tests[row[0]]
        low, high = (100 * end for end in found.confidence_interval())
        better, worse = (np.array(ACCURACIES[recipe]) for recipe in pairs[row[0]])
        gap = 100 * (better - worse).mean()
        highest = max(highest, min(1, (3 - place) * found.pvalue))
        significant = "yes" if highest < 0.05 else "no"
        assert row[1:] == [
            "3",
            f"{gap:+.2f}",
            f"{low:+.2f} to {high:+.2f}",
            f"{found.pvalue:.2g}",
            f"{highest:.2g}",
            significant,
        ]
    assert {row[-1] for row in by_accuracy[1:]} == {"yes", "no"}
    gap = -2 * np.subtract(ACCURACIES["adam"], ACCURACIES["sgd"]).mean()
    assert [row[2] for row in by_loss[1:] if row[0] == "adam vs. sgd"] == [f"{gap:+.3f}"]
    count = sum(row[-1] == "yes" for row in by_accuracy[1:])
    assert f"Test accuracy: {count} of 3 differences significant" in text_of(html)
    assert "Paired t-test" in html
    assert "Holm" in html


@pytest.mark.usefixtures("no_figures")
def test_csv_has_unrounded_numbers(made: Experiment) -> None:
    found = csvs(recipes_section(made).html)
    assert [
        (row["recipe"], int(row["seed"]), float(row["accuracy"])) for row in found["trials.csv"]
    ] == [
        (name, seed, value)
        for name, values in ACCURACIES.items()
        for seed, value in enumerate(values)
    ]
    rows = [
        row
        for row in found["differences.csv"]
        if row["metric"] == "accuracy" and row["better"] == "adam"
    ]
    [row] = rows
    assert float(row["p_value"]) == pytest.approx(
        ttest_rel(ACCURACIES["adam"], ACCURACIES["sgd"]).pvalue
    )
    assert len(found["differences.csv"]) == 15  # 3 pairs by 5 metrics


def test_figures_have_names_and_text_alternatives(made: Experiment, no_figures: list[str]) -> None:
    section = recipes_section(made)
    assert set(section.figures) == {
        "recipes-accuracy",
        "recipes-loss",
        *(f"recipes-{what}-by-{by}" for what in ("accuracy", "loss") for by in ("epoch", "second")),
    }
    assert len(no_figures) == 7
    assert no_figures[-1] == "Loss by learning rate in the range test of adam"


@pytest.mark.usefixtures("no_figures")
def test_unfinished_trials_are_listed_with_the_reason(made: Experiment) -> None:
    text = text_of(recipes_section(made).html)
    assert "Unfinished trials bad , seeds 0, 1: the loss is <nan> bad , seed 2: not begun" in text


@pytest.mark.usefixtures("no_figures")
def test_section_without_finished_trials_lists_only_the_reasons(experiment_of: Make) -> None:
    section = recipes_section(experiment_of({"bad": ["not finite"], "worse": ["not begun"]}))
    assert section.finding == "No trial has finished yet."
    assert "<svg" not in section.html
    assert "<table" not in section.html
    assert section.figures == {}
    assert (
        text_of(section.html)
        == "Unfinished trials bad , seed 0: not finite worse , seed 0: not begun"
    )


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    "accuracies", [{"adam": (0.9,)}, {"adam": (0.9, 0.8)}, {"adam": (0.9,), "sgd": (0.8,)}]
)
def test_section_of_few_recipes_and_seeds(
    accuracies: Mapping[str, Sequence[float]], experiment_of: Make
) -> None:
    made = experiment_of(
        {name: [[(1.0, 2.0, value)] for value in each] for name, each in accuracies.items()}
    )
    section = recipes_section(made)
    assert not re.search(r"\bnan\b", text_of(section.html))
    assert ("Significance of the differences" in section.html) == (len(accuracies) > 1)
    assert "Unfinished" not in section.html


def test_pairs_and_range_tests_are_limited(experiment_of: Make, no_figures: list[str]) -> None:
    names = [f"r{place}" for place in range(16)]
    made = experiment_of(
        {name: [[(1.0, 2.0, 0.5 + place / 100)]] * 2 for place, name in enumerate(names)}
    )
    html = recipes_section(replace(made, range_tests=dict.fromkeys(names, RANGE_TEST))).html
    assert [len(each) for each in tables(html)] == [17, 101, 101]
    assert "of 120 differences significant (first 100 shown)" in text_of(html)
    assert "Showing the first 12 of 16." in html
    assert len(no_figures) == 6 + 12


class Trained:
    """An experiment on disk, whose trials are copies of a real run."""

    def __init__(self, home: Path, run: Run) -> None:
        self.home = home
        assert run.directory is not None
        recipes = {"adam, crop:1": Recipe(epochs=3), "s g d": Recipe(epochs=3)}
        self.homes = recipe_directories(home, recipes)
        about = DataOrigin("bars", "5" * 32, {}, ("a", "b"), (3, 8, 8), {"train": 9, "test": 6})
        home.mkdir(parents=True)
        write_experiment(Experiment(home, about, recipes, (0, 1), None, (), {}))
        for trial in (
            self.homes["adam, crop:1"] / "seed-0",
            self.homes["adam, crop:1"] / "seed-1",
            self.homes["s g d"] / "seed-0",
        ):
            shutil.copytree(run.directory, trial)

    def section(self, context: ReportContext, name: str = "adam, crop:1/seed-1") -> Section | None:
        recipe, _, seed = name.partition("/")
        return self.of(context, self.homes[recipe] / seed)

    def of(self, context: ReportContext, directory: Path) -> Section | None:
        return experiment_section(
            replace(context, run=replace(context.run, directory=directory)), Sprites({})
        )


@pytest.fixture
def trained(tmp_path: Path, run: Run) -> Trained:
    return Trained(tmp_path / "a b" / "compared", run)


@pytest.mark.usefixtures("no_figures")
def test_report_of_a_trial_has_its_experiment(
    trained: Trained, context: ReportContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(SECTIONS)
    assert names[names.index("training") - 1] == "experiment"
    found = trained.section(context)
    assert found is not None
    assert "This run is seed 1 of adam, crop:1 ." in text_of(found.html)
    assert [row[-1] for row in tables(found.html)[0]] == ["seeds", "2", "1 of 2"]
    assert 'href="' not in found.html.replace(
        'href="data:', ""
    )  # the file may be sent without its neighbors
    monkeypatch.chdir(trained.homes["s g d"] / "seed-0")
    assert trained.of(context, Path()) is not None


def test_report_of_another_run_has_no_experiment(
    trained: Trained, context: ReportContext, tmp_path: Path
) -> None:
    assert (
        experiment_section(replace(context, run=replace(context.run, directory=None)), Sprites({}))
        is None
    )
    assert experiment_section(context, Sprites({})) is None
    assert (
        trained.of(context, trained.home / "mine" / "run") is None
    )  # which lies there, but is no trial
    assert trained.section(context, "s g d/seed-1") is None  # which has not finished
    (trained.home / FILE).write_text('{"seeds": [')
    assert trained.section(context) is None


@pytest.mark.slow
def test_report_experiment_links_to_the_reports_of_the_trials(
    trained: Trained, tmp_path: Path
) -> None:
    for seed in (0, 1):
        (trained.homes["adam, crop:1"] / f"seed-{seed}" / "report.html").write_text("the report")
    path = report_experiment(open_experiment(trained.home))
    assert path == trained.home / "report.html"
    html = path.read_text(encoding="utf-8")
    assert "<h1>2 recipes, 2 seeds on bars</h1>" in html
    assert "3 of 4 trials finished" in html
    assert "experiment compared." in text_of(html)
    links = [
        unquote(unescape(link))
        for link in re.findall(r'href="([^"#]*)"', html)
        if not link.startswith("data:")
    ]
    assert links == ["01-adam-crop-1/seed-0/report.html", "01-adam-crop-1/seed-1/report.html"]
    assert all((path.parent / link).read_text() == "the report" for link in links)
    assert {each.name for each in (trained.home / "figures").glob("*.svg")} >= {
        "recipes.svg",
        "recipes-accuracy.svg",
    }
    other = render_experiment_page(open_experiment(trained.home), tmp_path / "elsewhere").html
    assert "/a%20b/compared/" in other
    [link, _] = [
        unquote(link)
        for link in re.findall(r'href="([^"#]*)"', other)
        if not link.startswith("data:")
    ]
    assert (tmp_path / "elsewhere" / link).resolve().read_text() == "the report"


@pytest.mark.slow
def test_experiment_page_has_no_script(made: Experiment, tmp_path: Path) -> None:
    html = render_experiment_page(made, tmp_path).html
    assert "<script" not in html
    assert " style=" not in html
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    [style] = re.findall(r"<style>(.*?)</style>", html, re.S)
    sha = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    directives = {part.split()[0]: part.split()[1:] for part in unescape(policy).split("; ")}
    assert directives["default-src"] == directives["script-src"] == ["'none'"]
    assert directives["style-src"] == [f"'sha256-{sha}'"]
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', html)) <= set(ids)
    assert "http://" not in html
    assert "https://" not in html
    assert html.count("<section ") == 1


def test_report_experiment_without_finished_trials(experiment_of: Make, tmp_path: Path) -> None:
    html = report_experiment(experiment_of({"bad": ["not finite"]}, tmp_path)).read_text(
        encoding="utf-8"
    )
    assert "0 of 1 trial finished" in html
    assert "No trial has finished yet." in html
    assert not (tmp_path / "figures").exists()
