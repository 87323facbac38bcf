"""The figure of a map of images: where its points are, and in which colors."""

import colorsys

import pytest
import torch
from matplotlib.colors import to_hex

from seewhy.errors import SeewhyError
from seewhy.figures import image_map_figure
from seewhy.figures.image_map import class_colors


def test_points_are_where_the_images_are_and_errors_have_a_ring() -> None:
    positions = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]])
    labels, correct = torch.tensor([0, 1, 1]), torch.tensor([True, False, True])
    (axes,) = image_map_figure(positions, labels, ("cat", "dog"), correct).axes
    points, rings = axes.collections
    assert points.get_offsets().tolist() == positions.tolist()
    assert rings.get_offsets().tolist() == [[1.0, 0.0]]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # from the top
    colors = [to_hex(color) for color in points.get_facecolors()]
    assert colors == [class_colors(2)[label] for label in labels.tolist()]
    with pytest.raises(SeewhyError, match=r"needs positions \(N, 2\) and labels \(N,\), found"):
        image_map_figure(positions, labels[:2], ("cat", "dog"))


def test_training_images_are_crosses_behind_the_points_and_in_the_legend() -> None:
    positions = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    labels, train_labels = torch.tensor([0, 1]), torch.tensor([2, 2, 0])
    train = torch.tensor([[0.1, 0.0], [0.2, 0.0], [0.3, 1.0]])
    figure = image_map_figure(
        positions, labels, ("cat", "dog", "fox"), train_positions=train, train_labels=train_labels
    )
    crosses, points = figure.axes[0].collections
    torch.testing.assert_close(torch.tensor(crosses.get_offsets().tolist()), train)
    assert points.get_offsets().tolist() == positions.tolist()
    assert len(crosses.get_paths()[0].vertices) == 4  # two strokes
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["test image", "training image", "cat", "dog", "fox"]
    with pytest.raises(SeewhyError, match=r"needs positions \(N, 2\) and labels \(N,\), found"):
        image_map_figure(positions, labels, ("a", "b"), train_positions=train, train_labels=labels)


def test_colors_are_those_of_the_script() -> None:
    """`hsl(hue 65% lightness%)`; all are distinct."""
    colors = class_colors(30)
    assert len(set(colors)) == 30
    for index, color in enumerate(colors[:6]):
        lightness = (0.42, 0.62, 0.78)[index % 3]
        expected = colorsys.hls_to_rgb((index * 0.618034) % 1, lightness, 0.65)
        assert color == to_hex(expected)
