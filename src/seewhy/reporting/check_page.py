"""The verdicts of `check` as one HTML page that works offline, with the images that were found."""

from pathlib import Path

from seewhy.checks.files import number
from seewhy.checks.result import FOUND, NOT_JUDGED, Check, DataChecks, ImageName
from seewhy.data.dataset import Dataset
from seewhy.data.thumbnails import make_thumbnails
from seewhy.files import make_directory, write_text
from seewhy.reporting.document import render_document
from seewhy.reporting.images import Images
from seewhy.reporting.section import Section, render
from seewhy.reporting.sprites import Sprites
from seewhy.wording import counted, counted_splits

FILE = "check.html"
MOST_SHOWN = 24  # findings of a check


def write_check_page(results: DataChecks, data: Dataset, directory: str | Path) -> Path:
    """Write check.html and return its path.

    Args:
        results: From `check`.
        data: The dataset that was checked, for its images.
        directory: Made if it is missing.
    """
    directory = Path(directory)
    make_directory(directory)
    path = directory / FILE
    write_text(path, render_check_page(results, data))
    return path


def render_check_page(results: DataChecks, data: Dataset) -> str:
    """The HTML of the page: the verdicts, and a section for each check that found something."""
    sprites = Sprites(_images(results, data))
    sections = {"verdicts": _overview(results)}
    for name in results.found:
        sections[name] = _section(name, results[name], sprites)
    sizes, classes = counted_splits(results.images), counted(len(results.classes), "class")
    return render_document(
        title=f"Check of {results.data}",
        headline=f"{sizes}, {classes}",
        sections=sections,
        source=f"{results.data}{f', with the features of {results.model}' * bool(results.model)}.",
        sheets=sprites.sheets(),
    )


def _overview(results: DataChecks) -> Section:
    judged = [name for name, each in results.checks.items() if each.verdict != NOT_JUDGED]
    finding = f"{len(results.found):,} of {counted(len(judged), 'check')} found something"
    finding += f": {', '.join(results.found)}." if results.found else "."
    html = render("sections/check_verdicts.html", checks=results.checks, number=number, found=FOUND)
    return Section("Verdicts", finding, html)


def _section(name: str, check: Check, sprites: Sprites) -> Section:
    html = render(
        "sections/check_findings.html",
        name=name,
        check=check,
        shown=check.findings[:MOST_SHOWN],
        number=number,
        sprites=sprites,
    )
    return Section(name.replace("-", " ").capitalize(), check.sentence, html)


def _images(results: DataChecks, data: Dataset) -> Images:
    """The thumbnails of the images that are shown, by split and index."""
    shown: dict[str, list[int]] = {}
    for image in _shown_images(results):
        shown.setdefault(image.split, []).append(image.index)
    images: Images = {}
    for name, indices in shown.items():
        thumbnails = make_thumbnails(data.splits[name], indices)
        pairs = zip(thumbnails.indices.tolist(), thumbnails.images, strict=True)
        images |= {(name, index): image for index, image in pairs}
    return images


def _shown_images(results: DataChecks) -> list[ImageName]:
    return [
        image
        for check in results.checks.values()
        for finding in check.findings[:MOST_SHOWN]
        for image in finding.images
    ]
