"""The main results of a report as Markdown, for a pull request or a wiki."""

from collections.abc import Mapping, Sequence

from seewhy.diagnosis.metrics import class_scores, worst_confusions
from seewhy.escaping import markdown_text
from seewhy.reporting.context import ReportContext
from seewhy.reporting.findings import ranked_findings
from seewhy.reporting.formatting import percent, percent_interval
from seewhy.reporting.section import Section

MOST_ROWS = 10  # of a table


def report_markdown(context: ReportContext, sections: Mapping[str, Section]) -> str:
    """The finding of each section, what to do next, and the weakest classes and confusions.

    Args:
        context: Of the report.
        sections: The rendered sections of the page, by anchor.
    """
    predictions = context.predictions
    scores = [score for score in class_scores(predictions) if score.images]
    confusions = worst_confusions(predictions, MOST_ROWS)
    parts = [
        f"# {markdown_text(context.title)}",
        *(markdown_text(sections[key].finding) for key in ("overview",) if key in sections),
    ]
    if findings := ranked_findings(context):
        parts.append("## What to do next")
        parts.append(
            "\n".join(
                f"{number}. {markdown_text(f'{each.text} {each.next_step}')}"
                for number, each in enumerate(findings, 1)
            )
        )
    parts.append("## Results")
    parts.append(
        "\n".join(
            f"- **{markdown_text(section.title)}**: {markdown_text(section.finding)}"
            for key, section in sections.items()
            if key != "overview"
        )
    )
    weakest = sorted(scores, key=lambda score: score.accuracy)[:MOST_ROWS]
    more = f", the weakest {len(weakest)} of {len(scores):,}" if len(scores) > len(weakest) else ""
    parts.append(f"## Classes{more}")
    parts.append(
        _table(
            ("class", "images", "accuracy", "95% interval", "precision"),
            [
                (
                    score.name,
                    f"{score.images:,}",
                    percent(score.accuracy),
                    percent_interval(score.interval),
                    percent(score.precision),
                )
                for score in weakest
            ],
        )
    )
    if confusions:
        parts.append("## Most frequent confusions")
        parts.append(
            _table(
                ("true", "predicted", "images", "share of the errors"),
                [
                    (
                        predictions.classes[each.true],
                        predictions.classes[each.predicted],
                        f"{each.images:,}",
                        percent(each.share),
                    )
                    for each in confusions
                ],
                left=2,
            )
        )
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table; its first `left` columns are text, the others are numbers."""
    lines = [header, [*["---"] * left, *["---:"] * (len(header) - left)]]
    lines += [[markdown_text(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
