"""FullGrad: bias terms against finite differences, their sum, and the map."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from seewhy.attribution.gradients import full_grad, full_gradients, implicit_bias
from seewhy.attribution.target import forward_pass
from seewhy.models.normalization import Normalize

HEIGHT, WIDTH, CLASSES = 8, 12, 3
TARGET = torch.tensor([2, 0])


def images_of(count=2, seed=0):
    return torch.rand(
        count, 2, HEIGHT, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def with_random_weights(model, seed=0):
    """Running statistics too, so that BatchNorm has a bias of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(fan))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
    return model.double().eval()


def block(channels, stride=1):
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.BatchNorm2d(4),
    )


class Residual(nn.Module):
    """Normalization, max-pooling, a shortcut, a BatchNorm without weights; linear but for ReLUs."""

    def __init__(self):
        super().__init__()
        self.normalize = Normalize((0.3, 0.6), (0.2, 0.5))
        self.stem = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        )
        self.block, self.last = block(4), nn.BatchNorm2d(4, affine=False)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, pixels):
        x = self.stem(self.normalize(pixels))
        x = torch.relu(x + self.block(x))
        return self.head(self.last(x).relu_().mean((2, 3)))


class Mixer(nn.Module):
    """Tokens of 2x2 pixels, linear layers along channels and places, a ReLU."""

    num_prefix_tokens = 0  # as timm's say it: all of them are places

    def __init__(self, last=False):
        super().__init__()
        self.last = last  # channels last, (N, h, w, C), instead of tokens (N, h w, C)
        self.patches, self.channels, self.places, self.head = (
            nn.Conv2d(2, 5, 2, 2),
            nn.Linear(5, 5),
            nn.Linear(24, 24),
            nn.Linear(5, 3),
        )

    def forward(self, pixels):
        x = self.patches(pixels)
        x = x.permute(0, 2, 3, 1) if self.last else x.flatten(2).transpose(1, 2)
        x = self.channels(x).relu()
        if not self.last:
            x = x + self.places(x.mT).relu().mT
        return self.head(x.flatten(1, -2).mean(1))


NETWORKS = {"residual": Residual, "tokens": Mixer, "channels last": lambda: Mixer(last=True)}


def near(result, expected, tolerance=1e-9):
    expected = np.asarray(expected)
    np.testing.assert_allclose(
        np.asarray(result), expected, rtol=0, atol=tolerance * np.abs(expected).max()
    )


