"""The counterfactual figure: what is lit, and what is said beside it."""

import pytest
import torch

from seewhy.attribution import Counterfactuals
from seewhy.errors import SeewhyError
from seewhy.figures import counterfactual_figure


def test_the_region_is_lit_and_described() -> None:
    images = torch.full((2, 3, 40, 40), 200, dtype=torch.uint8)
    regions = torch.zeros(2, 40, 40, dtype=torch.bool)
    regions[0, :20, :20] = True
    nan = float("nan")
    counterfactuals = Counterfactuals(
        regions,
        torch.where(regions[:, None], 0.0, images / 255),
        torch.tensor([0, 1]),
        torch.tensor([1, 1]),
        torch.tensor([0.25, nan]),
        torch.tensor([0.125, nan]),
        ("cat", "dog"),
    )
    (axes,) = counterfactual_figure(images, counterfactuals).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "cat\n→ dog\n25.0% of the image\nrandom regions: 12%",
        "dog\nno region found",
    ]
    shown = torch.from_numpy(axes.images[0].get_array().data)[..., 0]
    side, pitch = 160, 168
    lit, replaced = (shown[:side, start : start + side] for start in (pitch, 2 * pitch))
    assert (lit[0, 0], lit[-1, -1]) == (200, 50)
    assert (replaced[0, 0], replaced[-1, -1]) == (0, 200)
    with pytest.raises(SeewhyError, match="a figure of 2 regions needs as many images"):
        counterfactual_figure(images[:1], counterfactuals)
