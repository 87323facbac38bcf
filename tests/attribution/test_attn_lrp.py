"""Relevance in a transformer against the formulas of AttnLRP in NumPy, step by step."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.attribution.lrp import lrp
from seewhy.attribution.target import forward_pass
from seewhy.data.dataset import Split
from seewhy.models.normalization import Normalize
from seewhy.models.registry import build_model

Array = NDArray[np.float64]
SIDE, PATCH, WIDTH, HEADS, CLASSES, EPSILON = 4, 2, 4, 2, 3, 1e-6
TOKENS = 1 + (SIDE // PATCH) ** 2


class Transformer(nn.Module):
    """One block with a class token; attention fused or written out."""

    def __init__(self, fused: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fused = fused
        self.normalize = Normalize([0.4, 0.5], [0.2, 0.3])
        self.patches = nn.Conv2d(2, WIDTH, PATCH, PATCH)
        self.start = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.position = nn.Parameter(0.3 * torch.randn(1, TOKENS, WIDTH))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        for norm in self.norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.2)
        self.qkv, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.expand, self.reduce = nn.Linear(WIDTH, 6), nn.Linear(6, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.double().eval()

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patches(self.normalize(pixels)).flatten(2).transpose(1, 2)
        x = torch.cat((self.start.expand(len(x), -1, -1), x), 1) + self.position
        x = x + self.attend(self.norms[0](x))
        x = x + self.reduce(F.gelu(self.expand(self.norms[1](x))))
        return self.head(self.norms[2](x)[:, 0])

    def attend(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).unflatten(2, (3, HEADS, WIDTH // HEADS)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        if self.fused:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:
            scores = query @ key.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5
            mixed = scores.softmax(-1) @ value
        return self.project(mixed.transpose(1, 2).flatten(2))


def linear_rule(x: Array, layer: nn.Module, relevance: Array, gamma: float = 0) -> Array:
    """Contributions with the sign of the output weigh 1 + gamma; so does the bias."""
    weights, bias = (getattr(layer, name).detach().numpy() for name in ("weight", "bias"))
    shares = x[:, None, :] * weights  # (T, outputs, inputs)
    output = shares.sum(2) + bias
    sign = np.where(output < 0, -1, 1)
    weighted = shares + gamma * np.where(sign[..., None] * shares > 0, shares, 0)
    of_bias = bias + gamma * np.where(sign * bias > 0, bias, 0)
    total = weighted.sum(2) + of_bias + EPSILON * sign
    found: Array = np.einsum("toi,to->ti", weighted, relevance / total)
    return found


def norm_rule(x: Array, norm: nn.Module, relevance: Array) -> Array:
    """An affine function of the tokens: centering, a constant deviation, weights and biases."""
    weight, bias = (getattr(norm, name).detach().numpy() for name in ("weight", "bias"))
    deviation = np.sqrt(x.var(1, keepdims=True) + 1e-5)
    ratio = relevance / ((x - x.mean(1, keepdims=True)) / deviation * weight + bias)
    centered = np.eye(WIDTH) - 1 / WIDTH
    return x * np.einsum("ij,tj->ti", centered, weight / deviation * ratio)


def attention_rule(query: Array, key: Array, value: Array, relevance: Array) -> list[Array]:
    """Of one head: half to each factor of the two products, and the softmax's Taylor expansion."""
    scale = query.shape[1] ** -0.5
    scores = query @ key.T * scale
    exponentials = np.exp(scores)
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    ratio = relevance / (probabilities @ value)
    of_value = value * (probabilities.T @ ratio) / 2
    of_probabilities = probabilities * (ratio @ value.T) / 2
    total = of_probabilities.sum(1, keepdims=True)
    ratio = of_probabilities - probabilities * total  # relevance of the scores, over the scores
    of_query, of_key = query * (ratio @ key) * scale / 2, key * (ratio.T @ query) * scale / 2
    return [of_query, of_key, of_value]


