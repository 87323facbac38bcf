"""Whether the positions of a layer are where its layout says, measured by planted patches."""

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.attribution.layouts import Layout, is_proportional

_PLACES = ((0.06, 0.19), (0.19, 0.69), (0.69, 0.31), (0.56, 0.81))  # top and left, of the side
_SIDE = 0.125  # of a patch
_MIN_POSITIONS = 25  # with fewer, chance is not told apart
_MIN_AUC = 0.7  # chance is 0.5, with a standard deviation of up to 0.1


def plant(image: Tensor) -> Tensor:  # (2, C, H, W)
    """An image (1, C, H, W) in [0, 1], and the image with patches of changed pixels."""
    changed = torch.where(_patches(image) > 0, (image + 0.5) % 1, image)
    return torch.cat([image, changed])


def is_misplaced(layout: Layout, output: Tensor, images: Tensor) -> bool:
    """Whether a layer's output (2, ...) for the `plant`ed images changes at other positions.

    Only where the shape leaves a doubt: for tokens, channels last, and odd grids.
    """
    certain = layout.form == "NCHW" and is_proportional(layout.grid, *images.shape[2:])
    if certain or layout.grid[0] * layout.grid[1] < _MIN_POSITIONS:
        return False
    values = layout.to_grid(output.detach().float())
    change = (values[1] - values[0]).square().sum(0).flatten()
    coverage = F.adaptive_avg_pool2d(_patches(images[:1]), layout.grid).flatten()
    inside = change[coverage >= 0.5 * coverage.max()]
    outside = change[coverage == 0]
    if not change.any() or not change.isfinite().all() or not len(outside):
        return False
    difference = inside[:, None] - outside
    auc = (difference > 0).float().mean() + (difference == 0).float().mean() / 2
    return auc.item() < _MIN_AUC


def _patches(image: Tensor) -> Tensor:  # (1, 1, H, W), 1 where a patch is planted
    height, width = image.shape[2:]
    mask = torch.zeros(1, 1, height, width, device=image.device)
    for top, left in _PLACES:
        rows = slice(round(top * height), round((top + _SIDE) * height) + 1)
        columns = slice(round(left * width), round((left + _SIDE) * width) + 1)
        mask[:, :, rows, columns] = 1
    return mask
