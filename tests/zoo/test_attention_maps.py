"""Attention maps of the libraries' transformers, from the attention that each library itself gives.

timm gives it before its dropout, torchvision to hooks of its modules, transformers as an output.
"""

from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
import transformers
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from seewhy.attribution.explanation import explain
from seewhy.errors import SeewhyError

pytestmark = pytest.mark.zoo

SIDE, METHODS = 64, ["attention-rollout", "chefer-cam", "le-grad"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": SIDE}

# Name, settings, number of tokens before the grid, and those that the score reads.
TIMM: dict[str, tuple[dict[str, object], int, slice]] = {
    "vit_tiny_patch16_224": ({}, 1, slice(0, 1)),
    "vit_tiny_patch16_224 ": ({"global_pool": "avg", "class_token": False}, 0, slice(None)),
    "vit_tiny_patch16_224  ": ({"global_pool": "avg"}, 1, slice(1, None)),
    "deit_tiny_distilled_patch16_224": ({}, 2, slice(0, 2)),
    "vit_small_patch14_reg4_dinov2": (
        {"patch_size": 16, "embed_dim": 64, "num_heads": 2},
        5,
        slice(0, 1),
    ),
    "beit_base_patch16_224": ({"embed_dim": 64, "num_heads": 2}, 1, slice(1, None)),
    "eva02_tiny_patch14_224": ({"patch_size": 16}, 1, slice(1, None)),
}
TRANSFORMERS: dict[str, tuple[int, slice | list[int]]] = {
    "ViT": (1, slice(0, 1)),
    "DeiT": (2, slice(0, 1)),
    "Dinov2": (1, slice(None)),
    "Dinov2WithRegisters": (5, [0, *range(5, 21)]),  # not the registers
    "CLIP": (1, slice(1, None)),
}


def images() -> Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def matrices(
    kept: list[Tensor], prefix: int, read: slice | list[int], name: str
) -> np.ndarray:  # (N, h, w)
    """Maps by products of the matrices of all layers, whose gradients are kept."""
    maps = []
    for n in range(2):
        tokens = kept[0].shape[-1]
        whole = eye = np.eye(tokens)
        for layer in kept:
            attention, gradient = layer[n].detach().numpy(), layer.grad
            assert gradient is not None
            if name == "chefer-cam":
                step = eye + np.maximum(gradient[n].numpy() * attention, 0).mean(0)
            else:
                step = 0.5 * eye + 0.5 * attention.mean(0)
            whole = step @ whole
        whole = whole - eye if name == "chefer-cam" else whole
        row = whole[read].mean(0)[prefix:]
        row = row if name == "chefer-cam" else row - row.min()
        maps.append(row.reshape(4, 4))
    return np.stack(maps)


def check(
    model: nn.Module,
    run: Callable[[Tensor], tuple[Tensor, list[Tensor]]],
    prefix: int,
    read: slice | list[int],
) -> None:
    """`run` returns the logits and the attention of all layers, in a graph."""
    with torch.no_grad():
        logits = model(images())
    result = explain(model, images(), METHODS, target=1, warn=False)
    torch.testing.assert_close(result.logits, logits, rtol=1e-4, atol=1e-5)
    theirs, kept = run(images())
    torch.testing.assert_close(theirs, logits, rtol=1e-4, atol=1e-5)
    for each in kept:
        each.retain_grad()
    theirs[:, 1].sum().backward()
    for name in METHODS[:2]:
        expected = matrices(kept, prefix, read, name)
        ours = result.at("pixels", name).numpy()
        np.testing.assert_allclose(ours, expected, rtol=2e-3, atol=2e-4 * expected.max())
    legrad = result.at("pixels", "le-grad")
    assert legrad.shape == (2, 4, 4)
    assert legrad.isfinite().all()
    assert legrad.amax((1, 2)).min() > 0


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    settings, prefix, read = TIMM[name]
    torch.manual_seed(0)
    model = timm.create_model(
        name.strip(), img_size=SIDE, depth=3, num_classes=4, **settings
    ).eval()
    randomize(model)

    def run(pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        kept: list[Tensor] = []
        for block in model.blocks:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_hook(lambda *each: kept.append(each[-1]))
        return model(pixels), kept

    check(model, run, prefix, read)


def test_torchvision() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(
        SIDE, 16, num_layers=3, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=4
    ).eval()
    randomize(model)

    def run(pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        tokens = model._process_input(pixels)
        tokens = torch.cat([model.class_token.expand(2, -1, -1), tokens], 1)
        tokens, kept = tokens + model.encoder.pos_embedding, []
        for layer in model.encoder.layers:
            attention = layer.self_attention
            parts = nn.functional.linear(
                layer.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias
            )
            query, key, value = parts.unflatten(2, (3, 2, 16)).permute(2, 0, 3, 1, 4)
            kept.append((query @ key.mT / 4).softmax(-1))
            tokens = tokens + attention.out_proj((kept[-1] @ value).transpose(1, 2).flatten(2))
            tokens = tokens + layer.mlp(layer.ln_2(tokens))
        return model.heads(model.encoder.ln(tokens)[:, 0]), kept

    check(model, run, 1, slice(0, 1))


class Logits(nn.Module):
    """The model of transformers as a module that returns logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.net(pixels).logits
        return logits


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name: str, attention: str) -> None:
    prefix, read = TRANSFORMERS[name]
    torch.manual_seed(0)
    settings = {**SMALL, "patch_size": 16}
    if name == "CLIP":
        config = transformers.CLIPConfig(
            vision_config={**settings, "intermediate_size": 64}, num_labels=4
        )
    else:
        config = getattr(transformers, f"{name}Config")(**settings, num_labels=4)
    net = getattr(transformers, f"{name}ForImageClassification")(config).eval()
    randomize(net)
    net.set_attn_implementation(attention)
    model = Logits(net).eval()

    def run(pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        net.set_attn_implementation("eager")
        output = net(pixels, output_attentions=True)
        return output.logits, list(output.attentions)

    check(model, run, prefix, read)


def randomize(model: nn.Module) -> None:
    """Weights with which attention and classes differ; some libraries begin with zeros."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "xcit_nano_12_p16_224", "pvt_v2_b0", "resnet18"]
)
def test_models_without_attention_between_all_tokens(name: str) -> None:
    model = timm.create_model(name).eval()
    expected = "no attention runs" if name == "resnet18" else "this model has attention of 1x|64x"
    with pytest.raises(SeewhyError, match=expected):
        explain(model, torch.rand(1, 3, 224, 224), "chefer-cam")
