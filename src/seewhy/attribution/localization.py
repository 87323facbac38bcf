"""Localization: how well maps agree with object masks."""

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.attribution.maps import check_finite, resize_maps, scale_by_magnitude, scale_to_unit
from seewhy.errors import SeewhyError, describe_value
from seewhy.wording import counted

_ROUNDING = 1e-6  # fraction of a map's range below which values are equal


def pointing_game(maps: Tensor, masks: Tensor, tolerance: int = 0) -> Tensor:
    """Whether the maximum of each map is on the object (Zhang et al. 2016).

    Maps are resized to the masks first. If several pixels tie for the maximum, at least half must
    hit. A constant map and an empty mask count as a miss.

    Args:
        maps: (N, h, w) float.
        masks: (N, H, W) bool, True on the object.
        tolerance: Distance from the object, in pixels, that still counts as a hit; 15 in the paper.

    Returns:
        (N,) bool.

    Raises:
        SeewhyError: For maps that are not finite, and for shapes and types that do not fit.
    """
    maps, masks = _matched(maps, masks)
    heat = resize_maps(scale_to_unit(scale_by_magnitude(maps), _ROUNDING), masks.shape[1:])
    highest = heat.amax((1, 2), keepdim=True)
    maxima = heat >= highest - _ROUNDING
    hits = maxima & _dilate(masks, tolerance)
    return (2 * hits.sum((1, 2)) >= maxima.sum((1, 2))) & (highest[:, 0, 0] > 0)


def relevance_mass_accuracy(maps: Tensor, masks: Tensor) -> Tensor:
    """Fraction of each map's positive attribution on the object.

    Relevance mass accuracy in Quantus, the energy-based pointing game of Wang et al. 2020. Maps are
    resized to the masks first.

    Args:
        maps: (N, h, w) float.
        masks: (N, H, W) bool, True on the object.

    Returns:
        (N,) float in [0, 1]; 0 if no value is positive.

    Raises:
        SeewhyError: For maps that are not finite, and for shapes and types that do not fit.
    """
    maps, masks = _matched(maps, masks)
    heat = resize_maps(scale_by_magnitude(maps), masks.shape[1:]).clamp_min(0)
    total = heat.sum((1, 2))
    return (heat * masks).sum((1, 2)) / total.where(total > 0, 1)


def chance_level(masks: Tensor, tolerance: int = 0) -> float:
    """Expected score of random maps: the mean fraction of the image that is object.

    Args:
        masks: (N, H, W) bool, True on the object.
        tolerance: As in the pointing game; 0 for relevance mass accuracy.
    """
    _check_masks(masks)
    return _dilate(masks, tolerance).float().mean((1, 2)).mean().item()


def _dilate(masks: Tensor, tolerance: int) -> Tensor:  # (N, H, W) bool
    """The masks grown by `tolerance` pixels in every direction."""
    if tolerance < 0:
        raise SeewhyError(f"tolerance must be at least 0 pixels, found {tolerance}")
    if tolerance == 0:
        return masks
    steps = torch.arange(-tolerance, tolerance + 1, device=masks.device)
    disc = (steps[:, None] ** 2 + steps**2 <= tolerance**2).float()
    return F.conv2d(masks[:, None].float(), disc[None, None], padding=tolerance)[:, 0] > 0.5


def _matched(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Maps and masks, checked and on one device; maps in at least float32 against overflow."""
    check_finite(maps)
    _check_masks(masks)
    if len(masks) != len(maps):
        raise SeewhyError(
            f"localization needs one mask per map, found {counted(len(maps), 'map')} and "
            f"{counted(len(masks), 'mask')}"
        )
    wide = maps.detach().to(torch.promote_types(maps.dtype, torch.float32))
    return wide, masks.to(maps.device)


def _check_masks(masks: Tensor) -> None:
    if (
        not isinstance(masks, Tensor)
        or masks.ndim != 3
        or masks.dtype != torch.bool
        or masks.numel() == 0
    ):
        raise SeewhyError(
            "masks must be a tensor (N, H, W) bool, as in split.masks, or made with `masks > 0`; "
            f"found {describe_value(masks)}"
        )
