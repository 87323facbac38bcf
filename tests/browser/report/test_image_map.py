"""The map of images in the page: pointer and keys select images, and their thumbnails appear."""

import re

import pytest
from playwright.sync_api import expect

from seewhy.reporting.context import make_context
from seewhy.reporting.page import render_page
from seewhy.reporting.sections import SECTIONS

pytestmark = pytest.mark.browser

EVERYTHING = [(0.5, 0.005), (0.999, 0), (0.999, 0.999), (0, 0.999), (0, 0)]  # from an edge


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


def drag(page, points):
    """Draw a line on the map with the mouse, given in parts of its side."""
    page.locator("#map").scroll_into_view_if_needed()
    box = page.locator("#map").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place)
    page.mouse.up()


def test_a_line_selects_the_images_inside(page, reports):
    drag(page, EVERYTHING)
    wrong = len(reports.errors())
    status = page.locator("#map-image")
    expect(status).to_contain_text(f"200 images selected, {wrong} of them wrong")
    assert page.locator("#map-thumbnails canvas").count() == 200
    assert page.locator("#map-thumbnails canvas.wrong").count() == wrong
    lines = (
        page.locator("#map-file")
        .evaluate("link => decodeURIComponent(link.href.split(',').slice(1).join(','))")
        .splitlines()
    )
    assert len(lines) == 201
    assert any(line.startswith(f"{next(iter(reports.errors()))},") for line in lines)
    drag(page, [(0.3, 0.01), (0.5, 0), (0.5, 1), (0, 1), (0, 0)])  # a part of them
    assert 0 < page.locator("#map-thumbnails canvas").count() < 200
    page.select_option("#map-shown", "wrong")
    expect(status).to_have_text(re.compile(r"^(\d+) images? selected, \1 of them wrong"))
    page.keyboard.press("Tab")
    page.locator("#map").press("Escape")
    expect(status).to_have_text("No image selected.")
    expect(page.locator("#map-file")).to_be_hidden()


def test_shift_and_arrow_keys_select_images(page):
    page.locator("#map").press("ArrowRight")
    for _ in range(4):
        page.locator("#map").press("Shift+ArrowRight")
    page.locator("#map").press("Shift+ArrowDown")
    expect(page.locator("#map-image")).to_have_text(re.compile(r"^\d+ images selected, \d+ of"))
    page.locator("#map").press("ArrowLeft")
    expect(page.locator("#map-image")).to_have_text(re.compile(r"^Image \d+: "))


def test_a_class_can_be_shown(page):
    page.select_option("#map-class", "2")
    drag(page, EVERYTHING)
    name = page.locator("#map-class option:checked").inner_text()
    labels = page.locator("#map-thumbnails canvas").evaluate_all(
        "tiles => tiles.map(tile => tile.getAttribute('aria-label'))"
    )
    assert labels
    assert all(name in label for label in labels)


def test_images_are_colored_by_metadata(read, reports):
    page = read(reports.full).page
    page.select_option("#map-color", "group-0")
    assert page.locator("#map-legend li").all_inner_texts() == ["unknown", "north", "south"]
    drag(page, EVERYTHING)
    expect(page.locator("#map-image")).to_contain_text("site: south 100, north 50, unknown 50")


@pytest.fixture
def with_training(read, reports, shapes, tmp_path, monkeypatch):
    """A page with the errors and a map of test and training images."""
    few = {key: SECTIONS[key] for key in ("errors", "image-map")}
    monkeypatch.setattr("seewhy.reporting.page.SECTIONS", few)
    context = make_context(reports.run, shapes, quiet=True, keep=False, map_train=True)
    file = tmp_path / "training.html"
    file.write_text(render_page(context).html, encoding="utf-8")
    return read(file).page


def test_test_and_training_images_are_shown_alone_or_together(with_training, reports):
    page, wrong = with_training, len(reports.errors())
    drag(page, EVERYTHING)
    status = page.locator("#map-image")
    expect(status).to_have_text(
        re.compile(
            rf"^Selected: 200 test images \(.+\), {wrong} of them wrong; 500 training images \("
        )
    )
    lines = (
        page.locator("#map-file")
        .evaluate("link => decodeURIComponent(link.href.split(',').slice(1).join(','))")
        .splitlines()
    )
    assert lines[0] == "split,index,true,predicted,confidence"
    splits = [line.partition(",")[0] for line in lines[1:]]
    assert (splits.count("test"), splits.count("train")) == (200, 500)
    assert all(line.endswith(",,") for line in lines if line.startswith("train"))
    page.select_option("#map-shown", "wrong")  # of the test images
    expect(status).to_have_text(
        re.compile(
            rf"^Selected: {wrong} test images \(.+\), {wrong} of them wrong; 500 training images"
        )
    )
    page.select_option("#map-split", "test")
    expect(status).not_to_contain_text("training image")
    page.locator("#map-split").press("ArrowDown")  # to "training", without a pointer
    expect(status).to_contain_text("Selected: 500 training images")
    expect(status).not_to_contain_text("wrong")
    assert page.locator("#map-thumbnails canvas:not(.train)").count() == 0
    page.locator("#map-thumbnails canvas").first.click()
    expect(status).to_have_text(re.compile(r"^Training image <b>\d{4}\.png: .+Around it: 25 trai"))
    page.select_option("#map-color", "correct")
    entries = page.locator("#map-legend li").all_inner_texts()
    assert entries == ["right", "wrong", "● test image", "+ training image"]


def test_a_finger_draws_a_line_if_that_is_switched_on(read, reports):
    page = read(reports.page, viewport=(390, 844), touch=True).page
    page.locator("#map").scroll_into_view_if_needed()
    box = page.locator("#map").bounding_box()
    places = [
        {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in EVERYTHING
    ]
    session = page.context.new_cdp_session(page)

    def draw():
        kinds = ["touchStart", *["touchMove"] * (len(places) - 1), "touchEnd"]
        for kind, points in zip(kinds, [*([place] for place in places), []], strict=True):
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    draw()
    status = page.locator("#map-image")
    expect(status).not_to_contain_text("images selected")
    page.get_by_label("select with a finger").check()
    page.locator("#map").scroll_into_view_if_needed()
    box = page.locator("#map").bounding_box()
    places[:] = [
        {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in EVERYTHING
    ]
    draw()
    expect(status).to_contain_text("200 images selected")


def test_a_mouse_needs_no_switch_for_fingers(page):
    expect(page.locator("#map-finger")).to_be_hidden()
