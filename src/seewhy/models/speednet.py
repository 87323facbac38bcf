"""SpeedNet: a small net that learns within seconds, after the CIFAR-10 speed records."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.models.normalization import Normalize, normalize_for

GROUP_WIDTHS = (64, 256, 256)

_BLOCK_PIXELS = 256_000  # whose patches are held as floats at once: 50 MB in color, whatever the size of the images


def speednet(
    num_classes: int, sample: Split, width: float = 1.0, depth: int = 2, scale: float = 1 / 9
) -> nn.Module:
    """The net of "94% on CIFAR-10 in 3.29 seconds" (Jordan 2024, arXiv 2404.00498, section 3).

    Its first layer is fitted on `sample` and stays as it is: it whitens patches of 2x2 pixels. Three groups of `depth`
    convolutions follow, 64, 256 and 256 channels wide times `width`; with a depth of 3 the last two have a shortcut.
    `scale` multiplies the logits. A group halves its map only where at least 2x2 remain of it: a 32x32 image becomes
    31, 15, 7, 3 pixels wide, an 8x8 image 7, 3, 3, 3, and small images need no other net. Raises SeewhyError under 2x2.
    """
    channels, *size = sample.images.shape[1:]
    if min(size) < 2:
        raise SeewhyError(
            f"speednet looks at patches of 2x2 pixels, so it needs at least 2x2 pixels, found {size[0]}x{size[1]}"
        )
    if depth not in (2, 3):
        raise SeewhyError(
            f"speednet: depth must be 2 or 3 convolutions in each group, found {depth}"
        )
    widths = [round(width * group) for group in GROUP_WIDTHS]
    if min(widths) < 1:
        raise SeewhyError(
            f"speednet: width multiplies {GROUP_WIDTHS} channels and must leave at least one, found {width}"
        )
    with torch.device(
        sample.images.device
    ):  # numbers of the sample, also where the model is being built on "meta"
        normalize = normalize_for(sample)
        filters = whitening_filters(sample, normalize)
    net = SpeedNet(
        num_classes,
        channels,
        normalize.to(torch.get_default_device()),
        min(size),
        widths,
        depth,
        scale,
    )
    with torch.no_grad():
        net.whiten.weight.copy_(torch.cat([filters, -filters]))
    return net


class SpeedNet(nn.Module):
    """Images (N, C, H, W) float in [0, 1] to logits (N, K); `side` is the shorter one of the images it will see."""

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
    """Convolution, max-pool, BatchNorm, GELU; then one more convolution, or two of them with a shortcut around."""

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
    sample: Split, normalize: Normalize, at_most: int = 5_000, eps: float = 5e-4
) -> Tensor:
    """Filters (4C, C, 2, 2) float32 under which the 2x2 patches of normalized images have unit covariance.

    They are the eigenvectors of the patches' covariance over the root of eigenvalue + `eps`, largest eigenvalue first; `eps`
    keeps directions without variance finite. At most `at_most` images are read, evenly spaced. Section 3.2 of Jordan 2024.
    """
    images = sample.images[:: -(-len(sample) // at_most)]
    mean, std = normalize.mean.double(), normalize.std.double()
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for block in _blocks(images):
        patches = (
            F.unfold((block / 255 - mean) / std, kernel_size=2).transpose(0, 1).flatten(1)
        )  # (4C, patches)
        count += patches.shape[1]
        total = total + patches.sum(1)
        products = products + patches @ patches.T
    average = total / count
    eigenvalues, eigenvectors = torch.linalg.eigh(products / count - average.outer(average))
    filters = eigenvectors / (eigenvalues.clamp(min=0) + eps).sqrt()
    whitening: Tensor = filters.T.flip(0).reshape(-1, images.shape[1], 2, 2)
    return whitening.float()


def _blocks(images: Tensor) -> Iterator[Tensor]:  # (n, C, h, W) uint8
    """Parts that have every 2x2 patch of `images` once: several images, or bands of one that share a row with the next."""
    _, _, height, width = images.shape
    rows = max(1, _BLOCK_PIXELS // width)
    for block in torch.split(images, max(1, _BLOCK_PIXELS // (height * width))):
        for top in range(0, height - 1, rows):
            yield block[:, :, top : top + rows + 1]


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution that starts by passing its input on: as many output channels as there are inputs are an identity."""
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight.data[:inputs])
    return convolution


def _norm(channels: int) -> nn.BatchNorm2d:
    """BatchNorm whose running statistics follow within few steps, and whose scale is frozen at 1."""
    norm = nn.BatchNorm2d(channels, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm
