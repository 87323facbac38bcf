"""Attention maps against products of whole matrices in NumPy, and on a planted patch."""

import copy

import numpy as np
import pytest
import torch
from tiny_transformer import GRID, POOLINGS, TARGET, TinyTransformer, by_hand, images_of
from torch import nn
from torch.nn import functional as F

from seewhy.attribution.capture import Attention, capture_batch
from seewhy.attribution.explanation import explain
from seewhy.attribution.rollout import ATTENTION_MAPS
from seewhy.attribution.scores import trust
from seewhy.attribution.target import prepare
from seewhy.models.classifier import Classifier
from seewhy.models.registry import blank_sample, build_model

METHODS = list(ATTENTION_MAPS)


def products(model, name):
    """Maps (N, 4, 4), by products of the matrices of all layers."""
    _, probabilities, gradients = by_hand(model)
    prefix, read = POOLINGS[model.pool]
    maps = []
    for n in range(3):
        whole = np.eye(16 + prefix)
        for layer, gradient in zip(probabilities, gradients, strict=True):
            attention = layer[n].numpy()
            if name == "attention-rollout":
                step = 0.5 * attention.mean(0) + 0.5 * np.eye(len(whole))
            else:
                step = np.eye(len(whole)) + np.maximum(gradient[n].numpy() * attention, 0).mean(0)
            whole = step @ whole
        if name == "chefer-cam":
            whole -= np.eye(len(whole))
        row = whole[read].mean(0)[prefix:].reshape(GRID)
        maps.append(row - row.min() if name == "attention-rollout" else row)
    return np.stack(maps)


@pytest.mark.parametrize("pool", POOLINGS)
@pytest.mark.parametrize("name", METHODS)
def test_maps_are_rows_of_products(name, pool):
    model = TinyTransformer(pool=pool)
    result = explain(model, images_of(), name, target=TARGET, warn=False)
    np.testing.assert_allclose(result.at("pixels"), products(model, name), rtol=1e-5, atol=1e-8)
    assert result.statuses["pixels", name].kinds == ("ok",) * 3


def test_one_pass_for_all_methods_and_layers():
    """Attention maps and CAMs of one forward pass are those of each method alone."""
    model, runs = TinyTransformer(), []
    explain(model, images_of(), "grad-cam", "blocks.1", TARGET)  # finds the batch size
    model.layer.register_forward_hook(lambda module, inputs, output: runs.append(len(output)))
    methods = [*METHODS, "grad-cam", "layer-cam"]
    together = explain(model, images_of(), methods, ["blocks.0", "blocks.1"], TARGET, warn=False)
    assert runs == [3]
    assert len(together.maps) == 6
    for layer, method in together.maps:
        at = "blocks.0" if layer == "pixels" else layer
        alone = explain(model, images_of(), method, at, TARGET, warn=False)
        torch.testing.assert_close(together.maps[layer, method], alone.maps[layer, method])


def test_maps_of_vit():
    """Attention maps need no registration of a model: that of seewhy pools all of its tokens."""
    sample = blank_sample(3, 16, 24)
    model = build_model("vit:width=16,depth=2,heads=2", 3, sample).eval()
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    result = explain(model, images, [*METHODS, "le-grad", "grad-cam"])
    assert {result.at("pixels", name).shape for name in (*METHODS, "le-grad")} == {(2, 4, 6)}
    shared = capture_batch(prepare(model, images), [], Attention.GRADIENTS)
    torch.testing.assert_close(shared.attention.readout, torch.full((2, 24), 1 / 24))


@pytest.mark.parametrize("smooth", ["none", "flip"])
def test_maps_in_batches(images_per_batch, smooth):
    model, images = TinyTransformer(), images_of(5)
    whole = explain(model, images, METHODS, smooth=smooth)
    images_per_batch(2)
    parts = explain(TinyTransformer(), images, METHODS, smooth=smooth)
    for key, maps in whole.maps.items():
        torch.testing.assert_close(parts.maps[key], maps)


