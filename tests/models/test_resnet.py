"""ResNet against its published size and against the same net written with plain functions."""

import pytest
import torch
from torch.nn import functional as F

from seewhy.models.registry import blank_sample, build_model


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet18", 11_173_962), ("resnet34", 21_282_122)]
)
def test_resnet_parameter_count(name, parameters):
    model = build_model(name, 10, blank_sample(3, 32, 32))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "blocks"), [("resnet18", (2, 2, 2, 2)), ("resnet34", (3, 4, 6, 3))]
)
def test_resnet_wiring(name, blocks):
    torch.manual_seed(0)
    model = build_model(name, 10, blank_sample(3, 32, 32)).eval()
    for key, value in model.state_dict().items():
        if "running" in key or "bn" in key:
            value.copy_(torch.rand_like(value.float()) + 0.5)
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            model(pixels), functional_resnet(model.state_dict(), pixels, blocks)
        )


def test_resnet_map_sizes():
    model = build_model("resnet18", 10, blank_sample(3, 32, 32))
    shapes = {}
    for name in ("bn1", "layer1", "layer2", "layer3", "layer4"):
        model.get_submodule(name).register_forward_hook(
            lambda m, i, out, name=name: shapes.update({name: tuple(out.shape[1:])})
        )
    model(torch.zeros(2, 3, 32, 32))
    assert shapes == {
        "bn1": (64, 32, 32),
        "layer1": (64, 32, 32),
        "layer2": (128, 16, 16),
        "layer3": (256, 8, 8),
        "layer4": (512, 4, 4),
    }


def functional_resnet(weights, x, blocks):
    def norm(x, prefix):
        mean, var = weights[f"{prefix}.running_mean"], weights[f"{prefix}.running_var"]
        return F.batch_norm(x, mean, var, weights[f"{prefix}.weight"], weights[f"{prefix}.bias"])

    x = F.relu(norm(F.conv2d(x, weights["conv1.weight"], padding=1), "bn1"))
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            prefix = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = F.relu(
                norm(
                    F.conv2d(x, weights[f"{prefix}.conv1.weight"], stride=stride, padding=1),
                    f"{prefix}.bn1",
                )
            )
            y = norm(F.conv2d(y, weights[f"{prefix}.conv2.weight"], padding=1), f"{prefix}.bn2")
            if stride == 2:
                x = norm(
                    F.conv2d(x, weights[f"{prefix}.shortcut.0.weight"], stride=2),
                    f"{prefix}.shortcut.1",
                )
            x = F.relu(x + y)
    return F.linear(x.mean((2, 3)), weights["linear.weight"], weights["linear.bias"])


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
@pytest.mark.parametrize(
    ("size", "kernel"), [((32, 32), 3), ((64, 96), 3), ((65, 80), 7), ((224, 224), 7)]
)
def test_stem_is_that_of_the_image_size(name, size, kernel):
    with torch.device("meta"):
        model = build_model(name, 3, blank_sample(3, *size))
    assert model.conv1.kernel_size == (kernel, kernel)
    assert (model.maxpool is None) == (kernel == 3)


@pytest.mark.slow
def test_stem_can_be_chosen():
    with torch.device("meta"):
        small = build_model("resnet18:stem=cifar", 3, blank_sample(3, 224, 224))
        large = build_model("resnet18:stem=imagenet", 3, blank_sample(3, 32, 32))
    assert (small.conv1.kernel_size, large.conv1.kernel_size) == ((3, 3), (7, 7))
