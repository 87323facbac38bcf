"""Weak slices, and the average heat map of each class."""

from seewhy.diagnosis.diagnosis import slice_examples
from seewhy.diagnosis.saliency import Saliency
from seewhy.diagnosis.shortcuts import Shortcut, suspected_shortcuts
from seewhy.diagnosis.slices import Slice
from seewhy.figures.slices import class_attribution_figure, shown_classes, slices_figure
from seewhy.reporting.context import ReportContext
from seewhy.reporting.findings import weakness_note
from seewhy.reporting.formatting import (
    count_of,
    map_name,
    percent,
    percent_interval,
    prediction_label,
)
from seewhy.reporting.section import Section, figure_html, render
from seewhy.reporting.sprites import Sprites
from seewhy.wording import counted

Example = tuple[int, str, bool]  # test image, text alternative, whether it is in the gallery


def slices_section(context: ReportContext, sprites: Sprites) -> Section:
    """Significantly weak slices with examples, average heat maps, and suspected shortcuts."""
    predictions, slices = context.predictions, context.diagnosis.slices
    saliency = context.diagnosis.saliency
    shortcuts = () if saliency is None else suspected_shortcuts(saliency.class_attribution)
    figures = {}
    if saliency is not None:
        figures["class_attribution"] = class_attribution_figure(saliency.class_attribution)
    if slices:
        figures["slices"] = slices_figure(slices, predictions.accuracy)
    html = render(
        "sections/slices.html",
        figure=figure_html(figures["slices"], "slices", "Accuracy of the weakest slices")
        if slices
        else None,
        slices=[_row(weak, context) for weak in slices],
        average_maps=[] if saliency is None else _average_maps(saliency, predictions.classes),
        map_name="" if saliency is None else _map_name(saliency),
        shortcuts=[
            _question(shortcut, saliency, context) for shortcut in shortcuts if saliency is not None
        ],
        clustered=bool(context.diagnosis.unusual),
        searched=count_of(
            context.diagnosis.slice_images, len(context.diagnosis.names), context.images_noun
        ),
        sprites=sprites,
    )
    parts = (_finding(slices, shortcuts), weakness_note(context, "slices and average heat maps"))
    return Section("Weak slices", " ".join(filter(None, parts)), html, figures=figures)


def _finding(slices: tuple[Slice, ...], shortcuts: tuple[Shortcut, ...]) -> str:
    text = "No significantly weak slices."
    if slices:
        worst = slices[0]
        text = (
            f"{counted(len(slices), 'significantly weak slice')}. "
            f"{'The most costly' if len(slices) > 1 else 'It'} is “{worst.description}”: accuracy "
            f"{percent(worst.accuracy)}, on the other images {percent(worst.rest_accuracy)}."
        )
    names = list(dict.fromkeys(shortcut.name for shortcut in shortcuts))
    if names:
        text += f" Suspected shortcuts in {counted(len(names), 'class')}."
    return text


def _row(weak: Slice, context: ReportContext) -> tuple[Slice, str, list[Example]]:
    in_gallery = set(context.diagnosis.errors.tolist())
    examples = [
        (index, prediction_label(context.predictions, index), index in in_gallery)
        for index in slice_examples(weak, context.predictions).tolist()
    ]
    return weak, percent_interval(weak.interval), examples


def _average_maps(saliency: Saliency, classes: tuple[str, ...]) -> list[tuple[int, str]]:
    """Index and name of each class with an average heat map."""
    return [(index, classes[index]) for index in shown_classes(saliency.class_attribution).tolist()]


def _map_name(saliency: Saliency) -> str:
    return map_name(saliency.best.method, saliency.best.layer, saliency.maps.layers)


def _question(shortcut: Shortcut, saliency: Saliency, context: ReportContext) -> str:
    """A suspected shortcut, with the region to check."""
    peak = shortcut.peak
    rows, columns = (
        side / cells
        for side, cells in zip(
            context.data.image_shape[1:],
            saliency.class_attribution.mean_maps.shape[1:],
            strict=True,
        )
    )
    top, bottom = (round(rows * row) for row in (peak.top, peak.top + peak.height))
    left, right = (round(columns * column) for column in (peak.left, peak.left + peak.width))
    return (
        f"{shortcut.name}: {percent(shortcut.share, 0)} of the relevance is in the "
        f"{shortcut.region}, against {percent(shortcut.median_of_others, 0)} for the other "
        f"classes. Check rows {top}–{bottom} and columns {left}–{right} of its images: is this "
        "the object or the background?"
    )
