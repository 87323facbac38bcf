"""SpeedNet: its whitening against numpy, its identity start, what is frozen, and every size."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.models.inference import compute_logits
from seewhy.models.registry import blank_sample, build_model
from seewhy.models.speednet import Group, whitening_filters
from seewhy.train.optimizers import SGD


def correlated_images(count, channels, side):
    """Blobs with noise, uint8: neighbors and channels depend on each other, as in photographs."""
    generator = np.random.default_rng(0)
    coarse = (
        generator.normal(size=(count, 1, side // 4, side // 4)).repeat(4, axis=2).repeat(4, axis=3)
    )
    noise = generator.normal(size=(count, channels, side, side))
    shift = np.arange(channels).reshape(1, channels, 1, 1) * 10
    images = torch.from_numpy(
        (128 + shift + 30 * coarse + 12 * noise).clip(0, 255).astype(np.uint8)
    )
    return Split(images, torch.zeros(count, dtype=torch.int64), [""] * count)


@pytest.mark.parametrize("channels", [1, 3])
def test_whitening_unit_covariance(channels):
    sample = correlated_images(300, channels, 16)
    model = build_model("speednet", 10, sample)
    filters = model.whiten.weight.detach().double().numpy().reshape(8 * channels, 4 * channels)
    pixels = sample.images.numpy().astype(np.float64) / 255
    pixels = (pixels - pixels.mean((0, 2, 3), keepdims=True)) / pixels.std((0, 2, 3), keepdims=True)
    corners = [pixels[:, :, i : i + 15, j : j + 15] for i in (0, 1) for j in (0, 1)]
    patches = (
        np.stack(corners, axis=2).transpose(0, 3, 4, 1, 2).reshape(-1, 4 * channels)
    )  # channel, row, column
    before, after = np.cov(patches.T), np.cov((patches @ filters[: 4 * channels].T).T)
    assert np.abs(before - np.eye(len(before))).max() > 0.3  # or the test would show nothing
    np.testing.assert_allclose(after, np.eye(len(after)), atol=0.01)
    np.testing.assert_array_equal(filters[4 * channels :], -filters[: 4 * channels])


def test_whitening_max_images():
    sample = correlated_images(30, 1, 8)
    normalize = build_model("speednet", 2, sample).normalize
    third = sample.take(torch.arange(0, 30, 3))
    torch.testing.assert_close(
        whitening_filters(sample, normalize, max_images=10), whitening_filters(third, normalize)
    )


@pytest.mark.sampled(3)
@pytest.mark.parametrize("pixels", [1, 13, 16 * 16, 5 * 16 * 16 + 3])
def test_whitening_in_blocks(monkeypatch, pixels):
    sample = correlated_images(40, 3, 16)
    normalize = build_model("speednet", 2, sample).normalize
    whole = whitening_filters(sample, normalize)
    held = []
    unfold = F.unfold
    monkeypatch.setattr("seewhy.models.speednet._BLOCK_PIXELS", pixels)
    monkeypatch.setattr(
        F, "unfold", lambda block, **size: held.append(block[:, 0].numel()) or unfold(block, **size)
    )
    torch.testing.assert_close(whitening_filters(sample, normalize), whole)
    assert max(held) <= max(pixels + 16, 2 * 16)  # a band shares a row with the next
    assert len(held) > 1


def test_whitening_without_variance():
    model = build_model("speednet", 10, blank_sample(3, 32, 32))
    assert model.whiten.weight.isfinite().all()
    assert model.whiten.weight.abs().max() <= 5e-4**-0.5 * 1.001


def test_speednet_frozen_parameters():
    model = build_model("speednet:depth=3", 10, blank_sample(3, 32, 32))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 9
    for norm in norms:
        assert (norm.momentum, norm.weight.requires_grad, norm.bias.requires_grad) == (
            0.4,
            False,
            True,
        )
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
    assert (model.whiten.weight.requires_grad, model.whiten.bias.requires_grad) == (False, True)
    assert model.linear.bias is None


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 10), (10, 10), (10, 4)])
def test_group_starts_as_identity(inputs, outputs):
    torch.manual_seed(0)
    group = Group(inputs, outputs, depth=2, pool=False)
    x = torch.randn(2, inputs, 6, 6)
    kept = min(inputs, outputs)
    torch.testing.assert_close(group.conv1(x)[:, :kept], x[:, :kept])
    hidden = torch.randn(2, outputs, 6, 6)
    torch.testing.assert_close(group.conv2(hidden), hidden)
    if outputs > inputs:
        assert group.conv1.weight[inputs:].abs().min() > 0


@pytest.mark.parametrize("depth", [2, 3])
def test_group_wiring(depth):
    torch.manual_seed(0)
    group = Group(5, 7, depth=depth, pool=True).eval()
    for norm in (module for module in group.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_()
    x = torch.randn(2, 5, 9, 9)
    with torch.no_grad():
        start = F.gelu(group.norm1(F.max_pool2d(F.conv2d(x, group.conv1.weight, padding=1), 2)))
        second = group.norm2(F.conv2d(start, group.conv2.weight, padding=1))
        expected = F.gelu(second)
        if depth == 3:
            expected = F.gelu(
                start + group.norm3(F.conv2d(expected, group.conv3.weight, padding=1))
            )
        torch.testing.assert_close(group(x), expected)


@pytest.mark.parametrize(
    ("text", "widths", "depth"),
    [
        ("speednet", (64, 256, 256), 2),
        ("speednet:width=0.5", (32, 128, 128), 2),
        ("speednet:width=2.0,depth=3", (128, 512, 512), 3),
    ],
)
def test_speednet_width_and_depth(text, widths, depth):
    model = build_model(text, 10, blank_sample(3, 32, 32))
    expected, inputs = 24 * 12 + 24, 24
    for outputs in widths:
        expected += 9 * inputs * outputs + (depth - 1) * 9 * outputs**2 + depth * 2 * outputs
        inputs = outputs
    assert sum(parameter.numel() for parameter in model.parameters()) == expected + inputs * 10


def test_speednet_scale():
    pixels = torch.rand(2, 3, 32, 32)
    torch.manual_seed(0)
    ninth = build_model("speednet", 10, blank_sample(3, 32, 32)).eval()
    torch.manual_seed(0)
    whole = build_model("speednet:scale=1", 10, blank_sample(3, 32, 32)).eval()
    torch.testing.assert_close(ninth(pixels) * 9, whole(pixels))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("size", "maps"),
    [
        ((32, 32), [(31, 31), (15, 15), (7, 7), (3, 3)]),
        ((28, 28), [(27, 27), (13, 13), (6, 6), (3, 3)]),
        ((8, 8), [(7, 7), (3, 3), (3, 3), (3, 3)]),
        ((2, 2), [(1, 1), (1, 1), (1, 1), (1, 1)]),
        ((16, 64), [(15, 63), (7, 31), (3, 15), (3, 15)]),
    ],
)
def test_group_map_sizes(size, maps):
    model = build_model("speednet", 10, blank_sample(3, *size))
    found = []
    for part in (model.whiten, model.group1, model.group2, model.group3):
        part.register_forward_hook(
            lambda module, inputs, output: found.append(tuple(output.shape[2:]))
        )
    model(torch.rand(2, 3, *size))
    assert found == maps


def test_speednet_needs_2x2():
    with pytest.raises(SeewhyError, match="needs at least 2x2 pixels, found 1x9"):
        build_model("speednet", 10, blank_sample(3, 1, 9))


@pytest.mark.slow
def test_speednet_learns_digits_in_bf16():
    digits = load_digits()
    images = torch.from_numpy((digits.images * 255 / 16).astype(np.uint8))[:, None]
    labels = torch.from_numpy(digits.target)
    torch.manual_seed(0)
    model = build_model(
        "speednet:width=0.125", 10, Split(images[:1200], labels[:1200], [""] * 1200)
    ).to(memory_format=torch.channels_last)
    optimizer = SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.2, momentum=0.9, nesterov=True
    )
    for _ in range(4):
        for batch in torch.randperm(1200).split(50):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                predicted = model(images[batch] / 255)
            loss = F.cross_entropy(predicted.float(), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    correct = compute_logits(model, images[1200:]).argmax(1) == labels[1200:]
    assert correct.float().mean() > 0.93
