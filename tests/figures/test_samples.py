import re

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from seewhy.data.augment import bind_augmentations, encode_labels
from seewhy.data.batch import Batch
from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.figures.samples import augmentations_figure, samples_figure
from seewhy.figures.style import STYLE


def split_of(labels, channels=3, height=8, width=8):
    """Image i is of gray value 2 i, so that a figure's pixels tell which images it shows."""
    labels = torch.as_tensor(labels)
    images = (
        (2 * torch.arange(len(labels)))
        .byte()[:, None, None, None]
        .expand(-1, channels, height, width)
        .contiguous()
    )
    return Split(images, labels, [f"{index}.png" for index in range(len(labels))])


def noisy_split(count, channels=3, height=8, width=8):
    images = torch.randint(
        0, 250, (count, channels, height, width), generator=torch.Generator().manual_seed(0)
    )
    return Split(images.byte(), torch.arange(count) % 3, [""] * count)


def axes_images(figure):
    return [axes.images[0].get_array() for axes in figure.axes]


def cells(axes_image, height=8, width=8, gap=1):
    """The images in a figure's axes_image, by row and column."""
    rows, columns = (
        (length + gap) // (side + gap)
        for length, side in zip(axes_image.shape[:2], (height, width), strict=True)
    )
    tall, wide = height + gap, width + gap
    return [
        [
            axes_image[r * tall : r * tall + height, c * wide : c * wide + width]
            for c in range(columns)
        ]
        for r in range(rows)
    ]


def row_names(figure):
    return [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]


