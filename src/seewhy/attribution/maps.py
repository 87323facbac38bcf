"""Maps brought to the size of the images they explain."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import SeewhyError


def resize_maps(maps: Tensor, size: Sequence[int]) -> Tensor:  # (N, H, W)
    """Maps (N, h, w) of any float type, bilinearly at `size` (height, width), pixels being areas (`align_corners=False`).

    Where a side shrinks every pixel still counts (antialiasing). Raises SeewhyError for other shapes, types and sizes.
    """
    check_maps(maps)
    height, width = size
    if min(height, width) < 1:
        raise SeewhyError(
            f"maps are resized to a height and a width of at least 1, found {tuple(size)}"
        )
    shrinks = height < maps.shape[1] or width < maps.shape[2]
    wide = maps.to(
        torch.promote_types(maps.dtype, torch.float32)
    )  # half precision cannot be antialiased on the CPU
    result = F.interpolate(
        wide[:, None], (height, width), mode="bilinear", align_corners=False, antialias=shrinks
    )
    return result[:, 0].to(maps.dtype)


def check_maps(maps: Tensor) -> None:
    """Raise SeewhyError unless `maps` are (N, h, w) float with none of the three 0."""
    if (
        not isinstance(maps, Tensor)
        or maps.ndim != 3
        or maps.numel() == 0
        or not maps.is_floating_point()
    ):
        found = (
            f"{tuple(maps.shape)} {maps.dtype}".replace("torch.", "")
            if isinstance(maps, Tensor)
            else type(maps).__name__
        )
        raise SeewhyError(
            f"maps must be a tensor (N, h, w) of floats with N of at least 1, found {found}"
        )


def fuse_layers(
    maps: Sequence[Tensor], size: tuple[int, int], gamma: float = 2.0
) -> Tensor:  # (N, H, W) in [0, 1]
    """The element-wise maximum of maps (N, h, w) of several layers, shallow ones first, at `size` (Jiang et al. 2021, LayerCAM).

    Each map is divided by its maximum; those before the last, whose values are small but for a few, become tanh(`gamma` times
    that), which lifts them. What is negative counts as 0, and so does a map without anything positive.
    """
    if not maps:
        raise SeewhyError("fuse_layers needs at least one map, found none")
    scaled = [_scaled(each) for each in maps]
    lifted = [torch.tanh(gamma * each) for each in scaled[:-1]] + scaled[-1:]
    return torch.stack([resize_maps(each, size) for each in lifted]).amax(0)


def _scaled(maps: Tensor) -> Tensor:
    positive = maps.clamp(min=0)
    highest = positive.amax((1, 2), keepdim=True)
    return positive / highest.where(highest > 0, 1)


def check_finite(maps: Tensor) -> None:
    check_maps(maps)
    bad = int((~maps.isfinite()).flatten(1).any(1).sum())
    if bad:
        raise SeewhyError(
            f"{bad} of {len(maps)} maps hold values that are not finite; look for the cause where they are made"
        )
