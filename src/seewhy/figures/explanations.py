"""Pictures of explanations: heat on the images that it explains, for many images, many methods, or before and after an attack."""

from collections.abc import Iterable, Sequence

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from seewhy.attribution.explanation import FINE, PIXELS, Explanation
from seewhy.attribution.maps import check_maps, resize_maps
from seewhy.data.thumbnails import downscale, to_rgb
from seewhy.errors import SeewhyError
from seewhy.figures.captions import (
    corner,
    headers,
    prediction,
    prediction_caption,
    target_caption,
    truth,
)
from seewhy.figures.image_grid import (
    MARGIN,
    NARROWEST,
    PIXEL,
    WIDEST,
    Cell,
    Label,
    Sheet,
    Tiles,
    draw,
    show,
    text_width,
    wrap,
)
from seewhy.figures.style import HEAT, STYLE
from seewhy.models.inspection import check_images

OPACITY = 0.5
MOST_ROWS = 50  # images below each other
MOST_COLUMNS, MOST_BLOCKS = 12, 4  # maps beside each other, and how often they go on below
SIDE = 160  # pixels of a picture's longer side, or near it: small images are enlarged by a whole number
LEGEND = 0.32  # inches below the pictures
FACTORS = tuple(
    step * 10**power for power in range(4) for step in (1, 2, 5)
)  # by which a difference may be amplified

Key = tuple[str, str]  # layer, method


def overlay(images: Tensor, maps: Tensor, opacity: float = OPACITY) -> Tensor:  # (N, H, W, 3) uint8
    """Heat of `maps` (N, h, w) on `images` (N, C, H, W) uint8 or float in [0, 1], at the images' size.

    A map is resized bilinearly, and heat is its positive part over its own largest value: 0 everywhere where nothing is positive.
    Heat covers the image in proportion up to half of the largest value, and with `opacity` in [0, 1] from there on, so that cold
    places show the image as it is. Raises SeewhyError for other shapes, types and ranges, and for maps that are not finite.
    """
    check_images(images)
    if not 0 <= opacity <= 1:
        raise SeewhyError(f"opacity must be from 0 to 1, found {opacity}")
    check_maps(maps)
    maps = resize_maps(maps.detach().float().cpu(), images.shape[2:])
    if len(maps) != len(images):
        raise SeewhyError(
            f"each image needs a map of its own, found {len(images)} images and {len(maps)} maps"
        )
    if not maps.isfinite().all():
        raise SeewhyError(
            "maps must be finite to be shown, found inf or nan; explain with precision 'fp32'"
        )
    palette = 255 * torch.tensor(mpl.colormaps[HEAT](range(256)))[:, :3].float()
    painted = []
    for pixels, signed in zip(
        _stored(images), maps, strict=True
    ):  # one by one: photographs are large
        peak = signed.max()
        heat = signed.clamp(min=0) / peak if peak > 0 else torch.zeros_like(signed)
        share = opacity * (2 * heat).clamp(max=1)[..., None]
        painted.append(
            torch.lerp(pixels.permute(1, 2, 0).float(), palette[(255 * heat).round().long()], share)
            .round()
            .byte()
        )
    return torch.stack(painted)


def explanation_figure(
    images: Tensor,  # (N, C, H, W) uint8, or float in [0, 1]
    explanation: Explanation,
    opacity: float = OPACITY,
    index: Sequence[int] | Tensor | None = None,
) -> Figure:
    """A row for each image: its true and its predicted class, the image, and an `overlay` for each layer and method.

    `index` chooses images, by number or by a mask (N,) bool such as `explanation.predicted != explanation.labels`. A map that
    shows nothing says why. Of more than 12 maps the rest go on below. Raises SeewhyError for more than 50 images or 48 maps, and
    for images and explanations that do not fit together.
    """
    rows = _rows(images, explanation, index)
    keys, count = list(explanation.maps), len(explanation.maps)
    blocks = -(-count // MOST_COLUMNS)
    if len(rows) > MOST_ROWS or blocks > MOST_BLOCKS:
        raise SeewhyError(
            f"a figure shows at most {MOST_ROWS} images with {MOST_BLOCKS * MOST_COLUMNS} maps each, found {len(rows)} with "
            f"{count}; choose images with index=, or explain with fewer layers or methods"
        )
    shown = _enlarged(_stored(images[rows]))
    width = -(-count // blocks)
    with mpl.rc_context(STYLE):
        labels = [prediction_caption(explanation, row) for row in rows]
        sheets = []
        for start in range(0, count, width):
            part = keys[start : start + width]
            columns = [
                [Cell(image) for image in shown],
                *(_heat(shown, explanation, key, rows, opacity) for key in part),
            ]
            cells = list(zip(*columns, strict=True))
            sheets.append(
                Sheet(["image", *headers(explanation, part)], labels, cells, corner(explanation))
            )
        return _with_legend(draw(sheets, below=LEGEND))


def methods_figure(
    images: Tensor,  # (C, H, W) or (N, C, H, W), uint8, or float in [0, 1]
    explanation: Explanation,
    opacity: float = OPACITY,
    index: int = 0,
) -> Figure:
    """One image with its classes, and beside it a row of overlays for each method, a column for each layer.

    Methods without a layer are in the column `pixels`. `index` says which image, where the explanation is of several. Raises
    SeewhyError for images and explanations that do not fit together.
    """
    if isinstance(images, Tensor) and images.ndim == 3:
        images = images[None]
    rows = _rows(images, explanation, [index])
    image = _stored(images[rows])
    shown = _enlarged(image)
    heat = {key: _heat(shown, explanation, key, rows, opacity)[0] for key in explanation.maps}
    layers = sorted(explanation.layers, key=lambda layer: layer == PIXELS)
    methods = sorted(explanation.methods, key=lambda method: (PIXELS, method) in heat)
    cells = [[heat.get((layer, method)) for layer in layers] for method in methods]
    with mpl.rc_context(STYLE):
        title = prediction_caption(explanation, rows[0])
        labels = [Label(tuple(wrap(method, 0.6 * WIDEST).split("\n"))) for method in methods]
        sheet = Sheet(layers, labels, cells, header_lines=len(title.lines))
        high = min(2, len(cells)) * sheet.tiles.pitch[0] - sheet.tiles.gap[0]  # pixels, as two rows
        large = _enlarged(image, round(high * max(shown.shape[2:]) / shown.shape[2]))
        tiles = Tiles(large[None], high * PIXEL / large.shape[2])
        left = MARGIN + max(tiles.extent[1], *map(text_width, title.lines)) + 2 * MARGIN
        figure = draw([sheet], left, LEGEND)
        axes = show(figure, tiles, MARGIN, sheet.above, "auto")
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
    images: Tensor,  # (N, C, H, W) uint8, or float in [0, 1], before the attack
    attacked: Tensor,  # the same after it
    clean_explanation: Explanation,
    attacked_explanation: Explanation,
    opacity: float = OPACITY,
) -> Figure:
    """A row for each image: itself and its overlays, what the attack added, and the attacked image and its overlays.

    Below the images stand the predicted class and its probability, and what is explained if not that. The difference is amplified
    around gray by the factor written below it. Raises SeewhyError for more than 50 images or 6 maps of each, and for what does
    not fit together.
    """
    rows = _rows(images, clean_explanation, None)
    _rows(attacked, attacked_explanation, None)
    keys = list(clean_explanation.maps)
    if images.shape != attacked.shape or keys != list(attacked_explanation.maps):
        raise SeewhyError(
            f"before and after the attack there must be images of one shape with the same layers and methods, found "
            f"{tuple(images.shape)} with {_listed(keys)}, and {tuple(attacked.shape)} with {_listed(attacked_explanation.maps)}"
        )
    if len(rows) > MOST_ROWS or 2 * len(keys) > MOST_COLUMNS:
        raise SeewhyError(
            f"a figure shows at most {MOST_ROWS} images with {MOST_COLUMNS // 2} maps before and after, found {len(rows)} with "
            f"{len(keys)}; give fewer images, or explain with fewer layers or methods"
        )
    with mpl.rc_context(STYLE):
        before, after = (
            _with_heat(some, explanation, rows, opacity)
            for some, explanation in ((images, clean_explanation), (attacked, attacked_explanation))
        )
        columns = [*before, _differences(images, attacked), *after]
        layers = headers(clean_explanation, keys)
        labels = [Label(truth(clean_explanation, row)) for row in rows]
        cells = list(zip(*columns, strict=True))
        sheet = Sheet(
            ["clean image", *layers, "difference", "attacked image", *layers],
            labels,
            cells,
            corner(clean_explanation),
        )
        return _with_legend(draw([sheet], below=LEGEND))


def _rows(
    images: Tensor, explanation: Explanation, index: Sequence[int] | Tensor | None
) -> list[int]:
    """The numbers of the images to be shown, after a check that everything fits together."""
    count, classes = len(explanation.logits), len(explanation.classes)
    if not isinstance(images, Tensor) or images.ndim != 4 or len(images) != count:
        found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise SeewhyError(
            f"the explanation is of {count} images, so there must be as many, (N, C, H, W), found {found}"
        )
    labels = explanation.labels
    if labels is not None and not ((labels >= 0) & (labels < classes)).all():
        raise SeewhyError(
            f"labels must be from 0 to {classes - 1}, one for each class, found {labels.min()} to {labels.max()}"
        )
    chosen = torch.arange(count) if index is None else torch.as_tensor(index).cpu()
    if chosen.dtype == torch.bool and chosen.shape == (count,):
        chosen = chosen.nonzero().flatten()
    if chosen.numel() == 0:
        raise SeewhyError("index chooses no image; there is nothing to show")
    if (
        chosen.ndim != 1
        or chosen.dtype == torch.bool
        or chosen.is_floating_point()
        or not ((chosen >= 0) & (chosen < count)).all()
    ):
        raise SeewhyError(
            f"index must be numbers from 0 to {count - 1}, or a mask ({count},) bool, found {index}"
        )
    check_images(images[chosen])
    return chosen.tolist()


def _stored(images: Tensor) -> Tensor:  # (N, 3, H, W) uint8
    """Pixels of any kind as they are shown."""
    images = images.detach().cpu()
    return to_rgb(images if images.dtype == torch.uint8 else (255 * images.float()).round().byte())


def _enlarged(images: Tensor, side: int = SIDE) -> Tensor:
    """(N, 3, H, W) uint8 with a longer side near `side`: every pixel a square, or a thumbnail of a photograph."""
    factor = max(1, round(side / max(images.shape[2:])))
    return downscale(images, side).repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def _heat(
    shown: Tensor, explanation: Explanation, key: Key, rows: Sequence[int], opacity: float
) -> list[Cell]:
    """A column: overlays on the enlarged images, so that heat is smooth however small they were, with the status of the map."""
    maps = explanation.maps[key][rows]
    maps = maps.where(
        maps.isfinite().all(2).all(1)[:, None, None], 0
    )  # the note says what is wrong with the others
    cells = []
    for picture, peak, row in zip(
        overlay(shown, maps, opacity), maps.amax((1, 2)).tolist(), rows, strict=True
    ):
        kind = explanation.statuses[key].kinds[row]
        note = (
            kind if kind != FINE else "" if peak > 0 else "nothing positive"
        )  # a signed map may be against the class
        cells.append(Cell(picture.permute(2, 0, 1), note))
    return cells


def _with_heat(
    images: Tensor, explanation: Explanation, rows: Sequence[int], opacity: float
) -> list[list[Cell]]:
    """Columns: the images with their predictions below, and their overlays."""
    shown = _enlarged(_stored(images))
    width = shown.shape[3] * PIXEL
    room = min(
        WIDEST, width + len(explanation.maps) * max(width, NARROWEST)
    )  # below the images' overlays too
    captions = [
        "\n".join([prediction(explanation, row, room), *target_caption(explanation, row, room)])
        for row in rows
    ]
    plain = [Cell(image, caption=caption) for image, caption in zip(shown, captions, strict=True)]
    return [plain, *(_heat(shown, explanation, key, rows, opacity) for key in explanation.maps)]


def _differences(images: Tensor, attacked: Tensor) -> list[Cell]:
    """A column: what was added to each image, around gray, by the largest factor that keeps it within black and white."""
    added = _unit(attacked) - _unit(images)
    cells = []
    for change in added:
        most = change.abs().max().item()
        factor = (
            max((factor for factor in FACTORS if factor * most <= 0.5), default=1) if most else 1
        )
        if (
            max(change.shape[1:]) > SIDE
        ):  # the mean over areas would cancel what is noise from pixel to pixel
            scale = SIDE / max(change.shape[1:])
            size = [max(1, round(length * scale)) for length in change.shape[1:]]
            change = F.interpolate(change[None], size, mode="nearest")[0]
        picture = _enlarged(_stored((0.5 + factor * change).clamp(0, 1)[None]))[0]
        cells.append(Cell(picture, caption=f"× {factor}" if most else "no change"))
    return cells


def _unit(images: Tensor) -> Tensor:  # (N, C, H, W) float32 in [0, 1]
    images = images.detach().cpu()
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def _listed(keys: Iterable[Key]) -> str:
    return ", ".join(" ".join(key) for key in keys)


def _with_legend(figure: Figure) -> Figure:
    """What heat looks like from none to the most, at the lower left, on gray."""
    height, width = round(0.1 / PIXEL), round(0.8 / PIXEL)
    gray = torch.full((1, 3, height, width), 127, dtype=torch.uint8)
    bar = overlay(gray, torch.linspace(0, 1, width).expand(1, height, width), 1).permute(0, 3, 1, 2)
    whole = figure.get_figheight()
    top = whole - 0.5 * LEGEND - 0.05
    show(figure, Tiles(bar[None], PIXEL), MARGIN, top, "auto")
    place = (2 * MARGIN + width * PIXEL) / figure.get_figwidth(), 1 - (top + 0.05) / whole
    figure.text(*place, "heat, up to each map's largest value", va="center", size="small")
    return figure
