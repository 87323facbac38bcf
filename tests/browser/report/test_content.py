"""What the report says, against the files of the run."""

import csv
import json
import re
from itertools import groupby

import numpy as np
import pytest
import torch
from playwright.sync_api import expect

from seewhy.data.corrections import correct_labels
from seewhy.diagnosis.diagnosis import slice_examples
from seewhy.diagnosis.label_issues import find_label_issues
from seewhy.diagnosis.paired import compare_predictions
from seewhy.reporting.formatting import p_value

SAVED = 60_000  # bytes that the budget is below the size of a page with everything
PAGES = ("page", "sampled", "full", "perfect")
LOST = """[...document.querySelectorAll("a[href^='#'], use")].map(each => each.getAttribute("href"))
    .filter(address => address !== "#" && document.getElementById(address.slice(1)) === null)"""
TWICE = """(() => {
    const ids = [...document.querySelectorAll("[id]")].map(each => each.id);
    return ids.filter((id, place) => ids.indexOf(id) !== place);
})()"""


@pytest.fixture(params=PAGES)
def path(request, reports):
    return getattr(reports, request.param)


def test_report_opens_quickly_and_loads_nothing(read, visit, path):
    reader = read(path)
    assert processor_seconds(reader.page) < 3  # however busy the machine is
    assert {url for url in visit.records.requests if not url.startswith(("data:", "blob:"))} == {
        path.resolve().as_uri()
    }
    assert not visit.records.warnings
    assert reader.page.title()


