"""What another run does better and worse."""

from seewhy.diagnosis.paired import compare_predictions
from seewhy.diagnosis.predictions import Predictions
from seewhy.figures.paired import paired_figure
from seewhy.reporting.context import ReportContext
from seewhy.reporting.section import Section, be, count, panel, render
from seewhy.reporting.sprites import Sprites

MOST = 48  # images of a gallery


def comparison(study: ReportContext, album: Sprites) -> Section | None:
    """Fixed and broken images, an exact test of the difference, and the change of each class; None without another run."""
    other = study.other
    if other is None:
        return None
    before, after = other.test, study.test
    found = compare_predictions(before, after)
    galleries = []
    for name, indices, wrong in (("Fixed", found.fixed, before), ("Broken", found.broken, after)):
        surest = indices[wrong.confidence[indices].argsort(descending=True)][:MOST].tolist()
        there = [
            (index, _said(before, after, index))
            for index in surest
            if ("test", index) in album.images
        ]
        galleries.append((name, len(indices), there))
    figures = {"change": paired_figure(found)}
    html = render(
        "sections/comparison.html",
        figure=panel(
            figures["change"],
            "change",
            "Change of the accuracy of each class with its 95% interval",
        ),
        found=found,
        before=other.title,
        after=study.title,
        before_at=other.run.directory and other.run.directory.name,
        after_at=study.run.directory and study.run.directory.name,
        galleries=galleries,
        album=album,
    )
    finding = (
        f"Against {_named(other)}, {count(len(found.fixed), 'image')} {be(len(found.fixed))} fixed and {len(found.broken):,} "
        f"broken: {100 * found.change:+.2f} points, p = {found.p_value:.2g}."
    )
    return Section("Compared", finding, html, figures=figures)


def _named(study: ReportContext) -> str:
    return study.title if study.run.directory is None else study.run.directory.name


def _said(before: Predictions, after: Predictions, index: int) -> str:
    names = after.classes
    said = [
        f"{names[result.predicted[index]]} {result.confidence[index]:.2f}"
        for result in (before, after)
    ]
    return f"true {names[after.labels[index]]}, before {said[0]}, now {said[1]}"
