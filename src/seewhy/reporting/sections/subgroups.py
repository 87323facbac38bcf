"""Subgroups: accuracy by the values of a table of metadata."""

from seewhy.diagnosis.metadata import unmatched
from seewhy.diagnosis.slices import Slice
from seewhy.figures.slices import slices_figure
from seewhy.reporting.context import ReportContext
from seewhy.reporting.formatting import p_value, percent, percent_interval
from seewhy.reporting.section import Section, csv_link, figure_html, render
from seewhy.reporting.sprites import Sprites
from seewhy.wording import counted

MOST_ROWS = 60  # in the table; all are in the CSV file
SIGNIFICANT = 0.05
HEADERS = ("group", "#images", "#accuracy (95% CI)", "#other images", "#p-value")
CSV_HEADER = ("group", "images", "accuracy", "low", "high", "other_images", "p_value")


def subgroups_section(context: ReportContext, sprites: Sprites) -> Section | None:
    """Accuracy of each group, the weakest first; None without metadata."""
    if context.metadata is None:
        return None
    groups = context.subgroups
    figures = {}
    if groups:
        figures["subgroups"] = slices_figure(groups, context.predictions.accuracy)
    html = render(
        "sections/subgroups.html",
        figure=figure_html(figures["subgroups"], "subgroups", "Accuracy of the weakest groups")
        if groups
        else None,
        headers=HEADERS,
        rows=[_row(group) for group in groups[:MOST_ROWS]],
        total=len(groups),
        csv=csv_link(CSV_HEADER, [_csv_row(group) for group in groups]),
        unmatched=counted(unmatched(context.metadata), context.images_noun),
        any_unmatched=unmatched(context.metadata) > 0,
    )
    return Section("Subgroups", _finding(groups), html, figures=figures)


def _finding(groups: tuple[Slice, ...]) -> str:
    if not groups:
        return "The metadata have no column whose values group the images."
    weak = [group for group in groups if group.p_value <= SIGNIFICANT]
    if not weak:
        return f"None of {counted(len(groups), 'group')} is significantly weak."
    worst = weak[0]
    return (
        f"{counted(len(weak), 'significantly weak group')}. "
        f"{'The most costly' if len(weak) > 1 else 'It'} is “{worst.description}”: accuracy "
        f"{percent(worst.accuracy)}, on the other images {percent(worst.rest_accuracy)}."
    )


def _row(group: Slice) -> tuple[str, ...]:
    return (
        group.description,
        f"{group.images:,}",
        f"{percent(group.accuracy)} ({percent_interval(group.interval)})",
        percent(group.rest_accuracy),
        p_value(group.p_value).removeprefix("p = ").removeprefix("p "),
    )


def _csv_row(group: Slice) -> tuple[object, ...]:
    return (
        group.description,
        group.images,
        group.accuracy,
        *group.interval,
        group.rest_accuracy,
        group.p_value,
    )
