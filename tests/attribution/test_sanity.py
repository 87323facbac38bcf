"""Cascading randomization, for maps whose dependence on the weights is known."""

import pytest
import torch
from scipy.stats import rankdata, spearmanr
from torch import nn

from seewhy.attribution.sanity import (
    average_ranks,
    rank_correlation,
    reinitialize,
    sanity_check,
    weighted_modules,
)
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


def test_map_of_image_alone_fails():
    result = sanity_check(network(), IMAGES, brightness, "3")["3", "brightness"]
    assert not result.passed
    assert result.final_similarity == pytest.approx(1)


def test_map_of_weights_passes():
    result = sanity_check(network(), IMAGES, inner, "3")["3", "inner"]
    assert result.passed
    assert abs(result.final_similarity) < 0.5
    assert result.similarity.shape == (3, 16)  # the linear layer, then the convolutions


def test_cascade_starts_at_output():
    result = sanity_check(network(), IMAGES, inner, "3")["3", "inner"]
    assert result.randomized == ("6", "2", "0")
    whole = sanity_check(network(), IMAGES, inner, "3", steps=1)["3", "inner"]
    assert whole.randomized == ("0",)
    assert whole.similarity.shape == (1, 16)


def test_cascade_keeps_lower_layers():
    """The activation of the first convolution is the same until it is randomized itself."""

    def activation(capture):
        return capture.activation.sum(1)

    result = sanity_check(network(), IMAGES, activation, "0")["0", "activation"]
    assert result.similarity[:2].mean(1).tolist() == pytest.approx([1, 1])
    assert result.similarity[2].mean() < 0.9


def test_sanity_check_leaves_model_and_random_state():
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


def test_similarity_of_constant_maps_is_nan():
    def flat(capture):
        return torch.ones(len(capture.activation), 3, 3)

    result = sanity_check(network(), IMAGES, flat, "3")["3", "flat"]
    assert result.similarity.isnan().all()
    assert result.passed


def test_weighted_modules_order():
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


def test_reinitialize_without_reset_parameters():
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


def test_rank_correlation_matches_spearmanr():
    generator = torch.Generator().manual_seed(2)
    one, other = torch.randint(0, 6, (2, 10, 4, 5), generator=generator).float()  # with many ties
    result = rank_correlation(one, other)
    for row, (a, b) in enumerate(zip(one, other, strict=True)):
        assert result[row].item() == pytest.approx(
            spearmanr(a.flatten(), b.flatten()).statistic, abs=1e-6
        )


def test_sanity_check_rejects_steps():
    with pytest.raises(SeewhyError, match="steps must be at least 1, found 0"):
        sanity_check(network(), IMAGES, inner, "3", steps=0)


def test_average_ranks_equal_scipy() -> None:
    values = torch.tensor([[3.0, 1.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0], [1.0, torch.nan, 0.0, 2.0]])
    assert average_ranks(values).numpy() == pytest.approx(rankdata(values, axis=-1), nan_ok=True)
    assert average_ranks(values[0]).numpy() == pytest.approx(rankdata(values[0]))