def processor_seconds(page):
    """Processor time of the page's renderer process, which lays the page out and runs scripts."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    metrics = session.send("Performance.getMetrics")["metrics"]
    (seconds,) = [metric["value"] for metric in metrics if metric["name"] == "ProcessTime"]
    assert seconds > 0
    return seconds


def test_links_resolve_and_ids_are_unique(read, path):
    page = read(path).page
    assert page.evaluate(LOST) == []
    assert page.evaluate(TWICE) == []


def test_overview_has_the_numbers_of_the_summary(read, reports):
    summary = json.loads((reports.directory / "summary.json").read_text(encoding="utf-8"))
    text = read(reports.page).page.locator("#overview .finding").inner_text()
    found = [float(number) for number in re.findall(r"\d+\.\d+", text)]
    expected = [100 * summary["accuracy"], *(100 * end for end in summary["interval"])]
    np.testing.assert_allclose(found, expected, atol=0.00501)
    assert f"{summary['test_images']} images" in text


def test_confusion_matrix_is_that_of_the_csv(read, reports):
    with (reports.directory / "confusion.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    matrix = read(reports.page).page.locator("table.matrix")
    shown = matrix.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert [[name, *(cell or "0" for cell in cells)] for name, *cells in shown] == rows
    assert matrix.locator("thead th").all_text_contents()[1:] == header[1:]


def test_names_are_never_markup(read, visit, reports):
    reader = read(reports.page)
    page, markup = reader.page, reports.predictions.classes[0]
    page.context.on("dialog", lambda dialog: pytest.fail(f"the page said {dialog.message}"))
    image = next(
        index for index, (true, predicted) in reports.errors().items() if true == 0 and predicted
    )
    reader.go(f"image={image}")
    expect(page.locator("#viewer-title")).to_contain_text(f"true {markup}")
    expect(page.locator("#viewer-file")).to_have_text(f"<b>{image:04}.png")
    assert (
        page.locator("img, [onerror], #viewer-file b, body > script:not(#data) ~ script").count()
        == 0
    )
    assert page.locator("script").count() == 2
    assert page.locator("select[name=true] option").nth(1).text_content() == markup
    assert page.locator("svg.tile").filter(has_text="alert").count() == 0
    assert not [url for url in visit.records.requests if url.endswith("/x")]
    assert "image-folder" not in page.content()


@pytest.mark.parametrize("javascript", [True, False])
def test_label_issues_are_downloaded(read, reports, javascript):
    page = read(reports.page, javascript=javascript).page
    with page.expect_download() as started:
        page.get_by_role("link", name="Download all as CSV").click()
    assert started.value.suggested_filename == "label-issues.csv"
    with open(started.value.path(), newline="", encoding="utf-8") as file:  # noqa: PTH123, a path of Playwright's
        rows = list(csv.DictReader(file))
    test, suspects = reports.predictions, find_label_issues(reports.predictions)
    assert [row["file"] for row in rows] == [f"<b>{suspect.index:04}.png" for suspect in suspects]
    for row, suspect in zip(rows, suspects, strict=True):
        index = suspect.index
        assert (row["split"], row["index"]) == ("test", str(index))
        assert row["label"] == test.classes[test.labels[index]]
        suggested, given = (
            test.classes.index(row["suggested_label"]),
            test.classes.index(row["label"]),
        )
        assert float(row["suggested_probability"]) == pytest.approx(
            test.probabilities[index, suggested].item(), abs=1e-6
        )
        assert float(row["label_probability"]) == pytest.approx(
            test.probabilities[index, given].item(), abs=1e-6
        )


def test_chosen_labels_are_downloaded_and_applied(read, reports, shapes):
    reader = read(reports.page)
    page, test = reader.page, reports.predictions
    first, second, third, *_ = find_label_issues(test)
    status, link = page.locator("#labels-status"), page.locator("#labels-file")
    expect(status).to_have_text("No label is changed.")
    expect(link).to_be_hidden()
    lists = {
        suspect: page.locator(f'#label-issues select[data-image="{suspect.index}"]').first
        for suspect in (first, second, third)
    }
    markup = test.classes[first.suggested_label]
    expect(lists[first].locator("option").nth(1)).to_have_text(f"change to {markup}")
    lists[first].focus()
    page.keyboard.press("ArrowDown")  # to the suggested label
    lists[second].select_option(label="drop the image")
    lists[third].select_option(label="drop the image")
    expect(status).to_have_text("1 label changed, 2 images dropped.")
    lists[third].select_option(index=0)  # keep
    expect(status).to_have_text("1 label changed, 1 image dropped.")
    with page.expect_download() as started:
        link.click()
    assert started.value.suggested_filename == "labels.csv"
    corrected = correct_labels(shapes, started.value.path())
    kept = [index for index in range(len(test.labels)) if index != second.index]
    labels = test.labels.clone()
    labels[first.index] = first.suggested_label
    assert torch.equal(corrected.test.labels, labels[kept])
    assert corrected.test.names == [shapes.test.names[index] for index in kept]


def test_no_label_can_be_chosen_without_a_script(read, reports):
    page = read(reports.page, javascript=False).page
    expect(page.locator("#label-issues")).to_contain_text("Suspected label errors")
    assert page.locator("#label-issues select:visible").count() == 0
    expect(page.locator("#labels-status")).to_be_hidden()


def test_comparison_has_the_numbers_of_both_runs(read, reports):
    before, after = reports.before.predictions.correct, reports.predictions.correct
    fixed, broken = int((~before & after).sum()), int((before & ~after).sum())
    assert fixed != broken  # or else it could not be seen which is which
    section = read(reports.page).page.locator("#comparison")
    expect(section.locator("h3", has_text="Fixed")).to_have_text(f"Fixed errors: {fixed}")
    expect(section.locator("h3", has_text="New")).to_have_text(f"New errors: {broken}")
    finding = section.locator(".finding").inner_text()
    comparison = compare_predictions(reports.before.predictions, reports.predictions)
    assert f"{p_value(comparison.p_value)}); {fixed} errors fixed, {broken} new." in finding
    change = re.search(r"([+−][\d.]+) points", finding)
    assert float(change[1].replace("−", "-")) == pytest.approx(
        100 * (fixed - broken) / len(after), abs=0.00501
    )
    assert section.locator(".tiles").first.locator("figure").count() == min(fixed, 100)


def test_small_budget_shows_errors_of_every_confusion(read, reports):
    errors = reports.errors()
    reader = read(reports.sampled)
    shown = reader.shown()
    assert len(set(errors.values())) <= len(shown) < len(errors)
    assert {errors[index] for index in shown} == set(errors.values())
    expect(reader.page.locator("#errors .notice")).to_contain_text(
        f"Showing {len(shown)} of {len(errors)} errors"
    )
    size, limit = reports.sampled.stat().st_size, reports.page.stat().st_size - SAVED
    assert limit - 20_000 < size <= limit  # no more is left out than must be


def test_small_budget_shows_the_most_confident_of_each_confusion(read, reports):
    confidence, errors = reports.predictions.confidence, reports.errors()
    shown = set(read(reports.sampled).shown())
    by_kind = sorted(errors, key=lambda index: (errors[index], -confidence[index]))
    slices = reports.diagnosis.slices  # whose examples are always shown
    examples = {
        index for weak in slices for index in slice_examples(weak, reports.predictions).tolist()
    }
    for _, kind in groupby(by_kind, key=errors.__getitem__):
        are_shown = [index in shown for index in kind if index not in examples]
        assert are_shown == sorted(are_shown, reverse=True)


def test_full_report_shows_every_error(read, reports):
    reader = read(reports.full)
    assert sorted(reader.shown()) == sorted(reports.errors())
    assert reader.page.locator(".notice").count() == 0


def test_report_without_errors(read, reports):
    reader = read(reports.perfect)
    page = reader.page
    expect(page.locator("#overview .finding")).to_contain_text("Test accuracy is 100.00%")
    expect(page.locator("#errors .finding")).to_contain_text(
        "0 of 200 test images are misclassified"
    )
    expect(page.locator("#classes")).to_contain_text("No test image is misclassified")
    for key in ("j", "o", "1"):
        page.keyboard.press(key)  # there is no error to open
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    expect(page.locator("#viewer")).to_be_hidden()
