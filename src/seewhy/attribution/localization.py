"""Where the evidence lies: on the object, or on something that comes with it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.attribution.maps import check_finite, resize_maps
from seewhy.errors import SeewhyError

_ROUNDING = 1e-6  # of a map's largest magnitude, or of its range: values this near count as equal


def pointing_game(maps: Tensor, masks: Tensor, tolerance: int = 0) -> Tensor:  # (N,) bool
    """Whether the maximum of each map (N, h, w) float lies on the object, masks (N, H, W) bool (Zhang et al. 2016).

    Maps are brought to the masks' size first; `tolerance` is how many pixels beside the object still hit (theirs: 15). Of
    several equal maxima at least half must hit. A constant map has no maximum and misses, as does a map without an object.
    Raises SeewhyError for maps that are not finite, and for shapes and types that do not fit.
    """
    maps, masks = _matched(maps, masks)
    heat = resize_maps(_zero_to_one(maps), masks.shape[1:])
    highest = heat.amax((1, 2), keepdim=True)
    peaks = heat >= highest - _ROUNDING
    hits = peaks & _near(masks, tolerance)
    return (2 * hits.sum((1, 2)) >= peaks.sum((1, 2))) & (highest[:, 0, 0] > 0)


def relevance_mass_accuracy(maps: Tensor, masks: Tensor) -> Tensor:  # (N,) float in [0, 1]
    """Share of each map's positive part that lies on the object, as in the energy-based pointing game (Wang et al. 2020).

    Maps (N, h, w) float are brought to the size of the masks (N, H, W) bool first. 0 where nothing is positive.
    Raises SeewhyError for maps that are not finite, and for shapes and types that do not fit.
    """
    maps, masks = _matched(maps, masks)
    heat = resize_maps(_scaled(maps), masks.shape[1:]).clamp_min(0)
    total = heat.sum((1, 2))
    return (heat * masks).sum((1, 2)) / total.where(total > 0, 1)


def chance_level(masks: Tensor, tolerance: int = 0) -> float:
    """What maps of noise score in the pointing game and, without `tolerance`, in energy: the masks' mean share of the area."""
    _check_masks(masks)
    return _near(masks, tolerance).float().mean((1, 2)).mean().item()


def _near(masks: Tensor, tolerance: int) -> Tensor:  # (N, H, W) bool
    """The masks, wider by so many pixels in every direction."""
    if tolerance < 0:
        raise SeewhyError(f"tolerance is a number of pixels, at least 0, found {tolerance}")
    if tolerance == 0:
        return masks
    steps = torch.arange(-tolerance, tolerance + 1, device=masks.device)
    disc = (steps[:, None] ** 2 + steps**2 <= tolerance**2).float()
    return F.conv2d(masks[:, None].float(), disc[None, None], padding=tolerance)[:, 0] > 0.5


def _zero_to_one(maps: Tensor) -> Tensor:
    """Each map from 0 at its minimum to 1 at its maximum; 0 everywhere where it is constant but for rounding."""
    scaled = _scaled(maps)
    low, high = scaled.amin((1, 2), keepdim=True), scaled.amax((1, 2), keepdim=True)
    varies = high - low > _ROUNDING
    return ((scaled - low) / (high - low).where(varies, 1)).where(varies, 0)


def _scaled(maps: Tensor) -> Tensor:
    """Maps divided by their largest magnitude, in at least float32, so that sums neither overflow nor vanish."""
    wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
    largest = wide.abs().amax((1, 2), keepdim=True)
    return wide / largest.where(largest > 0, 1)


def _matched(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Both checked, and on one device."""
    check_finite(maps)
    _check_masks(masks)
    if len(masks) != len(maps):
        raise SeewhyError(
            f"each map needs the mask of its image, found {len(maps)} maps and {len(masks)} masks"
        )
    return maps.detach(), masks.to(maps.device)


def _check_masks(masks: Tensor) -> None:
    if (
        not isinstance(masks, Tensor)
        or masks.ndim != 3
        or masks.dtype != torch.bool
        or masks.numel() == 0
    ):
        found = (
            f"{tuple(masks.shape)} {masks.dtype}".replace("torch.", "")
            if isinstance(masks, Tensor)
            else type(masks).__name__
        )
        raise SeewhyError(
            f"masks must be a tensor (N, H, W) bool, as in split.masks, or made with `masks > 0`; found {found}"
        )
