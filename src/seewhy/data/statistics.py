"""Numbers about a split: pixel statistics per channel, exact duplicates."""

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.data.dataset import Split


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Of every channel, over pixels in [0, 1]: five tensors (C,) float64; `var` and `std` divide by the number of pixels."""

    min: Tensor
    max: Tensor
    mean: Tensor
    std: Tensor
    var: Tensor


def channel_statistics(split: Split, at_most: int | None = None) -> ChannelStatistics:
    """Exact pixel statistics of each channel, from 256-bin histograms, so that no image is ever held as floats.

    `at_most` reads that many images, evenly spaced, where a data set is too large to read whole.
    """
    step = 1 if at_most is None else max(1, len(split) // at_most)
    channels = split.images.shape[1]
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for start in range(0, len(split), 4096 * step):
        block = split.images[start : start + 4096 * step : step]
        for channel in range(channels):
            counts[channel] += torch.histc(block[:, channel].float(), bins=256, min=0, max=255).long()
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = shares @ values
    var = (shares * (values - mean[:, None]) ** 2).sum(1)
    seen = counts > 0
    lowest = torch.stack([values[row].min() for row in seen])
    highest = torch.stack([values[row].max() for row in seen])
    return ChannelStatistics(min=lowest, max=highest, mean=mean, std=var.sqrt(), var=var)
