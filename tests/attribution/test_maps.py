"""Resizing and fusion of maps."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.attribution.maps import fuse_layers, resize_maps, scale_to_unit
from seewhy.errors import SeewhyError


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("old", "new"), [((4, 4), (32, 32)), ((3, 5), (7, 11)), ((7, 7), (7, 7)), ((1, 1), (4, 3))]
)
def test_resize_maps_is_bilinear(bilinear, old, new):
    maps = noise(2, *old).double()
    expected = np.stack([bilinear(grid, new) for grid in maps.numpy()])
    np.testing.assert_allclose(resize_maps(maps, new).numpy(), expected, atol=1e-12)


def test_resize_maps_antialiases():
    maps = noise(3, 32, 24)
    expected = [
        np.asarray(Image.fromarray(grid.numpy()).resize((6, 8), Image.Resampling.BILINEAR))
        for grid in maps
    ]
    np.testing.assert_allclose(resize_maps(maps, (8, 6)).numpy(), np.stack(expected), atol=1e-5)


@pytest.mark.parametrize(
    "maps",
    [torch.zeros(4, 4), torch.zeros(0, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8), [1.0]],
)
def test_resize_maps_rejects_maps(maps):
    with pytest.raises(SeewhyError, match=r"maps must be a tensor \(N, h, w\) of floats"):
        resize_maps(maps, (8, 8))


def test_resize_maps_rejects_size():
    with pytest.raises(SeewhyError, match=r"at least 1, found \(0, 8\)"):
        resize_maps(torch.zeros(1, 4, 4), (0, 8))


def test_resize_maps_keeps_half_precision():
    assert resize_maps(noise(2, 4, 4).half(), (3, 3)).dtype == torch.float16


def test_scale_to_unit_of_varying_constant_and_nonfinite_maps():
    maps = torch.tensor([[[2.0, 4.0], [3.0, 2.5]], [[7.0, 7.0], [7.0, 7.0]]])
    expected = torch.tensor([[[0.0, 1.0], [0.5, 0.25]], [[0.0, 0.0], [0.0, 0.0]]])
    assert torch.equal(scale_to_unit(maps), expected)
    assert torch.equal(scale_to_unit(maps, tolerance=2.0), torch.zeros(2, 2, 2))
    maps[0, 0, 0] = torch.nan
    assert scale_to_unit(maps)[0].isnan().all()  # so that the status says "not finite"
    assert not scale_to_unit(maps)[1].any()


def test_fuse_layers_is_maximum():
    shallow = torch.tensor([[[0.5, 0.0], [1.0, -3.0]]])
    deep = torch.tensor([[[0.0, 4.0], [1.0, 2.0]]])
    result = fuse_layers([shallow, deep], (2, 2))
    expected = [[max(math.tanh(1.0), 0), 1.0], [max(math.tanh(2.0), 0.25), 0.5]]
    assert torch.allclose(result, torch.tensor([expected]), atol=1e-6)


def test_fuse_layers_resizes():
    result = fuse_layers([torch.zeros(1, 4, 4), torch.tensor([[[0.0, 2.0]]])], (4, 4))
    assert result.shape == (1, 4, 4)
    assert result[0, 0].tolist() == pytest.approx([0, 0.25, 0.75, 1])


def test_fuse_layers_of_empty_maps():
    deep = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0))
    alone = fuse_layers([deep], (2, 2))
    assert torch.equal(fuse_layers([torch.full((3, 2, 2), -1.0), deep], (2, 2)), alone)
    assert not fuse_layers([torch.zeros(1, 2, 2)], (2, 2)).any()


def test_fuse_layers_rejects_no_maps():
    with pytest.raises(SeewhyError, match="at least one map"):
        fuse_layers([], (2, 2))
