"""The main results as Markdown."""

from dataclasses import replace

from seewhy.escaping import markdown_text
from seewhy.reporting.context import ReportContext
from seewhy.reporting.markdown import report_markdown
from seewhy.reporting.section import Section


def test_markdown_has_findings_and_tables(context: ReportContext) -> None:
    sections = {
        "overview": Section("Overview", "Accuracy is high.", ""),
        "trust": Section("Explanation quality", "Nothing passes.", ""),
    }
    text = report_markdown(context, sections)
    assert text.startswith(f"# {context.title}\n\nAccuracy is high.\n")
    assert "- **Explanation quality**: Nothing passes.\n" in text
    assert "**Overview**" not in text
    predictions = context.predictions
    labels = predictions.labels
    for index, name in enumerate(map(markdown_text, predictions.classes)):
        right = 100 * predictions.correct[labels == index].float().mean().item()
        assert f"| {name} | {int((labels == index).sum())} | {right:.1f}% |" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.count("|") in (5, 6)


def test_markdown_shows_names_as_they_are(context: ReportContext) -> None:
    """A class name is neither a link, HTML, a cell of its own, nor a mention."""
    evil = "<b>a</b>|[x](http://y) *z*"
    predictions = replace(context.predictions, classes=(evil, *context.predictions.classes[1:]))
    text = report_markdown(replace(context, predictions=predictions), {})
    escaped = r"\<b\>a\</b\>\|\[x\](http\://y) \*z\*"
    assert escaped in text
    assert evil not in text
