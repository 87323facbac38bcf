"""Where maps point: against masks, against the other classes, and not where there is nothing to point at."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from seewhy.attribution.localization import chance_level, pointing_game, relevance_mass_accuracy
from seewhy.attribution.maps import resize_maps
from seewhy.diagnosis.shortcuts import (
    ClassAttribution,
    Peak,
    _median_of_others,
    mean_attribution_by_class,
    suspected_shortcuts,
)
from seewhy.errors import SeewhyError

CLASSES = tuple("abcdefghij")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blob_masks(count, side, seed=0):
    smooth = ndimage.gaussian_filter(
        np.random.default_rng(seed).normal(size=(count, side, side)), (0, 3, 3)
    )
    return torch.from_numpy(smooth > np.quantile(smooth, 0.75, axis=(1, 2), keepdims=True))


def bilinear(grid, size):
    """Each pixel of `size` from the four centers around its own, in float64; beyond the outermost center its value holds."""
    result = np.empty(size)
    for row, column in np.ndindex(size):
        y = np.clip((row + 0.5) * grid.shape[0] / size[0] - 0.5, 0, grid.shape[0] - 1)
        x = np.clip((column + 0.5) * grid.shape[1] / size[1] - 0.5, 0, grid.shape[1] - 1)
        result[row, column] = ndimage.map_coordinates(grid, [[y], [x]], order=1)[0]
    return result


@pytest.mark.parametrize(
    ("old", "new"), [((4, 4), (32, 32)), ((3, 5), (7, 11)), ((7, 7), (7, 7)), ((1, 1), (4, 3))]
)
def test_resized_is_bilinear_between_pixel_centers(old, new):
    maps = noise(2, *old).double()
    expected = np.stack([bilinear(grid, new) for grid in maps.numpy()])
    np.testing.assert_allclose(resize_maps(maps, new).numpy(), expected, atol=1e-12)


def test_resized_to_less_loses_no_pixel():
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
def test_what_is_no_map_is_refused(maps):
    with pytest.raises(SeewhyError, match=r"maps must be a tensor \(N, h, w\) of floats"):
        resize_maps(maps, (8, 8))


def test_a_size_of_nothing_is_refused():
    with pytest.raises(SeewhyError, match=r"at least 1, found \(0, 8\)"):
        resize_maps(torch.zeros(1, 4, 4), (0, 8))


@pytest.mark.parametrize("tolerance", [0, 2, 5])
def test_the_pointing_game_by_brute_force(tolerance):
    maps, masks = noise(60, 32, 32), blob_masks(60, 32)
    expected = []
    for grid, mask in zip(maps.numpy(), masks.numpy(), strict=True):
        row, column = np.unravel_index(grid.argmax(), grid.shape)
        rows, columns = np.nonzero(mask)
        expected.append(bool(np.hypot(rows - row, columns - column).min() <= tolerance))
    assert 0 < sum(expected) < 60
    assert pointing_game(maps, masks, tolerance).tolist() == expected


def test_the_pointing_game_is_played_at_the_size_of_the_masks():
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


def test_of_tied_maxima_half_must_hit():
    """The first of them would favor what lies at the top left."""
    maps, masks = torch.zeros(3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.bool)
    maps[:, 0, 0] = maps[:, 6, 6] = maps[:, 6, 7] = 1
    masks[0, :4], masks[1, 4:], masks[2, 6, 6] = True, True, True
    assert pointing_game(maps, masks).tolist() == [False, True, False]
    maps[2, 0, 0] = 0
    assert pointing_game(maps, masks).tolist() == [False, True, True]


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7e30])
def test_a_constant_map_points_nowhere(value):
    everywhere = torch.ones(2, 9, 9, dtype=torch.bool)
    maps = torch.full((2, 4, 4), value)
    maps[1] *= 1 + 1e-7 * noise(4, 4)  # constant but for rounding
    assert pointing_game(maps, everywhere).tolist() == [False, False]
    assert pointing_game(maps[:1] + noise(1, 4, 4), everywhere[:1]).tolist() == [abs(value) < 1]


def test_without_an_object_nothing_hits():
    nothing = torch.zeros(4, 8, 8, dtype=torch.bool)
    assert not pointing_game(noise(4, 8, 8), nothing, 3).any()
    assert relevance_mass_accuracy(noise(4, 8, 8), nothing).tolist() == [0, 0, 0, 0]
    assert chance_level(nothing) == 0


def test_energy_inside_is_the_share_of_the_positive_part():
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


def test_energy_is_nothing_where_nothing_is_positive_and_all_where_all_is_inside():
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[:, 2:6, 2:6] = True
    inside = noise(1, 8, 8).abs() * masks[:1] - 1.0 * ~masks[:1]
    maps = torch.cat([torch.zeros(1, 8, 8), -noise(1, 8, 8).abs(), inside])
    assert relevance_mass_accuracy(maps, masks).tolist() == [0, 0, 1]


@pytest.mark.parametrize("tolerance", [0, 3])
def test_noise_scores_chance(tolerance):
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


def test_maps_and_masks_that_do_not_fit_are_refused():
    maps, masks = noise(2, 4, 4), torch.ones(2, 8, 8, dtype=torch.bool)
    with pytest.raises(SeewhyError, match=r"masks must be .* bool.*found \(2, 8, 8\) float32"):
        pointing_game(maps, masks.float())
    with pytest.raises(SeewhyError, match="found 2 maps and 1 masks"):
        relevance_mass_accuracy(maps, masks[:1])
    with pytest.raises(SeewhyError, match="tolerance is a number of pixels, at least 0, found -1"):
        pointing_game(maps, masks, -1)
    maps[1, 0, 0] = math.nan
    with pytest.raises(SeewhyError, match="1 of 2 maps hold values that are not finite"):
        relevance_mass_accuracy(maps, masks)
    with pytest.raises(SeewhyError, match="1 of 2 maps hold values that are not finite"):
        mean_attribution_by_class(maps, torch.zeros(2, dtype=torch.int64), CLASSES)


AREAS = {"border": 1 - 36 / 64, "center": 1 / 4} | dict.fromkeys(
    ("top left", "top right", "bottom left", "bottom right"), 1 / 16
)


@pytest.mark.parametrize("size", [(32, 32), (7, 7), (3, 5), (1, 1)])
def test_uniform_maps_give_the_shares_of_the_area(size):
    evidence = mean_attribution_by_class(
        torch.full((4, *size), 0.3), torch.tensor([0, 0, 1, 1]), ("a", "b")
    )
    assert evidence.regions == tuple(AREAS)
    for shares in evidence.shares:
        assert shares.tolist() == pytest.approx(list(AREAS.values()), abs=1e-6)
    assert evidence.spreads.abs().max() < 1e-6
    assert evidence.mean_maps.shape == (2, *size)
    assert suspected_shortcuts(evidence) == ()


def test_mean_maps_and_shares_by_brute_force():
    maps, labels = noise(60, 16, 16), torch.arange(60) % 3
    maps = (
        maps * torch.logspace(-30, 37, 60)[:, None, None]
    )  # no image dominates, and no sum overflows
    evidence = mean_attribution_by_class(maps, labels, ("a", "b", "c"))
    positive = np.maximum(maps.double().numpy(), 0)
    positive /= positive.sum((1, 2), keepdims=True)
    boxes = [np.s_[4:12, 4:12], np.s_[:4, :4], np.s_[:4, 12:], np.s_[12:, :4], np.s_[12:, 12:]]
    shares = np.stack(
        [
            1 - positive[:, 2:14, 2:14].sum((1, 2)),
            *(positive[:, *box].sum((1, 2)) for box in boxes),
        ],
        1,
    )
    for index in range(3):
        mine = labels.numpy() == index
        np.testing.assert_allclose(
            evidence.mean_maps[index].numpy(), positive[mine].mean(0), rtol=1e-5, atol=1e-9
        )
        np.testing.assert_allclose(evidence.shares[index].numpy(), shares[mine].mean(0), rtol=1e-5)
        np.testing.assert_allclose(
            evidence.spreads[index].numpy(), shares[mine].std(0, ddof=1), rtol=1e-4
        )
    assert evidence.images.tolist() == [20, 20, 20]


def test_more_maps_than_are_held_at_once():
    maps, labels = noise(600, 4, 4), torch.arange(600) % 2
    together = mean_attribution_by_class(maps, labels, ("a", "b"))
    positive = maps.clamp_min(0).double()
    positive /= positive.sum((1, 2), keepdim=True)
    torch.testing.assert_close(
        together.mean_maps[1].double(), positive[labels == 1].mean(0), atol=1e-6, rtol=1e-5
    )


def test_images_without_evidence_and_classes_without_images_do_not_count():
    maps = noise(6, 8, 8)
    maps[0] = -maps[0].abs()
    evidence = mean_attribution_by_class(maps, torch.tensor([0, 0, 0, 2, 2, 2]), ("a", "b", "c"))
    assert evidence.images.tolist() == [2, 0, 3]
    assert evidence.mean_maps.sum((1, 2)).tolist() == pytest.approx([1, 0, 1])
    assert evidence.shares[1].tolist() == [0] * 6
    assert [peak is None for peak in evidence.peaks] == [False, True, False]


@pytest.mark.parametrize(
    ("corner", "region"), [((1, 1), "top left"), ((26, 2), "bottom left"), ((0, 27), "top right")]
)
def test_a_planted_hot_spot_is_named(corner, region):
    maps, labels = noise(400, 32, 32), torch.arange(400) % 10
    maps[:, 13:19, 13:19] += 20  # the object, which has more of the evidence than the spot
    top, left = corner
    maps[labels == 3, top : top + 4, left : left + 4] += 15
    evidence = mean_attribution_by_class(maps, labels, CLASSES)
    findings = suspected_shortcuts(evidence)
    assert {finding.name for finding in findings} == {"d"}
    worst = findings[0]
    assert worst.region == region
    assert worst.share > 3 * worst.median_of_others
    assert worst.share == pytest.approx(float(evidence.shares[3, evidence.regions.index(region)]))
    others = [
        float(evidence.shares[index, evidence.regions.index(region)])
        for index in range(10)
        if index != 3
    ]
    assert worst.median_of_others == pytest.approx(np.median(others))
    peak = evidence.peaks[3]
    assert worst.peak == peak
    assert (peak.top, peak.left, peak.height, peak.width) == (top, left, 4, 4)
    boxes = evidence.mean_maps[:, top : top + 4, left : left + 4].sum((1, 2)).tolist()
    assert peak.share == pytest.approx(boxes.pop(3), rel=1e-4)
    assert peak.median_of_others == pytest.approx(np.median(boxes), rel=1e-4)


def evidence_with(corner, spreads, images):
    """Shares of the top left corner by class; the other region is the same for all."""
    shares = torch.tensor([[share, 0.5] for share in corner])
    peaks = (Peak(0, 0, 1, 1, 0.1, 0.1),) * len(corner)
    two = torch.tensor([[spread, 0.0] for spread in spreads])
    classes = CLASSES[: len(corner)]
    return ClassAttribution(
        classes,
        torch.tensor(images),
        torch.zeros(len(corner), 8, 8),
        ("top left", "border"),
        shares,
        two,
        peaks,
    )


@pytest.mark.parametrize(
    ("others", "own_spread", "spread", "own_images", "images"),
    [
        ([0.05, 0.1, 0.2, 0.25, 0.31], 0.01, 0.01, 1000, 1000),  # classes differ on their own
        ([0.05, 0.06, 0.06, 0.07, 0.06], 0.4, 0.1, 20, 1000),  # the images of this class do
        (
            [0.05, 0.06, 0.06, 0.07, 0.06],
            0.0,
            0.5,
            40,
            25,
        ),  # those of the others do, and this one's happen to agree
        ([0.05, 0.06, 0.06, 0.07, 0.06], 0.01, 0.01, 900, 900),  # nothing does
    ],
)
def test_deviations_are_measured_in_the_largest_spread(
    others, own_spread, spread, own_images, images
):
    evidence = evidence_with(
        [0.9, *others], [own_spread] + [spread] * 5, [own_images] + [images] * 5
    )
    between = stats.median_abs_deviation(others, scale="normal")
    luck = math.sqrt(max(own_spread, spread) ** 2 / own_images + spread**2 / images)
    expected = (0.9 - np.median(others)) / max(between, luck, 0.02)
    found = suspected_shortcuts(evidence, threshold=expected * 0.999)
    assert [(finding.name, finding.region) for finding in found] == [("a", "top left")]
    assert found[0].deviations == pytest.approx(expected, rel=1e-4)
    assert suspected_shortcuts(evidence, threshold=expected * 1.001) == ()


def test_a_coarse_map_names_the_hot_spot_too():
    maps, labels = noise(400, 4, 4).relu(), torch.arange(400) % 10
    maps[labels == 7, 3, 3] += 4
    evidence = mean_attribution_by_class(maps, labels, CLASSES, size=(32, 32))
    worst = suspected_shortcuts(evidence)[0]
    assert (worst.name, worst.region) == ("h", "bottom right")
    assert evidence.mean_maps.shape == (10, 32, 32)
    peak = evidence.peaks[7]
    assert peak.top >= 24
    assert peak.left >= 24


def test_two_hot_spots_do_not_hide_each_other():
    maps, labels = noise(400, 16, 16), torch.arange(400) % 10
    maps[labels == 0, :3, :3] += 10
    maps[labels == 1, :3, :3] += 10
    assert {
        finding.name
        for finding in suspected_shortcuts(mean_attribution_by_class(maps, labels, CLASSES))
    } == {"a", "b"}


def test_evidence_in_the_center_is_not_suspicious():
    maps, labels = noise(400, 16, 16), torch.arange(400) % 10
    maps[labels == 2, 6:10, 6:10] += 10
    assert suspected_shortcuts(mean_attribution_by_class(maps, labels, CLASSES)) == ()


def specks(count, side, seed):
    """One pixel each: the luck of few images is largest."""
    at = torch.randint(side * side, (count, 1), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(count, side * side).scatter_(1, at, 1).view(count, side, side)


@pytest.mark.parametrize(
    "maps_of", [specks, lambda count, side, seed: noise(count, side, side, seed=seed)]
)
@pytest.mark.parametrize(("classes", "images"), [(2, 50), (3, 10), (10, 10), (10, 60), (40, 20)])
def test_nothing_is_suspicious_where_classes_are_exchangeable(maps_of, classes, images):
    labels = torch.arange(classes * images) % classes
    for seed in range(8):
        evidence = mean_attribution_by_class(
            maps_of(classes * images, 8, seed), labels, tuple(map(str, range(classes)))
        )
        assert suspected_shortcuts(evidence) == ()


def test_few_images_of_a_class_and_a_single_class_are_not_judged():
    maps, labels = noise(209, 16, 16), torch.cat([torch.arange(200) % 2, torch.full((9,), 2)])
    maps[200:, :4, :4] += 20
    assert suspected_shortcuts(mean_attribution_by_class(maps, labels, ("a", "b", "c"))) == ()
    alone = mean_attribution_by_class(
        maps[200:].repeat(3, 1, 1), torch.zeros(27, dtype=torch.int64), ("a",)
    )
    assert suspected_shortcuts(alone) == ()
    assert (alone.peaks[0].top, alone.peaks[0].left) < (3, 3)


def test_labels_that_do_not_fit_are_refused():
    maps = noise(3, 4, 4)
    with pytest.raises(
        SeewhyError, match=r"labels must be a tensor \(3,\) int64.*found \(2,\) int64"
    ):
        mean_attribution_by_class(maps, torch.zeros(2, dtype=torch.int64), CLASSES)
    with pytest.raises(SeewhyError, match=r"labels must be from 0 to 9, found 0 to 10"):
        mean_attribution_by_class(maps, torch.tensor([0, 10, 3]), CLASSES)


def test_maps_of_half_precision_and_maps_in_a_graph():
    maps, labels = noise(40, 4, 4).requires_grad_(), torch.arange(40) % 2
    masks = blob_masks(40, 8)
    exact = mean_attribution_by_class(maps, labels, ("a", "b"), (8, 8))
    rounded = mean_attribution_by_class(maps.bfloat16(), labels, ("a", "b"), (8, 8))
    assert not exact.mean_maps.requires_grad
    torch.testing.assert_close(rounded.shares, exact.shares, atol=0.01, rtol=0)
    assert resize_maps(maps.half(), (3, 3)).dtype == torch.float16
    torch.testing.assert_close(
        relevance_mass_accuracy(maps.half(), masks),
        relevance_mass_accuracy(maps, masks),
        atol=0.01,
        rtol=0,
    )


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8])
def test_the_median_of_the_others_is_that_of_numpy(count: int) -> None:
    values = torch.randint(
        0, 5, (count, 4, 3), generator=torch.Generator().manual_seed(count)
    ).double()  # with ties
    found = _median_of_others(values)
    for index in range(count):
        others = np.delete(values.numpy(), index, axis=0)
        np.testing.assert_array_equal(
            found[index], np.median(others, axis=0) if count > 1 else 0 * others.sum(0)
        )