@pytest.mark.parametrize(
    "target", [TARGET, "predicted", (1, 0)], ids=["classes", "predicted", "contrast"]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_full_gradients_sum_to_score(name, target):
    model, images = with_random_weights(NETWORKS[name]()), images_of()
    forward = forward_pass(model, images, target)
    pixels, biases = full_gradients(forward)
    shares = [each.flatten(1).sum(1) for each in (pixels, *biases.values())]
    near(sum(shares), forward.scores)
    assert all(share.abs().max() > 1e-3 for share in shares)  # none of them is there in vain


@torch.no_grad()
def slope(model, values, index, images, step=1e-6):
    """How the scores of `images` change with one value of a parameter or buffer."""
    scores = []
    for sign in (1, -1):
        values.view(-1)[index] += sign * step
        scores.append(model(images).gather(1, TARGET[:, None])[:, 0])
        values.view(-1)[index] -= sign * step
    return (scores[0] - scores[1]) / (2 * step)


def test_bias_terms_match_finite_differences():
    """Bias times the slope of the score; so are the outputs of BatchNorm for zeros."""
    model, images = with_random_weights(Residual()), images_of()
    _, biases = full_gradients(forward_pass(model, images, TARGET))
    assert set(biases) == {"normalize", "stem.0", "block.1", "block.3", "block.4", "last", "head"}
    for name in ("stem.0", "block.3", "head"):
        bias = model.get_submodule(name).bias.detach()
        for c in range(len(bias)):
            near(
                biases[name][:, c].reshape(2, -1).sum(1),
                bias[c] * slope(model, bias, c, images),
                1e-6,
            )
    for name in ("block.1", "block.4"):
        norm = model.get_submodule(name)
        made = norm.bias - norm.weight * norm.running_mean / (norm.running_var + norm.eps).sqrt()
        for c in range(4):
            near(
                biases[name][:, c].sum((1, 2)),
                made[c].item() * slope(model, norm.bias.detach(), c, images),
                1e-6,
            )
    for c, (mean, std) in enumerate([(0.3, 0.2), (0.6, 0.5)]):
        moved = slope(
            model, model.normalize.mean, c, images
        )  # of the mean: minus that of the bias over std
        near(biases["normalize"][:, c].sum((1, 2)), -mean / std * (-moved * std), 1e-6)


def test_pixel_term_matches_finite_differences():
    model, images = with_random_weights(Residual()), images_of()
    pixels, _ = full_gradients(forward_pass(model, images, TARGET))
    for c, row, column in [(0, 0, 0), (1, 3, 7), (0, 7, 11), (1, 5, 5)]:
        near(
            pixels[:, c, row, column],
            images[:, c, row, column] * central(model, images, c, row, column),
            1e-5,
        )


@torch.no_grad()
def central(model, images, c, row, column, step=1e-6):
    nudge = torch.zeros_like(images[0])
    nudge[c, row, column] = step
    return ((model(images + nudge) - model(images - nudge)) / (2 * step)).gather(
        1, TARGET[:, None]
    )[:, 0]


def test_implicit_bias():
    norm = with_random_weights(nn.BatchNorm2d(4))
    near(
        implicit_bias(norm),
        (norm.bias - norm.weight * norm.running_mean / (norm.running_var + 1e-5).sqrt()).detach(),
    )
    near(implicit_bias(Normalize((0.3, 0.6), (0.2, 0.5))), [-0.3 / 0.2, -0.6 / 0.5], 1e-6)
    assert implicit_bias(nn.Conv2d(2, 4, 1, bias=False)) is None


def enlarged(grid):
    rows = ((np.arange(HEIGHT) + 0.5) * grid.shape[0] / HEIGHT - 0.5).clip(0, grid.shape[0] - 1)
    columns = ((np.arange(WIDTH) + 0.5) * grid.shape[1] / WIDTH - 0.5).clip(0, grid.shape[1] - 1)
    return ndimage.map_coordinates(grid, np.meshgrid(rows, columns, indexing="ij"), order=1)


def scaled(grid):
    grid = np.abs(grid)
    return (
        np.zeros_like(grid)
        if grid.max() == grid.min()
        else (grid - grid.min()) / (grid.max() - grid.min())
    )


@pytest.mark.parametrize("batch", [1, 1000])
def test_full_grad_matches_sum_over_channels(batch, images_per_batch):
    """Of the head's biases, which have no place, nothing is on it."""
    images_per_batch(batch)
    model, images = with_random_weights(Residual()), images_of()
    forward = forward_pass(model, images, TARGET)
    pixels, biases = full_gradients(forward)
    expected = []
    for n in range(2):
        total = scaled(pixels[n].sum(0).numpy())
        for name in set(biases) - {"head"}:
            for channel in biases[name][n].numpy():
                total = total + enlarged(scaled(channel))
        expected.append(total)
    near(full_grad(forward), expected)


@pytest.mark.parametrize("name", ["tokens", "channels last"])
def test_full_grad_of_token_layers(name):
    """The grid is 4x6, row by row. Biases along the tokens, not the channels, have no map."""
    model, images = with_random_weights(NETWORKS[name]()), images_of()
    forward = forward_pass(model, images, TARGET)
    pixels, biases = full_gradients(forward)
    expected = []
    for n in range(2):
        total = scaled(pixels[n].sum(0).numpy()) + sum(
            enlarged(scaled(each)) for each in biases["patches"][n].numpy()
        )
        for channel in biases["channels"][n].reshape(4, 6, 5).permute(2, 0, 1).numpy():
            total = total + enlarged(scaled(channel))
        expected.append(total)
    near(full_grad(forward), expected)


def test_full_grad_without_biases():
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 3, False),
    )
    forward = forward_pass(with_random_weights(model), images_of(), TARGET)
    pixels, biases = full_gradients(forward)
    assert not biases
    near(pixels.sum((1, 2, 3)), forward.scores)
    near(full_grad(forward), [scaled(each.sum(0).numpy()) for each in pixels])


def test_full_grad_of_constant_score_is_zero():
    model = with_random_weights(Residual())
    model.head.weight.data.zero_()
    assert (full_grad(forward_pass(model, images_of(), TARGET)) == 0).all()


def test_full_grad_leaves_model_unchanged():
    model, images = with_random_weights(Residual()), images_of()
    forward = forward_pass(model, images, TARGET)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    full_grad(forward)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(not module._forward_hooks for module in model.modules())
    assert all(
        parameter.requires_grad and parameter.grad is None for parameter in model.parameters()
    )
