"""Numbers about each image: those that the checks of single images judge, and its properties."""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.data.pixels import LUMA_WEIGHTS
from seewhy.diagnosis.slices import image_attributes

BRIGHTNESS_WEIGHTS = (0.241, 0.691, 0.068)  # of squared red, green and blue
BLUR_WINDOW = 7  # pixels
MIN_SIDE = 16  # pixels; the blur of smaller images is not measured
_BORDER = 1 / 16  # width of the border, relative to the shorter side
_BLOCK_VALUES = 2**20  # pixel values held as floats at once, so that they stay in the cache
_BINS = 4  # of each channel in a color histogram
_CELLS = 8  # per side of a descriptor
_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")


def image_measures(images: Tensor) -> dict[str, Tensor]:
    """Numbers about images, for pixels in [0, 1].

    Args:
        images: (N, C, H, W) uint8, C of 1 or 3.

    Returns:
        Values (N,) float32 by name: those of `image_attributes`; `darkest` and `lightest`, the 5th
        and the 99th percentile of brightness; `entropy` of the brightness in bits; `blur`, see
        `blur_effect`; and the mean of each channel, in the image and on its border.
    """
    columns: dict[str, list[Tensor]] = {}
    for block in _blocks(images):
        row = image_attributes(block) | _brightness_measures(block)
        pixels = block.float() / 255
        row["blur"] = blur_effect(_luma(pixels))
        border = _border_mean(pixels)
        for channel, name in enumerate(_channel_names(images)):
            row[name] = pixels[:, channel].mean((1, 2))
            row[f"border {name}"] = border[:, channel]
        for name, values in row.items():
            columns.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in columns.items()}


def blur_effect(luma: Tensor) -> Tensor:
    """How little of an image's detail is lost by blurring it, in [0, 1] (Crété-Roffet et al. 2007).

    "The Blur Effect: Perception and Estimation with a New No-Reference Perceptual Blur Metric",
    eqs. 1 to 5: an image that is blurred already hardly changes. The mean filter is of 7 pixels,
    not of 9: that tells images of 32 pixels apart, too.

    Args:
        luma: (N, H, W) float.

    Returns:
        (N,) float32; 0 for images without edges, and of less than 16 pixels.
    """
    if min(luma.shape[1:]) < MIN_SIDE:
        return torch.zeros(len(luma))
    worst = torch.zeros(len(luma))
    half = BLUR_WINDOW // 2
    for dim, sides in ((2, (half, half, 0, 0)), (1, (0, 0, half, half))):
        padded = F.pad(luma[:, None], sides, mode="replicate")[:, 0]
        edges = luma.diff(dim=dim).abs_()
        # neighboring means of 7 pixels differ by the pixel that enters and the one that leaves
        length = edges.shape[dim]
        entering, leaving = padded.narrow(dim, BLUR_WINDOW, length), padded.narrow(dim, 0, length)
        blurred = (entering - leaving).abs_().div_(BLUR_WINDOW)
        lost = (edges - blurred).clamp_min_(0)
        total = edges.sum((1, 2))
        kept = (total - lost.sum((1, 2))) / total.clamp_min(1e-6)
        worst = torch.maximum(worst, torch.where(total > 0, kept, 0.0))
    return worst


def descriptors(images: Tensor) -> Tensor:
    """A cheap description of images where there is no model: their layout and their colors.

    Args:
        images: (N, C, H, W) uint8.

    Returns:
        (N, D) float32: the means of 8x8 cells, and the square roots of the shares of 4 bins of each
        channel, jointly.
    """
    parts = []
    for block in _blocks(images):
        pixels = block.float() / 255
        cells = F.adaptive_avg_pool2d(pixels, _CELLS).flatten(1)
        bins = (block.long() * _BINS) // 256
        powers = _BINS ** torch.arange(images.shape[1])
        index = (bins * powers[:, None, None]).sum(1).flatten(1)
        shares = _histograms(index, _BINS ** images.shape[1]) / index.shape[1]
        parts.append(torch.cat([cells, shares.sqrt()], 1))
    return torch.cat(parts)


def _brightness_measures(block: Tensor) -> dict[str, Tensor]:
    """Percentiles and entropy of the perceived brightness, from its histogram of 256 bins."""
    if block.shape[1] == 3:
        weights = torch.tensor(BRIGHTNESS_WEIGHTS)[:, None, None]
        levels = (block.float().square() * weights).sum(1).sqrt().round().long()
    else:
        levels = block[:, 0].long()
    levels = levels.flatten(1)
    counts = _histograms(levels, 256)
    shares = counts / levels.shape[1]
    cumulative = shares.cumsum(1)
    low, high = ((cumulative < share - 1e-6).sum(1) / 255 for share in (0.05, 0.99))
    entropy = -(shares * shares.clamp_min(1e-12).log2()).sum(1)
    return {"darkest": low, "lightest": high, "entropy": entropy}


def _histograms(index: Tensor, bins: int) -> Tensor:  # (N, bins) float32
    """How often each row of `index` (N, P) int64 in [0, bins) has each value."""
    rows = torch.arange(len(index))[:, None] * bins
    counts = torch.bincount((index + rows).flatten(), minlength=len(index) * bins)
    return counts.view(len(index), bins).float()


def _border_mean(pixels: Tensor) -> Tensor:  # (N, C)
    """The mean color of the border."""
    height, width = pixels.shape[2:]
    size = max(1, round(_BORDER * min(height, width)))
    if min(height, width) <= 2 * size:
        return pixels.mean((2, 3))
    inner = pixels[:, :, size:-size, size:-size]
    outside = pixels.sum((2, 3)) - inner.sum((2, 3))
    return outside / (height * width - inner.shape[2] * inner.shape[3])


def _luma(pixels: Tensor) -> Tensor:  # (N, H, W)
    if pixels.shape[1] != 3:
        return pixels.mean(1)
    return (pixels * torch.tensor(LUMA_WEIGHTS)[:, None, None]).sum(1)


def _channel_names(images: Tensor) -> tuple[str, ...]:
    return ("red", "green", "blue") if images.shape[1] == 3 else ("gray",)


def _blocks(images: Tensor) -> Iterator[Tensor]:
    size = max(1, _BLOCK_VALUES // math.prod(images.shape[1:]))
    for block in torch.split(images, size):
        yield block.cpu()


def quantile_bins(values: np.ndarray, bins: int = 10) -> np.ndarray:
    """The bin (N,) int64 of each value (N,), of about equally many; equal values share a bin.

    A value on an edge between two bins has a bin of its own: if most values are equal, those above
    and those below are told apart from them, and from each other.
    """
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
    below, above = (np.searchsorted(edges, values, side) for side in _SIDES)
    return below + above
