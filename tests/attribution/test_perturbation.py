"""Perturbation methods against loops over the whole model."""

import math
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seewhy.attribution import perturbation
from seewhy.attribution.capture import capture_layers
from seewhy.attribution.perturbation import ablation_cam, occlusion, rise, score_cam
from seewhy.attribution.target import forward_pass
from seewhy.errors import SeewhyError
from seewhy.models.batching import batch_size

HEIGHT, WIDTH, CLASSES = 6, 10, 3


def images_of(count=2, channels=2, height=HEIGHT, width=WIDTH, seed=0):
    return torch.rand(
        count,
        channels,
        height,
        width,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(seed),
    )


def with_random_weights(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator)
                / math.sqrt(max(1, parameter[0].numel()))
            )
    return model.double().eval()


def near(result, expected, tolerance=1e-9):
    expected = np.asarray(expected)
    np.testing.assert_allclose(
        np.asarray(result), expected, rtol=0, atol=tolerance * np.abs(expected).max()
    )


def head(channels, rows=HEIGHT, columns=WIDTH):
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(4 * rows * columns, CLASSES),
    )


def pooled(channels):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


class Chain(nn.Module):
    """The layer, and everything else behind it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.head = head(6, 3, 5)

    def forward(self, x):
        return self.head(self.layer(x))


class Viewed(Chain):
    """Flattens by hand, which no network of no images can."""

    def forward(self, x):
        x = self.head[1](self.head[0](self.layer(x)))
        return self.head[3](x.view(x.size(0), -1))


class Shortcut(nn.Module):
    """A residual block: the layer's input is added to its output."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.layer = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
        self.head = head(6)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.layer(x))


class Dense(nn.Module):
    """The layer's input is put beside its output, which cannot be broadcast."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.layer = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
        self.head = head(12)

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.cat([x, self.layer(x)], 1))


class Shared(nn.Module):
    """One ReLU for all, as in torchvision, of 4 and then 6 channels; its first output is reused."""

    def __init__(self, between=6):
        super().__init__()
        self.one, self.two = (
            nn.Conv2d(2, between, 3, padding=1),
            nn.Conv2d(between, 6, 3, padding=1),
        )
        self.layer = nn.ReLU()
        self.head = head(6 + between)

    def forward(self, x):
        first = self.layer(self.one(x))
        return self.head(torch.cat([first, self.layer(self.two(first))], 1))


class Counting(nn.Module):
    """Counts the images before the layer, and takes whatever comes out of it for theirs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        count = len(x)
        return self.head(self.layer(x).reshape(count, 6, -1).mean(2).tanh())


class Tokens(nn.Module):
    """A small transformer with a class token; its layer returns tokens."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(2, 6, 2, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, 6))
        self.layer = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
        self.attention = nn.MultiheadAttention(6, 1, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.layer(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1))
        return self.head(self.attention(tokens, tokens, tokens)[0][:, 0])


NETWORKS = {
    "chain": Chain,
    "viewed": Viewed,
    "shortcut": Shortcut,
    "dense": Dense,
    "shared": Shared,
    "shared narrow": lambda: Shared(4),
    "counting": Counting,
    "tokens": Tokens,
}


@torch.no_grad()
def score_without(model, image, score, channel):
    """The score of the whole network if the layer's last output lacks a channel."""
    runs = []

    def note(*_):
        runs.append(None)

    def zero(module, inputs, output):
        runs.pop()
        if not runs:
            output = output.clone()
            if output.ndim == 4:
                output[:, channel] = 0
            else:
                output[:, 1:, channel] = 0  # the class token is no place
        return output

    for hook in (note, zero):
        handle = model.layer.register_forward_hook(hook)
        value = score(model(image[None])[0])
        handle.remove()
    return value


@pytest.mark.sampled(3)
@pytest.mark.parametrize("batch", [1, 1000])
@pytest.mark.parametrize("name", NETWORKS)
def test_ablation_cam_matches_whole_model(name, batch, images_per_batch):
    images_per_batch(batch)
    model, images, target = (
        with_random_weights(NETWORKS[name]()),
        images_of(3),
        torch.tensor([0, 1, 2]),
    )
    result = capture_layers(model, images, "layer", target)["layer"]
    scores = model(images).detach().gather(1, target[:, None])[:, 0]
    assert (scores < 0).any()  # such a map is not upside down
    for n, (image, score, maps) in enumerate(
        zip(images, scores, ablation_cam(result), strict=True)
    ):
        lost = [
            score - score_without(model, image, lambda logits, n=n: logits[target[n]], k)
            for k in range(6)
        ]
        near(
            maps,
            sum(
                weight / abs(score) * each
                for weight, each in zip(lost, result.activation[n], strict=True)
            ),
        )


def test_ablation_cam_of_pair():
    model, images = with_random_weights(Chain()), images_of(1)
    result = capture_layers(model, images, "layer", (2, 0))["layer"]
    logits = model(images)[0].detach()
    whole = logits[2] - logits[0]
    lost = [
        whole - score_without(model, images[0], lambda logits: logits[2] - logits[0], k)
        for k in range(6)
    ]
    near(
        ablation_cam(result)[0],
        sum(
            weight / abs(whole) * each
            for weight, each in zip(lost, result.activation[0], strict=True)
        ),
    )


def test_ablation_cam_skips_zero_channels():
    model, images = with_random_weights(Chain()), images_of(1)
    model.layer[0].bias.data[[1, 4]] = -100
    result = capture_layers(model, images, "layer")["layer"]
    tried = []
    batch_size(model, images)  # takes a pass, the first time
    with torch.no_grad():
        handle = model.head.register_forward_hook(
            lambda module, inputs, output: tried.append(len(output))
        )
        ablation_cam(result)
        handle.remove()
    assert sum(tried) == 4 + 1  # one more finds out how often the layer runs
    assert not result.activation[:, [1, 4]].any()


@pytest.mark.parametrize(
    ("name", "below", "above"), [("chain", 1, 6), ("shortcut", 3, 6), ("dense", 9, 6)]
)
def test_ablation_cam_runs_lower_part_once(name, below, above, images_per_batch):
    """Activations of the chain go at once, those of image size by twos, with others by ones.

    There the attempts to do better end before the head: three of them, one for each two channels.
    """
    images_per_batch(1)
    model = with_random_weights(NETWORKS[name]())
    model.layer[0].bias.data.fill_(10)  # no channel is zero
    result, started, ended = capture_layers(model, images_of(1), "layer")["layer"], [], []
    batch_size(model, images_of(1))  # takes a pass, the first time
    model.register_forward_pre_hook(lambda module, inputs: started.append(len(inputs[0])))
    model.head.register_forward_hook(lambda module, inputs, output: ended.append(len(output)))
    ablation_cam(result)
    assert (sum(started) - 1, sum(ended) - 1) == (below, above)


@pytest.mark.parametrize("name", ["chain", "viewed", "shortcut", "dense"])
@pytest.mark.parametrize("method", [ablation_cam, score_cam])
def test_dead_layer_has_zero_map(method, name):
    model = with_random_weights(NETWORKS[name]())
    model.layer[0].bias.data.fill_(-100)
    maps = method(capture_layers(model, images_of(), "layer")["layer"])
    assert (maps == 0).all()


def test_ablation_cam_of_zero_score_is_finite():
    model = with_random_weights(Chain())
    model.head[3].weight.data.zero_()
    model.head[3].bias.data.zero_()
    assert (ablation_cam(capture_layers(model, images_of(), "layer")["layer"]) == 0).all()


@pytest.mark.parametrize("batch", [3, 1000])
@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_score_cam_matches_algorithm(bilinear, baseline, batch, images_per_batch):
    """Channel by channel; of two constant ones, one is empty and one shows the baseline."""
    images_per_batch(batch)
    model, images, target = with_random_weights(Chain()), images_of(3), torch.tensor([0, 1, 2])
    with torch.no_grad():
        model.layer[0].weight[[1, 4]] = 0
        model.layer[0].bias[[1, 4]] = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    result = capture_layers(model, images, "layer", target)["layer"]
    expected = []
    for n, image in enumerate(images.numpy()):

        @torch.no_grad()
        def score(pixels, n=n):
            return float(model(torch.from_numpy(pixels)[None])[0, target[n]])

        activation = result.activation[n].numpy()
        rises = []
        for channel in activation:
            mask = bilinear(channel, (HEIGHT, WIDTH))
            flat = mask.max() == mask.min()
            mask = np.zeros_like(mask) if flat else (mask - mask.min()) / (mask.max() - mask.min())
            rises.append(
                score(mask * image + (1 - mask) * baseline) - score(np.full_like(image, baseline))
            )
        weights = np.exp(rises) / np.exp(rises).sum()
        expected.append(
            sum(weight * channel for weight, channel in zip(weights, activation, strict=True))
        )
    near(score_cam(result, baseline=baseline), expected)


