"""Mean and standard deviation inside the model, so that pixels in [0, 1] are all that anybody outside ever handles."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.data.dataset import Split
from seewhy.data.statistics import channel_statistics


class Normalize(nn.Module):
    """`(pixels - mean) / std` for every channel; the two are buffers, saved and moved with the model.

    A channel with a std of 0 is only centered. Weights that were published without these buffers load all the same.
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
            state_dict.setdefault(
                prefix + name, buffer
            )  # torch hands over a copy, so the caller's dictionary stays as it is
        super()._load_from_state_dict(state_dict, prefix, *rest)


def normalize_for(sample: Split) -> Normalize:
    """The normalization that gives the images of `sample` (at most 50,000 of them are read) zero mean and unit variance."""
    with torch.device(
        sample.images.device
    ):  # the statistics are numbers, also where the model is being built on "meta"
        statistics = channel_statistics(sample, at_most=50_000)
    return Normalize(statistics.mean.tolist(), statistics.std.tolist())
