"""Normalization inside the model, so that its input is pixels in [0, 1]."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.data.dataset import Split
from seewhy.data.statistics import channel_statistics


class Normalize(nn.Module):
    """Normalize every channel: `(pixels - mean) / std`.

    Mean and std are buffers (1, C, 1, 1), saved and moved with the model. State dicts without these
    buffers load too.

    Args:
        mean: Mean of each of the C channels, of pixels in [0, 1].
        std: Standard deviation of each channel; a channel with 0 is only centered.
    """

    mean: Tensor  # (1, C, 1, 1) float32
    std: Tensor  # (1, C, 1, 1) float32

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer(
            "std",
            torch.tensor([value or 1.0 for value in std], dtype=torch.float32).view(1, -1, 1, 1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (N, C, H, W) float in [0, 1] to pixels of about zero mean and unit variance."""
        return (pixels - self.mean) / self.std

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, buffer in self.named_buffers():
            # torch passes a copy, so the caller's dictionary is not changed
            state_dict.setdefault(prefix + name, buffer)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Preprocessed(nn.Module):
    """A model whose input is made from pixels by a function outside of it.

    Args:
        net: The model; its layers keep their names.
        preprocess: Maps pixels (N, C, H, W) float in [0, 1] to the input of `net`, such as
            torchvision's `Normalize`; differentiable, so that gradients reach the pixels.
    """

    wrapped_child = "net"  # see `layer_path`

    def __init__(self, net: nn.Module, preprocess: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.net = net
        self.train(net.training)

    def forward(self, pixels: Tensor) -> object:
        """Pixels (N, C, H, W) float in [0, 1] to the output of the model."""
        return self.net(self.preprocess(pixels))


def normalize_for(sample: Split) -> Normalize:
    """Normalize with the channel statistics of `sample`.

    At most 50,000 of its images are read, and fewer of images larger than 32x32.
    """
    # compute statistics even if the model is being built on "meta"
    with torch.device(sample.images.device):
        pixels = max(32 * 32, math.prod(sample.images.shape[2:]))
        statistics = channel_statistics(sample, max_images=max(1, 50_000 * 32 * 32 // pixels))
    return Normalize(statistics.mean.tolist(), statistics.std.tolist())


def adapt_channels(
    mean: Sequence[float], std: Sequence[float], channels: int
) -> tuple[list[float], list[float]]:
    """Mean and std for another number of channels: averaged for one, otherwise repeated."""
    if channels == 1:
        return [sum(mean) / len(mean)], [sum(std) / len(std)]
    indices = [index % len(mean) for index in range(channels)]
    return [mean[index] for index in indices], [std[index] for index in indices]
