"""Figures of explanations, by their pixels and their text."""

import io

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.attribution.explanation import Explanation
from seewhy.attribution.statuses import MapStatus
from seewhy.errors import SeewhyError
from seewhy.figures.explanations import attack_figure, explanation_figure, methods_figure, overlay
from seewhy.figures.style import HEAT, STYLE, save_figure

CLASSES = ("cat", "dog", "frog")
ZOOM = 20  # by which images of 8x8 are enlarged to 160


def noise(count, channels=3, height=8, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, height, width), generator=generator).byte()


def explanation_of(
    count, keys=(("layer4", "grad-cam"),), labels=None, classes=CLASSES, kinds=None, grid=(4, 4)
):
    """Random maps in [0, 1]; row i predicts class i modulo K, with a logit of 2 against 0."""
    generator = torch.Generator().manual_seed(1)
    one_hot = torch.nn.functional.one_hot(torch.arange(count) % len(classes), len(classes)).float()
    return Explanation(
        maps={key: torch.rand(count, *grid, generator=generator) for key in keys},
        statuses={
            key: MapStatus(tuple(kinds or ("ok",) * count), torch.zeros(count)) for key in keys
        },
        logits=2 * one_hot,
        weights=one_hot,
        labels=None if labels is None else torch.tensor(labels),
        classes=tuple(classes),
    )


def painted(pixels, heat, opacity):
    """Float64, independently: pixels (..., 3) in 0 to 255 and heat (...) in [0, 1]."""
    share = opacity * np.minimum(1, 2 * heat)[..., None]
    return pixels * (1 - share) + 255 * np.array(mpl.colormaps[HEAT](heat))[..., :3] * share


def bilinear(grid, height, width):
    """Pixels as areas: a cell's value is at its middle, and holds beyond the outermost middles."""

    def along(values, length):
        middles = (np.arange(length) + 0.5) * len(values) / length - 0.5
        return np.stack(
            [np.interp(middles, np.arange(len(values)), column) for column in values.T], axis=1
        )

    return along(along(grid, height).T, width).T


# overlay


@pytest.mark.parametrize("opacity", [0.5, 1.0])
def test_overlay_colors(opacity):
    images = noise(2, height=16, width=16)
    heat = np.arange(256).reshape(16, 16) / 255  # so that each is a color of the palette
    maps = torch.from_numpy(np.stack([heat, 70 * heat[::-1]]))
    hot = np.minimum(heat / (254 / 255), 1)  # all but the hottest of 256 pixels are 99.6% of them
    expected = painted(
        images.permute(0, 2, 3, 1).double().numpy(), np.stack([hot, hot[::-1]]), opacity
    )
    found = overlay(images, maps, opacity)
    assert (found.shape, found.dtype) == ((2, 16, 16, 3), torch.uint8)
    np.testing.assert_allclose(found.numpy(), expected, atol=0.51)


@pytest.mark.parametrize(("grid", "size"), [((2, 2), (8, 8)), ((3, 5), (20, 31)), ((1, 1), (6, 4))])
def test_overlay_resizes_bilinearly(grid, size):
    images = torch.full((1, 3, *size), 128).byte()
    maps = torch.rand(1, *grid, generator=torch.Generator().manual_seed(3))
    large = bilinear(maps[0].double().numpy(), *size)
    heat = np.minimum(large / np.quantile(large, 0.995, method="inverted_cdf"), 1)
    expected = painted(np.full((*size, 3), 128.0), heat, 1.0)
    np.testing.assert_allclose(
        overlay(images, maps, 1.0)[0].numpy(), expected, atol=4
    )  # a palette of 256 colors


def test_overlay_of_a_few_hot_pixels_shows_the_others():
    images = torch.zeros(1, 3, 20, 20).byte()
    maps = torch.ones(1, 20, 20)
    maps[0, 3, :2] = 1000
    assert (overlay(images, maps, 1.0)[0].amax(-1) > 200).all()


