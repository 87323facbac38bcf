"""TrivialAugment (Müller & Hutter 2021): each image goes through one operation, drawn at random, at a random strength.

The operations and their ranges are the paper's "wide" space; what each does to the pixels is what Pillow does (its ImageOps,
ImageEnhance and nearest-neighbor affine transform with black behind). A batch goes through three stages, each of which leaves
alone the images whose operation is not its own: tables of pixel values, blends with a plainer image, and moves of pixels.
"""

import torch
from torch import Generator, Tensor

OPERATIONS = (
    "identity",
    "auto-contrast",
    "equalize",
    "solarize",
    "posterize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "rotate",
    "shear-x",
    "shear-y",
    "translate-x",
    "translate-y",
)
STRENGTHS = 31  # 0, 1/30, …, 1


def trivial_augment(images: Tensor, generator: Generator) -> Tensor:
    """Images (B, C, H, W) uint8, each after one of OPERATIONS at one of STRENGTHS and, for moves, in one of two directions."""
    operation, strength, direction = (
        torch.randint(choices, (len(images),), device=images.device, generator=generator)
        for choices in (len(OPERATIONS), STRENGTHS, 2)
    )
    return apply_operations(images, operation, strength / (STRENGTHS - 1), 2 * direction - 1)


def apply_operations(
    images: Tensor, operation: Tensor, strength: Tensor, direction: Tensor
) -> Tensor:
    """Images (B, C, H, W) uint8, image b after OPERATIONS[operation[b]].

    `operation` (B,) int64; `strength` (B,) float in [0, 1]; `direction` (B,) 1 or -1, heeded by rotate, shear and translate.
    """
    images = images.contiguous()
    images = _through_tables(images, operation, strength)
    images = _blended(images, operation, strength)
    return _moved(images, operation, strength * direction)


def _is(operation: Tensor, name: str) -> Tensor:  # (B, 1, 1) bool
    return (operation == OPERATIONS.index(name))[:, None, None]


def _through_tables(images: Tensor, operation: Tensor, strength: Tensor) -> Tensor:
    """Auto-contrast, equalize, solarize and posterize: a new value for each of the 256, looked up for every pixel."""
    pixels = images.flatten(2).long()  # (B, C, HW)
    value = torch.arange(256, dtype=torch.int32, device=images.device).expand(
        *images.shape[:2], 256
    )
    table = value
    for name, changed in (
        ("auto-contrast", _auto_contrast(value, images.flatten(2))),
        ("equalize", _equalize(value, pixels)),
        ("solarize", _solarize(value, strength)),
        ("posterize", _posterize(value, strength)),
    ):
        table = torch.where(_is(operation, name), changed, table)
    return table.byte().gather(2, pixels).view(images.shape)


