"""The concepts figure: which images it shows, and where they are bright."""

import pytest
import torch

from seewhy.attribution import Concepts
from seewhy.attribution.bootstrap import BootstrapSummary
from seewhy.errors import SeewhyError
from seewhy.figures import concepts_figure


def concepts_of_corners() -> Concepts:
    """The first concept is in the upper left of image 1, and half as strong in that of image 2."""
    maps = torch.zeros(3, 2, 2, 2)
    maps[1, 0, 0, 0], maps[2, 0, 0, 0], maps[0, 1, 1, 1] = 4, 2, 1
    importance = BootstrapSummary(1.5, (1.25, 1.75))
    return Concepts("layer4", torch.eye(2), maps, (importance,) * 2, torch.tensor([0.9, 0.5]), 0.8)


def test_images_with_the_most_of_a_concept_are_bright_where_it_is() -> None:
    images = torch.full((3, 3, 40, 40), 200, dtype=torch.uint8)
    figure = concepts_figure(images, concepts_of_corners(), examples=2)
    (axes,) = figure.axes
    shown = torch.from_numpy(axes.images[0].get_array().data)  # two rows of two images
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "concept 1\nimportance 1.50\n(1.25–1.75)\nstability 0.90",
        "concept 2\nimportance 1.50\n(1.25–1.75)\nstability 0.50",
    ]
    side = 160  # of an image in the figure
    first, second = shown[:side, :side, 0], shown[:side, -side:, 0]
    assert first[0, 0] == 200  # the maximum of the concept over all images
    assert second[0, 0] == 200  # at least half of it
    assert first[-1, -1] == second[-1, -1] == 50  # absent: a quarter of the brightness
    other = shown[-side:, :side, 0]
    assert other[-1, -1] == 200
    assert other[0, 0] == 50


def test_arguments_that_do_not_fit() -> None:
    images = torch.zeros(3, 3, 8, 8)
    with pytest.raises(SeewhyError, match="concepts of 3 images need these, found"):
        concepts_figure(images[:2], concepts_of_corners())
    with pytest.raises(SeewhyError, match="examples must be at least 1, found 0"):
        concepts_figure(images, concepts_of_corners(), examples=0)