def test_overlay_position():
    images = torch.full((1, 3, 32, 32), 90).byte()
    maps = torch.zeros(1, 8, 8)
    maps[0, 1:3, 4:7] = 2.5
    changed = (overlay(images, maps)[0] != 90).any(-1)
    assert changed[4:12, 16:28].all()
    changed[2:14, 14:30] = False  # half a cell around it, where bilinear heat fades
    assert not changed.any()


@pytest.mark.parametrize(
    "maps", [torch.zeros(2, 3, 3), -torch.rand(2, 3, 3), torch.full((2, 1, 1), -1e-40)]
)
def test_overlay_without_positive_values(maps):
    images = noise(2)
    assert torch.equal(overlay(images, maps), images.permute(0, 2, 3, 1))
    assert torch.equal(overlay(images, torch.rand(2, 3, 3), 0), images.permute(0, 2, 3, 1))


@pytest.mark.parametrize("scale", [1e-38, 1e-3, 1e30])
def test_overlay_is_independent_of_scale_and_negative_values(scale):
    images, maps = noise(2), torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.1
    maps[:, :4] = 0
    against = maps.clone()
    against[:, :3] = -5
    expected = overlay(images, maps)
    assert torch.equal(overlay(images, torch.stack([maps[0], scale * maps[1]])), expected)
    assert torch.equal(overlay(images, against), expected)


def test_overlay_of_gray_and_float_images():
    gray, maps = noise(2, channels=1), torch.rand(2, 4, 4)
    expected = overlay(gray.expand(-1, 3, -1, -1), maps)
    assert torch.equal(overlay(gray, maps), expected)
    assert torch.equal(overlay(gray / 255, maps), expected)
    assert torch.equal(
        overlay((gray / 255).double().requires_grad_(), maps.double().requires_grad_()), expected
    )


def test_overlay_keeps_arguments():
    images, maps = noise(1) / 255, torch.rand(1, 8, 8) - 0.5
    before = images.clone(), maps.clone()
    overlay(images, maps)
    assert torch.equal(images, before[0])
    assert torch.equal(maps, before[1])


def test_heat_colors_rise_in_luminance():
    colors = np.array(mpl.colormaps[HEAT](range(256)))[:, :3]
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all()


@pytest.mark.parametrize(
    ("images", "maps", "opacity", "message"),
    [
        (
            noise(2),
            torch.rand(3, 4, 4),
            0.5,
            "needs one map per image, found 2 images and 3 maps",
        ),
        (noise(1), torch.rand(1, 1, 4, 4), 0.5, r"maps must be a tensor \(N, h, w\) of floats"),
        (noise(1), None, 0.5, "maps must be a tensor .* found NoneType"),
        (noise(1), torch.tensor([[[1.0, float("nan")]]]), 0.5, "maps must be finite"),
        (noise(1), torch.tensor([[[1.0, float("inf")]]]), 0.5, "maps must be finite"),
        (noise(1) / 1.0, torch.rand(1, 4, 4), 0.5, r"images must have values in \[0, 1\]"),
        (noise(1), torch.rand(1, 4, 4), 1.5, "opacity must be from 0 to 1, found 1.5"),
    ],
)
def test_overlay_errors(images, maps, opacity, message):
    with pytest.raises(SeewhyError, match=message):
        overlay(images, maps, opacity)


# figures


def cells(axes, rows, columns, height=160, width=160):
    """The pictures in an axes, (rows, columns, height, width, 3), without gaps."""
    picture = np.asarray(axes.images[0].get_array())
    pitches = [
        (length - side) // max(1, count - 1)
        for length, side, count in zip(
            picture.shape[:2], (height, width), (rows, columns), strict=True
        )
    ]
    return np.stack(
        [
            np.stack(
                [
                    picture[r * pitches[0] :, c * pitches[1] :][:height, :width]
                    for c in range(columns)
                ]
            )
            for r in range(rows)
        ]
    )


def rows_of(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def columns_of(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def written(axes):
    return [text.get_text() for text in axes.texts]


def enlarged(images):
    return images.expand(-1, 3, -1, -1).repeat_interleave(ZOOM, 2).repeat_interleave(ZOOM, 3)


def assert_nothing_is_cut_off_or_overlaps(figure):
    """Only notes are on images; no text overlaps another or the figure's edge."""
    with mpl.rc_context(STYLE):
        figure.draw_without_rendering()
        notes = [text for axes in figure.axes for text in axes.texts if text.get_bbox_patch()]
        beside = [
            text for axes in figure.axes for text in axes.texts if not text.get_bbox_patch()
        ] + figure.texts
        for axes in figure.axes:
            beside += [*axes.get_yticklabels(), *axes.get_xticklabels(), axes._left_title]
        boxes = [text.get_window_extent() for text in notes + beside if text.get_text()]
    for place, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.height
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])
    for text in beside:
        assert not text.get_text() or not any(
            on_a_picture(text.get_window_extent(), axes) for axes in figure.axes
        )


def on_a_picture(box, axes):
    frames = axes.collections[0].get_paths()
    to_pixels = axes.transData
    return any(box.overlaps(frame.get_extents(to_pixels)) for frame in frames)


def test_explanation_figure_cells():
    images, keys = noise(3), [("layer3", "grad-cam"), ("layer4", "grad-cam")]
    explanation = explanation_of(3, keys, labels=[0, 1, 0])
    figure = explanation_figure(images, explanation, 0.7)
    axes, _ = figure.axes
    found = cells(axes, 3, 3)
    large = enlarged(images)
    assert np.array_equal(found[:, 0], large.permute(0, 2, 3, 1))
    for column, key in enumerate(keys, 1):
        assert np.array_equal(found[:, column], overlay(large, explanation.maps[key], 0.7))
    assert columns_of(axes) == ["image", "layer3", "layer4"]
    assert "grad-cam" in [text.get_text() for text in figure.texts]


def test_explanation_figure_labels():
    explanation = explanation_of(3, labels=[0, 1, 0])
    confidence = np.exp(2) / (np.exp(2) + 2)  # of a logit of 2 over two of 0
    axes = explanation_figure(noise(3), explanation).axes[0]
    assert rows_of(axes) == [
        f"true: cat\npredicted: cat {confidence:.2f} ✓",
        f"true: dog\npredicted: dog {confidence:.2f} ✓",
        f"true: cat\npredicted: frog {confidence:.2f} ✗",
    ]
    right, _, wrong = (label.get_color() for label in axes.get_yticklabels())
    assert right != wrong
    assert rows_of(explanation_figure(noise(1), explanation_of(1)).axes[0]) == [
        f"predicted: cat {confidence:.2f}"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8, 8), (8, 40)])
def test_explanation_figure_of_the_most_probable_classes(size):
    explanation = explanation_of(2, classes=("cat", "dog", "frog", "newt"))
    explanation.logits[:] = torch.tensor([[0.0, 3, 1, 2], [1, 0, 3, -1]])
    probabilities = [np.exp(3 - i) / np.exp([0, 1, 2, 3]).sum() for i in range(4)]
    figure = explanation_figure(noise(2, 3, *size), explanation, top=3)
    first, _ = rows_of(figure.axes[0])
    values = [f"{value:.2f}" for value in probabilities]
    lines = [f"predicted: dog {values[0]}", f"newt {values[1]}", f"frog {values[2]}"]
    assert first.split("\n")[:3] == lines
    assert_nothing_is_cut_off_or_overlaps(figure)
    (every, _) = rows_of(explanation_figure(noise(2), explanation, top=9).axes[0])
    assert every.split("\n")[3] == f"cat {values[3]}"


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ([0.0, 1, 0], "target: dog"),
        ([-1.0, 0, 1], "target: frog, not cat"),
        ([1.0, -1, 0], "target: cat, not dog"),
        ([0.5, 0.5, 0], "target: weighted classes"),
        ([1.0, 0, 0], None),
    ],
)
def test_explanation_figure_targets(weights, line):
    explanation = explanation_of(1)
    explanation.weights[0] = torch.tensor(weights)
    (label,) = rows_of(explanation_figure(noise(1), explanation).axes[0])
    assert label.split("\n")[1:] == ([line] if line else [])


