"""Figures of explanations: heat maps by method and layer, and under attack."""

import math
from collections.abc import Iterable, Sequence

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from seewhy.attribution.explanation import Explanation
from seewhy.attribution.maps import check_maps, resize_maps
from seewhy.attribution.statuses import OK, PIXELS, Key
from seewhy.data.thumbnails import downscale, to_rgb
from seewhy.errors import SeewhyError, describe_value
from seewhy.figures.captions import (
    corner,
    headers,
    predicted_class,
    prediction_label,
    target,
    true_class,
)
from seewhy.figures.image_grid import (
    MARGIN,
    MAX_LABEL,
    MIN_PITCH,
    PIXEL,
    Cell,
    ImageGrid,
    Label,
    Tiles,
    draw_grids,
    place_tiles,
)
from seewhy.figures.style import HEAT, STYLE
from seewhy.figures.text import text_width, wrap
from seewhy.models.inspection import check_images
from seewhy.wording import counted

OPACITY = 0.5
PEAK = 0.995  # quantile of a map that has the hottest color
MAX_ROWS = 50  # images per column
MAX_COLUMNS, MAX_BLOCKS = 12, 4  # maps per row; further maps are in blocks below
SIDE = 160  # longer side in pixels; small images are enlarged by an integer factor near it
LEGEND_HEIGHT = 0.32  # inches
# possible amplifications of a difference
FACTORS = tuple(digit * 10**power for power in range(4) for digit in (1, 2, 5))


def overlay(images: Tensor, maps: Tensor, opacity: float = OPACITY) -> Tensor:
    """Overlay attribution maps on images as heat maps.

    Heat is the positive part of a map divided by its 99.5th percentile, at most 1; a few pixels may
    be much hotter than all others. It is 0 if no value is positive. Its opacity rises in proportion
    to the heat up to 0.5 and is `opacity` above.

    Args:
        images: (N, C, H, W) uint8, or float in [0, 1].
        maps: (N, h, w) float, resized bilinearly to (H, W).
        opacity: Opacity of heat, in [0, 1].

    Returns:
        (N, H, W, 3) uint8.

    Raises:
        SeewhyError: For images or maps of another kind, and for maps that are not finite.
    """
    check_images(images)
    if not 0 <= opacity <= 1:
        raise SeewhyError(f"opacity must be from 0 to 1, found {opacity}")
    check_maps(maps)
    maps = resize_maps(maps.detach().float().cpu(), images.shape[2:])
    if len(maps) != len(images):
        raise SeewhyError(
            f"overlay() needs one map per image, found {counted(len(images), 'image')} and "
            f"{counted(len(maps), 'map')}"
        )
    if not maps.isfinite().all():
        raise SeewhyError("maps must be finite, found inf or nan; explain with precision 'fp32'")
    palette = 255 * torch.tensor(mpl.colormaps[HEAT](range(256)))[:, :3].float()
    overlays = []
    for pixels, values in zip(to_rgb_bytes(images), maps, strict=True):  # photographs are large
        positive = values.clamp(min=0)
        peak = positive.flatten().kthvalue(math.ceil(PEAK * positive.numel())).values
        peak = peak if peak > 0 else positive.max()
        heat = (positive / peak).clamp(max=1) if peak > 0 else positive
        share = opacity * (2 * heat).clamp(max=1)[..., None]
        colors = palette[(255 * heat).round().long()]
        blended = torch.lerp(pixels.permute(1, 2, 0).float(), colors, share)
        overlays.append(blended.round().byte())
    return torch.stack(overlays)


