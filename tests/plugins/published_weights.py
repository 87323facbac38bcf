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


# B0 of the EfficientNet paper: kernel, stride, expansion, outputs, blocks of each stage
EFFICIENTNET = """3 1 1 16 1 | 3 2 6 24 2 | 5 2 6 40 2 | 3 2 6 80 3 | 5 1 6 112 3 | 5 2 6 192 4 |
3 1 6 320 1"""


def efficientnet_blocks() -> list[tuple[int, int, int, int, int]]:
    """Inputs, outputs, kernel, stride and expansion of all blocks of EfficientNet-Lite0."""
    blocks, inputs = [], 32
    for stage in EFFICIENTNET.split("|"):
        kernel, stride, expansion, outputs, count = map(int, stage.split())
        for index in range(count):
            blocks.append((inputs, outputs, kernel, stride if index == 0 else 1, expansion))
            inputs = outputs
    return blocks


def efficientnet_weights(num_classes: int = 1000) -> dict[str, Tensor]:
    """EfficientNet-Lite0 with the names of its port to torch."""

    def filters(outputs: int, inputs: int, kernel: int) -> Tensor:
        return torch.randn(outputs, inputs, kernel, kernel) * (2 / (inputs * kernel**2)) ** 0.5

    weights = {"_conv_stem.weight": filters(32, 3, 3), **norm_weights("_bn0", 32)}
    for index, (inputs, outputs, kernel, _, expansion) in enumerate(efficientnet_blocks()):
        name, width = f"_blocks.{index}", inputs * expansion
        if expansion > 1:
            weights[f"{name}._expand_conv.weight"] = filters(width, inputs, 1)
            weights |= norm_weights(f"{name}._bn0", width)
        weights[f"{name}._depthwise_conv.weight"] = filters(width, 1, kernel)
        weights |= norm_weights(f"{name}._bn1", width)
        weights[f"{name}._project_conv.weight"] = filters(outputs, width, 1)
        weights |= norm_weights(f"{name}._bn2", outputs)
    weights["_conv_head.weight"] = filters(1280, 320, 1)
    weights |= norm_weights("_bn1", 1280)
    weights["_fc.weight"] = torch.randn(num_classes, 1280) / 10
    weights["_fc.bias"] = torch.randn(num_classes)
    return weights


def efficientnet_logits(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """Images in [0, 1] to logits."""

    def convolve(x: Tensor, name: str, bn: str, stride: int = 1, depthwise: bool = False) -> Tensor:
        kernel = weights[f"{name}.weight"]
        side = kernel.shape[-1]
        totals = [max((-(-n // stride) - 1) * stride + side - n, 0) for n in x.shape[2:]]
        rows, columns = ((total // 2, total - total // 2) for total in totals)
        padded, groups = F.pad(x, (*columns, *rows)), len(kernel) if depthwise else 1
        return norm(weights, bn, F.conv2d(padded, kernel, stride=stride, groups=groups), eps=1e-3)

    x = F.relu6(convolve(images * 2 - 1, "_conv_stem", "_bn0", stride=2))
    for index, (inputs, outputs, _, stride, expansion) in enumerate(efficientnet_blocks()):
        name, y = f"_blocks.{index}", x
        if expansion > 1:
            y = F.relu6(convolve(y, f"{name}._expand_conv", f"{name}._bn0"))
        y = F.relu6(convolve(y, f"{name}._depthwise_conv", f"{name}._bn1", stride, depthwise=True))
        y = convolve(y, f"{name}._project_conv", f"{name}._bn2")
        x = x + y if stride == 1 and inputs == outputs else y
    x = F.relu6(convolve(x, "_conv_head", "_bn1"))
    return F.linear(x.mean((2, 3)), weights["_fc.weight"], weights["_fc.bias"])


def norm(weights: dict[str, Tensor], name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    return F.batch_norm(
        x,
        weights[f"{name}.running_mean"],
        weights[f"{name}.running_var"],
        weights[f"{name}.weight"],
        weights[f"{name}.bias"],
        eps=eps,
    )