def test_explanation_figure_headers_of_several_methods():
    keys = [
        (layer, method) for layer in ("layer3", "layer4") for method in ("grad-cam", "layer-cam")
    ]
    figure = explanation_figure(noise(1), explanation_of(1, keys))
    assert columns_of(figure.axes[0])[1:] == [f"{layer}\n{method}" for layer, method in keys]
    assert not {"grad-cam", "layer-cam"} & {text.get_text() for text in figure.texts}


def test_explanation_figure_wraps_headers():
    layer, method = "backbone.stages.3.blocks.11.norm1", "smooth-grad:samples=25,noise=0.15"
    explanation = explanation_of(1, [(layer, method), ("layer4", method)])
    header = columns_of(explanation_figure(noise(1), explanation).axes[0])[1]
    assert header.replace("\n", "") == layer
    assert "\n" in header
    assert not any(line[0].isdigit() for line in header.split("\n"))
    assert rows_of(methods_figure(noise(1), explanation).axes[0])[0].replace("\n", "") == method


@pytest.mark.slow
def test_explanation_figure_notes():
    explanation = explanation_of(4, kinds=["ok", "all negative", "no gradient", "ok"])
    explanation.maps["layer4", "grad-cam"][3] *= -1  # as of a method that keeps its sign
    (axes, _) = explanation_figure(noise(4), explanation).axes
    assert written(axes) == ["all negative", "no gradient", "no positive\nevidence"]
    for row, text in zip((1, 2, 3), axes.texts, strict=True):
        x, y = text.get_position()
        assert 168 <= x < 328  # the second column
        assert row * 168 <= y < row * 168 + 160


def test_explanation_figure_index():
    images, explanation = noise(4), explanation_of(4, labels=[0, 0, 2, 1])
    by_number = explanation_figure(images, explanation, index=[3, 1])
    assert np.array_equal(
        cells(by_number.axes[0], 2, 2)[:, 0], enlarged(images[[3, 1]]).permute(0, 2, 3, 1)
    )
    maps = explanation.maps["layer4", "grad-cam"][[3, 1]]
    assert np.array_equal(
        cells(by_number.axes[0], 2, 2)[:, 1], overlay(enlarged(images[[3, 1]]), maps)
    )
    mistakes = explanation_figure(
        images, explanation, index=explanation.predicted != explanation.labels
    )
    assert [label.split()[1] for label in rows_of(mistakes.axes[0])] == ["cat", "dog"]
    assert all(label.endswith("✗") for label in rows_of(mistakes.axes[0]))


@pytest.mark.slow
def test_explanation_figure_of_many_maps():
    keys = [(f"layer{number}", "grad-cam") for number in range(15)]
    images, explanation = noise(2), explanation_of(2, keys)
    figure = explanation_figure(images, explanation)
    first, second, _ = figure.axes
    assert columns_of(first) + columns_of(second)[1:] == ["image", *(layer for layer, _ in keys)]
    assert rows_of(first) == rows_of(second)
    assert first.bbox.y0 > second.bbox.y1
    assert first.bbox.x0 == second.bbox.x0
    assert np.array_equal(
        cells(second, 2, 8)[:, 7], overlay(enlarged(images), explanation.maps[keys[-1]])
    )
    assert_nothing_is_cut_off_or_overlaps(figure)


