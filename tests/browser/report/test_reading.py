"""The report: dark mode, print, phone, no script, accessibility."""

import re

import pytest
from playwright.sync_api import expect

from seewhy.reporting.sections import SECTIONS

WAYS = {"light": {}, "dark": {"dark": True}, "phone": {"viewport": (390, 844), "touch": True}}
FIGURES = ".figures svg:not(.tile) text"
TEXTS = (
    ".finding, .hint, figcaption, .gallery p, .gallery b, .matrix td a, thead th, nav a, "
    "footer p, .numbers dd, .notice"
)


SOON = {
    ("light", "page"),
    ("phone", "page"),
    ("dark", "viewer"),
    ("light", "help"),
}  # what is context each time


@pytest.mark.parametrize(
    ("way", "opened"),
    [
        pytest.param(way, opened, marks=() if (way, opened) in SOON else pytest.mark.slow)
        for way in WAYS
        for opened in ("page", "viewer", "help")
    ],
)
def test_accessibility(read, reports, axe, way, opened):
    reader = read(reports.page, **WAYS[way])
    if opened == "viewer":
        reader.go(f"image={reader.shown()[0]}")
        expect(reader.page.locator("#viewer")).to_be_visible()
    if opened == "help":
        reader.page.keyboard.press("?")
        expect(reader.page.locator("#help")).to_be_visible()
    assert axe(reader.page) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sampled", "perfect"])
def test_accessibility_of_other_reports(read, reports, axe, name):
    assert axe(read(getattr(reports, name)).page) == []


def test_dark_mode_is_dark(read, reports):
    colors = "getComputedStyle(document.body)"
    light, dark = (
        read(reports.page, dark=dark).page.evaluate(f"[{colors}.color, {colors}.backgroundColor]")
        for dark in (False, True)
    )
    assert light[0] != dark[0]
    brightness = [
        [sum(map(int, re.findall(r"\d+", color)[:3])) for color in colors]
        for colors in (light, dark)
    ]
    (light_ink, light_paper), (dark_ink, dark_paper) = brightness
    assert light_ink < 200 < 600 < light_paper
    assert dark_paper < 200 < 600 < dark_ink


@pytest.mark.parametrize("way", ["light", "dark"])
@pytest.mark.parametrize("texts", [FIGURES, TEXTS], ids=["figures", "texts"])
def test_text_has_contrast(read, reports, way, texts):
    """WCAG 2, level AA: 4.5 to 1; computed here, as axe does not read text in an SVG."""
    contrasts = read(reports.page, **WAYS[way]).contrasts(texts)
    assert len(contrasts) > 50
    assert min(contrasts) >= 4.5


@pytest.mark.parametrize("way", ["light", "dark"])
def test_every_shade_of_the_matrix_has_contrast(read, reports, way):
    reader = read(reports.page, **WAYS[way])
    reader.page.evaluate("""[...document.querySelectorAll(".matrix td a")].slice(0, 8).forEach(
        (link, index) => {
            link.parentElement.className = `h${index + 1}`;
            link.id = `shade-${index + 1}`;
        })""")
    contrasts = reader.contrasts("[id^=shade]")
    assert len(contrasts) == 8
    assert min(contrasts) >= 4.5


@pytest.mark.parametrize("way", ["light", "dark"])
def test_print_has_every_section_and_no_controls(read, reports, way):
    page = read(reports.page, print=True, **WAYS[way]).page
    for name in set(SECTIONS) - {"subgroups", "experiment", "model"}:  # of other reports
        expect(page.locator(f"#{name}")).to_be_visible()
    for control in page.locator("nav, form.controls, button, .skip").all():
        expect(control).to_be_hidden()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    cards = page.locator("#gallery li").all()
    assert len(cards) > 1
    for card in cards:
        expect(card.locator("canvas.heat")).to_be_visible()
    # browsers print no backgrounds, and without them the largest counts are white on white
    cells = page.locator(".matrix td").all()
    styles = {cell.evaluate("cell => getComputedStyle(cell).printColorAdjust") for cell in cells}
    assert styles == {"exact"}


@pytest.mark.parametrize("opened", [False, True], ids=["page", "viewer"])
def test_phone_does_not_scroll_sideways(read, reports, opened):
    reader = read(reports.page, **WAYS["phone"])
    if opened:
        reader.go(f"image={reader.shown()[0]}")
        expect(reader.page.locator("#viewer")).to_be_visible()
    assert reader.page.evaluate("document.scrollingElement.scrollWidth") <= 390
    assert reader.page.evaluate("visualViewport.scale") == 1
    wide = reader.page.evaluate(
        "[...document.querySelectorAll('dialog')].filter(d => d.scrollWidth > d.clientWidth)"
    )
    assert wide == []


def test_without_script_only_the_controls_are_hidden(read, reports):
    reader = read(reports.page, javascript=False)
    page = reader.page
    assert sorted(reader.shown()) == sorted(reports.errors())
    assert page.locator("table").count() >= 5
    expect(page.locator("table.matrix")).to_be_visible()
    for hidden in page.locator(".script-only, form.controls, dialog, #errors-csv").all():
        expect(hidden).to_be_hidden()
    assert page.locator("button:visible, select:visible, input:visible").count() == 0
    first = page.locator("#gallery svg.tile").first
    first.scroll_into_view_if_needed()
    box = first.bounding_box()
    assert box is not None
    assert box["width"] >= 32
    assert box["height"] >= 32


def test_without_script_images_are_visible(read, reports):
    """A tile is a part of a sheet: more than one color comes to the screen."""
    page = read(reports.page, javascript=False).page
    tiles = page.locator("#gallery svg.tile")
    first, second = tiles.nth(0).screenshot(), tiles.nth(1).screenshot()
    assert first != second
    assert min(len(first), len(second)) > 400  # bytes of PNG: an empty one has fewer


def test_without_script_a_matrix_cell_links_to_its_images(read, reports):
    page = read(reports.page, javascript=False).page
    actual, predicted = reports.worst_confusion()
    page.locator(f"table.matrix a[data-cell='{actual},{predicted}']").click()
    row = page.locator(":target")
    expect(row).to_have_id(f"confusion-{actual}-{predicted}")
    expect(row).to_be_in_viewport()
    images = [index for index, kind in reports.errors().items() if kind == (actual, predicted)]
    assert sorted(map(int, row.locator("a").all_text_contents())) == images
    row.locator("a").first.click()
    expect(page.locator(":target")).to_be_in_viewport()


def test_first_tab_stop_skips_to_the_overview(read, reports):
    page = read(reports.page).page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the overview")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the overview")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#overview")).to_be_in_viewport()


def test_navigation_marks_the_current_section(read, reports):
    page = read(reports.page).page
    page.locator("nav").get_by_role("link", name="Robustness").click()
    expect(page.locator("nav a[aria-current]")).to_have_text("Robustness")


@pytest.mark.parametrize("width", [390, 1200])
def test_accuracies_under_attack_and_corruption_fit_their_columns(read, reports, width):
    page = read(reports.page, viewport=(width, 844)).page
    hidden = "each => each.scrollWidth - each.clientWidth"
    tables = page.locator(".scroll:has(> .levels)")
    assert [each.evaluate(hidden) for each in tables.all()] == [0, 0]
