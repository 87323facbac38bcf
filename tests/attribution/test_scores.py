"""`trust`, on a model whose relevant pixels are known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from torch import nn

from seewhy.attribution.bootstrap import bootstrap_summary
from seewhy.attribution.scores import TimeLimitWarning, trust
from seewhy.errors import SeewhyError


class Looker(nn.Module):
    """Class 1 according to the red in the left half; the right half has no effect."""

    def __init__(self):
        super().__init__()
        self.red = nn.Conv2d(3, 1, 1, bias=False)
        self.red.weight.data = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)

    def forward(self, x):
        red = self.red(x)
        score = 8 * red[:, 0, :, : x.shape[3] // 2].mean((1, 2))
        return torch.stack([-score + 2, score - 2], 1)


def left(capture):
    return _half(capture, slice(None, 4))


def right(capture):
    return _half(capture, slice(4, None))


def gradient(capture):
    return (capture.gradient * capture.activation).sum(1)


def _half(capture, columns):
    maps = torch.zeros(len(capture.activation), 8, 8)
    maps[:, :, columns] = 1
    return maps


IMAGES = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.7
MASKS = torch.zeros(12, 8, 8, dtype=torch.bool)
MASKS[:, :, :4] = True


@pytest.fixture(scope="module")
def scores():
    result = trust(Looker().eval(), IMAGES, [left, right, gradient], "red", target=1, masks=MASKS)
    return {score.method: score for score in result}


def test_gain_of_used_and_ignored_pixels(scores):
    assert scores["left"].gain.interval[0] > 0
    assert scores["right"].gain.interval[1] < 0


def test_trust_requires_sanity_check(scores):
    """The left half is right, but not because anything was learned: it looks so for any weights."""
    assert scores["left"].sanity.final_similarity == pytest.approx(1)
    assert not scores["left"].trusted
    assert not scores["right"].trusted


def test_trust_with_masks(scores):
    assert scores["left"].relevance_mass == 1
    assert scores["right"].relevance_mass == 0
    assert scores["left"].pointing == 1
    assert scores["right"].pointing == 0


def test_trust_ranks_by_gain():
    result = trust(Looker().eval(), IMAGES, [right, left, gradient], "red", target=1)
    order = [(not score.trusted, -score.gain.mean) for score in result]
    assert order == sorted(order)
    assert result[0].pointing is None
    assert result[0].relevance_mass is None


@pytest.mark.slow
def test_gain_of_random_map_is_zero():
    """A map of noise gains nothing, however coarse it is."""

    def noise(capture):
        return torch.rand(len(capture.activation), 2, 2, generator=torch.Generator().manual_seed(5))

    many = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.7
    (score,) = trust(Looker().eval(), many, noise, "red", target=1)
    low, high = score.gain.interval
    assert low < 0.02
    assert high > -0.02
    assert not score.trusted


def test_trust_progress_and_empty_maps():
    done = []

    def nothing(capture):
        return torch.zeros(len(capture.activation), 8, 8)

    (score,) = trust(Looker().eval(), IMAGES, nothing, "red", progress=done.append)
    assert done == [1]
    assert score.non_empty == 0


def test_trust_warns_of_maps_left_out_for_lack_of_time():
    with pytest.warns(
        TimeLimitWarning, match="1 of 2 maps were .* pass seconds=60, fewer"
    ) as caught:
        (score,) = trust(Looker().eval(), IMAGES, [left, right], "red", seconds=1e-9, steps=2)
    assert (caught[0].message.measured, caught[0].message.maps) == (1, 2)
    assert score.method == "left"  # the first of the methods


def test_road_is_left_out_on_request():
    (score,) = trust(Looker().eval(), IMAGES, left, "red", target=1, steps=4, with_road=False)
    assert score.road is None
    (whole,) = trust(Looker().eval(), IMAGES, left, "red", target=1, steps=4)
    assert whole.road.mean > 0
    assert whole.gain.mean == score.gain.mean


@pytest.mark.slow
def test_trust_of_pixels_and_nonfinite_maps():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    (score,) = trust(flat, IMAGES, "gradients")
    assert (score.layer, score.non_empty) == ("pixels", 1)

    def broken(capture):
        return torch.full((len(capture.activation), 8, 8), torch.nan)

    result = trust(Looker().eval(), IMAGES, [broken, left], "red", target=1)
    assert {score.method: score.non_empty for score in result} == {"broken": 0, "left": 1}


class Normalized(nn.Module):
    """A LayerNorm reads the block."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.block, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.LayerNorm(8)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = torch.tanh(self.norm(self.block(x).permute(0, 2, 3, 1)))
        return self.head(x.mean((1, 2)))


@pytest.mark.slow
def test_trust_leaves_out_residue_and_failures():
    model, methods = Normalized().eval(), ["hires-cam", "layer-cam", "guided-backpropagation"]
    with pytest.warns(UserWarning, match="guided-backpropagation failed.*at block: residue"):
        scores = trust(model, IMAGES, methods, ["block", "norm"])
    assert {(score.layer, score.method) for score in scores} == {
        ("block", "layer-cam"),
        ("norm", "layer-cam"),
        ("norm", "hires-cam"),
    }
    with pytest.raises(SeewhyError, match="hires-cam at block: residue for 12 of 12 images"):
        trust(model, IMAGES, "hires-cam", "block")


def test_trust_rejects_single_image():
    with pytest.raises(SeewhyError, match="at least 2 images for its intervals, found 1"):
        trust(Looker().eval(), IMAGES[:1], left, "red")


def test_bootstrap_summary():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)) * 2 + 1
    result = bootstrap_summary({"a": values, "b": torch.ones(3), "c": torch.ones(1)})
    assert result["a"].mean == pytest.approx(float(values.double().mean()))
    half = 1.96 * float(values.double().std()) / 20
    np.testing.assert_allclose(
        result["a"].interval, [result["a"].mean - half, result["a"].mean + half], atol=0.15 * half
    )
    theirs = bootstrap(
        (values.double().numpy(),),
        np.mean,
        n_resamples=1000,
        method="percentile",
        random_state=np.random.default_rng(0),
    )
    np.testing.assert_allclose(result["a"].interval, theirs.confidence_interval)
    assert result["b"].interval == (1.0, 1.0)
    assert all(math.isnan(end) for end in result["c"].interval)
    assert bootstrap_summary({"a": values})["a"] == result["a"]