@pytest.mark.slow
def test_explanation_figure_is_not_resampled(tmp_path):
    figure = explanation_figure(noise(3), explanation_of(3, labels=[0, 0, 0]))
    picture = np.asarray(figure.axes[0].images[0].get_array())
    _, path = save_figure(figure, tmp_path / "figure")
    with Image.open(path) as image:
        saved = np.asarray(image.convert("RGB"))
    box = figure.axes[0].get_position()
    top, left = round((1 - box.y1) * saved.shape[0]), round(box.x0 * saved.shape[1])
    shown = saved[top : top + picture.shape[0], left : left + picture.shape[1]]
    inside = np.s_[4:156, 4:156]  # within the first frame
    assert np.array_equal(shown[inside], picture[inside])
    assert (shown == picture).all(-1).mean() > 0.97  # but for frames


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((8, 8), (160, 160)),
        ((32, 32), (160, 160)),
        ((100, 50), (200, 100)),
        ((320, 480), (107, 160)),
    ],
)
def test_explanation_figure_image_sizes(size, shown):
    axes = explanation_figure(noise(1, 3, *size), explanation_of(1)).axes[0]
    height, width = axes.images[0].get_array().shape[:2]
    assert height == shown[0]
    assert width == 2 * shown[1] + max(round(0.05 * max(shown)), 112 - shown[1])


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (3, (8, 40)), (3, (40, 8))])
def test_explanation_figures_text_does_not_overlap(channels, size):
    names = (
        "black-footed ferret, polecat, Mustela nigripes",
        "$5$",
        "academic gown, academic robe, judge's robe",
    )
    keys = [
        ("features.denseblock4.norm2", "grad-cam"),
        ("layer4", "element-wise-grad-cam"),
        ("pixels", "rise:masks=500"),
    ]
    images = noise(3, channels, *size)
    explanation = explanation_of(3, keys, [0, 0, 2], names, ["all negative", "ok", "saturated"])
    one_method = explanation_of(3, keys[:1], [0, 0, 2], names)
    for contrasted in (explanation, one_method):
        contrasted.weights[:] = torch.tensor([-1.0, 1, 0])
    for figure in (
        explanation_figure(images, explanation),
        explanation_figure(images, one_method),
        explanation_figure(images[:1], explanation_of(1, classes=("0", "1")), index=[0]),
        methods_figure(images, explanation, index=2),
        attack_figure(images, images.flip(0), explanation, explanation),
        attack_figure(
            images, images, explanation_of(3, classes=names), explanation_of(3, classes=names)
        ),
    ):
        assert_nothing_is_cut_off_or_overlaps(figure)
    assert r"\$5\$" in rows_of(explanation_figure(images, explanation).axes[0])[1]


@pytest.mark.slow
def test_explanation_figure_shortens_class_names():
    (label,) = rows_of(
        explanation_figure(
            noise(1), explanation_of(1, labels=[0], classes=("long " * 20, "b"))
        ).axes[0]
    )
    true, predicted = label.split("\n")
    assert true.endswith("…")
    assert predicted.startswith("predicted: long")
    assert predicted.endswith("… 0.88 ✓")


def test_explanation_figure_in_a_dark_style():
    with mpl.style.context("dark_background"):
        figure = explanation_figure(noise(1), explanation_of(1))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        with Image.open(buffer) as image:
            assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
        words = [
            *figure.texts,
            *figure.axes[0].get_xticklabels(),
            *figure.axes[0].get_yticklabels(),
        ]
        assert {mpl.colors.to_hex(text.get_color()) for text in words} == {"#000000"}