def explanation_figure(
    images: Tensor,
    explanation: Explanation,
    opacity: float = OPACITY,
    index: Sequence[int] | Tensor | None = None,
    top: int = 1,
) -> Figure:
    """Show each image in a row with its true and predicted class and an overlay for each map.

    An empty map is labeled with the reason. Maps after the twelfth go below.

    Args:
        images: The explained images (N, C, H, W), uint8 or float in [0, 1].
        explanation: Maps of these images.
        opacity: Opacity of heat, in [0, 1].
        index: Images to show: numbers, or a mask (N,) bool such as
            `explanation.predicted != explanation.labels`; by default all.
        top: Number of most probable classes to list for each image.

    Raises:
        SeewhyError: For more than 50 images or 48 maps, and if the arguments do not match.
    """
    rows = _rows(images, explanation, index)
    keys, count = list(explanation.maps), len(explanation.maps)
    blocks = -(-count // MAX_COLUMNS)
    if len(rows) > MAX_ROWS or blocks > MAX_BLOCKS:
        raise SeewhyError(
            f"a figure shows at most {MAX_ROWS} images with {MAX_BLOCKS * MAX_COLUMNS} maps each, "
            f"found {len(rows)} with {count}; choose images with index=, or explain with fewer "
            "layers or methods"
        )
    enlarged = enlarge(to_rgb_bytes(images[rows]))
    columns_per_block = -(-count // blocks)
    with mpl.rc_context(STYLE):
        labels = [prediction_label(explanation, row, top) for row in rows]
        grids = []
        for start in range(0, count, columns_per_block):
            block = keys[start : start + columns_per_block]
            columns = [[Cell(image) for image in enlarged]]
            columns += [_heat_cells(enlarged, explanation, key, rows, opacity) for key in block]
            cells = list(zip(*columns, strict=True))
            names = ["image", *headers(explanation, block)]
            grids.append(ImageGrid(names, labels, cells, corner(explanation)))
        return _with_legend(draw_grids(grids, bottom=LEGEND_HEIGHT))


def methods_figure(
    images: Tensor,
    explanation: Explanation,
    opacity: float = OPACITY,
    index: int = 0,
) -> Figure:
    """Compare methods on one image: a row of overlays for each method, a column for each layer.

    Methods without a layer are in the column `pixels`.

    Args:
        images: The explained image (C, H, W) or images (N, C, H, W), uint8 or float in [0, 1].
        explanation: Maps of these images.
        opacity: Opacity of heat, in [0, 1].
        index: Number of the image to show.

    Raises:
        SeewhyError: If the arguments do not match.
    """
    if isinstance(images, Tensor) and images.ndim == 3:
        images = images[None]
    rows = _rows(images, explanation, [index])
    image = to_rgb_bytes(images[rows])
    enlarged = enlarge(image)
    overlays = {
        key: _heat_cells(enlarged, explanation, key, rows, opacity)[0] for key in explanation.maps
    }
    layers = sorted(explanation.layers, key=lambda layer: layer == PIXELS)
    methods = sorted(explanation.methods, key=lambda method: (PIXELS, method) in overlays)
    cells = [[overlays.get((layer, method)) for layer in layers] for method in methods]
    with mpl.rc_context(STYLE):
        title = prediction_label(explanation, rows[0])
        labels = [Label(tuple(wrap(method, 0.6 * MAX_LABEL).split("\n"))) for method in methods]
        grid = ImageGrid(layers, labels, cells, header_lines=len(title.lines))
        # the image is two rows high
        height = min(2, len(cells)) * grid.tiles.pitch[0] - grid.tiles.gap[0]
        large = enlarge(image, round(height * max(enlarged.shape[2:]) / enlarged.shape[2]))
        tiles = Tiles(large[None], height * PIXEL / large.shape[2])
        left = MARGIN + max(tiles.extent[1], *map(text_width, title.lines)) + 2 * MARGIN
        figure = draw_grids([grid], left, LEGEND_HEIGHT)
        axes = place_tiles(figure, tiles, MARGIN, grid.top, "auto")
        axes.set_title(
            "\n".join(title.lines),
            color=title.color,
            loc="left",
            va="bottom",
            pad=72 * MARGIN,
            size=mpl.rcParams["font.size"],
        )
        return _with_legend(figure)


def attack_figure(
    images: Tensor,
    attacked: Tensor,
    clean_explanation: Explanation,
    attacked_explanation: Explanation,
    opacity: float = OPACITY,
) -> Figure:
    """Show each image with its overlays before and after an attack, and the perturbation.

    The predicted class and its probability are below each image. The perturbation is amplified
    around gray by the factor below it.

    Args:
        images: Clean images (N, C, H, W), uint8 or float in [0, 1].
        attacked: The attacked images, of the same shape.
        clean_explanation: Maps of the clean images.
        attacked_explanation: Maps of the attacked images, of the same layers and methods.
        opacity: Opacity of heat, in [0, 1].

    Raises:
        SeewhyError: For more than 50 images or 6 maps, and if the arguments do not match.
    """
    rows = _rows(images, clean_explanation, None)
    _rows(attacked, attacked_explanation, None)
    keys = list(clean_explanation.maps)
    if images.shape != attacked.shape or keys != list(attacked_explanation.maps):
        raise SeewhyError(
            "clean and attacked images must have one shape and the same layers and methods, found "
            f"{tuple(images.shape)} with {_join(keys)}, and {tuple(attacked.shape)} with "
            f"{_join(attacked_explanation.maps)}"
        )
    if len(rows) > MAX_ROWS or 2 * len(keys) > MAX_COLUMNS:
        raise SeewhyError(
            f"a figure shows at most {MAX_ROWS} images with {MAX_COLUMNS // 2} maps before and "
            f"after, found {len(rows)} with {len(keys)}; give fewer images, or explain with fewer "
            "layers or methods"
        )
    with mpl.rc_context(STYLE):
        columns = [
            *_captioned_columns(images, clean_explanation, rows, opacity),
            _perturbation_cells(images, attacked),
            *_captioned_columns(attacked, attacked_explanation, rows, opacity),
        ]
        layers = headers(clean_explanation, keys)
        grid = ImageGrid(
            ["clean image", *layers, "perturbation", "attacked image", *layers],
            [Label(true_class(clean_explanation, row)) for row in rows],
            list(zip(*columns, strict=True)),
            corner(clean_explanation),
        )
        return _with_legend(draw_grids([grid], bottom=LEGEND_HEIGHT))


def _rows(
    images: Tensor, explanation: Explanation, index: Sequence[int] | Tensor | None
) -> list[int]:
    """Check the arguments, and return the indices of the images to show."""
    count, num_classes = len(explanation.logits), len(explanation.classes)
    if not isinstance(images, Tensor) or images.ndim != 4 or len(images) != count:
        raise SeewhyError(
            f"an explanation of {counted(count, 'image')} needs images ({count}, C, H, W), found "
            f"{describe_value(images)}"
        )
    labels = explanation.labels
    if labels is not None and not ((labels >= 0) & (labels < num_classes)).all():
        raise SeewhyError(
            f"labels must be from 0 to {num_classes - 1}, found {labels.min()} to {labels.max()}"
        )
    numbers = torch.arange(count) if index is None else torch.as_tensor(index).cpu()
    if numbers.dtype == torch.bool and numbers.shape == (count,):
        numbers = numbers.nonzero().flatten()
    if numbers.numel() == 0:
        raise SeewhyError("index selects no image; select at least one")
    integers = numbers.dtype != torch.bool and not numbers.is_floating_point()
    if numbers.ndim != 1 or not integers or not ((numbers >= 0) & (numbers < count)).all():
        raise SeewhyError(
            f"index must be numbers from 0 to {count - 1}, or a mask ({count},) bool, found {index}"
        )
    check_images(images[numbers])
    return numbers.tolist()


def to_rgb_bytes(images: Tensor) -> Tensor:  # (N, 3, H, W) uint8
    images = images.detach().cpu()
    return to_rgb(images if images.dtype == torch.uint8 else (255 * images.float()).round().byte())


def _to_floats(images: Tensor) -> Tensor:  # (N, C, H, W) float32 in [0, 1]
    images = images.detach().cpu()
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def enlarge(images: Tensor, side: int = SIDE) -> Tensor:
    """(N, 3, H, W) uint8 with a longer side near `side`: pixels as squares, or a thumbnail."""
    factor = max(1, round(side / max(images.shape[2:])))
    return downscale(images, side).repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def _heat_cells(
    enlarged: Tensor, explanation: Explanation, key: Key, rows: Sequence[int], opacity: float
) -> list[Cell]:
    """A column of overlays, with the status of empty maps."""
    maps = explanation.maps[key][rows]
    finite = maps.isfinite().all(2).all(1)
    maps = maps.where(finite[:, None, None], 0)  # a note marks maps that are not finite
    overlays = overlay(enlarged, maps, opacity).permute(0, 3, 1, 2)
    cells = []
    for image, peak, row in zip(overlays, maps.amax((1, 2)).tolist(), rows, strict=True):
        note = explanation.statuses[key].kinds[row]
        if note == OK:
            note = "" if peak > 0 else "no positive evidence"  # possible for a signed map
        cells.append(Cell(image, note))
    return cells


def _captioned_columns(
    images: Tensor, explanation: Explanation, rows: Sequence[int], opacity: float
) -> list[list[Cell]]:
    """A column of images with their predictions below, and a column of overlays for each map."""
    enlarged = enlarge(to_rgb_bytes(images))
    width = enlarged.shape[3] * PIXEL
    # a caption may extend below the overlays
    room = min(MAX_LABEL, width + len(explanation.maps) * max(width, MIN_PITCH))
    captioned = []
    for image, row in zip(enlarged, rows, strict=True):
        lines = [predicted_class(explanation, row, room), *target(explanation, row, room)]
        captioned.append(Cell(image, caption="\n".join(lines)))
    overlays = [_heat_cells(enlarged, explanation, key, rows, opacity) for key in explanation.maps]
    return [captioned, *overlays]


def _perturbation_cells(images: Tensor, attacked: Tensor) -> list[Cell]:
    """Differences around gray, amplified by the largest factor that does not clip them."""
    cells = []
    for difference in _to_floats(attacked) - _to_floats(images):
        peak = difference.abs().max().item()
        if peak:
            factor = max((factor for factor in FACTORS if factor * peak <= 0.5), default=1)
            caption = f"× {factor}"
        else:
            factor, caption = 1, "no change"
        if max(difference.shape[1:]) > SIDE:  # averaging would cancel noise
            scale = SIDE / max(difference.shape[1:])
            size = [max(1, round(length * scale)) for length in difference.shape[1:]]
            difference = F.interpolate(difference[None], size, mode="nearest")[0]
        amplified = (0.5 + factor * difference).clamp(0, 1)[None]
        cells.append(Cell(enlarge(to_rgb_bytes(amplified))[0], caption=caption))
    return cells


def _join(keys: Iterable[Key]) -> str:
    return ", ".join(" ".join(key) for key in keys)


def _with_legend(figure: Figure) -> Figure:
    """Add the color scale of the heat maps at the lower left, on gray."""
    height, width = round(0.1 / PIXEL), round(0.8 / PIXEL)
    gray = torch.full((1, 3, height, width), 127, dtype=torch.uint8)
    bar = overlay(gray, torch.linspace(0, 1, width).expand(1, height, width), 1).permute(0, 3, 1, 2)
    figure_width, figure_height = figure.get_size_inches()
    top = figure_height - 0.5 * LEGEND_HEIGHT - 0.05
    place_tiles(figure, Tiles(bar[None], PIXEL), MARGIN, top, "auto")
    figure.text(
        (2 * MARGIN + width * PIXEL) / figure_width,
        1 - (top + 0.05) / figure_height,
        f"heat: 0 to each map's {100 * PEAK:g}th percentile",
        va="center",
        size="small",
    )
    return figure
