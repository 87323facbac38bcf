"""Groups of images on which the network is worse than elsewhere, and where it looks for each class."""

from seewhy.diagnosis.diagnosis import slice_examples
from seewhy.diagnosis.shortcuts import Shortcut, suspected_shortcuts
from seewhy.diagnosis.slices import Slice
from seewhy.figures.slices import class_attribution_figure, shown_classes, slices_figure
from seewhy.reporting.context import ReportContext
from seewhy.reporting.section import (
    Section,
    alternative,
    be,
    between,
    count,
    panel,
    percent,
    render,
)
from seewhy.reporting.sprites import Sprites


def slices(study: ReportContext, album: Sprites) -> Section:
    """Slices that are significantly weak, with examples, and the mean place of each class's evidence."""
    result, diagnosis = study.test, study.diagnosis
    found = diagnosis.slices
    looks = diagnosis.saliency
    suspects = () if looks is None else suspected_shortcuts(looks.class_attribution)
    figures = (
        {} if looks is None else {"evidence": class_attribution_figure(looks.class_attribution)}
    )
    if found:
        figures["slices"] = slices_figure(found, result.accuracy)
    html = render(
        "sections/slices.html",
        figure=panel(figures["slices"], "slices", "Accuracy of the weakest slices")
        if found
        else None,
        slices=[_described(group, study) for group in found],
        evidence=[]
        if looks is None
        else [
            (place, result.classes[place])
            for place in shown_classes(looks.class_attribution).tolist()
        ],
        suspects=[_question(each, study) for each in suspects],
        best=None if looks is None else looks.best,
        album=album,
    )
    return Section("Weak slices", _finding(found, suspects), html, figures=figures)


def _finding(found: tuple[Slice, ...], suspects: tuple[Shortcut, ...]) -> str:
    where = "no class stands out by where its evidence lies"
    if suspects:
        where = f"the evidence for {suspects[0].name} lies oddly often at the {suspects[0].region}"
    if not found:
        return f"0 groups of images are significantly worse than the rest, and {where}."
    worst = found[0]
    return (
        f"{count(len(found), 'group')} of images {be(len(found))} significantly worse than the rest; the costliest, "
        f"“{worst.description}”, is right on {percent(worst.accuracy)} against {percent(worst.rest_accuracy)}; {where}."
    )


def _described(
    group: Slice, study: ReportContext
) -> tuple[Slice, str, list[tuple[int, str, bool]]]:
    carded = set(study.diagnosis.errors.tolist())
    examples = [
        (index, alternative(study.test, index), index in carded)
        for index in slice_examples(group, study.test).tolist()
    ]
    return group, between(group.interval), examples


def _question(found: Shortcut, study: ReportContext) -> str:
    looks, peak = study.diagnosis.saliency, found.peak
    assert looks is not None  # the finding is about its evidence
    scales = [
        side / grid
        for side, grid in zip(
            study.run.image_shape[1:], looks.class_attribution.mean_maps.shape[1:], strict=True
        )
    ]
    top, bottom = (round(scales[0] * row) for row in (peak.top, peak.top + peak.height))
    left, right = (round(scales[1] * column) for column in (peak.left, peak.left + peak.width))
    return (
        f"{found.name}: {percent(found.share, 0)} of the evidence lies at the {found.region}, against {percent(found.median_of_others, 0)} "
        f"of that for other classes. Is it the object, or something that comes with it? Look at rows {top} to {bottom} and "
        f"columns {left} to {right} of its images."
    )
