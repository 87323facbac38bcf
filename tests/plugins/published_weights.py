"""Random weights with the names and shapes of torchvision's files, and their forward pass.

The names are those of the released files; the shapes follow from the papers' tables.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

CONFIGURATION_D = "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M"
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def norm_weights(name: str, channels: int) -> dict[str, Tensor]:
    return {
        f"{name}.weight": torch.rand(channels) + 0.5,
        f"{name}.bias": torch.randn(channels) / 10,
        f"{name}.running_mean": torch.randn(channels) / 10,
        f"{name}.running_var": torch.rand(channels) + 0.5,
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def vgg16_weights(num_classes: int = 1000, batch_norm: bool = False) -> dict[str, Tensor]:
    """The two large layers repeat values, so that the file is small though the tensors are not."""
    weights, index, inputs = {}, 0, 3
    for entry in CONFIGURATION_D.split():
        if entry == "M":
            index += 1
            continue
        outputs = int(entry)
        scale = (2 / (9 * inputs)) ** 0.5
        weights[f"features.{index}.weight"] = scale * torch.randn(outputs, inputs, 3, 3)
        weights[f"features.{index}.bias"] = torch.randn(outputs) / 10
        if batch_norm:
            weights |= norm_weights(f"features.{index + 1}", outputs)
        index += 3 if batch_norm else 2
        inputs = outputs
    weights["classifier.0.weight"] = (torch.randn(1, 25088) / 50).expand(4096, 25088)
    weights["classifier.0.bias"] = 20 * torch.randn(4096)
    weights["classifier.3.weight"] = (torch.randn(4096, 1) / 10000).expand(4096, 4096)
    weights["classifier.3.bias"] = torch.randn(4096)
    weights["classifier.6.weight"] = torch.randn(num_classes, 4096) / 64
    weights["classifier.6.bias"] = torch.randn(num_classes)
    return weights


def vgg16_logits(weights: dict[str, Tensor], images: Tensor, batch_norm: bool = False) -> Tensor:
    """Images in [0, 1] to logits."""
    x, index = (images - MEAN) / STD, 0
    for entry in CONFIGURATION_D.split():
        if entry == "M":
            x, index = F.max_pool2d(x, 2), index + 1
            continue
        x = F.conv2d(
            x, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1
        )
        if batch_norm:
            x = norm(weights, f"features.{index + 1}", x)
        x, index = F.relu(x), index + (3 if batch_norm else 2)
    x = F.adaptive_avg_pool2d(x, 7).flatten(1)
    for layer in (0, 3):
        x = F.relu(
            F.linear(x, weights[f"classifier.{layer}.weight"], weights[f"classifier.{layer}.bias"])
        )
    return F.linear(x, weights["classifier.6.weight"], weights["classifier.6.bias"])


def resnet_weights(blocks: tuple[int, ...], num_classes: int = 1000) -> dict[str, Tensor]:
    """With the 7x7 stem, the names `downsample` and `fc`."""
    weights = {"conv1.weight": torch.randn(64, 3, 7, 7) / 12, **norm_weights("bn1", 64)}
    inputs = 64
    for stage, count in enumerate(blocks, 1):
        outputs = 32 * 2**stage
        for block in range(count):
            name = f"layer{stage}.{block}"
            for part, width in (("1", inputs), ("2", outputs)):
                scale = (2 / (9 * width)) ** 0.5
                weights[f"{name}.conv{part}.weight"] = scale * torch.randn(outputs, width, 3, 3)
                weights |= norm_weights(f"{name}.bn{part}", outputs)
            if inputs != outputs:
                weights[f"{name}.downsample.0.weight"] = (
                    torch.randn(outputs, inputs, 1, 1) / inputs**0.5
                )
                weights |= norm_weights(f"{name}.downsample.1", outputs)
            inputs = outputs
    weights["fc.weight"] = torch.randn(num_classes, 512) / 20
    weights["fc.bias"] = torch.randn(num_classes)
    return weights


def resnet_logits(weights: dict[str, Tensor], images: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """Images in [0, 1] to logits."""
    x = (images - MEAN) / STD
    x = F.relu(norm(weights, "bn1", F.conv2d(x, weights["conv1.weight"], stride=2, padding=3)))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = F.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = F.relu(norm(weights, f"{name}.bn1", y))
            y = norm(
                weights, f"{name}.bn2", F.conv2d(y, weights[f"{name}.conv2.weight"], padding=1)
            )
            if f"{name}.downsample.0.weight" in weights:
                x = F.conv2d(x, weights[f"{name}.downsample.0.weight"], stride=stride)
                x = norm(weights, f"{name}.downsample.1", x)
            x = F.relu(x + y)
    return F.linear(x.mean((2, 3)), weights["fc.weight"], weights["fc.bias"])


def norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.batch_norm(
        x,
        weights[f"{name}.running_mean"],
        weights[f"{name}.running_var"],
        weights[f"{name}.weight"],
        weights[f"{name}.bias"],
    )
