"""The viewer of an error, against the maps in diagnosis.npz; keys, links and the clipboard."""

import re
from dataclasses import replace
from urllib.parse import quote

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from playwright.sync_api import expect

from seewhy.diagnosis.error_maps import MapPairs
from seewhy.reporting.context import make_context
from seewhy.reporting.page import render_page

TARGETS = {"predicted": 0, "true": 1, "difference": 2}  # their places in the viewer


@pytest.fixture
def reader(read, reports):
    return read(reports.page)


def opened(reader, image):
    """Wait until the viewer shows that image of the test split."""
    expect(reader.page.locator("#viewer")).to_be_visible()
    expect(reader.page.locator("#viewer-file")).to_have_text(f"<b>{image:04}.png")


def closed(reader):
    expect(reader.page.locator("#viewer")).to_be_hidden()


def signed_heat(reader, target):
    """The heat map in the viewer as numbers in [-1, 1]; in a difference, orange is positive."""
    canvas = reader.page.locator("#viewer-maps figure").nth(1 + TARGETS[target]).locator("canvas")
    pixels = reader.heat(canvas).astype(np.int64)
    sign = np.where(pixels[..., 0] >= pixels[..., 2], 1, -1) if target == "difference" else 1
    return sign * pixels[..., 3] / 255


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("layer", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_heat_map_is_that_of_the_diagnosis(reader, reports, target, layer):
    """The maps upscaled by torch in float64; the page has 15 levels, so half a level may differ."""
    diagnosis = reports.diagnosis
    maps, row = diagnosis.saliency.maps, 3
    image = int(diagnosis.errors[row])
    reader.go(f"image={image}&layer={layer}&method={maps.methods[1]}&opacity=100")
    opened(reader, image)
    expect(reader.page.locator(f"#viewer [data-layer='{layer}']")).to_have_attribute(
        "aria-pressed", "true"
    )
    predicted, true = maps.of(maps.methods[1])[layer - 1][row].double() / 127
    wanted = {"predicted": predicted, "true": true}.get(target)
    if wanted is None:  # on a scale of its own, of the steps that the page has
        steps = (15 * predicted).round() - (15 * true).round()
        wanted = steps / steps.abs().max()
    large = F.interpolate(wanted[None, None], (224, 224), mode="bilinear", align_corners=False)[
        0, 0
    ].numpy()
    found = signed_heat(reader, target)
    if target != "difference":
        large = large.clip(0)
    assert np.abs(large).max() > 0.2  # there is something to see
    np.testing.assert_allclose(found, large, atol=1 / 30 + 0.004)


def test_captions_name_the_class(reader, reports):
    image, (actual, predicted) = next(iter(reports.errors().items()))
    reader.go(f"image={image}")
    opened(reader, image)
    names = reports.predictions.classes
    captions = reader.page.locator("#viewer-maps figcaption").all_text_contents()
    assert captions[0] == "the image itself"
    assert captions[1].startswith(f"evidence for {names[predicted]}")
    assert captions[2].startswith(f"evidence for {names[actual]}")
    expect(reader.page.locator("#viewer-title")).to_have_text(
        f"predicted {names[predicted]}, true {names[actual]}"
    )


def test_missing_maps_are_reported(reader, reports):
    """Only the 100 most confident errors have maps of the other methods."""
    images, shown = reader.shown(), reports.diagnosis.saliency.shown.method
    assert len(images) > 100
    method = reports.diagnosis.saliency.maps.methods[-1]
    assert method not in (shown, reports.diagnosis.saliency.best.method)
    missing = reader.page.locator("#viewer-missing")
    for place, pictures in ((0, 4), (-1, 1)):
        reader.go(f"image={images[place]}&method={method}")
        opened(reader, images[place])
        expect(reader.page.locator("#viewer-maps figure")).to_have_count(pictures)
        expect(missing).to_be_visible(visible=pictures == 1)
    missing.locator("button").click()
    expect(reader.page.locator("#viewer-maps figure")).to_have_count(4)
    assert f"method={method}" not in reader.page.url
    expect(reader.page.locator("select[name=method]")).to_have_value(shown)


def test_true_class_is_always_listed(reader, reports):
    """Also if it is not among the five most probable classes."""
    probabilities = torch.softmax(reports.predictions.logits.double(), 1)
    labels = reports.predictions.labels
    own = probabilities.gather(1, labels[:, None])
    ranks = (probabilities > own).sum(1)
    image = next(image for image in reader.shown() if ranks[image] >= 5)
    reader.go(f"image={image}")
    opened(reader, image)
    lines = reader.page.locator("#viewer-probabilities li")
    expect(lines).to_have_count(6)
    name = reports.predictions.classes[labels[image]]
    expect(lines.last).to_have_text(f"{name} (true){own[image, 0]:.2f}")


def test_most_faithful_map_is_a_key_away(reader, reports):
    saliency, page = reports.diagnosis.saliency, reader.page
    layers = list(saliency.maps.layers)
    shown, best = (
        (str(1 + layers.index(score.layer)), score.method)
        for score in (saliency.shown, saliency.best)
    )
    assert shown[0] == str(len(layers))  # the last stage
    assert shown != best
    selected = page.locator("select[name=layer]"), page.locator("select[name=method]")
    image = reader.shown()[0]
    reader.go(f"image={image}")
    opened(reader, image)
    for press in (
        lambda: page.keyboard.press("f"),
        lambda: page.locator("#viewer-faithful").click(),
    ):
        for select, value in zip(selected, shown, strict=True):
            expect(select).to_have_value(value)
        press()
        for select, value in zip(selected, best, strict=True):
            expect(select).to_have_value(value)
        expect(page.locator("#viewer-faithful")).to_have_attribute("aria-pressed", "true")
        expect(page.locator(f"#viewer [data-layer='{best[0]}']")).to_contain_text("✓")
        page.keyboard.press("f")


def test_empty_maps_say_why(reader, reports):
    """A map without a positive level, by its own values and those of the other class."""
    saliency = reports.diagnosis.saliency
    maps, images = saliency.maps, reports.diagnosis.errors.tolist()
    names, predictions = reports.predictions.classes, reports.predictions
    found = {}
    for method in range(len(maps.methods)):
        for layer, values in enumerate(maps.of(maps.methods[method])):
            for row, pair in enumerate(values[:90]):
                levels = (15 * pair.double() / 127).round()
                for target in range(2):
                    if (levels[target] > 0).any():
                        continue
                    name = names[(predictions.predicted, predictions.labels)[target][images[row]]]
                    reason = "this layer has no effect"
                    if (levels[target] < 0).any():
                        reason = f"every position is evidence against {name}"
                    elif levels[1 - target].any():
                        reason = "too weak to be seen beside the other map"
                    key = reason.split(name)[0]
                    found.setdefault(key, (layer, method, row, target, reason))
    assert found
    for layer, method, row, target, reason in found.values():
        image = images[row]
        reader.go(f"image={image}&layer={layer + 1}&method={maps.methods[method]}")
        opened(reader, image)
        caption = reader.page.locator("#viewer-maps figcaption").nth(1 + target)
        expect(caption).to_contain_text(f"empty: {reason}")


def test_probabilities_are_the_largest(reader, reports):
    own = torch.softmax(reports.predictions.logits.double(), 1)
    ranks = (own > own.gather(1, reports.predictions.labels[:, None])).sum(1)
    image = next(image for image in reader.shown() if ranks[image] < 5)
    reader.go(f"image={image}")
    opened(reader, image)
    lines = reader.page.locator("#viewer-probabilities li").evaluate_all(
        "lines => lines.map(l => [...l.children].map(c => c.textContent))"
    )
    top = torch.softmax(reports.predictions.logits[image].double(), 0).topk(5)
    names = [reports.predictions.classes[place] for place in top.indices]
    actual = reports.predictions.classes[reports.predictions.labels[image]]
    assert [line[0] for line in lines] == [
        f"{name} (true)" if name == actual else name for name in names
    ]
    np.testing.assert_allclose(
        [float(line[1] or line[2]) for line in lines], top.values, atol=0.0056
    )
    widths = reader.page.locator("#viewer-probabilities i").evaluate_all(
        "bars => bars.map(bar => parseFloat(bar.style.width))"
    )
    np.testing.assert_allclose(widths, 100 * top.values, atol=0.051)


def test_card_opens_the_viewer_and_escape_restores_the_focus(reader):
    page, image = reader.page, reader.shown()[4]
    link = page.locator(f"#image-{image} a")
    link.focus()
    page.keyboard.press("Enter")
    opened(reader, image)
    page.keyboard.press("2")
    reader.says("layer=2|image=\\d+$")
    page.keyboard.press("Escape")
    closed(reader)
    assert "image" not in reader.address()
    expect(link).to_be_focused()


def test_keys_j_and_k_follow_the_order_of_the_gallery(reader):
    page = reader.page
    reader.set("sort", "loss")
    reader.says("sort=loss")
    page.locator("select[name=sort]").blur()
    order = reader.shown()
    for key, place in (("j", 0), ("j", 1), ("ArrowRight", 2), ("k", 1), ("ArrowLeft", 0), ("k", 0)):
        page.keyboard.press(key)
        opened(reader, order[place])
    page.get_by_role("button", name="next image").click()
    opened(reader, order[1])
    page.get_by_role("button", name="previous image").click()
    opened(reader, order[0])
    page.locator("#viewer").get_by_role("button", name="close").click()
    closed(reader)
    page.keyboard.press("k")
    opened(reader, order[-1])
    page.keyboard.press("j")
    opened(reader, order[-1])  # there is none behind the last


def test_digits_select_a_layer_and_o_toggles_the_heat_map(reader, reports):
    page, layers = reader.page, len(reports.diagnosis.saliency.maps.layers)
    reader.go(f"image={reader.shown()[0]}")
    opened(reader, reader.shown()[0])
    assert page.locator("#viewer-layers button").count() == layers > 1
    for layer in range(1, layers + 1):
        page.keyboard.press(str(layer))
        expect(page.locator("#viewer-layers [aria-pressed=true]")).to_have_attribute(
            "data-layer", str(layer)
        )
    page.keyboard.press(str(layers + 1) if layers < 9 else "0")  # no such layer
    expect(page.locator("#viewer-layers [aria-pressed=true]")).to_have_attribute(
        "data-layer", str(layers)
    )
    page.locator("#viewer-layers button").first.click()
    expect(page.locator("#viewer-layers [aria-pressed=true]")).to_have_attribute("data-layer", "1")
    canvas = page.locator("#viewer-maps canvas").first
    assert reader.heat(canvas)[..., 3].max() > 0
    page.keyboard.press("o")
    reader.says("overlay=off")
    assert reader.heat(canvas)[..., 3].max() == 0
    page.keyboard.press("o")
    reader.says("^((?!overlay).)*$")
    assert reader.heat(canvas)[..., 3].max() > 0


def test_shortcuts_ignore_modifiers_and_form_fields(reader):
    page = reader.page
    page.keyboard.press("Control+j")
    page.keyboard.press("Alt+1")
    page.locator("select[name=method]").focus()
    page.keyboard.press("j")
    closed(reader)
    assert reader.address() == ""


def test_help_opens_and_closes(reader):
    page, help_ = reader.page, reader.page.locator("#help")
    page.keyboard.press("?")
    expect(help_).to_be_visible()
    page.keyboard.press("j")  # means nothing while it is open
    closed(reader)
    page.keyboard.press("Escape")
    expect(help_).to_be_hidden()
    page.keyboard.press("?")
    help_.get_by_role("button", name="close").click()
    expect(help_).to_be_hidden()
    image = reader.shown()[0]
    reader.go(f"image={image}")
    opened(reader, image)
    page.keyboard.press("?")
    expect(help_).to_be_visible()
    page.keyboard.press("Escape")
    expect(help_).to_be_hidden()
    opened(reader, image)  # of the two only the upper one closes


def test_click_outside_closes_the_viewer(reader):
    image = reader.shown()[0]
    reader.go(f"image={image}")
    opened(reader, image)
    reader.page.mouse.click(3, 450)
    closed(reader)


def test_address_restores_the_state(reader, reports):
    """In a new page, with the names of classes that hold what means something in an address."""
    page, errors, names = reader.page, reports.errors(), reports.predictions.classes
    image, kind = next((index, kind) for index, kind in errors.items() if 1 in kind)
    classes = ",".join(quote(names[index], safe="") for index in kind)
    address = f"#confusion={classes}&image={image}&layer=2"
    page.goto("about:blank")
    page.goto(reports.page.resolve().as_uri() + address)
    reader.ready()
    opened(reader, image)
    assert set(reader.shown()) == {index for index, each in errors.items() if each == kind}
    expect(page.locator("#viewer-layers [aria-pressed=true]")).to_have_attribute("data-layer", "2")
    page.keyboard.press("Escape")
    closed(reader)
    assert set(reader.shown()) == {index for index, each in errors.items() if each == kind}


def test_address_of_the_state_survives_a_reload(reader, reports):
    actual = next(true for true, predicted in reports.errors().values() if predicted == 1)
    reader.set("true", str(actual))
    reader.set("predicted", "1")
    reader.says(re.escape("," + quote(reports.predictions.classes[1], safe="")))
    before = reader.shown()
    reader.page.reload()
    reader.ready()
    assert reader.shown() == before


def test_back_button_closes_the_viewer(reader):
    page, images = reader.page, reader.shown()
    page.locator(f"#image-{images[0]} a").click()
    opened(reader, images[0])
    page.keyboard.press("j")
    opened(reader, images[1])
    page.go_back()
    closed(reader)
    page.go_forward()
    opened(reader, images[1])


@pytest.mark.parametrize("javascript", [True, False])
def test_link_to_an_image_needs_no_script(read, reports, javascript):
    reader = read(reports.page, javascript=javascript)
    page, image = reader.page, reader.shown()[-1]
    page.goto("about:blank")
    page.goto(reports.page.resolve().as_uri() + f"#image-{image}")
    if javascript:
        reader.ready()
        opened(reader, image)
    else:
        expect(page.locator(":target")).to_have_id(f"image-{image}")
        expect(page.locator(":target")).to_be_in_viewport()
        links = page.locator("#gallery a").evaluate_all(
            "links => links.map(link => getComputedStyle(link).outlineStyle)"
        )
        assert [
            index
            for index, outline in zip(reader.shown(), links, strict=True)
            if outline == "solid"
        ] == [image]


def test_copy_buttons_fill_the_clipboard(reader):
    page, image = reader.page, reader.shown()[0]
    reader.go(f"image={image}&layer=1")
    opened(reader, image)
    for button, expected in (("Copy file name", f"<b>{image:04}.png"), ("Copy link", page.url)):
        page.get_by_role("button", name=button).click()
        expect(page.locator("#viewer-status")).to_contain_text("copied")
        assert pasted(page) == expected
        page.locator("#viewer-status").evaluate("status => status.textContent = ''")


def pasted(page):
    """What the clipboard holds, put where something is typed."""
    page.evaluate(
        """document.getElementById('viewer').append(
            Object.assign(document.createElement('textarea'), { id: 'typed' })
        )"""
    )
    page.locator("#typed").focus()
    page.keyboard.press("Control+v")
    text = page.locator("#typed").input_value()
    page.locator("#typed").evaluate("typed => typed.remove()")
    return text


@pytest.mark.parametrize("size", [(1280, 900), (390, 800)])
def test_viewer_shows_the_nearest_and_the_most_influential_training_images(
    read, reports, shapes, size
):
    reader = read(reports.page, viewport=size)
    diagnosis = reports.diagnosis
    image, classes = int(diagnosis.errors[1]), reports.predictions.classes
    reader.go(f"image={image}")
    opened(reader, image)
    box = reader.page.locator("#viewer-neighbors")
    headings = ["Nearest training images", "Most influential training images"]
    expect(box.get_by_role("heading")).to_have_text(headings)
    figures = box.locator("#viewer-nearest figure")
    neighbors, influence = diagnosis.nearest.neighbors, diagnosis.nearest.influence
    expect(figures).to_have_count(4)
    expect(figures.nth(3)).to_contain_text("nearest of the true class")
    true = classes[int(reports.predictions.labels[image])]
    similarity = f"{float(neighbors.of_label_similarity[1, 0]):.2f}"
    expect(figures.nth(3).locator("figcaption")).to_have_text(
        f"nearest of the true class: {true}, {similarity}"
    )
    canvas = figures.first.locator("canvas")
    nearest = int(neighbors.nearest[1, 0])
    expect(canvas).to_have_attribute("aria-label", f"training image {nearest}")
    assert reader.heat(canvas)[..., 3].min() == 255  # painted
    figures = box.locator("#viewer-influential figure")
    expect(figures).to_have_count(4)
    label = int(shapes.train.labels[influence.proponents[1, 0]])
    share = round(100 * float(influence.proponent_shares[1, 0]))
    expect(figures.first.locator("figcaption")).to_have_text(f"{classes[label]}, {share}%")
    expect(figures.nth(3)).to_contain_text("against: ")
    hint = box.locator("#viewer-influence-hint")
    predicted = classes[int(reports.predictions.predicted[image])]
    expect(hint).to_contain_text(f"that raise the probability of {predicted} most")
    width = reader.page.evaluate("document.querySelector('#viewer').scrollWidth")
    assert width <= size[0]


@pytest.mark.slow
def test_a_method_of_the_whole_model_has_one_map(read, reports, shapes, tmp_path):
    """As a transformer's attention: it is shown first here, and no layer can be selected."""
    diagnosis = reports.diagnosis
    saliency, row = diagnosis.saliency, 2
    values = saliency.maps.values[0].flip(1)
    score = replace(saliency.best, layer="pixels", method="le-grad")
    pairs = MapPairs((("pixels", "le-grad"), *saliency.maps.keys), (values, *saliency.maps.values))
    changed = replace(
        saliency, maps=pairs, best=score, shown=score, scores=(score, *saliency.scores)
    )
    context = make_context(reports.run, shapes, quiet=True)
    context = replace(context, diagnosis=replace(diagnosis, saliency=changed))
    path = tmp_path / "report.html"
    path.write_text(render_page(context).html, encoding="utf-8")
    reader, image = read(path), int(diagnosis.errors[row])
    page, layers = reader.page, len(saliency.maps.layers)
    layer, method = (page.locator(f"select[name={name}]") for name in ("layer", "method"))
    expect(method).to_have_value("le-grad")
    expect(page.locator("#errors")).to_contain_text("Shown first: le-grad (whole model)")
    expect(layer).to_be_disabled()
    expect(page.locator("#trust table")).to_contain_text("whole model")
    reader.go(f"image={image}&opacity=100")
    opened(reader, image)
    expect(page.locator("#viewer-layers button")).to_have_count(0)
    expect(page.locator("#viewer-faithful")).to_have_attribute("aria-pressed", "true")
    wanted = F.interpolate(
        values[row, :1, None].double() / 127, (224, 224), mode="bilinear", align_corners=False
    )[0, 0]
    found = signed_heat(reader, "predicted")
    assert np.abs(found - wanted.clamp(min=0).numpy()).max() < 0.06
    page.keyboard.press("1")  # there is no layer to select
    assert "layer=" not in page.url
    reader.go(f"image={image}&method=grad-cam")
    expect(page.locator("#viewer-layers button")).to_have_count(layers)
    expect(page.locator("#viewer-layers [aria-pressed=true]")).to_have_attribute(
        "data-layer", str(layers)
    )
    expect(layer).to_be_enabled()
