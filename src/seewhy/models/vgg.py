"""VGG-16, with torchvision's parameter names, so that published weights load."""

from torch import Tensor, nn

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.models.normalization import Normalize, normalize_for

# convolutions of each stage; a max-pool follows it
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(num_classes: int, sample: Split, dropout: float = 0.5) -> nn.Module:
    """VGG-16 (Simonyan & Zisserman 2015, arXiv 1409.1556), for images of at least 32x32.

    `dropout` in [0, 1) follows each of the two hidden linear layers.
    """
    return _vgg("vgg16", num_classes, sample, dropout, batch_norm=False)


def vgg16_bn(num_classes: int, sample: Split, dropout: float = 0.5) -> nn.Module:
    """VGG-16 with BatchNorm after every convolution, for images of at least 32x32."""
    return _vgg("vgg16-bn", num_classes, sample, dropout, batch_norm=True)


class VGG(nn.Module):
    """Images (N, C, H, W) float in [0, 1] to logits (N, K)."""

    def __init__(
        self,
        num_classes: int,
        channels: int,
        normalize: Normalize,
        dropout: float,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.features = _features(channels, batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.avgpool(self.features(self.normalize(pixels)))
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


def _vgg(name: str, num_classes: int, sample: Split, dropout: float, batch_norm: bool) -> VGG:
    channels, height, width = sample.images.shape[1:]
    if min(height, width) < 32:
        raise SeewhyError(
            f"{name} downsamples five times, so it needs at least 32x32 pixels, found "
            f"{height}x{width}; choose resnet18, which accepts any size, or enlarge the images"
        )
    if not 0 <= dropout < 1:
        raise SeewhyError(f"{name}: dropout must be at least 0 and below 1, found {dropout}")
    return VGG(num_classes, channels, normalize_for(sample), dropout, batch_norm)


def _features(channels: int, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for stage in STAGES:
        for outputs in stage:
            layers.append(nn.Conv2d(channels, outputs, kernel_size=3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.ReLU())
            channels = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)
