"""Class attribution by brute force, planted shortcuts found, none where there are none."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

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


def test_class_attribution_refuses_maps_that_are_not_finite():
    maps = noise(2, 4, 4)
    maps[1, 0, 0] = math.nan
    with pytest.raises(SeewhyError, match="1 of 2 maps contain NaN or infinity"):
        mean_attribution_by_class(maps, torch.zeros(2, dtype=torch.int64), CLASSES)


AREAS = {"border": 1 - 36 / 64, "center": 1 / 4} | dict.fromkeys(
    ("top left", "top right", "bottom left", "bottom right"), 1 / 16
)


@pytest.mark.parametrize("size", [(32, 32), (7, 7), (3, 5), (1, 1)])
def test_shares_of_uniform_maps_are_areas(size):
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


def test_mean_maps_in_chunks():
    maps, labels = noise(600, 4, 4), torch.arange(600) % 2
    together = mean_attribution_by_class(maps, labels, ("a", "b"))
    positive = maps.clamp_min(0).double()
    positive /= positive.sum((1, 2), keepdim=True)
    torch.testing.assert_close(
        together.mean_maps[1].double(), positive[labels == 1].mean(0), atol=1e-6, rtol=1e-5
    )


def test_images_without_attribution_and_classes_without_images():
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
def test_suspected_shortcuts_find_a_planted_hot_spot(corner, region):
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
def test_deviations_are_in_units_of_the_largest_spread(
    others, own_spread, spread, own_images, images
):
    evidence = evidence_with(
        [0.9, *others], [own_spread] + [spread] * 5, [own_images] + [images] * 5
    )
    between = stats.median_abs_deviation(others, scale="normal")
    standard_error = math.sqrt(max(own_spread, spread) ** 2 / own_images + spread**2 / images)
    expected = (0.9 - np.median(others)) / max(between, standard_error, 0.02)
    found = suspected_shortcuts(evidence, threshold=expected * 0.999)
    assert [(finding.name, finding.region) for finding in found] == [("a", "top left")]
    assert found[0].deviations == pytest.approx(expected, rel=1e-4)
    assert suspected_shortcuts(evidence, threshold=expected * 1.001) == ()


def test_suspected_shortcuts_of_coarse_maps():
    maps, labels = noise(400, 4, 4).relu(), torch.arange(400) % 10
    maps[labels == 7, 3, 3] += 4
    evidence = mean_attribution_by_class(maps, labels, CLASSES, size=(32, 32))
    worst = suspected_shortcuts(evidence)[0]
    assert (worst.name, worst.region) == ("h", "bottom right")
    assert evidence.mean_maps.shape == (10, 32, 32)
    peak = evidence.peaks[7]
    assert peak.top >= 24
    assert peak.left >= 24


def test_suspected_shortcuts_find_two_hot_spots():
    maps, labels = noise(400, 16, 16), torch.arange(400) % 10
    maps[labels == 0, :3, :3] += 10
    maps[labels == 1, :3, :3] += 10
    assert {
        finding.name
        for finding in suspected_shortcuts(mean_attribution_by_class(maps, labels, CLASSES))
    } == {"a", "b"}


def test_suspected_shortcuts_ignore_the_center():
    maps, labels = noise(400, 16, 16), torch.arange(400) % 10
    maps[labels == 2, 6:10, 6:10] += 10
    assert suspected_shortcuts(mean_attribution_by_class(maps, labels, CLASSES)) == ()


def specks(count, side, seed):
    """One pixel each: with few images chance is largest."""
    at = torch.randint(side * side, (count, 1), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(count, side * side).scatter_(1, at, 1).view(count, side, side)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "maps_of", [specks, lambda count, side, seed: noise(count, side, side, seed=seed)]
)
@pytest.mark.parametrize(
    ("classes", "images"),
    [(2, 50), (3, 10), (10, 10), (10, 60), pytest.param(40, 20, marks=pytest.mark.slow)],
)
def test_suspected_shortcuts_of_exchangeable_classes_are_none(maps_of, classes, images):
    labels = torch.arange(classes * images) % classes
    for seed in range(8):
        evidence = mean_attribution_by_class(
            maps_of(classes * images, 8, seed), labels, tuple(map(str, range(classes)))
        )
        assert suspected_shortcuts(evidence) == ()


def test_suspected_shortcuts_need_ten_images_and_two_classes():
    maps, labels = noise(209, 16, 16), torch.cat([torch.arange(200) % 2, torch.full((9,), 2)])
    maps[200:, :4, :4] += 20
    assert suspected_shortcuts(mean_attribution_by_class(maps, labels, ("a", "b", "c"))) == ()
    alone = mean_attribution_by_class(
        maps[200:].repeat(3, 1, 1), torch.zeros(27, dtype=torch.int64), ("a",)
    )
    assert suspected_shortcuts(alone) == ()
    assert (alone.peaks[0].top, alone.peaks[0].left) < (3, 3)


def test_class_attribution_refuses_wrong_labels():
    maps = noise(3, 4, 4)
    with pytest.raises(
        SeewhyError, match=r"labels must be a tensor \(3,\) int64.*found \(2,\) int64"
    ):
        mean_attribution_by_class(maps, torch.zeros(2, dtype=torch.int64), CLASSES)
    with pytest.raises(
        SeewhyError,
        match=r"labels must be from 0 to 9, because there are 10 classes, found 0 to 10",
    ):
        mean_attribution_by_class(maps, torch.tensor([0, 10, 3]), CLASSES)


def test_class_attribution_of_half_precision_and_of_maps_in_a_graph():
    maps, labels = noise(40, 4, 4).requires_grad_(), torch.arange(40) % 2
    exact = mean_attribution_by_class(maps, labels, ("a", "b"), (8, 8))
    rounded = mean_attribution_by_class(maps.bfloat16(), labels, ("a", "b"), (8, 8))
    assert not exact.mean_maps.requires_grad
    torch.testing.assert_close(rounded.shares, exact.shares, atol=0.01, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8])
def test_median_of_others_equals_numpy(count: int) -> None:
    values = torch.randint(
        0, 5, (count, 4, 3), generator=torch.Generator().manual_seed(count)
    ).double()  # with ties
    found = _median_of_others(values)
    for index in range(count):
        others = np.delete(values.numpy(), index, axis=0)
        np.testing.assert_array_equal(
            found[index], np.median(others, axis=0) if count > 1 else 0 * others.sum(0)
        )