def test_score_cam_of_layer_finer_than_image():
    """A channel whose variation vanishes in the image's size shows the baseline."""
    model = with_random_weights(
        nn.Sequential(OrderedDict(layer=nn.Upsample(scale_factor=4), head=pooled(2)))
    )
    result = capture_layers(model, images_of(1), "layer", 1)["layer"]
    activation = torch.ones_like(result.activation)
    activation[0, 0, 9, 9] += 2e-16
    assert activation[0, 0].max() > 1
    near(score_cam(replace(result, activation=activation)), torch.ones(1, 4 * HEIGHT, 4 * WIDTH))


# RISE in closed form. Along a side, a mask's value is w and 1 - w of two neighboring cells.


def cells_of(length, grid):
    """(shifts, length, cells): weight of each cell at each position, for each shift."""
    cell = math.ceil(length / grid)
    positions = ((np.arange((grid + 1) * cell) + 0.5) / cell - 0.5).clip(0, grid)
    below = np.floor(positions).astype(int).clip(max=grid - 1)
    counts = np.zeros((len(positions), grid + 1))
    counts[np.arange(len(positions)), below] = 1 - (positions - below)
    counts[np.arange(len(positions)), below + 1] = positions - below
    return np.stack([counts[shift : shift + length] for shift in range(cell)])


def expected_products(length, grid, position):
    """Mean over shifts of the cells' summed products of weights at two positions."""
    counts = cells_of(length, grid)
    return (counts * counts[:, position : position + 1]).sum(2).mean(0)


class Watching(nn.Module):
    """The probability of class 0 is 0.2 and 0.6 times the value of one pixel."""

    def __init__(self, row, column):
        super().__init__()
        self.position = row, column

    def forward(self, x):
        probability = 0.2 + 0.6 * x[:, 0, *self.position]
        return torch.stack([probability, 1 - probability], 1).log()


@pytest.mark.parametrize(("size", "grid", "keep"), [((12, 15), 3, 0.5), ((8, 8), 7, 0.3)])
def test_rise_matches_expectation(size, grid, keep):
    """E[p M] / E[M], where E[M M'] is keep^2 + keep (1 - keep) times the shared weight."""
    position, masks = (5, 4), 5000
    forward = forward_pass(
        Watching(*position).eval(), torch.ones(1, 1, *size, dtype=torch.float64), 0
    )
    shared = np.outer(
        *(expected_products(length, grid, at) for length, at in zip(size, position, strict=True))
    )
    expected = 0.2 + 0.6 * (keep + (1 - keep) * shared)
    maps = rise(forward, masks=masks, grid=grid, keep=keep)[0].numpy()
    deviation = 1 / math.sqrt(masks) / keep * 0.5
    assert expected.max() - expected.min() > 6 * deviation
    np.testing.assert_allclose(maps, expected, atol=4 * deviation)
    assert np.unravel_index(maps.argmax(), size) == position


def test_rise_of_constant_model_is_even():
    """As often shown at the edges as in the middle."""
    forward = forward_pass(Watching(0, 0).eval(), torch.zeros(1, 1, 14, 9, dtype=torch.float64), 0)
    maps = rise(forward, masks=5000, grid=4, keep=0.4)
    near(maps, torch.full_like(maps, 0.2), 0.06)


def test_rise_of_pair_and_of_batch():
    model, images = with_random_weights(Chain()), images_of(3)
    one, other, contrast = (
        rise(forward_pass(model, images, target), masks=600) for target in (2, 0, (2, 0))
    )
    near(contrast, one - other)
    near(rise(forward_pass(model, images[1:2], 2), masks=600), one[1:2])
    assert not torch.equal(rise(forward_pass(model, images, 2), masks=600, seed=1), one)


