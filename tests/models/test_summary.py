"""Counts against arithmetic, and against the published numbers."""

import gc
import re
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

from seewhy.errors import SeewhyError
from seewhy.models.registry import MODELS, blank_sample, build_model
from seewhy.models.summary import LayerSummary, ModelSummary, model_summary


def test_model_summary_of_resnet18_by_hand():
    summary = model_summary("resnet18")
    stem = 3 * 64 * 9 * 32 * 32
    stage1 = 4 * 64 * 64 * 9 * 32 * 32
    later = (
        64 * 128 * 9 * 16 * 16 + 3 * 128 * 128 * 9 * 16 * 16 + 64 * 128 * 16 * 16
    )  # each of the three stages costs the same
    norms = 2 * (64 + 4 * 64 + 5 * 128 + 5 * 256 + 5 * 512)
    assert summary.multiply_adds == stem + stage1 + 3 * later + norms + 5120 + 10
    assert round(summary.multiply_adds / 1e6, 2) == 555.43
    assert (summary.parameters, summary.trainable) == (11_173_962, 11_173_962)
    assert summary.parameters_mb == pytest.approx(11_173_962 * 4 / 1e6)
    assert summary.input_mb == pytest.approx(3 * 32 * 32 * 4 / 1e6)


@pytest.mark.slow
def test_model_summary_of_a_batch_as_published():
    summary = model_summary("resnet18", batch_size=32)
    assert f"{summary.multiply_adds / 1e9:.2f} G" == "17.77 G"
    assert f"{summary.activations_mb:.2f} MB" == "314.58 MB"
    assert f"{summary.total_mb:.2f} MB" == "359.66 MB"
    # one output of each convolution, BatchNorm, and linear layer, and its gradient
    outputs = 10 * 64 * 32**2 + 10 * 128 * 16**2 + 10 * 256 * 8**2 + 10 * 512 * 4**2 + 10
    assert summary.activations_mb == pytest.approx(32 * 2 * 4 * outputs / 1e6)
    conv = row(model_summary("resnet18"), "layer1.0.conv1")
    assert conv.multiply_adds == 37_748_736
    assert row(summary, "layer1.0.conv1").multiply_adds == 32 * 37_748_736
    with pytest.raises(SeewhyError, match="batch_size must be at least 1, found 0"):
        model_summary("resnet18", batch_size=0)


def row(summary: ModelSummary, name: str) -> LayerSummary:
    return next(layer for layer in summary.layers if layer.name == name)


def test_model_summary_rows_of_blocks():
    summary = model_summary("resnet18")
    model, block, shortcut = (row(summary, name) for name in ("(model)", "layer2.0", "layer2"))
    assert (model.depth, model.type, model.parameters, model.share) == (
        0,
        "ResNet",
        11_173_962,
        1.0,
    )
    assert model.multiply_adds == summary.multiply_adds
    assert (block.depth, block.is_block, block.type) == (2, True, "BasicBlock")
    assert (block.input_shape, block.output_shape) == ((64, 32, 32), (128, 16, 16))
    assert block.parameters == 64 * 128 * 9 + 128 * 128 * 9 + 64 * 128 + 3 * 256
    assert shortcut.parameters == block.parameters + 2 * 128 * 128 * 9 + 2 * 256
    conv = row(summary, "layer2.0.conv1")
    assert (conv.depth, conv.is_block, conv.kernel) == (3, False, (3, 3))


