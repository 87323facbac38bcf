"""The page of an experiment: dark mode, print, phone, no script, accessibility."""

import re
from dataclasses import replace

import numpy as np
import pytest
from playwright.sync_api import expect

from seewhy.reporting.page import render_experiment_page
from seewhy.train.lr_finder import LRRangeTest

WAYS = {"light": {}, "dark": {"dark": True}, "phone": {"viewport": (390, 844), "touch": True}}
NAMES = [
    f"{optimizer} · {steps}"
    for optimizer in ("sgd:momentum=0.9,nesterov=true", "adam", "gd", "<script>alert(1)</script>")
    for steps in ("crop:1", "no augment")
]
OPEN = "document.querySelectorAll('details').forEach(each => { each.open = true; })"


@pytest.fixture(scope="module")
def path(experiment_of, tmp_path_factory):
    """Eight recipes over three seeds, one report of a trial, range tests, and a failure."""
    directory = tmp_path_factory.mktemp("experiment")
    rng = np.random.default_rng(0)
    histories = {
        name: [
            [
                (
                    float(second),
                    2 - place / 10 - second / 9,
                    (0.9 - place / 50 + rng.normal(0, 0.004)) * second / 9,
                )
                for second in range(1, 10)
            ]
            for _ in range(3)
        ]
        for place, name in enumerate(NAMES)
    }
    made = experiment_of(histories | {"bad": ["the loss was not finite"] * 3}, directory)
    rates, losses = tuple(np.logspace(-5, 0, 40)), tuple(np.linspace(3, 1, 40))
    made = replace(
        made, range_tests=dict.fromkeys(NAMES[:2], LRRangeTest(rates, losses, losses, "diverged"))
    )
    report = made.trials[3].directory / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text("<!doctype html><title>a trial</title>", encoding="utf-8")
    page = directory / "report.html"
    page.write_text(render_experiment_page(made, directory).html, encoding="utf-8")
    return page


@pytest.mark.parametrize("way", WAYS)
def test_accessibility(open_page, path, axe, way):
    page = open_page(path, **WAYS[way])
    page.evaluate(OPEN)
    assert axe(page) == []


@pytest.mark.parametrize("way", ["light", "dark"])
def test_text_has_contrast(open_page, path, reader_of, way):
    reader = reader_of(open_page(path, **WAYS[way]))
    reader.page.evaluate(OPEN)
    for texts in (
        ".figures svg text",
        ".finding, .hint, figcaption, th, td, small, li, summary, footer p",
    ):
        contrasts = reader.contrasts(texts)
        assert len(contrasts) > 50
        assert min(contrasts) >= 4.5


def test_dark_mode_lines_have_contrast_and_differ(open_page, path, reader_of):
    """Graphics need 3 to 1; and no two of the colors are nearly the same."""
    reader = reader_of(open_page(path, dark=True))
    strokes = reader.page.locator(
        "svg[aria-label='Accuracy of each recipe by epoch'] path[stroke-width='1.6']"
    ).evaluate_all("lines => lines.map(line => getComputedStyle(line).stroke)")
    colors = np.array(
        [list(map(int, re.findall(r"\d+", stroke)[:3])) for stroke in dict.fromkeys(strokes)]
    )
    assert len(colors) == 8
    distances = np.abs(colors[:, None] - colors).sum(-1) + 1000 * np.eye(8)
    assert distances.min() > 60
    paper = reader.page.evaluate(
        "getComputedStyle(document.querySelector('section')).backgroundColor"
    )
    ground = list(map(int, re.findall(r"\d+", paper)[:3]))
    assert min(reader.contrast(color.tolist(), ground) for color in colors) >= 3


def test_dark_mode_markers_have_the_color_of_their_line(open_page, path):
    page = open_page(path, dark=True)
    figure = page.locator("svg[aria-label='Accuracy of each recipe by epoch']")
    pairs = figure.locator(
        "use[stroke='#0072b2'], path[stroke='#0072b2'][stroke-width='1.6']"
    ).evaluate_all("each => each.map(one => getComputedStyle(one).stroke)")
    assert len(pairs) > 5
    assert len(set(pairs)) == 1
    assert (
        figure.locator("defs path[stroke], path[id][stroke]").count() == 0
    )  # it takes that of the use


@pytest.mark.parametrize("opened", [False, True], ids=["closed", "opened"])
def test_phone_does_not_scroll_sideways(open_page, path, opened):
    page = open_page(path, **WAYS["phone"])
    if opened:
        page.evaluate(OPEN)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    assert page.evaluate("visualViewport.scale") == 1


def test_table_fits_a_wide_screen(open_page, path):
    table = open_page(path).locator("#experiment .scroll").first
    assert table.evaluate("each => each.scrollWidth <= each.clientWidth")


@pytest.mark.parametrize("way", ["light", "dark"])
def test_print_fits_the_page(open_page, path, way):
    page = open_page(path, print=True, viewport=(718, 1000), **WAYS[way])  # A4 without its margins
    page.evaluate(OPEN)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 718
    expect(page.locator("#experiment")).to_be_visible()
    expect(page.locator(".skip")).to_be_hidden()


@pytest.mark.parametrize("javascript", [True, False])
def test_page_links_to_the_trials(open_page, path, javascript):
    page = open_page(path, javascript=javascript)
    expect(page.get_by_role("heading", level=1)).to_have_text("9 recipes, 3 seeds on digits")
    expect(page.locator("#experiment")).to_contain_text(NAMES[-1])
    expect(page.locator("#experiment")).to_contain_text("the loss was not finite")
    assert page.locator("#experiment > .recipes > .figures svg").count() == 6
    page.get_by_role(
        "link", name="report of sgd:momentum=0.9,nesterov=true · no augment, seed 0"
    ).click()
    expect(page).to_have_title("a trial")


def test_first_tab_stop_skips_to_the_experiment(open_page, path):
    page = open_page(path)
    page.keyboard.press("Tab")
    link = page.get_by_role("link", name="Skip to the experiment")
    expect(link).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#experiment")).to_be_in_viewport()
