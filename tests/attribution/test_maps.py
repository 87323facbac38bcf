"""Layers fused by maximum."""

import math

import pytest
import torch

from seewhy.attribution.maps import fuse_layers
from seewhy.errors import SeewhyError


def test_the_maximum_of_what_each_layer_says():
    shallow = torch.tensor([[[0.5, 0.0], [1.0, -3.0]]])
    deep = torch.tensor([[[0.0, 4.0], [1.0, 2.0]]])
    found = fuse_layers([shallow, deep], (2, 2))
    expected = [[max(math.tanh(1.0), 0), 1.0], [max(math.tanh(2.0), 0.25), 0.5]]
    assert torch.allclose(found, torch.tensor([expected]), atol=1e-6)


def test_a_coarse_layer_is_enlarged_before():
    found = fuse_layers([torch.zeros(1, 4, 4), torch.tensor([[[0.0, 2.0]]])], (4, 4))
    assert found.shape == (1, 4, 4)
    assert found[0, 0].tolist() == pytest.approx([0, 0.25, 0.75, 1])


def test_a_map_of_nothing_adds_nothing():
    deep = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0))
    alone = fuse_layers([deep], (2, 2))
    assert torch.equal(fuse_layers([torch.full((3, 2, 2), -1.0), deep], (2, 2)), alone)
    assert not fuse_layers([torch.zeros(1, 2, 2)], (2, 2)).any()


def test_no_maps_are_refused():
    with pytest.raises(SeewhyError, match="at least one map"):
        fuse_layers([], (2, 2))