def test_explanation_figure_legend():
    *_, legend = explanation_figure(noise(1), explanation_of(1)).axes
    bar = np.asarray(legend.images[0].get_array())
    assert (bar[:, 0] == 127).all()
    np.testing.assert_allclose(
        bar[:, -1],
        np.broadcast_to(255 * np.array(mpl.colormaps[HEAT](255))[:3], bar[:, -1].shape),
        atol=1,
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: explanation_figure(noise(2), explanation_of(3)),
            r"explanation of 3 images needs .* found \(2, 3, 8, 8\)",
        ),
        (lambda: explanation_figure(noise(3)[0], explanation_of(3)), "explanation of 3 images"),
        (lambda: explanation_figure([1], explanation_of(1)), "found list"),
        (
            lambda: explanation_figure(noise(51), explanation_of(51)),
            "at most 50 images with 48 maps each, found 51 with 1; choose",
        ),
        (
            lambda: explanation_figure(
                noise(1), explanation_of(1, [(str(place), "cam") for place in range(49)])
            ),
            "found 1 with 49; choose images",
        ),
        (
            lambda: explanation_figure(noise(2), explanation_of(2), index=[]),
            "index selects no image",
        ),
        (
            lambda: explanation_figure(
                noise(2), explanation_of(2), index=torch.zeros(2, dtype=torch.bool)
            ),
            "selects no image",
        ),
        (
            lambda: explanation_figure(noise(2), explanation_of(2), index=[2]),
            r"numbers from 0 to 1, or a mask \(2,\) bool",
        ),
        (
            lambda: explanation_figure(noise(2), explanation_of(2), index=[True]),
            "numbers from 0 to 1",
        ),
        (
            lambda: explanation_figure(noise(2), explanation_of(2, labels=[0, 3])),
            "labels must be from 0 to 2, found 0 to 3",
        ),
        (lambda: methods_figure(noise(1)[0], explanation_of(2)), "explanation of 2 images"),
        (
            lambda: attack_figure(
                noise(1), noise(1), explanation_of(1), explanation_of(1, [("layer3", "cam")])
            ),
            r"\(1, 3, 8, 8\) with layer4 grad-cam, and \(1, 3, 8, 8\) with layer3 cam",
        ),
        (
            lambda: attack_figure(
                noise(1), noise(1)[..., 1:], explanation_of(1), explanation_of(1)
            ),
            "must have one shape",
        ),
        (
            lambda: attack_figure(
                noise(1),
                noise(1),
                *(explanation_of(1, [(str(n), "cam") for n in range(7)]) for _ in "ab"),
            ),
            "with 6 maps before and after, found 1 with 7",
        ),
    ],
)
def test_explanation_figures_errors(call, message):
    with pytest.raises(SeewhyError, match=message):
        call()


# methods_figure


@pytest.mark.slow
def test_methods_figure_cells():
    keys = [
        ("pixels", "rise"),
        ("layer3", "grad-cam"),
        ("layer3", "layer-cam"),
        ("layer4", "grad-cam"),
        ("layer4", "layer-cam"),
    ]
    images, explanation = noise(2), explanation_of(2, keys, labels=[0, 0])
    figure = methods_figure(images, explanation, index=1)
    table, image, _ = figure.axes
    assert columns_of(table) == ["layer3", "layer4", "pixels"]
    assert rows_of(table) == ["grad-cam", "layer-cam", "rise"]
    found = cells(table, 3, 3)
    for row, method in enumerate(rows_of(table)):
        for column, layer in enumerate(columns_of(table)):
            maps = explanation.maps.get((layer, method))
            expected = 255 if maps is None else overlay(enlarged(images[1:]), maps[1:])[0].numpy()
            assert (found[row, column] == expected).all()
    assert image.get_title("left") == "true: cat\npredicted: dog 0.79 ✗"
    side = 41  # of a pixel; 8 of them are nearest to two rows of 160 and their gap of 8
    assert np.array_equal(
        image.images[0].get_array(),
        images[1].permute(1, 2, 0).numpy().repeat(side, 0).repeat(side, 1),
    )
    assert image.bbox.x1 < table.bbox.x0
    assert image.bbox.y1 == pytest.approx(table.bbox.y1)
    assert image.bbox.height == pytest.approx(
        table.bbox.height * (2 * 160 + 8) / (3 * 160 + 16)
    )  # as two rows
    assert_nothing_is_cut_off_or_overlaps(figure)


