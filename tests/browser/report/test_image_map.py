"""The map of images in the page: pointer and keys select images, and their thumbnails appear."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


@pytest.fixture
def page(read, reports):
    return read(reports.page).page


def test_a_click_and_the_arrow_keys_select_images(page):
    chosen = page.locator("#map-image")
    expect(chosen).to_have_text("No image selected.")
    box = page.locator("#map").bounding_box()
    page.locator("#map").click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    expect(chosen).to_have_text(re.compile(r"^Image \d+: .*Of the \d+ images around it, \d+ are"))
    first = chosen.inner_text()
    thumbnails = page.locator("#map-thumbnails canvas")
    assert 1 < thumbnails.count() <= 25
    assert thumbnails.first.get_attribute("aria-label") in first  # the image itself comes first
    for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
    assert chosen.inner_text() != first


def test_only_errors_can_be_shown(page):
    page.select_option("#map-shown", "wrong")
    page.locator("#map").click()
    expect(page.locator("#map-image")).to_contain_text("predicted as")
    expect(page.locator("#map-thumbnails canvas.wrong").first).to_be_visible()
    assert page.locator("#map-thumbnails canvas:not(.wrong)").count() == 0


def test_the_legend_follows_the_colors(page):
    entries = page.locator("#map-legend li")
    assert entries.count() == 10  # classes
    page.select_option("#map-color", "correct")
    assert entries.all_inner_texts() == ["right", "wrong"]
    page.select_option("#map-color", "confidence")
    assert entries.all_inner_texts() == ["0.00", "0.25", "0.50", "0.75", "1.00"]