def assert_nothing_is_cut_off_or_overlaps(figure):
    with mpl.rc_context(STYLE):
        figure.draw_without_rendering()
        texts = [
            text
            for axes in figure.axes
            for text in (*axes.get_yticklabels(), *axes.get_xticklabels())
        ] + figure.texts
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
    width, height = figure.bbox.width, figure.bbox.height
    for box in boxes:
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
        assert box.y1 <= height
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
        assert not any(box.overlaps(axes.bbox) for axes in figure.axes)


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_figure_rows(channels):
    split = split_of(torch.arange(120) % 4, channels)
    figure = samples_figure(split, ["a", "b", "c", "d"], per_class=6)
    assert isinstance(figure, Figure)
    assert row_names(figure) == ["a", "b", "c", "d"]
    (axes_image,) = axes_images(figure)
    for row, images in enumerate(cells(axes_image)):
        assert all((image == image[0, 0, 0]).all() for image in images)
        shown = [int(image[0, 0, 0]) // 2 for image in images]
        assert len(set(shown)) == 6
        assert all(index % 4 == row for index in shown)


def test_samples_figure_seed():
    split = split_of(torch.arange(120) % 4)
    one, again, other = (
        axes_images(samples_figure(split, "abcd", seed=seed))[0] for seed in (0, 0, 1)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_samples_figure_of_a_small_class():
    figure = samples_figure(split_of([0, 0, 0, 0, 1, 1]), ["four", "two", "none"], per_class=4)
    rows = cells(axes_images(figure)[0])
    assert [sum((image != 255).any() for image in row) for row in rows] == [4, 2, 0]
    assert len(figure.axes[0].collections[0].get_paths()) == 6


@pytest.mark.parametrize(
    ("count", "rows"), [(20, [5, 5, 5, 5]), (7, [2, 2, 2, 1]), (4, [1] * 4), (2, [1, 1])]
)
def test_samples_figure_count(count, rows):
    figure = samples_figure(split_of(torch.arange(120) % 4), "abcd", count=count)
    visible = [sum((image != 255).any() for image in row) for row in cells(axes_images(figure)[0])]
    assert visible == rows
    with pytest.raises(SeewhyError, match="number of samples must be at least 1, found 0"):
        samples_figure(split_of([0, 1]), "ab", count=0)


def test_samples_figure_of_many_classes():
    split = split_of(torch.arange(100))
    figure = samples_figure(split, [f"class {index}" for index in range(100)], per_class=2)
    names = row_names(figure)
    assert len(names) == 20
    assert (names[0], names[-1]) == ("class 0", "class 99")
    assert "20 of 100 classes" in figure.texts[0].get_text()
    shown = [
        int(row[0][0, 0, 0]) // 2 for axes_image in axes_images(figure) for row in cells(axes_image)
    ]
    assert names == [f"class {index}" for index in shown]
    assert "of" not in samples_figure(split_of([0, 1]), ["a", "b"]).texts[0].get_text()


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("count", "size"), [(1, (8, 8)), (2, (20, 12)), (10, (8, 8)), (13, (20, 12)), (100, (8, 8))]
)
def test_samples_figure_text_does_not_overlap(count, size):
    names = [f"WIDE {index} " + "mmm" * (index % 12) for index in range(count)]
    figure = samples_figure(noisy_split(40, 3, *size), names, per_class=3)
    assert_nothing_is_cut_off_or_overlaps(figure)


def test_samples_figure_names_are_not_formulas():
    figure = samples_figure(split_of([0, 1]), ["$5$", r"$\nonsense"])
    assert_nothing_is_cut_off_or_overlaps(figure)
    assert row_names(figure)[0] == r"\$5\$"


def test_samples_figure_pixels_are_square():
    figure = samples_figure(noisy_split(30, 3, 20, 12), ["a", "b", "c"])
    (axes,) = figure.axes
    image = axes.images[0]
    assert image.get_interpolation() == "nearest"
    height, width = image.get_array().shape[:2]
    assert axes.bbox.width / width == pytest.approx(axes.bbox.height / height)


def test_samples_figure_of_large_images():
    figure = samples_figure(noisy_split(6, 3, 300, 150), ["a", "b", "c"], per_class=2)
    gap = round(0.05 * 128)
    assert axes_images(figure)[0].shape == (3 * 128 + 2 * gap, 2 * 64 + gap, 3)


def test_samples_figure_per_class_error():
    with pytest.raises(SeewhyError, match="per_class must be at least 1, found 0"):
        samples_figure(split_of([0, 1]), ["a", "b"], per_class=0)


def shown_after(figure, column, split):
    """The five images of a column, and the images of the split that the rows start from."""
    rows = cells(axes_images(figure)[0])
    originals = [row[0] for row in rows]
    candidates = split.images.permute(0, 2, 3, 1).numpy()
    places = [
        next(i for i, image in enumerate(candidates) if np.array_equal(image, original))
        for original in originals
    ]
    return np.stack([row[column] for row in rows]), candidates[places]


def test_augmentations_figure_columns():
    split = noisy_split(50)
    figure = augmentations_figure(split, ["flip:1", lambda images: 255 - images])
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[:4] == ["original", "1. flip:1", "2. <lambda>", "all together"]
    assert labels[4].split() == ["normalized,", *labels[4].split()[1:]]
    flipped, originals = shown_after(figure, 1, split)
    assert len(originals) == 5
    assert np.array_equal(flipped, originals[:, :, ::-1])
    assert np.array_equal(shown_after(figure, 2, split)[0], 255 - originals)
    assert np.array_equal(shown_after(figure, 3, split)[0], 255 - originals[:, :, ::-1])


@pytest.mark.parametrize(
    ("steps", "columns"),
    [([], 2), (["crop:2"], 3), ("crop:2", 3), (["crop:2", "flip", "cutout:3"], 6)],
)
def test_augmentations_figure_column_count(steps, columns):
    assert len(augmentations_figure(noisy_split(20), steps).axes[0].get_xticklabels()) == columns


@pytest.mark.parametrize("steps", [[], ["flip:1"], ["flip:1", "crop:2"]])
def test_augmentations_figure_shows_what_a_model_sees(steps):
    """Independently: (x - mean) / std by channel, scaled to the range that the header states."""
    split = noisy_split(50)
    split.images[:, 1] //= 3
    figure = augmentations_figure(split, steps)
    column = len(figure.axes[0].get_xticklabels()) - 1
    seen, _ = shown_after(figure, column, split)
    given, _ = shown_after(figure, column - 1, split)
    pixels = split.images.double().numpy() / 255
    values = (given / 255 - pixels.mean((0, 2, 3))) / pixels.std((0, 2, 3))
    expected = 255 * (values - values.min()) / (values.max() - values.min())
    np.testing.assert_allclose(seen, expected, atol=0.51)
    header = figure.axes[0].get_xticklabels()[-1].get_text()
    assert " ".join(header.split()) == f"normalized, {values.min():.1f} to {values.max():.1f}"


def test_augmentations_figure_of_constant_images():
    split = split_of([0] * 8)
    split.images[:] = 7
    seen, _ = shown_after(augmentations_figure(split, []), 1, split)
    assert (seen == 0).all()


def test_augmentations_figure_of_mixup():
    split, before = noisy_split(50), torch.get_rng_state()
    figure = augmentations_figure(split, ["mixup:100"])
    mixed, originals = shown_after(figure, 1, split)
    assert not (mixed == originals).all((1, 2, 3)).any()
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentations_figure_of_few_gray_images():
    figure = augmentations_figure(noisy_split(2, channels=1), ["trivial-augment", "cutmix"])
    assert len(cells(axes_images(figure)[0])) == 2
    assert_nothing_is_cut_off_or_overlaps(figure)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("size", [(8, 8), (6, 20), (20, 6)])
def test_augmentations_figure_wraps_headers(size):
    steps = [
        "random-erasing:p=0.5,min_area=0.02,max_area=0.2",
        "alternating-flip",
        "brightness-contrast:brightness=0.1",
    ]
    figure = augmentations_figure(noisy_split(20, 3, *size), steps)
    assert_nothing_is_cut_off_or_overlaps(figure)
    if size == (8, 8):
        texts = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        assert (
            re.sub(r"\s", "", "".join(texts[1:4]))
            == "1." + steps[0] + "2." + steps[1] + "3." + steps[2]
        )


def test_augmentations_figure_wrong_step():
    with pytest.raises(SeewhyError, match="unknown augmentation 'flop'"):
        augmentations_figure(noisy_split(10), ["flop"])


def test_augmentations_figure_together_as_in_training():
    split = noisy_split(64)
    figure = augmentations_figure(split, ["flip", "crop:2"], seed=4)
    together, originals = shown_after(figure, 3, split)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(4))
    batch = Batch(split.images[order], encode_labels(split.labels[order], 3), order, epoch=0)
    expected = (
        bind_augmentations(["flip", "crop:2"])(batch, torch.Generator().manual_seed(4))
        .images[:5]
        .permute(0, 2, 3, 1)
    )
    assert np.array_equal(together, expected.numpy())
    assert not np.array_equal(together, originals)
