"""Layer-wise relevance propagation against the published formulas in NumPy, layer by layer."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.attribution.explanation import explain
from seewhy.attribution.lrp import lrp
from seewhy.attribution.target import forward_pass
from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.models.normalization import Normalize
from seewhy.models.registry import build_model

Array = NDArray[np.float64]
Rule = Callable[[Array, Array, Array, Array], Array]  # inputs, weights, biases, relevance
SIDE, CLASSES = 6, 3


def images(count: int = 2, channels: int = 2, side: int = SIDE) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, channels, side, side, generator=generator, dtype=torch.float64)


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights of both signs in float64, also of BatchNorm."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return model.double().eval()


def matrix(layer: nn.Module, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Weights (inputs, outputs) and biases (outputs,) of an affine layer for inputs of a shape."""
    size = int(np.prod(shape))
    with torch.no_grad():
        bias = layer(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
        basis = torch.eye(size, dtype=torch.float64).view(size, *shape)
        weights = layer(basis).flatten(1) - bias
    return weights.numpy(), bias.numpy()


def gamma_rule(gamma: float, epsilon: float) -> Rule:
    """Montavon et al. 2019, eq. 10.8, for outputs of both signs."""

    def rule(x: Array, weights: Array, bias: Array, relevance: Array) -> Array:
        shares = np.concatenate((x[:, None] * weights, bias[None]))
        sign = np.where(shares.sum(0) > 0, 1, -1)
        shares = shares + gamma * np.where(sign * shares > 0, shares, 0)
        return (shares / (shares.sum(0) + epsilon * sign))[:-1] @ relevance

    return rule


def epsilon_rule(x: Array, weights: Array, bias: Array, epsilon: float, relevance: Array) -> Array:
    """Bach et al. 2015, eq. 58; the bias takes a share."""
    output = x @ weights + bias
    return (x[:, None] * weights / (output + epsilon * np.sign(output))) @ relevance


def z_b(x: Array, low: Array, high: Array, weights: Array, relevance: Array) -> Array:
    """Montavon et al. 2017, eq. 16."""
    shares = (
        x[:, None] * weights
        - low[:, None] * np.maximum(weights, 0)
        - high[:, None] * np.minimum(weights, 0)
    )
    return (shares / shares.sum(0)) @ relevance


class Residual(nn.Module):
    """BatchNorm behind max-pooling, a residual sum, functions instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize = Normalize([0.4, 0.5], [0.2, 0.3])
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.hidden, self.linear = nn.Linear(36, 8), nn.Linear(8, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        x = F.relu(self.norm(F.max_pool2d(self.first(self.normalize(pixels)), 2)))
        x = F.relu(x + self.second(x))
        return self.linear(F.gelu(self.hidden(x.flatten(1))))


@pytest.mark.parametrize(("gamma", "epsilon"), [(0.05, 1e-6), (0.3, 0.25), (2.0, 0.0), (0.0, 1e-6)])
def test_lrp_equals_the_published_rules(gamma: float, epsilon: float) -> None:
    model = randomize(Residual())
    assert isinstance(model, Residual)
    pixels = images()
    found = lrp(forward_pass(model, pixels, target=1), gamma, epsilon).numpy()
    rule = gamma_rule(gamma, epsilon)
    for image, relevance_map in zip(pixels, found, strict=True):
        expected = residual_relevance(model, image, rule, epsilon)
        np.testing.assert_allclose(relevance_map, expected, rtol=1e-9, atol=1e-12)


@torch.no_grad()
def residual_relevance(model: Residual, image: Tensor, rule: Rule, epsilon: float) -> Array:
    """Relevance of the pixels (H, W) for class 1, from the formulas."""
    x = model.normalize(image[None])
    folded = nn.Sequential(model.first, model.norm)  # BatchNorm before pooling, which swaps ...
    before = folded(x)
    scale = model.norm.weight.view(-1, 1, 1).sign()
    pooled, winners = F.max_pool2d(scale * before, 2, return_indices=True)  # ... some maxima
    start = F.relu(scale * pooled)
    residual = model.second(start)
    end = F.relu(start + residual)
    hidden = model.hidden(end.flatten(1))
    active = F.gelu(hidden)
    logit = float(model.linear(active)[0, 1])

    weights, bias = matrix(model.linear, (8,))
    relevance = epsilon_rule(active[0].numpy(), weights, bias, epsilon, logit * np.eye(CLASSES)[1])
    weights, bias = matrix(model.hidden, (36,))
    relevance = epsilon_rule(end.flatten().numpy(), weights, bias, epsilon, relevance)
    total = (start + residual).flatten().numpy()
    shares = [part.flatten().numpy() / total * relevance for part in (start, residual)]
    weights, bias = matrix(model.second, tuple(start.shape[1:]))
    relevance = shares[0] + rule(start.flatten().numpy(), weights, bias, shares[1])
    unpooled = np.zeros(before.numel())
    channel = np.arange(4).repeat(9) * SIDE**2
    unpooled[channel + winners.flatten().numpy()] = relevance
    weights, _ = matrix(folded, tuple(x.shape[1:]))
    low, high = (
        model.normalize(torch.full_like(image[None], value)).flatten().numpy() for value in (0, 1)
    )
    found = z_b(x.flatten().numpy(), low, high, weights, unpooled)
    return found.reshape(2, SIDE, SIDE).sum(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"),
    [("resnet18", 16), ("davidnet", 16), ("speednet:width=0.25,depth=3", 16)],
)
def test_lrp_conserves_the_score_of_registered_models(name: str, side: int) -> None:
    """Up to biases and epsilon, which are removed here."""
    pixels = (255 * images(2, 3, side)).byte()
    model = randomize(build_model(name, CLASSES, Split(pixels, torch.arange(2), ["a", "b"])))
    for module in model.modules():
        if isinstance(getattr(module, "bias", None), Tensor):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.running_mean)
    forward = forward_pass(model, pixels)
    total = lrp(forward, epsilon=0).sum((1, 2))
    torch.testing.assert_close(total, forward.scores, rtol=1e-4, atol=1e-7)


@torch.no_grad()
def test_lrp_finds_the_pixels_behind_padding() -> None:
    """As in EfficientNet-Lite: rows and columns of zeros, more at the end."""
    pad = nn.ZeroPad2d((1, 2, 0, 1))
    model = randomize(nn.Sequential(pad, nn.Conv2d(2, 3, 3, 2), nn.Flatten(), nn.Linear(36, 3)))
    image = images(1)
    found = lrp(forward_pass(model, image, target=2))[0].numpy()
    hidden = model[:3](image).numpy()[0]
    weights, bias = matrix(model[3], (36,))
    logits = np.eye(3)[2] * float(model(image)[0, 2])
    relevance = epsilon_rule(hidden, weights, bias, 1e-6, logits)
    padded, low, high = (
        pad(each).flatten().numpy() for each in (image, 0 * image, torch.ones_like(image))
    )
    weights, _ = matrix(model[1], (2, 7, 9))
    expected = z_b(padded, low, high, weights, relevance).reshape(2, 7, 9)
    np.testing.assert_allclose(found, expected[:, :6, 1:7].sum(0), rtol=1e-9)


class Mirrored(nn.Sequential):
    """A model of mirrored images."""

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = super().forward(pixels.flip(3))
        return logits


def test_lrp_does_not_depend_on_the_batch() -> None:
    model, pixels = randomize(Residual()), images(3)
    whole = lrp(forward_pass(model, pixels))
    for index in range(3):
        alone = lrp(forward_pass(model, pixels[index : index + 1]))
        torch.testing.assert_close(alone[0], whole[index])


@pytest.mark.parametrize("epsilon", [0, 1e-6])
def test_lrp_of_a_zero_output_is_zero(epsilon: float) -> None:
    torch.manual_seed(0)
    head = nn.Linear(8, 3)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    layers = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head
    forward = forward_pass(nn.Sequential(*layers).eval(), torch.rand(2, 1, 6, 6), target=1)
    assert torch.equal(lrp(forward, epsilon=epsilon), torch.zeros(2, 6, 6))


def test_lrp_leaves_the_model_as_it_was() -> None:
    model, pixels = randomize(Residual()), images()
    before = model(pixels)
    lrp(forward_pass(model, pixels))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model(pixels), before)


class Gated(nn.Sequential):
    """Channels multiplied by a function of themselves, as in squeeze-and-excitation."""

    def forward(self, pixels: Tensor) -> Tensor:
        x = self[0](pixels)
        return self[1]((x * x.mean((2, 3), keepdim=True).sigmoid()).flatten(1))


class Quotient(nn.Sequential):
    """Channels divided by a function of themselves."""

    def forward(self, pixels: Tensor) -> Tensor:
        x = self[0](pixels)
        return self[1]((x / x.mean((2, 3), keepdim=True)).flatten(1))


class Constant(nn.Module):
    """Logits that do not depend on the pixels."""

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.zeros(1, 3, dtype=pixels.dtype).expand(len(pixels), -1)


@torch.no_grad()
def test_lrp_gives_half_of_the_relevance_to_a_gate() -> None:
    model, image = randomize(Gated(nn.Conv2d(2, 3, 3), nn.Linear(48, 3, bias=False))), images(1)
    found = lrp(forward_pass(model, image, target=2))[0].numpy()
    x = model[0](image)
    gated = (x * x.mean((2, 3), keepdim=True).sigmoid()).flatten().numpy()
    weights, bias = matrix(model[1], (48,))
    logits = np.eye(3)[2] * float(model(image)[0, 2])
    relevance = epsilon_rule(gated, weights, bias, 1e-6, logits) / 2
    values = x[0].numpy().reshape(3, 16)
    means = values.mean(1, keepdims=True)
    of_gate = relevance.reshape(3, 16).sum(1, keepdims=True)
    weights, _ = matrix(model[0], (2, SIDE, SIDE))
    expected = z_b(
        *(each.flatten().numpy() for each in (image, 0 * image, torch.ones_like(image))),
        weights,
        relevance + (values / 16 / means * of_gate).ravel(),
    )
    np.testing.assert_allclose(found, expected.reshape(2, SIDE, SIDE).sum(0), rtol=1e-9)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Quotient(nn.Conv2d(2, 3, 3), nn.Linear(48, 3)), "no rule for 'div' by an activation"),
        (
            nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 3)),
            "no rule for 'group_norm', which",
        ),
        (
            Mirrored(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 3)),
            "reads the pixels where they are, and this model changes them by 'flip'",
        ),
        (
            nn.Sequential(nn.LayerNorm(SIDE), nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 3)),
            "this model changes them by 'layer_norm'",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), "this model changes them by 'flatten'"),
        (Constant(), "lrp needs convolutions or linear layers"),
    ],
    ids=["quotient", "group norm", "mirrored", "normalized pixels", "flat pixels", "no layer"],
)
def test_lrp_refuses_what_it_has_no_rule_for(model: nn.Module, reason: str) -> None:
    with pytest.raises(SeewhyError, match=reason):
        lrp(forward_pass(model.double().eval(), images()))


def test_lrp_refuses_other_settings() -> None:
    forward = forward_pass(randomize(Residual()), images())
    with pytest.raises(SeewhyError, match=r"a finite gamma of at least 0 .* found -1 and 1e-06"):
        lrp(forward, gamma=-1)
    with pytest.raises(SeewhyError, match="found inf and 1e-06"):
        lrp(forward, gamma=np.inf)
    with pytest.raises(SeewhyError, match=r"found 0\.05 and -1"):
        lrp(forward, epsilon=-1)


def test_lrp_is_a_method_of_explain() -> None:
    model, pixels = randomize(Residual()), images()
    explanation = explain(model, pixels, ["lrp", "lrp:gamma=0.5"], warn=False)
    expected = lrp(forward_pass(model, pixels), 0.5).float()
    assert torch.equal(explanation.at("pixels", "lrp:gamma=0.5"), expected)
