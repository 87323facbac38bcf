"""The gallery of errors, against the numbers of the run."""

import csv
import re
from urllib.parse import quote

import numpy as np
import pytest
from playwright.sync_api import expect


@pytest.fixture
def reader(read, reports):
    return read(reports.page)


def heat(reader):
    """The heat on the first card that is shown, as one text."""
    card = reader.page.locator("#gallery > li:not([hidden])").first
    card.scroll_into_view_if_needed()
    expect(card.locator("canvas.heat")).to_be_attached()
    return card.locator("canvas.heat").evaluate("canvas => canvas.toDataURL()")


def of_kind(reports, kind):
    """The misclassified images of a true and a predicted class, the most confident first."""
    confidence = reports.predictions.confidence
    found = [index for index, each in reports.errors().items() if each == kind]
    return sorted(found, key=lambda index: -confidence[index])


def test_matrix_cell_filters_the_gallery(reader, reports):
    page, counts = reader.page, {}
    for kind in reports.errors().values():
        counts[kind] = counts.get(kind, 0) + 1
    cells = page.locator("table.matrix a[data-cell]")
    found = cells.evaluate_all(
        "links => links.map(link => [link.dataset.cell, Number(link.textContent)])"
    )
    assert {tuple(map(int, cell.split(","))): number for cell, number in found} == counts
    for kind in [reports.worst_confusion(), max(counts), min(counts)]:
        page.locator(f"table.matrix a[data-cell='{kind[0]},{kind[1]}']").click()
        reader.shows(counts[kind])
        assert reader.shown() == of_kind(reports, kind)
        expect(page.locator("#errors")).to_be_in_viewport()
        expect(page.locator("#gallery")).to_be_in_viewport()


def test_listed_confusion_filters_the_gallery(reader, reports):
    reader.page.locator(".confusions a").first.click()
    kind = reports.worst_confusion()
    reader.shows(list(reports.errors().values()).count(kind))


def test_class_controls_filter_the_gallery(reader, reports):
    errors = reports.errors()
    actual, predicted = reports.worst_confusion()
    reader.set("true", str(actual))
    reader.shows(sum(true == actual for true, _ in errors.values()))
    assert all(errors[index][0] == actual for index in reader.shown())
    reader.set("predicted", str(predicted))
    reader.shows(list(errors.values()).count((actual, predicted)))
    assert reader.shown() == of_kind(reports, (actual, predicted))
    reader.set("true", "")
    reader.shows(sum(label == predicted for _, label in errors.values()))


def test_sort_orders(reader, reports):
    errors, test = reports.errors(), reports.predictions
    shown = reader.shown()
    assert sorted(shown) == sorted(errors)
    assert np.all(np.diff(test.confidence[shown]) <= 0)
    reader.set("sort", "loss")
    expect(reader.page.locator("#gallery > li").first).to_have_id(
        f"image-{max(errors, key=lambda i: test.losses[i])}"
    )
    assert np.all(np.diff(test.losses[reader.shown()]) <= 1.01e-3)  # the page holds three decimals
    reader.set("sort", "confusion")
    first = of_kind(reports, reports.worst_confusion())
    expect(reader.page.locator("#gallery > li").first).to_have_id(
        re.compile("|".join(f"^image-{index}$" for index in first))
    )
    kinds = [errors[index] for index in reader.shown()]
    runs = [kind for place, kind in enumerate(kinds) if place == 0 or kinds[place - 1] != kind]
    assert len(runs) == len(set(kinds))  # each confusion in one piece
    assert np.all(np.diff([kinds.count(kind) for kind in runs]) <= 0)  # the largest first
    reader.set("sort", "confidence")
    expect(reader.page.locator("#gallery > li").first).to_have_id(f"image-{shown[0]}")
    assert reader.shown() == shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layer", None),
        ("method", None),
        ("target", "true"),
        ("target", "difference"),
        ("opacity", "20"),
    ],
)
def test_controls_change_the_heat_map(reader, name, value):
    page, before = reader.page, heat(reader)
    if value is None:
        options = page.locator(f"select[name={name}] option").evaluate_all(
            "options => options.map(option => option.value)"
        )
        value = next(
            option
            for option in options
            if option != page.locator(f"select[name={name}]").input_value()
        )
    reader.set(name, value)
    reader.says(f"{name}={value}$")
    assert heat(reader) != before
    page.locator("button[name=reset]").click()
    expect(page.locator(f"[name={name}]")).not_to_have_value(value)
    assert heat(reader) == before


def test_heat_map_toggles(reader):
    page, before = reader.page, heat(reader)
    page.get_by_label("heat map", exact=True).uncheck()
    reader.says("overlay=off$")
    card = page.locator("#gallery > li").first
    assert reader.heat(card.locator("canvas"))[..., 3].max() == 0
    page.get_by_label("heat map", exact=True).check()
    assert heat(reader) == before


def test_heat_map_is_visible_on_the_image(reader):
    card = reader.page.locator("#gallery > li").first
    heat(reader)
    with_heat = card.screenshot()
    reader.go("overlay=off")
    expect(reader.page.get_by_label("heat map", exact=True)).not_to_be_checked()
    assert card.screenshot() != with_heat


def test_reset_restores_the_default(reader, reports):
    page, before = reader.page, reader.shown()
    actual, predicted = reports.worst_confusion()
    names = [reports.predictions.classes[index] for index in (actual, predicted)]
    reader.go(f"confusion={','.join(quote(name, safe='') for name in names)}&sort=loss")
    reader.shows(len(of_kind(reports, (actual, predicted))))
    page.locator("button[name=reset]").click()
    reader.shows(len(before))
    assert reader.shown() == before
    assert page.locator("select[name=sort]").input_value() == "confidence"
    assert page.locator("select[name=true]").input_value() == ""


