"""DavidNet: the nine-layer ResNet that won DAWNBench's CIFAR-10 competition."""

from collections import OrderedDict

from torch import Tensor, nn

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.models.normalization import Normalize, normalize_for


def davidnet(num_classes: int, sample: Split, dropout: float = 0.0) -> nn.Module:
    """The ResNet of David Page's "How to train your ResNet" (2018), for images of at least 8x8.

    As in the last part of the series, pooling precedes BatchNorm, so that BatchNorm and ReLU run on
    a quarter of the pixels. `dropout` in [0, 1) is applied before the linear layer.
    """
    channels, height, width = sample.images.shape[1:]
    if min(height, width) < 8:
        raise SeewhyError(
            "davidnet downsamples three times, so it needs at least 8x8 pixels, found "
            f"{height}x{width}; choose resnet18, which accepts any size, or enlarge the images"
        )
    if not 0 <= dropout < 1:
        raise SeewhyError(f"davidnet: dropout must be at least 0 and below 1, found {dropout}")
    return DavidNet(num_classes, channels, normalize_for(sample), dropout)


class DavidNet(nn.Module):
    """Images (N, C, H, W) float in [0, 1] to logits (N, K)."""

    def __init__(
        self, num_classes: int, channels: int, normalize: Normalize, dropout: float
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.prep = _conv(channels, 64)
        self.layer1 = nn.Sequential(_conv(64, 128, pool=True), Residual(128))
        self.layer2 = _conv(128, 256, pool=True)
        self.layer3 = nn.Sequential(_conv(256, 512, pool=True), Residual(512))
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(512, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.prep(self.normalize(pixels)))))
        logits: Tensor = self.linear(self.dropout(self.pool(x).flatten(1)))
        return logits


class Residual(nn.Module):
    """`x` plus two convolutions of it, each with BatchNorm and ReLU; no ReLU after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels)
        self.conv2 = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x + self.conv2(self.conv1(x))
        return output


def _conv(inputs: int, outputs: int, pool: bool = False) -> nn.Sequential:
    layers = OrderedDict[str, nn.Module](
        conv=nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    )
    if pool:
        layers["pool"] = nn.MaxPool2d(2)
    layers["norm"] = nn.BatchNorm2d(outputs)
    layers["relu"] = nn.ReLU()
    return nn.Sequential(layers)
