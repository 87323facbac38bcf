"""Cascading randomization, on networks of which it is known what survives."""

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from seewhy.attribution.sanity import rank_correlation, reinitialize, sanity_check, weighted_modules
from seewhy.attribution.target import prepare
from seewhy.errors import SeewhyError


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()


def brightness(capture):
    """Looks at the image and not at the network: an edge detector of a kind."""
    return capture.forward.images.mean(1)


def inner(capture):
    return (capture.gradient * capture.activation).sum(1)


IMAGES = torch.rand(16, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def test_a_map_of_the_image_alone_survives_and_fails():
    found = sanity_check(network(), IMAGES, brightness, "3")["3", "brightness"]
    assert not found.passed
    assert found.final_similarity == pytest.approx(1)


def test_a_map_that_comes_from_the_weights_passes():
    found = sanity_check(network(), IMAGES, inner, "3")["3", "inner"]
    assert found.passed
    assert abs(found.final_similarity) < 0.5
    assert found.similarity.shape == (3, 16)  # the linear layer, then the convolutions


def test_the_cascade_goes_from_the_output_to_the_input():
    found = sanity_check(network(), IMAGES, inner, "3")["3", "inner"]
    assert found.randomized == ("6", "2", "0")
    whole = sanity_check(network(), IMAGES, inner, "3", steps=1)["3", "inner"]
    assert whole.randomized == ("0",)
    assert whole.similarity.shape == (1, 16)


def test_what_lies_below_stays_until_its_turn():
    """The activation of the first convolution is the same until it is randomized itself."""

    def activation(capture):
        return capture.activation.sum(1)

    found = sanity_check(network(), IMAGES, activation, "0")["0", "activation"]
    assert found.similarity[:2].mean(1).tolist() == pytest.approx([1, 1])
    assert found.similarity[2].mean() < 0.9


def test_the_model_and_the_random_state_stay_as_they_were():
    model = network()
    weights = [parameter.clone() for parameter in model.parameters()]
    state = torch.get_rng_state()
    first = sanity_check(model, IMAGES, inner, "3")["3", "inner"]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(before, after)
        for before, after in zip(weights, model.parameters(), strict=True)
    )
    torch.rand(5)
    again = sanity_check(model, IMAGES, inner, "3")["3", "inner"]
    assert torch.equal(first.similarity, again.similarity)
    other = sanity_check(model, IMAGES, inner, "3", seed=1)["3", "inner"]
    assert not torch.equal(first.similarity, other.similarity)


def test_constant_maps_tell_nothing():
    def flat(capture):
        return torch.ones(len(capture.activation), 3, 3)

    found = sanity_check(network(), IMAGES, flat, "3")["3", "flat"]
    assert found.similarity.isnan().all()
    assert found.passed


def test_modules_run_in_an_order_of_their_own():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.unused, self.first = (
                nn.Linear(6, 2),
                nn.Linear(1, 1),
                nn.Conv2d(3, 6, 1),
            )

        def forward(self, x):
            return self.last(self.first(x).mean((2, 3)))

    assert weighted_modules(prepare(Backwards().eval(), IMAGES)) == ["first", "last"]


def test_a_module_without_an_initialization_gets_values_of_the_same_spread():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(
                3 * torch.randn(20_000, generator=torch.Generator().manual_seed(0))
            )

    module = Scale()
    before = module.weight.clone()
    reinitialize(module)
    assert not torch.equal(module.weight, before)
    assert module.weight.std().item() == pytest.approx(3, rel=0.05)


def test_ranks_are_those_of_scipy():
    generator = torch.Generator().manual_seed(2)
    one, other = torch.randint(0, 6, (2, 10, 4, 5), generator=generator).float()  # with many ties
    found = rank_correlation(one, other)
    for row, (a, b) in enumerate(zip(one, other, strict=True)):
        assert found[row].item() == pytest.approx(
            spearmanr(a.flatten(), b.flatten()).statistic, abs=1e-6
        )


def test_no_steps_are_refused():
    with pytest.raises(SeewhyError, match="steps must be at least 1, found 0"):
        sanity_check(network(), IMAGES, inner, "3", steps=0)