def test_csv_has_the_images_of_the_gallery(reader, reports):
    page, test, errors = reader.page, reports.predictions, reports.errors()
    for name, expected in (
        ("", len(errors)),
        ("1", sum(true == 1 for true, _ in errors.values())),
    ):
        reader.set("true", name)
        reader.shows(expected)
        with page.expect_download() as started:
            page.get_by_role("link", name="Download errors as CSV").click()
        assert started.value.suggested_filename == "errors.csv"
        with open(started.value.path(), newline="", encoding="utf-8") as file:  # noqa: PTH123, a path of Playwright's
            rows = list(csv.DictReader(file))
        shown = reader.shown()
        assert [int(row["index"]) for row in rows] == shown
        assert [row["name"] for row in rows] == [f"<b>{index:04}.png" for index in shown]
        assert [row["true"] for row in rows] == [
            test.classes[test.labels[index]] for index in shown
        ]
        assert [row["predicted"] for row in rows] == [
            test.classes[test.predicted[index]] for index in shown
        ]
        np.testing.assert_allclose(
            [float(row["confidence"]) for row in rows], test.confidence[shown], atol=5.1e-4
        )
        np.testing.assert_allclose(
            [float(row["loss"]) for row in rows], test.losses[shown], atol=5.1e-4
        )


def test_back_button_restores_the_filter(reader, reports):
    page, everything = reader.page, len(reports.errors())
    page.locator("table.matrix a[data-cell]").first.click()
    reader.says("#confusion=")
    few = len(reader.shown())
    assert few < everything
    reader.set("sort", "loss")  # what is set is no step of its own
    reader.says("sort=loss")
    page.go_back()
    reader.shows(everything)
    assert page.locator("select[name=true]").input_value() == ""
    page.go_forward()
    reader.shows(few)
    assert page.locator("select[name=sort]").input_value() == "loss"


def test_reload_restores_the_state(reader, reports):
    page = reader.page
    actual, predicted = reports.worst_confusion()
    reader.set("true", str(actual))
    reader.set("predicted", str(predicted))
    for name, value in (
        ("sort", "loss"),
        ("target", "difference"),
        ("layer", "1"),
        ("opacity", "35"),
    ):
        reader.set(name, value)
    page.get_by_label("heat map", exact=True).uncheck()
    reader.says("overlay=off")
    before = reader.shown()
    page.reload()
    reader.ready()
    assert reader.shown() == before
    values = page.locator("form.controls").evaluate(
        "form => Object.fromEntries(new FormData(form))"
    )
    expected = {
        "true": str(actual),
        "predicted": str(predicted),
        "sort": "loss",
        "target": "difference",
        "opacity": "35",
    }
    assert expected.items() <= values.items()
    assert "overlay" not in values


@pytest.mark.parametrize(
    "address",
    [
        "confusion=%E0%A4%A,nothing&layer=99&method=x&target=y&sort=z&opacity=-3&image=99999",
        "image=",
        "&&==",
        "%",
    ],
)
def test_invalid_address_is_ignored(reader, reports, address):
    page, before = reader.page, settings(reader)
    reader.go("sort=loss")
    expect(page.locator("select[name=sort]")).to_have_value("loss")
    reader.go(address)
    expect(page.locator("select[name=sort]")).to_have_value("confidence")
    assert len(reader.shown()) == len(reports.errors())
    assert settings(reader) == before
    expect(page.locator("#viewer")).to_be_hidden()


def settings(reader):
    return reader.page.locator("form.controls").evaluate(
        "form => Object.fromEntries(new FormData(form))"
    )


def test_arrow_keys_move_between_matrix_cells(reader):
    """An arrow key moves to the next cell with a count, if there is one."""
    page = reader.page
    matrix = page.locator("table.matrix tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(c => c.textContent))"
    )
    filled = {
        (y, x) for y, row in enumerate(matrix) for x, cell in enumerate(row) if x and cell.strip()
    }
    at = min(filled)
    stops = page.locator("table.matrix a[tabindex='0']")
    stops.focus()
    steps = {"ArrowRight": (0, 1), "ArrowDown": (1, 0), "ArrowLeft": (0, -1), "ArrowUp": (-1, 0)}
    for key in ["ArrowDown"] * 3 + ["ArrowRight"] * 4 + ["ArrowUp"] * 12 + ["ArrowLeft"] * 12:
        down, right = steps[key]
        ahead = [
            cell for n in range(1, 12) if (cell := (at[0] + n * down, at[1] + n * right)) in filled
        ]
        at = ahead[0] if ahead else at
        page.keyboard.press(key)
        row = page.evaluate("document.activeElement.closest('tr').rowIndex") - 1
        assert (row, page.evaluate("document.activeElement.closest('td').cellIndex")) == at
        expect(stops).to_have_count(1)
        expect(stops).to_be_focused()


def test_matrix_is_one_tab_stop(reader):
    page = reader.page
    page.locator("table.matrix a[tabindex='0']").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('table.matrix')") is None
    page.keyboard.press("Shift+Tab")
    expect(page.locator("table.matrix a[tabindex='0']")).to_be_focused()


def test_shortcuts_keep_the_focus(reader):
    link = reader.page.locator("#gallery > li").nth(2).locator("a")
    link.focus()
    reader.page.keyboard.press("o")
    reader.says("overlay=off")
    expect(link).to_be_focused()
