"""Faithfulness measures on models whose probabilities are known in closed form."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import seewhy.attribution.faithfulness as faithfulness_module
from seewhy.attribution.faithfulness import (
    FAITHFULNESS,
    LOWER_IS_BETTER,
    average_drop,
    average_gain,
    deletion,
    deletion_gain,
    increase_in_confidence,
    insertion,
    insertion_gain,
    max_sensitivity,
    measure_faithfulness,
    road,
)
from seewhy.attribution.target import ForwardPass, forward_pass, predict_logits
from seewhy.errors import SeewhyError


class PixelSum(nn.Module):
    """Logits (sum of the weighted pixels + bias, 0): the probability is logistic."""

    def __init__(self, weights, bias=0.0):
        super().__init__()
        self.register_buffer("weights", weights)
        self.bias = bias

    def forward(self, x):
        score = (x * self.weights).sum((1, 2, 3)) + self.bias
        return torch.stack([score, torch.zeros_like(score)], 1)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, dtype=np.float64)))


def pixels_of(count, side=4, seed=0):
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def summed() -> ForwardPass:
    """Three images of 4 x 4 whose pixels have 16 different weights."""
    weights = torch.linspace(-0.6, 0.9, 16)[
        torch.randperm(16, generator=torch.Generator().manual_seed(1))
    ].reshape(4, 4)
    return forward_pass(PixelSum(weights).eval(), pixels_of(3), 0)


@pytest.fixture
def planted() -> ForwardPass:
    """Four images of 12 x 12 whose class is a bright 4 x 4 square that the rest speaks against."""
    weights = torch.full((12, 12), -0.02)
    weights[2:6, 5:9] = 0.25
    images = 0.3 + 0.3 * pixels_of(4, 12)
    images[:, :, 2:6, 5:9] = 0.9
    return forward_pass(PixelSum(weights, bias=-1.5).eval(), images, 0)


def contributions(forward):  # (N, H, W), the perfect map
    return (forward.images * forward.model.weights)[:, 0]


@pytest.mark.parametrize("steps", [16, 5, 1])
def test_deletion_curve_of_sum(summed, steps):
    maps = contributions(summed)
    curve = deletion(summed, maps, steps=steps)
    expected = []
    for parts in maps.numpy().astype(np.float64).reshape(3, -1):
        ordered = np.sort(parts)[::-1]
        expected.append([sigmoid(ordered[16 * step // steps :].sum()) for step in range(steps + 1)])
    np.testing.assert_allclose(curve.scores.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(
        curve.auc.numpy(), np.trapezoid(expected, dx=1 / steps, axis=1), atol=1e-6
    )


def test_insertion_curve_of_sum(summed):
    maps = contributions(summed)
    curve = insertion(summed, maps, steps=16, baseline="black")
    ordered = -np.sort(-maps.numpy().astype(np.float64).reshape(3, -1))
    expected = sigmoid(np.concatenate([np.zeros((3, 1)), ordered.cumsum(1)], 1))
    np.testing.assert_allclose(curve.scores.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("curve", [deletion, insertion])
def test_a_curve_computes_each_of_its_points_but_the_known_one(monkeypatch, summed, curve):
    computed = []

    def counted_logits(forward, images):
        computed.append(len(images))
        return predict_logits(forward, images)

    monkeypatch.setattr(faithfulness_module, "predict_logits", counted_logits)
    assert curve(summed, contributions(summed), steps=5).scores.shape == (3, 6)
    assert sum(computed) == 3 * 5


def test_insertion_starts_from_blur(summed):
    curve = insertion(summed, contributions(summed), steps=2, baseline="blur:width=9")
    flat = faithfulness_module.BASELINES["blur"](summed.images, 9.0)
    expected = sigmoid((flat * summed.model.weights).sum((1, 2, 3)))
    np.testing.assert_allclose(curve.scores[:, 0].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(curve.scores[:, -1].numpy(), sigmoid(summed.scores), atol=1e-6)


def test_deletion_of_pair_is_difference_of_probabilities(summed):
    forward = forward_pass(summed.model, summed.images, (0, 1))
    first, contrast = (
        deletion(each, contributions(summed), steps=4).scores for each in (summed, forward)
    )
    torch.testing.assert_close(contrast, 2 * first - 1)


def test_equal_pixels_are_in_one_random_order():
    weights = torch.zeros(8, 8)
    weights[:4] = 1.0
    forward = forward_pass(PixelSum(weights).eval(), torch.ones(2, 1, 8, 8), 0)
    flat = torch.zeros(2, 8, 8)
    curves = [deletion(forward, flat, steps=64, seed=seed).scores for seed in (0, 0, 1)]
    assert torch.equal(curves[0], curves[1])
    assert not torch.equal(curves[0], curves[2])
    assert torch.equal(curves[0][0], curves[0][1])
    left = torch.logit(curves[0][0].double())[
        32
    ]  # half of the pixels are gone: in reading order it would be 0, or 32
    assert 8 < left < 24


@pytest.mark.parametrize("name", FAITHFULNESS)
def test_measures_rank_true_random_opposite_map(planted, name):
    true = contributions(planted)
    noise = torch.rand(true.shape, generator=torch.Generator().manual_seed(3))
    good, middle, bad = (
        float(FAITHFULNESS[name](planted, maps).mean()) for maps in (true, noise, -true)
    )
    if name in LOWER_IS_BETTER:
        good, middle, bad = -good, -middle, -bad
    assert good >= middle >= bad
    assert good > bad + 0.05


def test_gains_are_relative_to_random_maps(planted):
    true = contributions(planted)
    for gain in (deletion_gain, insertion_gain):
        assert (gain(planted, true) > 0.05).all()
        assert (gain(planted, -true) < -0.05).all()


@pytest.mark.slow
def test_random_maps_have_resolution_of_map():
    """Single random pixels soon hurt every part of a patch; random 4x4 blocks do so later."""
    weights = torch.zeros(16, 16)
    weights[4:8, 4:8] = 5.0
    count = 150
    forward = forward_pass(
        PixelSum(weights, bias=-72.0).eval(), torch.ones(count, 1, 16, 16), 0
    )  # all but one or two are needed
    generator = torch.Generator().manual_seed(5)
    for side in (4, 16):
        gains = deletion_gain(forward, torch.rand(count, side, side, generator=generator), steps=16)
        error = float(gains.std()) / math.sqrt(count)
        assert abs(float(gains.mean())) < 3 * error
    blocks, single = (
        float(deletion(forward, torch.rand(count, side, side, generator=generator)).auc.mean())
        for side in (4, 16)
    )
    assert blocks > single + 0.1


def shown(forward, maps):
    """Probabilities for the image, and for the image times the map scaled to [0, 1]."""
    flat = maps.double().flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    scores = (
        forward.images.double()
        * ((flat - low) / (high - low)).reshape(-1, 1, 4, 4)
        * forward.model.weights
    ).sum((1, 2, 3))
    return sigmoid(forward.scores), sigmoid(scores)


def test_drop_increase_and_gain(summed):
    maps = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    maps[0] = contributions(summed)[0]
    before, after = shown(summed, maps)
    assert set(np.sign(after - before)) == {-1, 1}  # so that both cases are tested
    np.testing.assert_allclose(
        average_drop(summed, maps).numpy(), np.maximum(0, before - after) / before, atol=1e-6
    )
    np.testing.assert_allclose(
        average_gain(summed, maps).numpy(), np.maximum(0, after - before) / (1 - before), atol=1e-6
    )
    assert increase_in_confidence(summed, maps).tolist() == (after > before).astype(float).tolist()


def test_drop_of_constant_map(summed):
    forward = summed.take(torch.tensor([0]))
    drop = average_drop(forward, torch.full((1, 2, 2), 7.0))
    before = sigmoid(forward.scores)
    np.testing.assert_allclose(drop.numpy(), np.maximum(0, before - 0.5) / before, atol=1e-6)


def test_drop_rejects_pair(summed):
    forward = forward_pass(summed.model, summed.images, (0, 1))
    with pytest.raises(
        SeewhyError, match="need the probability of one class as target, not a pair"
    ):
        average_drop(forward, contributions(summed))


def test_road_removes_object_and_background():
    weights = torch.zeros(8, 8)
    weights[2:6, 3:7] = 0.2
    weights[0] = 0.3  # is 0, and must not be painted over
    images = torch.zeros(2, 1, 8, 8)
    images[:, :, 2:6, 3:7] = torch.tensor([1.0, 0.5])[:, None, None, None]
    forward = forward_pass(PixelSum(weights).eval(), images, 0)
    maps = images[:, 0] - torch.linspace(0, 0.1, 64).reshape(
        8, 8
    )  # the least relevant quarter are the last two rows
    result = road(forward, maps, percentiles=(25,), noise=0.0)
    expected = 0.5 - sigmoid(
        [3.2, 1.6]
    )  # what surrounds the object is 0, and so becomes the object
    np.testing.assert_allclose(result.most_relevant_first.numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(result.least_relevant_first.numpy(), 0, atol=1e-4)
    np.testing.assert_allclose(result.combined.numpy(), -expected / 2, atol=1e-4)
    opposite = road(forward, -maps, percentiles=(25,), noise=0.0)
    np.testing.assert_allclose(opposite.combined.numpy(), expected / 2, atol=1e-4)


def test_road_is_mean_over_percentiles(planted):
    maps = contributions(planted)
    both, *single = (
        road(planted, maps, each, noise=0.0).combined for each in ((10, 50), (10,), (50,))
    )
    torch.testing.assert_close(both, (single[0] + single[1]) / 2, atol=1e-3, rtol=0)


def test_road_is_deterministic(planted):
    maps = contributions(planted)
    first, again, other = (road(planted, maps, noise=0.2, seed=seed).combined for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_max_sensitivity_of_identity_map():
    images = torch.full((2, 1, 64, 64), 0.5)
    result = max_sensitivity(lambda x: x[:, 0], images, 0.02, 5, torch.Generator().manual_seed(0))
    expected = (
        0.02 / math.sqrt(3) / 0.5
    )  # the root mean square of a uniform disturbance, relative to the image
    np.testing.assert_allclose(result.numpy(), expected, rtol=0.03)
    larger = max_sensitivity(
        lambda x: x[:, 0] * 10, images, 0.02, 5, torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(larger, result)  # relative to the map


def test_max_sensitivity_is_maximum_of_samples():
    images, visible = pixels_of(3, 8), []

    def explain(x):
        visible.append(x)
        return x[:, 0].square()

    result = max_sensitivity(explain, images, 0.1, 7, torch.Generator().manual_seed(0))
    reference = visible[0].double().square().flatten(1)
    changes = [
        (x.double().square().flatten(1) - reference).norm(dim=1) / reference.norm(dim=1)
        for x in visible[1:]
    ]
    assert len(changes) == 7
    np.testing.assert_allclose(result.numpy(), torch.stack(changes).amax(0).numpy(), rtol=1e-5)
    assert torch.stack([(x - images).abs().amax() for x in visible]).max() <= 0.1 + 1e-6
    assert all(x.min() >= 0 and x.max() <= 1 for x in visible)


def test_max_sensitivity_of_zero_map():
    images = torch.full((2, 1, 4, 4), 0.5)
    generator = torch.Generator().manual_seed(0)
    assert max_sensitivity(lambda x: 0 * x[:, 0], images, generator=generator).tolist() == [0, 0]
    assert max_sensitivity(lambda x: x[:, 0] - 0.5, images, generator=generator).tolist() == [
        math.inf,
        math.inf,
    ]
    with pytest.raises(SeewhyError, match="found 0 and 10"):
        max_sensitivity(lambda x: x[:, 0], images, radius=0)


def test_measures_in_batches(planted, images_per_batch):
    maps = contributions(planted)
    names = [
        name if name != "road" else "road:noise=0.0"
        for name in FAITHFULNESS
        if not name.endswith("gain")
    ]
    whole = measure_faithfulness(planted, maps, names)
    images_per_batch(3)
    parts = measure_faithfulness(planted, maps, names)
    for name in names:
        torch.testing.assert_close(parts[name], whole[name], atol=1e-4, rtol=0)


def test_measure_faithfulness_by_name(planted):
    result = measure_faithfulness(
        planted, contributions(planted)[:, ::2, ::2], ("deletion:steps=3,baseline=mean", "road")
    )
    assert list(result) == ["deletion:steps=3,baseline=mean", "road"]
    assert all(values.shape == (4,) and values.isfinite().all() for values in result.values())
    assert (
        set(measure_faithfulness(planted, contributions(planted)))
        == set(faithfulness_module.MEASURES)
        <= set(FAITHFULNESS)
    )
    assert set(FAITHFULNESS) >= LOWER_IS_BETTER


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda forward, maps: measure_faithfulness(forward, maps, ("deletoin",)),
            r"unknown measure 'deletoin' \(did you mean 'deletion'\?\)",
        ),
        (
            lambda forward, maps: measure_faithfulness(forward, maps[:2]),
            "found images and maps: 4 and 2",
        ),
        (
            lambda forward, maps: measure_faithfulness(forward, maps * math.nan),
            "contain NaN or infinity",
        ),
        (lambda forward, maps: deletion(forward, maps, steps=0), "steps must be at least 1"),
        (lambda forward, maps: deletion_gain(forward, maps, orders=0), "orders must be at least"),
        (lambda forward, maps: deletion(forward, maps, baseline="blac"), "unknown baseline 'blac'"),
        (lambda forward, maps: road(forward, maps, percentiles=()), "between 0 and 100"),
        (lambda forward, maps: road(forward, maps, percentiles=(0, 50)), "between 0 and 100"),
        (lambda forward, maps: road(forward, maps, percentiles=(100,)), "between 0 and 100"),
    ],
)
def test_faithfulness_errors(planted, call, message):
    with pytest.raises(SeewhyError, match=message):
        call(planted, contributions(planted))
