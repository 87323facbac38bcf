"""Recorded attention: the same logits, and what the score reads."""

import pytest
import torch
from tiny_transformer import (
    ATTENTIONS,
    GRID,
    POOLINGS,
    TARGET,
    TinyTransformer,
    by_hand,
    class_token,
    images_of,
    mean_of_all,
)
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode
from torch.utils.checkpoint import checkpoint

from seewhy.attribution.attention import NO_ATTENTION, record_attention
from seewhy.attribution.capture import Attention, capture_batch
from seewhy.attribution.explanation import explain
from seewhy.attribution.target import prepare
from seewhy.errors import SeewhyError

METHODS = ["attention-rollout", "chefer-cam"]


def captured(model, images=None, target=TARGET):
    images = images_of() if images is None else images
    return capture_batch(prepare(model, images, target), [], Attention.GRADIENTS).attention


def close(ours, theirs, **tolerance):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_equals_that_kept_by_the_model(name):
    model = TinyTransformer(ATTENTIONS[name])
    attention, (logits, probabilities, gradients) = captured(model), by_hand(model)
    torch.testing.assert_close(attention.forward.logits, logits)
    torch.testing.assert_close(attention.forward.logits, model(images_of()).detach())
    close(attention.probabilities, probabilities)
    close(attention.gradients, gradients)
    assert (attention.layout.form, attention.layout.grid, attention.layout.prefix) == (
        "NLC",
        GRID,
        1,
    )


def mask_of(kind):
    mask = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    return mask > 0.4 if kind == "bool" else mask.double()


def hidden():
    """A mask with which the second query sees no key."""
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[1] = False
    return mask


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scale": 0.7},
        {"is_causal": True},
        {"attn_mask": mask_of("bool")},
        {"attn_mask": mask_of("float")},
        {"attn_mask": hidden()},
        {"attn_mask": hidden().double().log()},
        {"enable_gqa": True},
        {"dropout_p": 1.0},
    ],
    ids=["plain", "scale", "causal", "bool", "float", "hidden", "infinite", "gqa", "dropout"],
)
def test_written_out_attention_equals_that_of_torch(settings):
    generator = torch.Generator().manual_seed(0)
    few = 2 if "enable_gqa" in settings else 6
    tensors = [
        torch.randn(2, heads, length, 3, dtype=torch.float64, generator=generator)
        for heads, length in ((6, 4), (few, 5), (few, 5))
    ]
    ours, theirs = ([each.clone().requires_grad_() for each in tensors] for _ in range(2))
    with record_attention() as recorded:
        output = F.scaled_dot_product_attention(*ours, **settings)
    expected = F.scaled_dot_product_attention(*theirs, **settings)
    torch.testing.assert_close(output, expected)
    assert [each.shape for each in recorded] == [(2, 6, 4, 5)]
    close(
        torch.autograd.grad(output.square().sum(), ours),
        torch.autograd.grad(expected.square().sum(), theirs),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_in_half_precision(dtype):
    generator = torch.Generator().manual_seed(0)
    tensors = [(9 * torch.randn(2, 2, 8, 4, generator=generator)).to(dtype) for _ in range(3)]
    with record_attention() as recorded:
        output = F.scaled_dot_product_attention(*tensors)
    assert (output.dtype, recorded[0].dtype) == (dtype, torch.float32)
    expected = F.scaled_dot_product_attention(*(each.double() for each in tensors))
    torch.testing.assert_close(output.double(), expected, atol=0.2, rtol=0.02)
    with record_attention() as recorded, torch.autocast("cpu", torch.bfloat16):
        output = F.scaled_dot_product_attention(*(each.float() for each in tensors))
    assert (output.dtype, recorded[0].dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("pool", POOLINGS)
def test_readout_is_what_the_score_reads(pool):
    prefix, read = POOLINGS[pool]
    attention = captured(TinyTransformer(pool=pool))
    assert (attention.layout.prefix, attention.layout.grid) == (prefix, GRID)
    expected = torch.zeros(3, 16 + prefix, dtype=torch.float64)
    expected[:, read] = 1 / len(read)
    torch.testing.assert_close(attention.readout, expected)


@pytest.mark.parametrize("pool", [class_token, mean_of_all])
def test_readout_without_gradient(pool):
    """With a head of zeros the score reads nothing: the class token, or all tokens, are taken."""
    model = TinyTransformer(pool=pool)
    expected = captured(model).readout
    nn.init.zeros_(model.head.weight)
    torch.testing.assert_close(captured(model).readout, expected)


class Windows(nn.Module):
    """Attention within halves of the image, or of all tokens to a few, before one to all."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.embed, self.head = kind, nn.Conv2d(2, 4, 4, 4), nn.Linear(4, 3)

    def forward(self, images):
        tokens = self.embed(images).flatten(2).mT[:, None]  # (N, 1, 16, 4)
        if self.kind == "windows":
            halves = tokens.reshape(-1, 1, 8, 4)
            tokens = F.scaled_dot_product_attention(halves, halves, halves).view_as(tokens)
        elif self.kind == "pooled":
            few = tokens[:, :, ::4]
            tokens = (tokens @ few.mT).softmax(-1) @ few
        elif self.kind == "channels":
            tokens = tokens @ (tokens.mT @ tokens).softmax(-1)
        return self.head(F.scaled_dot_product_attention(tokens, tokens, tokens).mean((1, 2)))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("windows", "6x1x8x8, 3x1x16x16"),
        ("pooled", "3x1x16x4, 3x1x16x16"),
        ("channels", "3x1x4x4, 3x1x16x16"),
    ],
)
def test_other_attention_than_between_all_tokens(kind, shape):
    model = Windows(kind).double().eval()
    with pytest.raises(SeewhyError, match=f"this model has attention of {shape} for 3 images, as"):
        explain(model, images_of(), METHODS)
    assert explain(Windows("").double().eval(), images_of(), METHODS, warn=False).failures == {}


def test_model_without_attention():
    """A CNN: no maps, one line; other methods are not affected."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1)
    )
    model.double().eval()
    with pytest.raises(SeewhyError) as raised:
        explain(model, images_of(), METHODS)
    assert str(raised.value) == NO_ATTENTION
    result = explain(model, images_of(), [*METHODS, "grad-cam"], "1", warn=False)
    assert set(result.maps) == {("1", "grad-cam")}
    assert result.failures == dict.fromkeys([("pixels", each) for each in METHODS], NO_ATTENTION)
    assert result.warnings[0].startswith("attention-rollout failed: attention maps need a trans")


@pytest.mark.slow
def test_attention_of_checkpointed_model():
    """It forgets its blocks, and runs them again on the way back."""
    model, checkpointed = TinyTransformer(), TinyTransformer()
    blocks = checkpointed.blocks
    checkpointed.blocks.forward = lambda tokens: checkpoint(
        lambda each: nn.Sequential.forward(blocks, each), tokens, use_reentrant=False
    )
    ours, expected = captured(checkpointed), captured(model)
    close(ours.probabilities, expected.probabilities)
    close(ours.gradients, expected.gradients)


@pytest.mark.parametrize("fails", [False, True])
def test_explain_leaves_no_mode_and_hooks(fails):
    model = TinyTransformer()
    logits = model(images_of())
    if fails:
        model.head = nn.Linear(9, 3).double()
        with pytest.raises(SeewhyError, match="cannot take images"):
            explain(model.eval(), images_of(), METHODS)
    else:
        explain(model, images_of(), METHODS)
        assert torch.equal(model(images_of()), logits)
    assert _get_current_function_mode() is None
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
