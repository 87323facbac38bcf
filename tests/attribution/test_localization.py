"""Pointing game and relevance mass accuracy against brute force."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from seewhy.attribution.localization import chance_level, pointing_game, relevance_mass_accuracy
from seewhy.errors import SeewhyError


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blob_masks(count, side, seed=0):
    smooth = ndimage.gaussian_filter(
        np.random.default_rng(seed).normal(size=(count, side, side)), (0, 3, 3)
    )
    return torch.from_numpy(smooth > np.quantile(smooth, 0.75, axis=(1, 2), keepdims=True))


@pytest.mark.parametrize("tolerance", [0, 2, 5])
def test_pointing_game_by_brute_force(tolerance):
    maps, masks = noise(60, 32, 32), blob_masks(60, 32)
    expected = []
    for grid, mask in zip(maps.numpy(), masks.numpy(), strict=True):
        row, column = np.unravel_index(grid.argmax(), grid.shape)
        rows, columns = np.nonzero(mask)
        expected.append(bool(np.hypot(rows - row, columns - column).min() <= tolerance))
    assert 0 < sum(expected) < 60
    assert pointing_game(maps, masks, tolerance).tolist() == expected


def test_pointing_game_at_size_of_masks(bilinear):
    maps, masks = noise(60, 5, 7), blob_masks(60, 28)
    expected = []
    for grid, mask in zip(maps.double().numpy(), masks.numpy(), strict=True):
        large = bilinear(grid, (28, 28))
        row, column = np.unravel_index(large.argmax(), large.shape)
        tied = large > large.max() - 1e-9  # a maximum at the edge holds to the edge
        expected.append(
            bool(mask[row, column])
            if tied.sum() == 1
            else bool(2 * (tied & mask).sum() >= tied.sum())
        )
    assert 0 < sum(expected) < 60
    assert pointing_game(maps, masks).tolist() == expected


def test_pointing_game_of_tied_maxima():
    """The first of them would favor what lies at the top left."""
    maps, masks = torch.zeros(3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.bool)
    maps[:, 0, 0] = maps[:, 6, 6] = maps[:, 6, 7] = 1
    masks[0, :4], masks[1, 4:], masks[2, 6, 6] = True, True, True
    assert pointing_game(maps, masks).tolist() == [False, True, False]
    maps[2, 0, 0] = 0
    assert pointing_game(maps, masks).tolist() == [False, True, True]


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7e30])
def test_pointing_game_of_constant_map(value):
    everywhere = torch.ones(2, 9, 9, dtype=torch.bool)
    maps = torch.full((2, 4, 4), value)
    maps[1] *= 1 + 1e-7 * noise(4, 4)  # constant but for rounding
    assert pointing_game(maps, everywhere).tolist() == [False, False]
    assert pointing_game(maps[:1] + noise(1, 4, 4), everywhere[:1]).tolist() == [abs(value) < 1]


def test_pointing_game_without_object():
    nothing = torch.zeros(4, 8, 8, dtype=torch.bool)
    assert not pointing_game(noise(4, 8, 8), nothing, 3).any()
    assert relevance_mass_accuracy(noise(4, 8, 8), nothing).tolist() == [0, 0, 0, 0]
    assert chance_level(nothing) == 0


def test_relevance_mass_is_share_of_positive_part(bilinear):
    maps, masks = noise(20, 16, 16), blob_masks(20, 16)
    positive = np.maximum(maps.double().numpy(), 0)
    expected = (positive * masks.numpy()).sum((1, 2)) / positive.sum((1, 2))
    np.testing.assert_allclose(relevance_mass_accuracy(maps, masks).numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(
        relevance_mass_accuracy(maps * 1e-39, masks).numpy(), expected, rtol=0.01
    )  # subnormal: few digits left
    np.testing.assert_allclose(
        relevance_mass_accuracy(maps * 1e37, masks).numpy(), expected, rtol=1e-5
    )  # whose sum overflows
    small = noise(20, 4, 4)
    large = np.maximum([bilinear(grid, (16, 16)) for grid in small.double().numpy()], 0)
    expected = (large * masks.numpy()).sum((1, 2)) / large.sum((1, 2))
    np.testing.assert_allclose(relevance_mass_accuracy(small, masks).numpy(), expected, rtol=1e-4)


def test_relevance_mass_bounds():
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[:, 2:6, 2:6] = True
    inside = noise(1, 8, 8).abs() * masks[:1] - 1.0 * ~masks[:1]
    maps = torch.cat([torch.zeros(1, 8, 8), -noise(1, 8, 8).abs(), inside])
    assert relevance_mass_accuracy(maps, masks).tolist() == [0, 0, 1]


@pytest.mark.parametrize("tolerance", [0, 3])
def test_random_maps_score_chance_level(tolerance):
    masks = blob_masks(50, 24)
    areas = [np.mean(ndimage.distance_transform_edt(~mask) <= tolerance) for mask in masks.numpy()]
    assert chance_level(masks, tolerance) == pytest.approx(np.mean(areas), rel=1e-6)
    hits = (
        pointing_game(noise(2000, 24, 24), masks.repeat(40, 1, 1), tolerance).double().mean().item()
    )
    assert abs(hits - chance_level(masks, tolerance)) < 4 * math.sqrt(0.25 / 2000)
    if tolerance == 0:
        assert relevance_mass_accuracy(
            noise(2000, 24, 24), masks.repeat(40, 1, 1)
        ).mean().item() == pytest.approx(chance_level(masks), abs=0.01)


def test_localization_errors():
    maps, masks = noise(2, 4, 4), torch.ones(2, 8, 8, dtype=torch.bool)
    with pytest.raises(SeewhyError, match=r"masks must be .* bool.*found \(2, 8, 8\) float32"):
        pointing_game(maps, masks.float())
    with pytest.raises(SeewhyError, match="one mask per map, found 2 maps and 1 mask"):
        relevance_mass_accuracy(maps, masks[:1])
    with pytest.raises(SeewhyError, match="tolerance must be at least 0 pixels, found -1"):
        pointing_game(maps, masks, -1)
    maps[1, 0, 0] = math.nan
    with pytest.raises(SeewhyError, match="1 of 2 maps contain NaN or infinity"):
        relevance_mass_accuracy(maps, masks)


def test_localization_of_half_precision_and_graph():
    maps = noise(40, 4, 4).requires_grad_()
    masks = blob_masks(40, 8)
    torch.testing.assert_close(
        relevance_mass_accuracy(maps.half(), masks),
        relevance_mass_accuracy(maps, masks),
        atol=0.01,
        rtol=0,
    )