def _auto_contrast(value: Tensor, pixels: Tensor) -> Tensor:
    """Stretch each channel so that its darkest pixel becomes 0 and its brightest 255."""
    low, high = pixels.aminmax(dim=2, keepdim=True)
    stretched = ((value - low) * 255 // (high - low).clamp(min=1)).clamp(0, 255)
    return torch.where(high > low, stretched, value)


def _equalize(value: Tensor, pixels: Tensor) -> Tensor:
    """Spread each channel's values so that every range of them holds about as many pixels."""
    one = torch.ones((), dtype=value.dtype, device=value.device)
    histogram = torch.zeros_like(value, memory_format=torch.contiguous_format).scatter_add_(
        2, pixels, one.expand_as(pixels)
    )
    of_brightest = histogram.gather(2, pixels.amax(2, keepdim=True))
    step = (pixels.shape[2] - of_brightest) // 255
    darker = histogram.cumsum(2, dtype=value.dtype) - histogram
    spread = ((step // 2 + darker) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, spread, value)


def _solarize(value: Tensor, strength: Tensor) -> Tensor:
    """Invert the values at and above a threshold that falls from 256 to 0."""
    threshold = 256 - (256 * strength).long()[:, None, None]
    return torch.where(value < threshold, value, 255 - value)


def _posterize(value: Tensor, strength: Tensor) -> Tensor:
    """Keep the 8 to 2 highest bits."""
    dropped = (6 * strength).long()[:, None, None]
    return value >> dropped << dropped


def _blended(images: Tensor, operation: Tensor, strength: Tensor) -> Tensor:
    """Color, contrast, brightness and sharpness: 0.01 to 2 times the difference from a plainer image, added to that one."""
    color, contrast, brightness, sharpness = (
        _is(operation, name)[..., None] for name in ("color", "contrast", "brightness", "sharpness")
    )
    pixels = images.float()
    gray = _gray(pixels)
    plain = torch.where(color, gray, gray.mean((2, 3), keepdim=True).round())
    plain = torch.where(sharpness, _smooth(pixels), plain)
    plain = torch.where(brightness, 0.0, plain)
    factor = torch.where(
        color | contrast | brightness | sharpness,
        (0.01 + 1.99 * strength)[:, None, None, None],
        1.0,
    )
    # the difference rather than lerp, which is slow on CPU where the weight is broadcast
    return pixels.sub_(plain).mul_(factor).add_(plain).round_().clamp_(0, 255).byte()


def _gray(pixels: Tensor) -> Tensor:  # (B, 1, H, W)
    """Luma of RGB (ITU-R BT.601), rounded; the mean over channels where there are not three."""
    if pixels.shape[1] != 3:
        return pixels.mean(1, keepdim=True).round_()
    red, green, blue = pixels[:, 0:1], pixels[:, 1:2], pixels[:, 2:3]
    return (0.299 * red + 0.587 * green + 0.114 * blue).round_()


def _smooth(pixels: Tensor) -> Tensor:
    """Each pixel five times and its eight neighbors once, over 13; the outermost pixels stay as they are."""
    # in place: fresh memory for every step would cost more time than the sums
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1]
    rows += pixels[:, :, 2:]
    smooth = pixels.clone()
    inner = smooth[:, :, 1:-1, 1:-1]
    inner *= 4
    for first in range(3):
        inner += rows[..., first : first + inner.shape[3]]
    inner.div_(13).round_()
    return smooth


def _moved(images: Tensor, operation: Tensor, strength: Tensor) -> Tensor:
    """Rotate by up to 135°, shear by up to 0.99, translate by up to 32 pixels but not more than the side; black behind."""
    count, channels, height, width = images.shape
    none = torch.zeros_like(strength)

    def of(name: str, value: Tensor, otherwise: Tensor = none) -> Tensor:
        return torch.where(operation == OPERATIONS.index(name), value, otherwise)[:, None, None]

    angle = torch.deg2rad(135 * strength)
    cosine, sine = of("rotate", angle.cos(), none + 1), of("rotate", angle.sin())
    shear_x, shear_y = of("shear-x", 0.99 * strength), of("shear-y", 0.99 * strength)
    shift_x = of("translate-x", (strength * min(32, width)).trunc())
    shift_y = of("translate-y", (strength * min(32, height)).trunc())
    # coordinates of pixel centers: from the image's center to rotate, from its corner to shear, as Pillow has it
    y = torch.arange(height, device=images.device)[:, None] + 0.5
    x = torch.arange(width, device=images.device) + 0.5
    from_y, from_x = y - height / 2, x - width / 2
    row = (
        (sine * from_x + cosine * from_y + height / 2 + shear_y * x + shift_y).floor().long()
    )  # (B, H, W)
    column = (cosine * from_x - sine * from_y + width / 2 + shear_x * y + shift_x).floor().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    source = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    moved = images.flatten(2).gather(2, source.view(count, 1, -1).expand(-1, channels, -1))
    return moved.view(images.shape) * inside[:, None]