def patches_rule(model: Transformer, image: Tensor, relevance: Array) -> Array:
    """z^B of the convolution: (H, W), from the relevance (T - 1, C) of its outputs."""
    found = np.zeros((2, SIDE, SIDE))
    weights = model.patches.weight.detach().numpy()
    with torch.no_grad():
        pixels, low, high = (
            model.normalize(each[None])[0].numpy()
            for each in (image, 0 * image, torch.ones_like(image))
        )
    for patch, of_patch in enumerate(relevance):
        row, column = (PATCH * index for index in divmod(patch, SIDE // PATCH))
        place = np.s_[:, row : row + PATCH, column : column + PATCH]
        for channel, part in enumerate(of_patch):
            shares = (
                pixels[place] * weights[channel]
                - low[place] * np.maximum(weights[channel], 0)
                - high[place] * np.minimum(weights[channel], 0)
            )
            found[place] += shares / shares.sum() * part
    return found.sum(0)


def expected_relevance(model: Transformer, image: Tensor, gamma: float) -> Array:
    """The map (H, W) of class 1."""
    with torch.no_grad():
        embedded = model.patches(model.normalize(image[None])).flatten(2).transpose(1, 2)
        first = (torch.cat((model.start, embedded), 1) + model.position)[0]
        normed = model.norms[0](first)
        parts = model.qkv(normed).unflatten(1, (3, HEADS, WIDTH // HEADS))
        query, key, value = parts.permute(1, 2, 0, 3)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(0, 1).flatten(1)
        attended = model.project(mixed)
        second = first + attended
        widened = model.expand(model.norms[1](second))
        reduced = model.reduce(F.gelu(widened))
        third = second + reduced
        read = model.norms[2](third)[:1]
        logits = model.head(read)
        tokens = [embedded[0], first, normed, mixed, attended, second, widened, reduced, third]
        hidden = F.gelu(widened).numpy(), model.norms[1](second).numpy()

    embedded_, first_, normed_, mixed_, attended_, second_, _, reduced_, third_ = (
        each.numpy() for each in tokens
    )
    relevance = np.zeros((TOKENS, WIDTH))
    relevance[:1] = linear_rule(read.numpy(), model.head, logits.numpy() * np.eye(CLASSES)[1:2])
    relevance = norm_rule(third_, model.norms[2], relevance)
    inside, relevance = reduced_ / third_ * relevance, second_ / third_ * relevance
    inside = linear_rule(hidden[0], model.reduce, inside, gamma)
    inside = linear_rule(hidden[1], model.expand, inside, gamma)  # GELU passes all
    relevance = relevance + norm_rule(second_, model.norms[1], inside)
    inside, relevance = attended_ / second_ * relevance, first_ / second_ * relevance
    inside = linear_rule(mixed_, model.project, inside, gamma).reshape(TOKENS, HEADS, -1)
    of_parts = np.stack(
        [
            attention_rule(*(part[head].numpy() for part in (query, key, value)), inside[:, head])
            for head in range(HEADS)
        ],
        1,
    )  # (3, heads, T, C)
    inside = of_parts.transpose(2, 0, 1, 3).reshape(TOKENS, -1)
    inside = linear_rule(normed_, model.qkv, inside, gamma)
    relevance = relevance + norm_rule(first_, model.norms[0], inside)
    return patches_rule(model, image, (embedded_ / first_[1:]) * relevance[1:])


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "written out"])
@pytest.mark.parametrize("gamma", [0, 0.05, 1])
def test_relevance_in_a_transformer_equals_the_formulas(fused: bool, gamma: float) -> None:
    model = Transformer(fused)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(2, 2, SIDE, SIDE, generator=generator, dtype=torch.float64)
    found = lrp(forward_pass(model, pixels, target=1), gamma).numpy()
    for image, relevance_map in zip(pixels, found, strict=True):
        expected = expected_relevance(model, image, gamma)
        np.testing.assert_allclose(relevance_map, expected, rtol=1e-8, atol=1e-12)


class Encoder(nn.Module):
    """torch's own encoder layer, whose attention is one function."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
        self.head = nn.Linear(8, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.layer(self.patches(pixels).flatten(2).transpose(1, 2)).mean(1))


def test_lrp_explains_registered_transformers_and_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (2, 3, 16, 16), generator=generator).byte()
    split = Split(pixels, torch.arange(2), ["a", "b"])
    for model in (build_model("vit:patch=4,width=16,depth=2,heads=2", CLASSES, split), Encoder()):
        maps = lrp(forward_pass(model.eval(), pixels))
        assert maps.shape == (2, 16, 16)
        assert maps.isfinite().all()
        assert (maps != 0).float().mean() > 0.9
