"""Operations on maps (N, h, w): checks, scaling, resizing, and fusion of layers."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import SeewhyError, describe_value
from seewhy.wording import counted

# Largest value of a residue, relative to the largest sum of absolute values over the channels. The
# epsilon of a normalization leaves less than 1e-3, and a map of 1000 random channels about 0.03.
RESIDUES = {"fp32": 1e-3, "fp16": 5e-3, "bf16": 2e-2}


def resize_maps(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps bilinearly; pixels are areas (`align_corners=False`).

    Antialiased where a side shrinks.

    Args:
        maps: (N, h, w) of any float type.
        size: Height and width (H, W).

    Returns:
        (N, H, W) of the same type.

    Raises:
        SeewhyError: For other shapes, types and sizes.
    """
    check_maps(maps)
    height, width = size
    if min(height, width) < 1:
        raise SeewhyError(f"size must be a height and a width of at least 1, found {tuple(size)}")
    shrinks = height < maps.shape[1] or width < maps.shape[2]
    # The CPU has no antialiasing in half precision.
    wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
    resized = F.interpolate(
        wide[:, None], (height, width), mode="bilinear", align_corners=False, antialias=shrinks
    )
    return resized[:, 0].to(maps.dtype)


def fuse_layers(maps: Sequence[Tensor], size: tuple[int, int], gamma: float = 2.0) -> Tensor:
    """Element-wise maximum of the maps of several layers (Jiang et al. 2021, LayerCAM).

    Each map is divided by its maximum; negative values count as 0. All maps but the last are then
    raised by tanh(`gamma` * map), because their values are mostly small.

    Args:
        maps: One tensor (N, h, w) per layer, shallow layers first.
        size: Height and width (H, W) of the result.
        gamma: Factor inside tanh.

    Returns:
        (N, H, W) in [0, 1].
    """
    if not maps:
        raise SeewhyError("fuse_layers needs at least one map, found none")
    scaled = [scale_by_magnitude(each.clamp(min=0)) for each in maps]
    lifted = [torch.tanh(gamma * each) for each in scaled[:-1]] + scaled[-1:]
    return torch.stack([resize_maps(each, size) for each in lifted]).amax(0)


def scale_to_unit(maps: Tensor, tolerance: float = 0.0) -> Tensor:
    """Each map (..., h, w) from 0 at its minimum to 1 at its maximum; 0 where it is constant.

    A map whose values differ by no more than `tolerance` is constant.
    """
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    constant = high - low <= tolerance
    return ((maps - low) / (high - low).where(~constant, 1)).where(~constant, 0)


def scale_by_magnitude(maps: Tensor) -> Tensor:
    """Each map (..., h, w) divided by its largest absolute value; 0 where it is all zero."""
    largest = maps.abs().amax((-2, -1), keepdim=True)
    return maps / largest.where(largest > 0, 1)


def is_residue(activation: Tensor, gradient: Tensor, precision: str) -> Tensor:  # (N,) bool
    """Whether gradient times activation (N, C, h, w) cancels over channels at all positions.

    A normalization over channels does not change if its input is scaled, so that the gradient is
    orthogonal to the input; only rounding and its epsilon are left.
    """
    products = (gradient * activation).flatten(2)
    largest = products.abs().sum(1).amax(1)
    remainder = products.sum(1).abs().amax(1)
    return (largest > 0) & (remainder < RESIDUES[precision] * largest)


def check_maps(maps: Tensor) -> None:
    """Raise SeewhyError unless `maps` is a non-empty float tensor (N, h, w)."""
    if (
        not isinstance(maps, Tensor)
        or maps.ndim != 3
        or maps.numel() == 0
        or not maps.is_floating_point()
    ):
        raise SeewhyError(
            "maps must be a tensor (N, h, w) of floats with N of at least 1, found "
            f"{describe_value(maps)}"
        )


def check_finite(maps: Tensor) -> None:
    """Raise SeewhyError unless `maps` is a non-empty float tensor (N, h, w) of finite values."""
    check_maps(maps)
    bad = int((~maps.isfinite()).flatten(1).any(1).sum())
    if bad:
        raise SeewhyError(
            f"{bad} of {counted(len(maps), 'map')} contain NaN or infinity; check the model and "
            "the method that made them"
        )
