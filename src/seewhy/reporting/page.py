"""Sections as one HTML file that asks nothing of a network."""

import base64
import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import torch
from markupsafe import Markup
from matplotlib.figure import Figure
from torch import Tensor

from seewhy import __version__
from seewhy.attribution.maps import resize_maps
from seewhy.data.dataset import Dataset
from seewhy.data.thumbnails import SIDE, shrink
from seewhy.diagnosis.corruptions import CORRUPTIONS, corrupt
from seewhy.diagnosis.predictions import diverse_errors
from seewhy.errors import SeewhyError
from seewhy.experiments.experiment import Experiment
from seewhy.experiments.figures import experiment_figure
from seewhy.figures.explanations import overlay
from seewhy.figures.robustness import SHOWN
from seewhy.figures.slices import heat_images, shown_classes
from seewhy.figures.style import save_figure
from seewhy.files import make_directory, write_text
from seewhy.reporting.context import ReportContext, make_context
from seewhy.reporting.section import Section, count, percent, render
from seewhy.reporting.sections.experiment import experiment_section
from seewhy.reporting.sections.table import SECTIONS
from seewhy.reporting.sprites import Sprites, SpriteSheet
from seewhy.runs.run import Run

SCRIPTS = (
    "state",
    "maps",
    "gallery",
    "viewer",
    "matrix",
    "main",
)  # in assets/, each uses those before it


def document(
    title: str,
    headline: str,
    sections: Mapping[str, Section],
    about: str,
    sheets: Sequence[SpriteSheet] = (),
    viewer: str = "",
) -> str:
    """The page of sections, by their anchors. `viewer` is the HTML that the scripts work with; without it there are none."""
    style, script = _asset("report.css"), _script() if viewer else ""
    return render(
        "page.html",
        title=title,
        headline=headline,
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        sheets=sheets,
        sections=sections,
        data=as_json({name: section.data for name, section in sections.items() if section.data}),
        viewer=viewer,
        about=f"Made by seewhy {__version__}{about} Intervals are of 95%.",
        version=__version__,
    )


def as_json(value: object) -> Markup:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(
        text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )


def _asset(name: str) -> str:
    return (files("seewhy.reporting") / "assets" / name).read_text(encoding="utf-8")


def _script() -> str:
    """The scripts in one scope of their own."""
    return (
        '"use strict";\n(() => {\n'
        + "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
        + "})();\n"
    )