@pytest.mark.parametrize("settings", [{"masks": 0}, {"grid": 0}, {"keep": 0.0}, {"keep": 1.0}])
def test_rise_errors(settings):
    with pytest.raises(
        SeewhyError, match="rise needs masks and grid of at least 1 and 0 < keep < 1, found masks="
    ):
        rise(forward_pass(with_random_weights(Chain()), images_of(1)), **settings)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("batch", [3, 1000])
@pytest.mark.parametrize(
    ("size", "stride", "baseline"),
    [(2, 2, 0.5), (3, 2, 0.0), (4, 3, 0.8), (5, 4, 0.5), (1, 1, 0.5)],
)
def test_occlusion_matches_squares(size, stride, baseline, batch, images_per_batch):
    """Also where the squares do not fit: the last one ends with the image."""
    images_per_batch(batch)
    model, images, target = with_random_weights(Chain()), images_of(3), torch.tensor([0, 1, 2])
    expected = np.zeros((3, HEIGHT, WIDTH))
    for n, image in enumerate(images):
        covered = np.zeros((HEIGHT, WIDTH))
        for top in sorted({*range(0, HEIGHT - size + 1, stride), HEIGHT - size}):
            for left in sorted({*range(0, WIDTH - size + 1, stride), WIDTH - size}):
                hidden = image.clone()
                hidden[:, top : top + size, left : left + size] = baseline
                with torch.no_grad():
                    fall = model(torch.stack([image, hidden]))[:, target[n]].tolist()
                expected[n, top : top + size, left : left + size] += fall[0] - fall[1]
                covered[top : top + size, left : left + size] += 1
        expected[n] /= covered
    near(
        occlusion(forward_pass(model, images, target), size=size, stride=stride, baseline=baseline),
        expected,
    )


def test_occlusion_default_size():
    forward = forward_pass(
        with_random_weights(nn.Sequential(nn.Flatten(), nn.Linear(2 * 16 * 20, 3))),
        images_of(1, 2, 16, 20),
    )
    near(occlusion(forward), occlusion(forward, size=4, stride=2))
    small = forward_pass(
        with_random_weights(nn.Sequential(nn.Flatten(), nn.Linear(2 * 2 * 3, 3))),
        images_of(1, 2, 2, 3),
    )
    near(occlusion(small), occlusion(small, size=1, stride=1))


@pytest.mark.parametrize(("size", "stride"), [(7, 1), (-1, 1), (2, 3), (2, -1)])
def test_occlusion_errors(size, stride):
    message = (
        f"6x10 needs 1 <= size <= 6 and 1 <= stride <= size, found size={size} and stride={stride}"
    )
    with pytest.raises(SeewhyError, match=message):
        occlusion(
            forward_pass(with_random_weights(Chain()), images_of(1)), size=size, stride=stride
        )


@pytest.mark.parametrize("baseline", [-0.1, 1.5, math.nan])
def test_baseline_errors(baseline):
    model, images = with_random_weights(Chain()), images_of(1)
    with pytest.raises(SeewhyError, match="baseline must be a pixel value from 0 to 1, found"):
        occlusion(forward_pass(model, images), baseline=baseline)
    with pytest.raises(SeewhyError, match="baseline must be a pixel value from 0 to 1, found"):
        score_cam(capture_layers(model, images, "layer")["layer"], baseline=baseline)


def test_rise_masks_in_batches(monkeypatch):
    """So that memory has an end; the parts are weighted as the whole."""
    forward = forward_pass(Watching(3, 3).eval(), torch.ones(1, 1, 8, 8, dtype=torch.float64), 0)
    monkeypatch.setattr(perturbation, "_RISE_BATCH", 2000)
    maps = rise(forward, masks=5000, grid=2)
    assert F.max_pool2d(maps, 8).item() == maps[0, 3, 3]
    shared = np.outer(expected_products(8, 2, 3), expected_products(8, 2, 3))
    near(maps[0], 0.2 + 0.6 * (0.5 + 0.5 * shared), 0.06)