def test_model_summary_of_tokens():
    """A linear layer counts every token, attention all of its weights, LayerNorm its own once."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 6)
            self.norm = nn.LayerNorm(6)
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
            self.unused = nn.Linear(3, 3)

        def forward(self, x):  # (N, 1, 5, 8)
            x = self.norm(self.linear(x.flatten(1, 2)))
            return self.attention(x, x, x, need_weights=False)[0].mean(1)

    summary = model_summary(Tokens(), image_shape=(1, 5, 8))
    counts = {layer.name: layer.multiply_adds for layer in summary.layers}
    attention = 4 * (6 * 6 + 6)
    assert counts["linear"] == 5 * (8 * 6 + 6)
    assert counts["norm"] == 12
    assert counts["attention"] == 5 * attention
    assert counts["(model)"] == summary.multiply_adds == sum(list(counts.values())[1:])
    assert row(summary, "attention").parameters == attention
    assert row(summary, "(model)").parameters == summary.parameters == 54 + 12 + attention + 12


def test_model_summary_of_layers_in_a_list():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, x):
            x = x.flatten(1)
            for block in self.blocks:
                x = block(x)
            return x

    summary = model_summary(Listed(), image_shape=(1, 2, 2))
    rows = [(layer.name, layer.depth, layer.parameters) for layer in summary.layers]
    assert rows == [("(model)", 0, 40), ("blocks", 1, 40), ("blocks.0", 2, 20), ("blocks.1", 2, 20)]


def test_model_summary_of_a_small_model():
    net = nn.Sequential(
        nn.Conv2d(2, 4, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 5),
    )
    net[3].weight.requires_grad_(False)
    summary = model_summary(net, image_shape=(2, 8, 8))
    _, conv, relu, flatten, linear = summary.layers
    assert (conv.name, conv.type, conv.kernel, conv.input_shape, conv.output_shape) == (
        "0",
        "Conv2d",
        (3, 3),
        (2, 8, 8),
        (4, 4, 4),
    )
    assert (conv.parameters, conv.multiply_adds) == (76, 76 * 16)
    assert (relu.kernel, relu.parameters, relu.multiply_adds) == ((), 0, 0)
    assert flatten.output_shape == (64,)
    assert (linear.parameters, linear.multiply_adds) == (325, 325)
    assert (summary.parameters, summary.trainable) == (401, 81)
    assert sum(layer.share for layer in summary.layers[1:]) == pytest.approx(1)
    assert summary.activations_mb == pytest.approx((64 + 5) * 4 * 2 / 1e6)


def test_model_summary_of_a_layer_used_twice():
    shared = nn.Linear(4, 4)
    summary = model_summary(
        nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared), image_shape=(1, 2, 2)
    )
    assert [layer.parameters for layer in summary.layers] == [20, 0, 20, 0, 0]
    assert (summary.parameters, summary.multiply_adds) == (20, 40)


def test_model_summary_of_parameters_outside_layers():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3))
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            return self.linear(x.flatten(1)) * self.factor.sum()

    summary = model_summary(Scaled(), image_shape=(1, 2, 2))
    assert [(layer.name, layer.parameters) for layer in summary.layers] == [
        ("(model)", 13),
        ("linear", 10),
    ]
    assert summary.parameters == 13


@pytest.mark.slow
@pytest.mark.parametrize("text", ["davidnet", "resnet34", "speednet:depth=3"])
def test_model_summary_rows_add_up(text):
    summary = model_summary(text, image_shape=(1, 28, 28), num_classes=4)
    leaves = [layer for layer in summary.layers if not layer.is_block]
    assert sum(layer.parameters for layer in leaves) == summary.parameters
    assert sum(layer.multiply_adds for layer in leaves) == summary.multiply_adds
    assert summary.layers[-1].output_shape == (4,)


@pytest.mark.slow
def test_model_summary_leaves_no_trace():
    model = build_model("davidnet:dropout=0.5", 10, blank_sample(3, 8, 8)).train()
    model.layer1.eval()
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    model_summary(model, image_shape=(3, 8, 8))
    model_summary("resnet18", image_shape=(3, 8, 8))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_model_summary_on_meta():
    with torch.device("meta"):
        model = build_model("vgg16", 1000, blank_sample(3, 224, 224))
    summary = model_summary(model, image_shape=(3, 224, 224))
    assert next(model.parameters()).device.type == "meta"
    assert summary.parameters == 138_357_544


@pytest.mark.slow
def test_model_summary_keeps_no_reference():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    model_summary(model, image_shape=(1, 2, 2))
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_model_summary_of_a_wrong_shape():
    model = build_model("resnet18", 10, blank_sample(1, 8, 8))
    with pytest.raises(SeewhyError, match="ResNet cannot take an image of 3x8x8: ") as error:
        model_summary(model, image_shape=(3, 8, 8))
    assert "\n" not in str(error.value)
    with pytest.raises(SeewhyError, match="each at least 1"):
        model_summary("resnet18", image_shape=(3, 0, 8))


class Huge(nn.Module):
    """Asks for an exabyte, when it is made or when it is used."""

    def __init__(self, at_once):
        super().__init__()
        self.held = torch.empty(2**60) if at_once else None

    def forward(self, x):
        return torch.empty(2**60)


@pytest.mark.parametrize("at_once", [False, True])
def test_model_summary_out_of_memory(at_once, monkeypatch):
    monkeypatch.setitem(MODELS, "huge", lambda num_classes, sample: Huge(at_once))
    with pytest.raises(SeewhyError) as error:
        model_summary("huge", image_shape=(3, 8, 8))
    assert (
        str(error.value)
        == "huge and an image of 3x8x8 do not fit into memory; choose a smaller image or model"
    )


def test_model_summary_of_an_image_beyond_memory():
    with pytest.raises(
        SeewhyError, match="resnet18 and an image of 3x100000x100000 do not fit into memory"
    ):
        model_summary("resnet18", (3, 100_000, 100_000))


def test_model_summary_passes_on_bugs(monkeypatch):
    def broken(num_classes, sample):
        raise RuntimeError("a bug")

    monkeypatch.setitem(MODELS, "broken", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        model_summary("broken")


@pytest.mark.slow
def test_numbers_of_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    page = page.split("\n## ")[0]  # its first table
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("|")
    ]
    assert rows[0][:3] == ["name", "parameters, 10 classes", "multiply-adds at 32x32"]
    documented = {name: row[1:3] for row in rows[2:] for name in re.findall("`([^`]+)`", row[0])}
    counts = {name: numbers for name, numbers in documented.items() if any(numbers)}
    assert counts.keys() == MODELS.keys() - {"hf", "timm", "torchvision"}
    for name, numbers in counts.items():
        with torch.device("meta"):
            summary = model_summary(build_model(name, 10, blank_sample(3, 32, 32)))
        assert [f"{summary.parameters:,}", f"{summary.multiply_adds / 1e6:,.2f} M"] == numbers, name
