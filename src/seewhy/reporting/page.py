"""The report of a run: its sections on one page, within a budget of bytes."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from seewhy.data.dataset import Dataset
from seewhy.diagnosing.corruptions import CORRUPTIONS, corrupt
from seewhy.diagnosing.mistakes import varied_mistakes
from seewhy.errors import SeewhyError
from seewhy.explaining.resize import resized
from seewhy.figures.explanations import overlay
from seewhy.figures.robustness import SHOWN
from seewhy.figures.slices import heat_images, shown_classes
from seewhy.figures.style import save_figure
from seewhy.figures.tiles import thumbnails
from seewhy.files import write_text
from seewhy.reporting.album import Album
from seewhy.reporting.document import as_json, document
from seewhy.reporting.images import SIDE
from seewhy.reporting.section import count, percent, render
from seewhy.reporting.sections.table import SECTIONS
from seewhy.reporting.study import Study, study
from seewhy.run import Run

FILE = "report.html"  # in the run directory
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
            raise SeewhyError("this run has no directory; name the file, as in report(run, path='report.html')")
        path = run.directory / FILE
    made = page(study(run, against, data, full, fresh, paths, quiet))
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


def page(asked: Study) -> Page:
    """The report of a study, within the budget if that is not of a `full` one."""
    made = _page(asked)
    mistakes = len(asked.diagnosis.mistakes)
    while (excess := len(made.html.encode()) - BUDGET) > 0 and mistakes > FEWEST and not asked.full:
        mistakes = max(FEWEST, mistakes - max(1, round(excess / made.bytes_of_mistake)))
        made = _page(_with_mistakes(asked, mistakes))
    return made


def _with_mistakes(asked: Study, count: int) -> Study:
    """The study with only so many mistakes, of all kinds."""
    diagnosis = asked.diagnosis
    rows = torch.isin(diagnosis.mistakes, varied_mistakes(asked.test, count)).nonzero().flatten()
    found = diagnosis.looks
    fewer = None if found is None else replace(found, maps=found.maps.take(rows))
    return replace(asked, diagnosis=replace(diagnosis, mistakes=diagnosis.mistakes[rows], looks=fewer))


def _page(asked: Study) -> Page:
    album = Album(_images(asked))
    made = {name: section(asked, album) for name, section in SECTIONS.items()}
    sections = {name: section for name, section in made.items() if section is not None}
    sheets = album.sheets()
    gallery = sections.get("mistakes")
    text = document(
        title=asked.title,
        headline=f"{percent(asked.result.accuracy, 2)} of {count(asked.result.images, 'test image')} correct",
        sections=sections,
        about=_about(asked),
        sheets=sheets,
        viewer=render("viewer.html", layers=len(gallery.data["maps"]["layers"])) if gallery else "",
    )
    tile = sum(len(sheet.url) for sheet in sheets) / max(1, len(album.tiles))
    beside = (len(gallery.html) + len(as_json(gallery.data))) / max(1, len(asked.diagnosis.mistakes)) if gallery else 0
    figures = {name: figure for section in sections.values() for name, figure in section.figures.items()}
    return Page(text, figures, tile + beside)


def _images(asked: Study) -> dict[Hashable, Tensor]:
    """All images that a section may show, by what they are of."""
    diagnosis = asked.diagnosis
    images: dict[Hashable, Tensor] = {}
    if asked.other is not None:
        theirs = asked.other.diagnosis.shown
        images |= {("test", index): image for index, image in zip(theirs.index.tolist(), theirs.images, strict=True)}
    for split, some in (("test", diagnosis.shown), *zip(diagnosis.splits, diagnosis.twins, strict=True)):
        images |= {(split, index): image for index, image in zip(some.index.tolist(), some.images, strict=True)}
    if diagnosis.looks is not None:
        evidence = diagnosis.looks.evidence
        places = shown_classes(evidence)
        heat = heat_images(resized(evidence.mean_maps[places], diagnosis.shown.images.shape[2:]))
        images |= {("evidence", place): image for place, image in zip(places.tolist(), heat, strict=True)}
    return images | _strip_images(asked) | _corrupted_images(diagnosis.sample)


def _strip_images(asked: Study) -> dict[Hashable, Tensor]:
    """Of each attacked image: clean, attacked, both with what is looked at, and their difference, amplified to be seen."""
    strip, maps = asked.diagnosis.strip, asked.diagnosis.strip_maps
    change = strip.attacked.float() - strip.clean.float()
    amplified = 127.5 + 127.5 * change / change.abs().amax((1, 2, 3), keepdim=True).clamp_min(1)
    pictures = {"clean": strip.clean, "attacked": strip.attacked, "difference": amplified.round().byte()}
    if maps is not None:
        pictures["clean map"] = overlay(strip.clean, maps[:, 0]).permute(0, 3, 1, 2)
        pictures["attacked map"] = overlay(strip.attacked, maps[:, 1]).permute(0, 3, 1, 2)
    return {(name, row): image for name, images in pictures.items() for row, image in enumerate(thumbnails(images, SIDE))}


def _corrupted_images(sample: Tensor) -> dict[Hashable, Tensor]:
    """One image under every corruption, by name and strength."""
    return {(name, strength): corrupt(sample[None], name, strength)[0] for name in CORRUPTIONS for strength in SHOWN}


def _about(asked: Study) -> str:
    where = "" if asked.run.directory is None else f", run {asked.run.directory.name}"
    return f"{where}. Diagnosed in {asked.diagnosis.seconds:,.0f} s."
