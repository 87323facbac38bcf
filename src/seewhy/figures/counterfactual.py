"""Images beside the regions without which their prediction is another one."""

import matplotlib as mpl
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from seewhy.attribution.counterfactual import Counterfactuals
from seewhy.errors import SeewhyError, describe_value
from seewhy.figures.explanations import MAX_ROWS, enlarge, to_rgb_bytes
from seewhy.figures.image_grid import Cell, ImageGrid, Label, draw_grids
from seewhy.figures.style import STYLE
from seewhy.figures.text import truncate
from seewhy.models.inspection import check_images

_NAME_WIDTH = 2.0  # inches
_DARK = 0.25  # brightness outside of the region


def counterfactual_figure(images: Tensor, counterfactuals: Counterfactuals) -> Figure:
    """Show each image, the region that is needed, and the image with the region replaced.

    Args:
        images: The images (N, C, H, W), uint8 or float in [0, 1]; at most 50.
        counterfactuals: From `counterfactual_regions`.

    Raises:
        SeewhyError: If the images are not those of the regions, and for more than 50.
    """
    check_images(images)
    if len(images) != len(counterfactuals.regions) or len(images) > MAX_ROWS:
        raise SeewhyError(
            f"a figure of {len(counterfactuals.regions)} regions needs as many images, at most "
            f"{MAX_ROWS}, found {describe_value(images)}"
        )
    shown = enlarge(to_rgb_bytes(images))
    replaced = enlarge(to_rgb_bytes(counterfactuals.images))
    regions = F.interpolate(
        counterfactuals.regions[:, None].float().cpu(), shown.shape[2:], mode="nearest-exact"
    )
    lit = (shown * (_DARK + (1 - _DARK) * regions)).round().byte()
    with mpl.rc_context(STYLE):
        rows = [
            [Cell(shown[n]), Cell(lit[n]), Cell(replaced[n])]
            if counterfactuals.found[n]
            else [Cell(shown[n]), None, None]
            for n in range(len(images))
        ]
        labels = [_label(counterfactuals, n) for n in range(len(images))]
        return draw_grids([ImageGrid(["image", "region", "replaced"], labels, rows)])


def _label(counterfactuals: Counterfactuals, n: int) -> Label:
    names = counterfactuals.classes
    before, after = (
        truncate(names[int(index[n])] if names else f"class {int(index[n])}", _NAME_WIDTH)
        for index in (counterfactuals.predicted, counterfactuals.changed)
    )
    if not counterfactuals.found[n]:
        return Label((before, "no region found"))
    return Label(
        (
            before,
            f"→ {after}",
            f"{100 * counterfactuals.area[n]:.1f}% of the image",
            f"random regions: {100 * counterfactuals.chance[n]:.0f}%",
        )
    )