def _policy(style: str, script: str) -> str:
    """Nothing is loaded, nothing is run but what is written here."""
    styles, scripts = (
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        if text
        else "'none'"
        for text in (style, script)
    )
    return (
        f"default-src 'none'; img-src data:; style-src {styles}; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )


FILE = "report.html"  # in the directory of a run or an experiment
BUDGET = 2_000_000  # bytes, of the file
FEWEST = 48  # mistakes that are shown in any case


def report(
    run: Run,
    against: Run | None = None,
    path: str | Path | None = None,
    data: Dataset | None = None,
    full: bool = False,
    fresh: bool = False,
    paths: bool = False,
    quiet: bool = False,
) -> Path:
    """Write the report of a finished run, by default as report.html into its directory, and return where it is.

    The first time the run is diagnosed, on `data` or what it was trained on; that is kept in the run directory, so that the
    report can be made again from it alone, until `fresh` asks anew. `against` is a run to compare with. A file above 2 MB shows
    fewer mistakes, of all kinds, and says so, unless `full`. Raises SeewhyError for a run without a result.
    """
    if path is None:
        if run.directory is None:
            raise SeewhyError(
                "this run has no directory; name the file, as in report(run, path='report.html')"
            )
        path = run.directory / FILE
    made = page(make_context(run, against, data, full, fresh, paths, quiet))
    if run.directory is not None:
        for name, figure in made.figures.items():
            save_figure(figure, run.directory / "figures" / name)
    write_text(Path(path), made.html)
    return Path(path)


@dataclass(frozen=True, eq=False)
class Page:
    """The report in memory."""

    html: str
    figures: Mapping[str, Figure]  # of all sections
    bytes_of_mistake: float  # how much of the page each of the mistakes takes


def page(asked: ReportContext) -> Page:
    """The report of a study, within the budget if that is not of a `full` one."""
    made = _page(asked)
    mistakes = len(asked.diagnosis.errors)
    while (excess := len(made.html.encode()) - BUDGET) > 0 and mistakes > FEWEST and not asked.full:
        mistakes = max(FEWEST, mistakes - max(1, round(excess / made.bytes_of_mistake)))
        made = _page(_with_mistakes(asked, mistakes))
    return made


def _with_mistakes(asked: ReportContext, count: int) -> ReportContext:
    """The study with only so many mistakes, of all kinds."""
    diagnosis = asked.diagnosis
    rows = torch.isin(diagnosis.errors, diverse_errors(asked.test, count)).nonzero().flatten()
    found = diagnosis.saliency
    fewer = None if found is None else replace(found, maps=found.maps.take(rows))
    return replace(
        asked, diagnosis=replace(diagnosis, errors=diagnosis.errors[rows], saliency=fewer)
    )


def _page(asked: ReportContext) -> Page:
    album = Sprites(_images(asked))
    made = {name: section(asked, album) for name, section in SECTIONS.items()}
    sections = {name: section for name, section in made.items() if section is not None}
    sheets = album.sheets()
    gallery = sections.get("mistakes")
    text = document(
        title=asked.title,
        headline=f"{percent(asked.result.accuracy, 2)} of {count(asked.result.test_images, 'test image')} correct",
        sections=sections,
        about=_about(asked),
        sheets=sheets,
        viewer=render("viewer.html", layers=len(gallery.data["maps"]["layers"])) if gallery else "",
    )
    tile = sum(len(sheet.url) for sheet in sheets) / max(1, len(album.tiles))
    beside = (
        (len(gallery.html) + len(as_json(gallery.data))) / max(1, len(asked.diagnosis.errors))
        if gallery
        else 0
    )
    figures = {
        name: figure for section in sections.values() for name, figure in section.figures.items()
    }
    return Page(text, figures, tile + beside)


def _images(asked: ReportContext) -> dict[Hashable, Tensor]:
    """All images that a section may show, by what they are of."""
    diagnosis = asked.diagnosis
    images: dict[Hashable, Tensor] = {}
    if asked.other is not None:
        theirs = asked.other.diagnosis.thumbnails
        images |= {
            ("test", index): image
            for index, image in zip(theirs.index.tolist(), theirs.images, strict=True)
        }
    for split, some in (
        ("test", diagnosis.thumbnails),
        *zip(diagnosis.other_splits, diagnosis.duplicate_thumbnails, strict=True),
    ):
        images |= {
            (split, index): image
            for index, image in zip(some.index.tolist(), some.images, strict=True)
        }
    if diagnosis.saliency is not None:
        evidence = diagnosis.saliency.class_attribution
        places = shown_classes(evidence)
        heat = heat_images(
            resize_maps(evidence.mean_maps[places], diagnosis.thumbnails.images.shape[2:])
        )
        images |= {
            ("evidence", place): image for place, image in zip(places.tolist(), heat, strict=True)
        }
    return images | _strip_images(asked) | _corrupted_images(diagnosis.corruption_sample)


def _strip_images(asked: ReportContext) -> dict[Hashable, Tensor]:
    """Of each attacked image: clean, attacked, both with what is looked at, and their difference, amplified to be seen."""
    strip, maps = asked.diagnosis.adversarial, asked.diagnosis.adversarial_maps
    change = strip.adversarial.float() - strip.clean.float()
    amplified = 127.5 + 127.5 * change / change.abs().amax((1, 2, 3), keepdim=True).clamp_min(1)
    pictures = {
        "clean": strip.clean,
        "attacked": strip.adversarial,
        "difference": amplified.round().byte(),
    }
    if maps is not None:
        pictures["clean map"] = overlay(strip.clean, maps[:, 0]).permute(0, 3, 1, 2)
        pictures["attacked map"] = overlay(strip.adversarial, maps[:, 1]).permute(0, 3, 1, 2)
    return {
        (name, row): image
        for name, images in pictures.items()
        for row, image in enumerate(shrink(images, SIDE))
    }


def _corrupted_images(sample: Tensor) -> dict[Hashable, Tensor]:
    """One image under every corruption, by name and strength."""
    return {
        (name, strength): corrupt(sample[None], name, strength)[0]
        for name in CORRUPTIONS
        for strength in SHOWN
    }


def _about(asked: ReportContext) -> str:
    where = "" if asked.run.directory is None else f", run {asked.run.directory.name}"
    return f"{where}. Diagnosed in {asked.diagnosis.seconds:,.0f} s."


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
    spent = sum(
        trial.result.train_seconds for trial in experiment.finished if trial.result is not None
    )
    html = document(
        title=f"{recipes}, {seeds} on {experiment.data['name']}",
        headline=f"{finished} of {count(total, 'training')} finished, {spent:,.0f} s of training in all",
        sections={"experiment": section},
        about=f", experiment {experiment.directory.resolve().name}.",
    )
    figures = (
        {"recipes": experiment_figure(experiment), **section.figures} if experiment.finished else {}
    )
    return ExperimentPage(html, figures)
