"""LeGrad against one backward pass for each block, written out."""

import numpy as np
import pytest
import torch
from tiny_transformer import (
    GRID,
    POOLINGS,
    TARGET,
    TinyTransformer,
    class_token,
    images_of,
    mean_of_all,
    saving,
)
from torch import nn
from torch.nn import functional as F

from seewhy.attribution.explanation import explain
from seewhy.attribution.legrad import le_grad
from seewhy.attribution.target import forward_pass
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier


def written_out(model):
    """Maps (N, 4, 4): the gradient of the score of each block at its attention."""
    clone = TinyTransformer(saving, model.pool)
    clone.load_state_dict(model.state_dict())
    outputs = []
    for block in clone.blocks:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    clone(images_of())
    total = 0
    for block, tokens in zip(clone.blocks, outputs, strict=True):
        score = clone.read(tokens).gather(1, TARGET[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, block.saved, retain_graph=True)
        total = total + np.maximum(gradient.numpy(), 0).mean((1, 2)) / 3
    maps = total[:, clone.prefix :].reshape(-1, *GRID)
    return maps - maps.min((1, 2), keepdims=True)


@pytest.mark.parametrize("pool", POOLINGS)
def test_maps_are_gradients_of_each_block(pool):
    model = TinyTransformer(pool=pool)
    logits = model(images_of()).detach()
    maps = le_grad(forward_pass(model, images_of(), TARGET)).numpy()
    np.testing.assert_allclose(maps, written_out(model), rtol=1e-9, atol=1e-12)
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())
    assert torch.equal(model(images_of()), logits)


def test_maps_of_a_shared_block():
    """A block that runs three times is three blocks."""
    model, shared = TinyTransformer(pool=mean_of_all), TinyTransformer(pool=mean_of_all)
    for block in model.blocks:
        block.load_state_dict(model.blocks[0].state_dict())
    shared.load_state_dict(model.state_dict())
    shared.blocks = nn.Sequential(*[shared.blocks[0]] * 3).eval()
    ours, expected = (
        explain(each, images_of(), "le-grad", target=TARGET) for each in (shared, model)
    )
    torch.testing.assert_close(ours.at("pixels"), expected.at("pixels"))


def test_maps_in_batches_and_bfloat16(images_per_batch):
    model, images = TinyTransformer().float(), images_of(5).float()
    whole = explain(model, images, "le-grad", target=0).at("pixels")
    rounded = explain(Classifier(model, precision="bf16"), images, "le-grad", target=0)
    torch.testing.assert_close(rounded.at("pixels"), whole, atol=0.1 * whole.max().item(), rtol=0)
    images_per_batch(2)
    parts = explain(TinyTransformer().float(), images, "le-grad", target=0).at("pixels")
    torch.testing.assert_close(parts, whole)


class Finder(nn.Module):
    """Blocks that move bright patches into the class token, which is evidence for class 1."""

    class Block(nn.Module):
        def forward(self, tokens):
            heads = tokens[:, None]
            return (
                tokens + F.scaled_dot_product_attention(torch.zeros_like(heads), heads, heads)[:, 0]
            )

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(self.Block(), self.Block())

    def forward(self, images):
        bright = F.avg_pool2d(images, 4).flatten(2).mT  # (N, 36, 1)
        tokens = self.blocks(torch.cat([torch.zeros_like(bright[:, :1]), bright], 1))
        return torch.cat([-tokens[:, 0], tokens[:, 0]], 1)


def test_maps_point_at_the_planted_patch():
    images = 0.2 * torch.rand(2, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    images[0, :, 4:8, 16:20] += 0.7  # row 1, column 4
    images[1, :, 20:24, 0:4] += 0.7
    maps = explain(Finder().eval(), images, "le-grad", target=1).at("pixels").flatten(1)
    assert maps.argmax(1).tolist() == [1 * 6 + 4, 5 * 6 + 0]
    assert (maps.amax(1) > 2 * maps.topk(2).values[:, 1]).all()
    against = explain(Finder().eval(), images, "le-grad", target=0, warn=False)
    assert against.statuses["pixels", "le-grad"].kinds == ("all zero",) * 2


class Unlike(TinyTransformer):
    """Blocks that are no modules, an end that knows the size of the batch, or a model in float."""

    def __init__(self, kind):
        super().__init__(pool=class_token)
        self.kind = kind

    def forward(self, images):
        patches = self.layer(images).flatten(2).mT
        tokens = torch.cat([self.before[:, :1].expand(len(images), -1, -1), patches], 1)
        if self.kind == "functions":
            for _ in range(2):
                tokens = tokens + F.scaled_dot_product_attention(*[tokens[:, None]] * 3)[:, 0]
            return self.read(tokens)
        return self.read(self.blocks(tokens)) + patches.mean((1, 2)).reshape(len(images), 1)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "functions",
            "le-grad needs a module for each block .*, found 0 for 2 layers of attention",
        ),
        ("skip", r"le-grad runs the end of the model on the tokens of every block .*\(.*size of"),
    ],
)
def test_models_that_le_grad_cannot_explain(kind, message):
    with pytest.raises(SeewhyError, match=message):
        explain(Unlike(kind).double().eval(), images_of(), "le-grad")
    result = explain(
        Unlike(kind).double().eval(), images_of(), ["le-grad", "chefer-cam"], warn=False
    )
    assert set(result.maps) == {("pixels", "chefer-cam")}


def test_model_without_attention():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    with pytest.raises(SeewhyError, match="attention maps need a transformer"):
        explain(model.eval(), images_of(), "le-grad")