def test_methods_figure_of_one_image():
    image, explanation = noise(1), explanation_of(1)
    one, batch = (
        methods_figure(given, explanation).axes[0].images[0].get_array()
        for given in (image[0], image)
    )
    assert np.array_equal(one, batch)


# attack_figure


def attacked_by(images, change):
    return (images / 255 + change).clamp(0, 1)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("change", "factor"), [(8 / 255, 10), (0.5 / 255, 200), (0.2, 2), (0.9, 1), (1e-7, 5000)]
)
def test_attack_figure_amplification(change, factor):
    images = torch.full((1, 3, 8, 8), 51).byte() if change < 0.5 else torch.zeros(1, 3, 8, 8).byte()
    signs = (
        torch.where(torch.arange(64).view(8, 8) % 3 == 0, -1.0, 0.5)
        if change < 0.5
        else torch.ones(8, 8)
    )
    explanation = explanation_of(1)
    axes = attack_figure(
        images, attacked_by(images, change * signs), explanation, explanation
    ).axes[0]
    difference = cells(axes, 1, 5)[0, 2][::ZOOM, ::ZOOM]
    expected = 255 * np.clip(0.5 + factor * change * signs.double().numpy(), 0, 1)
    np.testing.assert_allclose(
        difference, np.broadcast_to(expected[..., None], (8, 8, 3)), atol=0.6
    )
    assert f"× {factor}" in written(axes)


@pytest.mark.slow
def test_attack_figure_cells():
    images = noise(2)
    attacked = attacked_by(images, torch.where(noise(2, seed=1) > 127, 0.03, -0.03))
    before, after = explanation_of(2, labels=[0, 1]), explanation_of(2, labels=[0, 1])
    after.logits[:] = torch.tensor([[0.0, 3, 0], [0, 3, 0]])
    after.maps["layer4", "grad-cam"][:] = after.maps["layer4", "grad-cam"].flip(1)
    figure = attack_figure(images, attacked, before, after)
    axes = figure.axes[0]
    clean, clean_heat, _, attacked_shown, attacked_heat = cells(axes, 2, 5).swapaxes(0, 1)
    after_bytes = (255 * attacked).round().byte()
    assert np.array_equal(clean, enlarged(images).permute(0, 2, 3, 1))
    assert np.array_equal(attacked_shown, enlarged(after_bytes).permute(0, 2, 3, 1))
    assert np.array_equal(clean_heat, overlay(enlarged(images), before.maps["layer4", "grad-cam"]))
    assert np.array_equal(
        attacked_heat, overlay(enlarged(after_bytes), after.maps["layer4", "grad-cam"])
    )
    assert columns_of(axes) == ["clean image", "layer4", "perturbation", "attacked image", "layer4"]
    assert rows_of(axes) == ["true: cat", "true: dog"]
    sure = np.exp(3) / (np.exp(3) + 2)
    assert [text for text in written(axes) if "×" not in text] == [
        "cat 0.79 ✓",
        f"dog {sure:.2f} ✗\ntarget: cat",
        "dog 0.79 ✓",
        f"dog {sure:.2f} ✓",
    ]
    assert_nothing_is_cut_off_or_overlaps(figure)


def test_attack_figure_of_a_photograph():
    images = torch.full((1, 1, 480, 480), 128).byte()
    signs = (torch.arange(480)[:, None] + torch.arange(480)) % 2 * 2 - 1
    explanation = explanation_of(1)
    axes = attack_figure(images, attacked_by(images, 0.04 * signs), explanation, explanation).axes[
        0
    ]
    assert (abs(cells(axes, 1, 5)[0, 2].astype(int) - 127.5) > 100).all()


def test_attack_figure_without_change():
    axes = attack_figure(noise(1), noise(1), explanation_of(1), explanation_of(1)).axes[0]
    assert "no change" in written(axes)
    assert (abs(cells(axes, 1, 5)[0, 2].astype(int) - 127.5) < 1).all()
