"""EfficientNet-Lite0, whose published weights load from a file."""

import math
from collections import OrderedDict
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.models.normalization import Normalize, normalize_for


class Stage(NamedTuple):
    """Blocks of one width; the first one has the stride."""

    outputs: int
    blocks: int
    kernel: int
    stride: int
    expansion: int


# Tan & Le 2019, table 1; stem and last convolution of the Lite variants are not scaled
STAGES = (
    Stage(16, 1, 3, 1, 1),
    Stage(24, 2, 3, 2, 6),
    Stage(40, 2, 5, 2, 6),
    Stage(80, 3, 3, 2, 6),
    Stage(112, 3, 5, 1, 6),
    Stage(192, 4, 5, 2, 6),
    Stage(320, 1, 3, 1, 6),
)
STEM, FEATURES = 32, 1280


def efficientnet_lite0(num_classes: int, sample: Split, dropout: float = 0.2) -> nn.Module:
    """EfficientNet-Lite0, for images of at least 32x32.

    EfficientNet-B0 (Tan & Le 2019, arXiv 1905.11946) without squeeze-and-excitation and with ReLU6
    (Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite"). `dropout` in [0, 1) is
    applied before the linear layer.
    """
    channels, height, width = sample.images.shape[1:]
    if min(height, width) < 32:
        raise SeewhyError(
            "efficientnet-lite0 downsamples five times, so it needs at least 32x32 pixels, found "
            f"{height}x{width}; choose resnet18, which accepts any size, or enlarge the images"
        )
    if not 0 <= dropout < 1:
        raise SeewhyError(
            f"efficientnet-lite0: dropout must be at least 0 and below 1, found {dropout}"
        )
    return EfficientNet(num_classes, channels, normalize_for(sample), dropout)


class EfficientNet(nn.Module):
    """Images (N, C, H, W) float in [0, 1] to logits (N, K)."""

    def __init__(
        self, num_classes: int, channels: int, normalize: Normalize, dropout: float
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.stem = _conv(channels, STEM, kernel=3, stride=2)
        inputs, stages = STEM, []
        for stage in STAGES:
            blocks = []
            for index in range(stage.blocks):
                stride = stage.stride if index == 0 else 1
                blocks.append(Block(inputs, stage.outputs, stage.kernel, stride, stage.expansion))
                inputs = stage.outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.last = _conv(inputs, FEATURES, kernel=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(FEATURES, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # of a depthwise convolution, an input reaches one output channel only
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        nn.init.uniform_(
            self.linear.weight, -1 / math.sqrt(num_classes), 1 / math.sqrt(num_classes)
        )
        nn.init.zeros_(self.linear.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.last(self.stages(self.stem(self.normalize(pixels))))
        logits: Tensor = self.linear(self.dropout(self.pool(x).flatten(1)))
        return logits


class Block(nn.Module):
    """Inverted residual: a 1x1 convolution, a depthwise one, and a linear 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = _conv(inputs, width, kernel=1) if expansion > 1 else nn.Identity()
        self.depthwise = _conv(width, width, kernel, stride, groups=width)
        self.project = _conv(width, outputs, kernel=1, relu=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + output if self.residual else output


class SamePad(nn.Module):
    """Zeros around an image, so that a strided convolution has ceil(size / stride) outputs.

    As in TensorFlow's padding "SAME", an odd number of rows or columns has one more at the end.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        height, width = (self._total(size) for size in x.shape[2:])
        return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))

    def _total(self, size: int) -> int:
        last = (size - 1) // self.stride * self.stride  # where the last window begins
        return max(last + self.kernel - size, 0)

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}"


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    layers = OrderedDict[str, nn.Module]()
    if stride > 1:
        layers["pad"] = SamePad(kernel, stride)
    padding = kernel // 2 if stride == 1 else 0
    layers["conv"] = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    layers["norm"] = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
    if relu:
        layers["relu"] = nn.ReLU6(inplace=True)
    return nn.Sequential(layers)