class Finder(nn.Module):
    """Attends to bright patches, and adds their brightness to the class token, for class 1."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(1, 1, 4, 4)
        self.other = nn.Parameter(
            torch.tensor([[[0.0, 1.0]]])
        )  # the class token: (value, is class)

    def forward(self, images):
        bright = F.avg_pool2d(images, 4).flatten(2).mT  # (N, 36, 1)
        tokens = torch.cat([bright, torch.zeros_like(bright)], 2)
        tokens = torch.cat([self.other.expand(len(images), -1, -1), tokens], 1)[:, None]
        for _ in range(2):
            value = tokens * torch.tensor([1.0, 0.0])
            query = torch.ones_like(tokens) * 6
            tokens = tokens + F.scaled_dot_product_attention(query, value, value)
        evidence = tokens[:, 0, 0, 0]
        return torch.stack([-evidence, evidence], 1)


def test_maps_point_at_the_planted_patch():
    generator = torch.Generator().manual_seed(0)
    images = 0.2 * torch.rand(2, 1, 24, 24, generator=generator)
    images[0, :, 4:8, 16:20] += 0.7  # row 1, column 4
    images[1, :, 20:24, 0:4] += 0.7
    result = explain(Finder().eval(), images, METHODS, target=1)
    for name in METHODS:
        maps = result.at("pixels", name)
        assert maps.flatten(1).argmax(1).tolist() == [1 * 6 + 4, 5 * 6 + 0]
        assert (maps.flatten(1).amax(1) > 2 * maps.flatten(1).topk(2).values[:, 1]).all()
    against = explain(Finder().eval(), images, METHODS, target=0, warn=False)
    assert torch.equal(against.at("pixels", METHODS[0]), result.at("pixels", METHODS[0]))
    assert (against.at("pixels", "chefer-cam")[:, 1, 4] < 0.01).all()  # evidence against class 0


def test_maps_in_bfloat16():
    model = TinyTransformer().float()
    images = images_of().float()
    exact = explain(model, images, METHODS, target=TARGET)
    rounded = explain(Classifier(model, precision="bf16"), images, METHODS, target=TARGET)
    for name in METHODS:
        one, other = exact.at("pixels", name), rounded.at("pixels", name)
        torch.testing.assert_close(one, other, atol=0.1 * one.max().item(), rtol=0)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_maps_of_quantized_model():
    """It has no gradient; rollout needs none and takes the class token."""
    model = TinyTransformer().float()
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear})
    result = explain(quantized, images_of().float(), METHODS)
    expected = explain(model, images_of().float(), METHODS[0]).at("pixels")
    torch.testing.assert_close(result.at("pixels"), expected, atol=0.02, rtol=0)
    assert "no gradient flows from the logits to the attention" in result.warnings[0]


@pytest.mark.slow
def test_trust_measures_attention_maps_beside_cams():
    scores = trust(
        TinyTransformer().float(),
        images_of(4).float(),
        [*METHODS, "grad-cam"],
        "blocks.1",
        steps=3,
        noise_maps=2,
    )
    assert {(score.layer, score.method) for score in scores} == {
        ("pixels", "attention-rollout"),
        ("pixels", "chefer-cam"),
        ("blocks.1", "grad-cam"),
    }
    assert all(-1 <= score.gain.mean <= 1 for score in scores)


def test_own_attention_map(monkeypatch):
    """An entry of the table gets the attention of all layers, gradients included."""

    def last_layer(attention, head=0):
        assert len(attention.gradients) == len(attention.probabilities) == 3
        return attention.to_map(attention.probabilities[-1][:, head, 0])

    monkeypatch.setitem(ATTENTION_MAPS, "last-layer", last_layer)
    model = TinyTransformer()
    result = explain(model, images_of(), "last-layer:head=1", target=TARGET).at("pixels")
    expected = by_hand(model)[1][-1][:, 1, 0, 1:].reshape(3, *GRID)
    torch.testing.assert_close(result, expected.float())
