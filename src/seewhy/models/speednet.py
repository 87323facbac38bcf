"""SpeedNet: a small, fast model, based on the CIFAR-10 speed records."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.models.normalization import Normalize, normalize_for

GROUP_WIDTHS = (64, 256, 256)

_BLOCK_PIXELS = 256_000  # unfolded at once: 50 MB of patches in color, whatever the image size


def speednet(
    num_classes: int, sample: Split, width: float = 1.0, depth: int = 2, scale: float = 1 / 9
) -> nn.Module:
    """The model of "94% on CIFAR-10 in 3.29 seconds" (Jordan 2024, arXiv 2404.00498, section 3).

    The first layer whitens patches of 2x2 pixels. Its weights are fitted on `sample` and frozen.
    Three groups of `depth` convolutions follow (2, or 3 with a shortcut around the last two). They
    have 64, 256, and 256 channels, times `width`. `scale` multiplies the logits. A group
    downsamples by 2 only if at least 2x2 positions remain: a 32x32 image has widths of 31, 15, 7,
    and 3, an 8x8 image 7, 3, 3, and 3. Images must have at least 2x2 pixels.
    """
    channels, *size = sample.images.shape[1:]
    if min(size) < 2:
        raise SeewhyError(
            "speednet whitens patches of 2x2 pixels, so it needs at least 2x2 pixels, found "
            f"{size[0]}x{size[1]}; enlarge the images"
        )
    if depth not in (2, 3):
        raise SeewhyError(f"speednet: depth must be 2 or 3 convolutions per group, found {depth}")
    widths = [round(width * group) for group in GROUP_WIDTHS]
    if min(widths) < 1:
        raise SeewhyError(
            f"speednet: width multiplies {GROUP_WIDTHS} channels and must leave at least one per "
            f"group, found {width}"
        )
    # compute filters even if the model is being built on "meta"
    with torch.device(sample.images.device):
        normalize = normalize_for(sample)
        filters = whitening_filters(sample, normalize)
    model = SpeedNet(
        num_classes,
        channels,
        normalize.to(torch.get_default_device()),
        min(size),
        widths,
        depth,
        scale,
    )
    with torch.no_grad():
        model.whiten.weight.copy_(torch.cat([filters, -filters]))
    return model


class SpeedNet(nn.Module):
    """Images (N, C, H, W) float in [0, 1] to logits (N, K); `side` is their shorter side."""

    def __init__(
        self,
        num_classes: int,
        channels: int,
        normalize: Normalize,
        side: int,
        widths: list[int],
        depth: int,
        scale: float,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.whiten = nn.Conv2d(channels, 8 * channels, kernel_size=2)
        self.whiten.weight.requires_grad_(False)
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]
        self.gelu = nn.GELU()
        inputs, side, groups = 8 * channels, side - 1, []
        for outputs in widths:
            groups.append(Group(inputs, outputs, depth, pool=side >= 4))
            inputs, side = outputs, side // 2 if side >= 4 else side
        self.group1, self.group2, self.group3 = groups
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.linear = nn.Linear(inputs, num_classes, bias=False)
        self.scale = scale

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.gelu(self.whiten(self.normalize(pixels)))
        x = self.group3(self.group2(self.group1(x)))
        logits: Tensor = self.linear(self.pool(x).flatten(1)) * self.scale
        return logits


class Group(nn.Module):
    """Convolution, max-pool, BatchNorm, GELU; then one convolution, or two with a shortcut."""

    def __init__(self, inputs: int, outputs: int, depth: int, pool: bool) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.norm1 = _norm(outputs)
        self.gelu1 = nn.GELU()
        self.conv2 = _conv(outputs, outputs)
        self.norm2 = _norm(outputs)
        self.gelu2 = nn.GELU()
        self.depth = depth
        if depth == 3:
            self.conv3 = _conv(outputs, outputs)
            self.norm3 = _norm(outputs)
            self.gelu3 = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        start = self.gelu1(self.norm1(self.pool(self.conv1(x))))
        output: Tensor = self.gelu2(self.norm2(self.conv2(start)))
        if self.depth == 3:
            output = self.gelu3(start + self.norm3(self.conv3(output)))
        return output


@torch.no_grad()
def whitening_filters(
    sample: Split, normalize: Normalize, max_images: int = 5_000, eps: float = 5e-4
) -> Tensor:
    """Filters that give 2x2 patches of images unit covariance (Jordan 2024, section 3.2).

    They are the eigenvectors of the patches' covariance, divided by the square root of
    eigenvalue + `eps`, largest eigenvalue first.

    Args:
        sample: Images (N, C, H, W) uint8.
        normalize: Mean and std of the images.
        max_images: Number of images to read, evenly spaced.
        eps: Avoids division by zero for directions without variance.

    Returns:
        (4C, C, 2, 2) float32.
    """
    images = sample.images[:: -(-len(sample) // max_images)]
    mean, std = normalize.mean.double(), normalize.std.double()
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for block in _blocks(images):
        normalized = (block / 255 - mean) / std
        patches = F.unfold(normalized, kernel_size=2).transpose(0, 1).flatten(1)  # (4C, patches)
        count += patches.shape[1]
        total = total + patches.sum(1)
        products = products + patches @ patches.T
    average = total / count
    eigenvalues, eigenvectors = torch.linalg.eigh(products / count - average.outer(average))
    filters = eigenvectors / (eigenvalues.clamp(min=0) + eps).sqrt()
    whitening: Tensor = filters.T.flip(0).reshape(-1, images.shape[1], 2, 2)
    return whitening.float()


def _blocks(images: Tensor) -> Iterator[Tensor]:  # (n, C, h, W) uint8
    """Blocks of images, or bands of large ones, that together hold every 2x2 patch once."""
    _, _, height, width = images.shape
    rows = max(1, _BLOCK_PIXELS // width)
    for block in torch.split(images, max(1, _BLOCK_PIXELS // (height * width))):
        for top in range(0, height - 1, rows):
            yield block[:, :, top : top + rows + 1]  # a band shares a row with the next


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution, initialized to copy its input channels to its first output channels."""
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight.data[:inputs])
    return convolution


def _norm(channels: int) -> nn.BatchNorm2d:
    """BatchNorm with fast running statistics and a scale frozen at 1."""
    norm = nn.BatchNorm2d(channels, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm
