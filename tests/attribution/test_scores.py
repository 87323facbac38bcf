"""Which explanation to trust: on a network of which the answer is known."""

import pytest
import torch
from torch import nn

from seewhy.attribution.scores import trust
from seewhy.errors import SeewhyError


class Looker(nn.Module):
    """Class 1 in so far as there is red in the left half of the image; what is to the right does not matter."""

    def __init__(self):
        super().__init__()
        self.red = nn.Conv2d(3, 1, 1, bias=False)
        self.red.weight.data = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)

    def forward(self, x):
        seen = self.red(x)
        score = 8 * seen[:, 0, :, : x.shape[3] // 2].mean((1, 2))
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
def verdicts():
    found = trust(Looker().eval(), IMAGES, [left, right, gradient], "red", target=1, masks=MASKS)
    return {verdict.method: verdict for verdict in found}


def test_what_the_network_uses_gains_and_what_it_ignores_loses(verdicts):
    assert verdicts["left"].gain.interval[0] > 0
    assert verdicts["right"].gain.interval[1] < 0


def test_a_map_that_random_weights_do_not_change_is_not_trusted(verdicts):
    """The left half is right, but not because anything was learned: it looks so for any weights."""
    assert verdicts["left"].sanity.final_similarity == pytest.approx(1)
    assert not verdicts["left"].trusted
    assert not verdicts["right"].trusted


def test_masks_say_what_lies_on_the_object(verdicts):
    assert verdicts["left"].relevance_mass == 1
    assert verdicts["right"].relevance_mass == 0
    assert verdicts["left"].pointing == 1
    assert verdicts["right"].pointing == 0


def test_the_trusted_come_first_and_then_the_larger_gain():
    found = trust(Looker().eval(), IMAGES, [right, left, gradient], "red", target=1)
    order = [(not verdict.trusted, -verdict.gain.mean) for verdict in found]
    assert order == sorted(order)
    assert found[0].pointing is None
    assert found[0].relevance_mass is None


def test_chance_is_that_of_maps_as_coarse():
    """A map of noise gains nothing, however coarse it is."""

    def noise(capture):
        return torch.rand(len(capture.activation), 2, 2, generator=torch.Generator().manual_seed(5))

    many = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.7
    (verdict,) = trust(Looker().eval(), many, noise, "red", target=1)
    low, high = verdict.gain.interval
    assert low < 0.02
    assert high > -0.02
    assert not verdict.trusted


def test_progress_and_empty_maps():
    done = []

    def nothing(capture):
        return torch.zeros(len(capture.activation), 8, 8)

    (verdict,) = trust(Looker().eval(), IMAGES, nothing, "red", progress=done.append)
    assert done == [1]
    assert verdict.non_empty == 0


def test_a_network_without_places_and_maps_that_are_not_finite():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    (verdict,) = trust(flat, IMAGES, "gradients")
    assert (verdict.layer, verdict.non_empty) == ("pixels", 1)

    def broken(capture):
        return torch.full((len(capture.activation), 8, 8), torch.nan)

    found = trust(Looker().eval(), IMAGES, [broken, left], "red", target=1)
    assert {verdict.method: verdict.non_empty for verdict in found} == {"broken": 0, "left": 1}


def test_one_image_is_too_few():
    with pytest.raises(SeewhyError, match="at least 2, found 1"):
        trust(Looker().eval(), IMAGES[:1], left, "red")
