"""The small vision transformer against a forward pass written out in numpy, and its settings."""

import math

import numpy as np
import pytest
import torch

from seewhy.errors import SeewhyError
from seewhy.models.registry import blank_sample, build_model
from seewhy.models.vit import sincos_positions


def built(text="vit:width=16,depth=2,heads=2", side=32, channels=3, num_classes=5):
    torch.manual_seed(0)
    return build_model(text, num_classes, blank_sample(channels, side, side)).eval()


def test_vit_has_the_parameters_of_its_parts():
    model = built("vit:width=16,depth=2,heads=2")
    stem = 3 * 8 * 9 + 2 * 8 + 8 * 16 * 9 + 16
    block = 2 * 2 * 16 + (16 * 48 + 48) + (16 * 16 + 16) + (16 * 64 + 64) + (64 * 16 + 16)
    head = 2 * 16 + 16 * 5 + 5
    assert sum(parameter.numel() for parameter in model.parameters()) == stem + 2 * block + head


def test_vit_block_is_attention_and_perceptron_by_hand():
    model = built().double()
    block, tokens = model.blocks[0], torch.randn(1, 6, 16, dtype=torch.float64)
    weights = {name: value.detach().numpy() for name, value in block.state_dict().items()}

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    x = tokens[0].numpy()
    qkv, mixed = linear(norm(x, "norm1"), "attn.qkv"), []
    for head in range(2):  # the second half of each third belongs to the second head
        query, key, value = (qkv[:, 16 * i + 8 * head : 16 * i + 8 * head + 8] for i in range(3))
        scores = np.exp(query @ key.T / math.sqrt(8))
        mixed.append(scores / scores.sum(1, keepdims=True) @ value)
    x = x + linear(np.concatenate(mixed, axis=1), "attn.proj")
    hidden = linear(norm(x, "norm2"), "mlp.0")
    erf = np.vectorize(math.erf)(hidden / math.sqrt(2))
    expected = x + linear(hidden * (1 + erf) / 2, "mlp.2")
    with torch.no_grad():
        np.testing.assert_allclose(block(tokens)[0].numpy(), expected, atol=1e-10)


def test_vit_positions_are_sines_and_cosines_of_row_and_column():
    positions = sincos_positions(2, 3, 8).numpy()
    assert positions.shape == (6, 8)
    for token in range(6):
        row, column = divmod(token, 3)
        angles = [column, column * 1e-4, row, row * 1e-4]
        sines, cosines = np.sin(angles), np.cos(angles)
        expected = [*sines[:2], *cosines[:2], *sines[2:], *cosines[2:]]
        np.testing.assert_allclose(positions[token], expected, atol=1e-6)


def test_vit_sees_where_things_are():
    model, image = built(), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert not torch.allclose(model(image), model(image.flip(3)), atol=1e-5)


@pytest.mark.parametrize(
    ("side", "patch", "tokens"), [(32, 4, 64), (24, 4, 36), (8, 4, 4), (30, 8, 16), (8, 2, 16)]
)
def test_vit_takes_images_of_other_sizes(side, patch, tokens):
    model = built(f"vit:patch={patch},width=16,depth=1", side)
    seen = []
    model.blocks[0].register_forward_hook(lambda *call: seen.append(call[2].shape))
    with torch.no_grad():
        assert model(torch.rand(2, 3, side, side)).shape == (2, 5)
    assert seen == [(2, tokens, 16)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vit:patch=6", "vit: patch must be 2, 4, 8, or another power of 2, found 6"),
        ("vit:patch=32", "at least 2x2 patches of 32 pixels, found images of 32x32"),
        ("vit:width=10", "multiple of 4 and of heads, found width 10 and 4 heads"),
        ("vit:width=8,heads=0", "multiple of 4 and of heads"),
        ("vit:depth=0", "vit: depth must be at least 1 block, found 0"),
        ("vit:dropout=1", "vit: dropout must be"),
    ],
)
def test_vit_refuses_settings_in_one_line(text, message):
    with pytest.raises(SeewhyError, match=message) as caught:
        built(text)
    assert "\n" not in str(caught.value)
