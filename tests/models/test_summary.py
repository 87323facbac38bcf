"""Counts against arithmetic, and text that fits."""

import gc
import weakref

import pytest
import torch
from torch import nn

from seewhy.errors import SeewhyError
from seewhy.models import blank_sample, build, format_summary, summary


def test_resnet18_by_hand():
    found = summary("resnet18")
    stem = 3 * 64 * 9 * 32 * 32
    stage1 = 4 * 64 * 64 * 9 * 32 * 32
    later = 64 * 128 * 9 * 16 * 16 + 3 * 128 * 128 * 9 * 16 * 16 + 64 * 128 * 16 * 16  # each of the three stages costs the same
    norms = 2 * (64 + 4 * 64 + 5 * 128 + 5 * 256 + 5 * 512)
    assert found.multiply_adds == stem + stage1 + 3 * later + norms + 5120 + 10
    assert round(found.multiply_adds / 1e6, 2) == 555.43
    assert (found.parameters, found.trainable) == (11_173_962, 11_173_962)
    assert found.parameters_mb == pytest.approx(11_173_962 * 4 / 1e6)
    assert found.input_mb == pytest.approx(3 * 32 * 32 * 4 / 1e6)


def test_rows_of_a_small_net():
    net = nn.Sequential(nn.Conv2d(2, 4, kernel_size=3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    net[3].weight.requires_grad_(False)
    found = summary(net, image_shape=(2, 8, 8))
    conv, relu, flatten, linear = found.layers
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
    assert (found.parameters, found.trainable) == (401, 81)
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    assert found.activations_mb == pytest.approx((64 + 5) * 4 * 2 / 1e6)


def test_a_layer_used_twice_counts_its_parameters_once_and_its_work_twice():
    shared = nn.Linear(4, 4)
    found = summary(nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared), image_shape=(1, 2, 2))
    assert [layer.parameters for layer in found.layers] == [0, 20, 0, 0]
    assert (found.parameters, found.multiply_adds) == (20, 40)


def test_parameters_outside_of_layers_have_a_row():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3))
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            return self.linear(x.flatten(1)) * self.factor.sum()

    found = summary(Scaled(), image_shape=(1, 2, 2))
    assert [(layer.name, layer.parameters) for layer in found.layers] == [("(model)", 3), ("linear", 10)]
    assert found.parameters == 13


@pytest.mark.parametrize("text", ["davidnet", "resnet34", "speednet:depth=3"])
def test_rows_add_up_to_the_totals(text):
    found = summary(text, image_shape=(1, 28, 28), num_classes=4)
    assert sum(layer.parameters for layer in found.layers) == found.parameters
    assert sum(layer.multiply_adds for layer in found.layers) == found.multiply_adds
    assert found.layers[-1].output_shape == (4,)


def test_everything_is_left_as_it_was():
    model = build("davidnet:dropout=0.5", 10, blank_sample(3, 8, 8)).train()
    model.layer1.eval()
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    summary(model, image_shape=(3, 8, 8))
    summary("resnet18", image_shape=(3, 8, 8))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_device_stays_and_no_memory_is_needed():
    with torch.device("meta"):
        model = build("vgg16", 1000, blank_sample(3, 224, 224))
    found = summary(model, image_shape=(3, 224, 224))
    assert next(model.parameters()).device.type == "meta"
    assert found.parameters == 138_357_544


def test_the_model_is_not_kept_in_memory():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    summary(model, image_shape=(1, 2, 2))
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_a_shape_that_does_not_fit_is_refused_in_one_line():
    model = build("resnet18", 10, blank_sample(1, 8, 8))
    with pytest.raises(SeewhyError, match="ResNet cannot take an image of 3x8x8: ") as error:
        summary(model, image_shape=(3, 8, 8))
    assert "\n" not in str(error.value)
    with pytest.raises(SeewhyError, match="each at least 1"):
        summary("resnet18", image_shape=(3, 0, 8))


@pytest.mark.parametrize("width", [200, 100, 80, 60, 50, 40])
@pytest.mark.parametrize("text", ["resnet18", "davidnet"])
def test_text_fits_and_names_every_layer(text, width):
    found = summary(text)
    lines = format_summary(found, width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0] == f"{text}, image 3x32x32"
    table = lines[4 : 4 + len(found.layers)]
    for line, layer in zip(table, found.layers, strict=True):
        name = line.split()[0]
        assert layer.name.endswith(name.removeprefix("…"))
    assert f"parameters     {found.parameters:,}" in lines
    assert f"multiply-adds  {found.multiply_adds / 1e6:,.2f} M" in lines


def test_columns_go_in_turn():
    found = summary("davidnet")
    headers = {width: format_summary(found, width).splitlines()[2].split() for width in (200, 80, 40)}
    assert headers[200] == ["layer", "type", "kernel", "input", "output", "parameters", "share", "mult-adds"]
    assert headers[80] == ["layer", "type", "output", "parameters", "share", "mult-adds"]
    assert headers[40][0] == "layer"
    assert "output" in headers[40]
