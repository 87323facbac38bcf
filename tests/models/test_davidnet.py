"""DavidNet against its published size and against the same net written with plain functions."""

import pytest
import torch
from torch.nn import functional as F

from seewhy.errors import SeewhyError
from seewhy.models.registry import blank_sample, build_model


def test_davidnet_parameter_count():
    model = build_model("davidnet", 10, blank_sample(3, 32, 32))
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_573_130


def test_davidnet_wiring():
    torch.manual_seed(0)
    model = build_model("davidnet", 10, blank_sample(3, 16, 16)).eval()
    for key, value in model.state_dict().items():
        if ".norm." in key:
            value.copy_(torch.rand_like(value.float()) + 0.5)
    pixels = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels), functional_davidnet(model.state_dict(), pixels))


@pytest.mark.slow
def test_davidnet_dropout():
    model = build_model("davidnet:dropout=0.5", 10, blank_sample(3, 16, 16))
    assert model.dropout.p == 0.5
    assert build_model("davidnet", 10, blank_sample(3, 16, 16)).dropout.p == 0
    pixels = torch.rand(4, 3, 16, 16)
    torch.manual_seed(0)
    assert not torch.equal(model.train()(pixels), model(pixels))
    assert torch.equal(model.eval()(pixels), model(pixels))


def test_davidnet_needs_8x8():
    with pytest.raises(
        SeewhyError,
        match="downsamples three times, so it needs at least 8x8 pixels, found 8x7",
    ):
        build_model("davidnet", 10, blank_sample(3, 8, 7))


def functional_davidnet(weights, x):
    def conv(x, prefix, pool=False):
        x = F.conv2d(x, weights[f"{prefix}.conv.weight"], padding=1)
        if pool:
            x = F.max_pool2d(x, 2)
        mean, var = weights[f"{prefix}.norm.running_mean"], weights[f"{prefix}.norm.running_var"]
        return F.relu(
            F.batch_norm(
                x, mean, var, weights[f"{prefix}.norm.weight"], weights[f"{prefix}.norm.bias"]
            )
        )

    x = conv(x, "prep")
    x = conv(x, "layer1.0", pool=True)
    x = x + conv(conv(x, "layer1.1.conv1"), "layer1.1.conv2")
    x = conv(x, "layer2", pool=True)
    x = conv(x, "layer3.0", pool=True)
    x = x + conv(conv(x, "layer3.1.conv1"), "layer3.1.conv2")
    return F.linear(x.amax((2, 3)), weights["linear.weight"], weights["linear.bias"])
