"""ResNets of basic blocks, with a 3x3 stem for small images or ImageNet's 7x7 stem."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from seewhy.data.dataset import Split
from seewhy.models.normalization import Normalize, normalize_for

Stem = Literal["auto", "cifar", "imagenet"]
SMALL_IMAGE = 64  # pixels of the shorter side, up to which "auto" is the stem for small images
WIDTHS = (64, 128, 256, 512)  # channels of the stages


def resnet18(num_classes: int, sample: Split, stem: Stem = "auto") -> nn.Module:
    """ResNet-18 (He et al. 2016, arXiv 1512.03385) with the stem for the size of the images.

    `stem=cifar` is a 3x3 convolution, the default up to 64 pixels; `stem=imagenet` is a strided 7x7
    convolution with max-pooling, the default for larger images.
    """
    return _resnet((2, 2, 2, 2), num_classes, sample, stem)


def resnet34(num_classes: int, sample: Split, stem: Stem = "auto") -> nn.Module:
    """ResNet-34 (He et al. 2016, arXiv 1512.03385) with the stem for the size of the images.

    `stem=cifar` is a 3x3 convolution, the default up to 64 pixels; `stem=imagenet` is a strided 7x7
    convolution with max-pooling, the default for larger images.
    """
    return _resnet((3, 4, 6, 3), num_classes, sample, stem)


def _resnet(blocks: Sequence[int], num_classes: int, sample: Split, stem: Stem) -> "ResNet":
    channels, *size = sample.images.shape[1:]
    if stem == "auto":
        stem = "cifar" if min(size) <= SMALL_IMAGE else "imagenet"
    return ResNet(blocks, num_classes, channels, normalize_for(sample), stem)


class ResNet(nn.Module):
    """Images (N, C, H, W) float in [0, 1] to logits (N, K), with `blocks[i]` blocks in stage i."""

    def __init__(
        self,
        blocks: Sequence[int],
        num_classes: int,
        channels: int,
        normalize: Normalize,
        stem: Stem,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "imagenet" else None
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], blocks[0], stride=1)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], blocks[1], stride=2)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], blocks[2], stride=2)
        self.layer4 = _stage(WIDTHS[2], WIDTHS[3], blocks[3], stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(WIDTHS[3], num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(self.normalize(pixels))))
        if self.maxpool is not None:
            x = self.maxpool(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.linear(self.pool(x).flatten(1))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))
        self.relu2 = (
            nn.ReLU()
        )  # one module per use, so that a hook on a ReLU records one activation

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        output: Tensor = self.relu2(residual + self.shortcut(x))
        return output


def _stage(inputs: int, outputs: int, count: int, stride: int) -> nn.Sequential:
    rest = (BasicBlock(outputs, outputs, stride=1) for _ in range(count - 1))
    return nn.Sequential(BasicBlock(inputs, outputs, stride), *rest)
