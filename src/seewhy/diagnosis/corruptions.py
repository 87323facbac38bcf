"""Common corruptions of images (camera, weather, compression) at five strengths.

Inspired by Hendrycks & Dietterich 2019 (ImageNet-C), with other code and constants. A corruption is
a function `(images, strength, generator, settings with defaults) -> images` and one line in
CORRUPTIONS.
"""

import io
from collections.abc import Callable
from numbers import Integral

import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional as F

from seewhy.data.decode import open_image
from seewhy.errors import SeewhyError
from seewhy.models.inspection import check_images
from seewhy.notation import bind

STRENGTHS = (1, 2, 3, 4, 5)  # from mild to heavy

# Settings by strength. Lengths are in pixels of an image with a longer side of 32 pixels. They are
# scaled up for larger images, which then lose as much content, but not down for smaller images,
# which would hardly change.
NOISE = (0.02, 0.04, 0.06, 0.09, 0.13)  # standard deviation, for pixels in [0, 1]
BLUR = (0.4, 0.6, 0.8, 1.05, 1.35)  # standard deviation of the Gaussian, in pixels
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)  # added to every pixel
CONTRAST = (0.7, 0.5, 0.35, 0.23, 0.14)  # factor of the distance from the mean
JPEG = (70, 50, 35, 22, 12)  # Pillow's quality, up to 100
PIXELATE = (0.9, 0.75, 0.6, 0.45, 0.3)  # blocks per pixel of a side: 29 to 10 for 32 pixels
FOG = (0.3, 0.6, 1.0, 1.4, 1.9)  # optical thickness on average: 74% to 15% of the light passes

FOG_LIGHT = 0.9  # gray value of the fog
_VALUES = 2**23  # pixel values held as floats at once, 32 MB


def corrupt(images: Tensor, corruption: str, strength: int, seed: int = 0) -> Tensor:
    """Apply a common corruption.

    Args:
        images: (N, C, H, W) uint8, or float in [0, 1].
        corruption: An entry of CORRUPTIONS, such as "fog".
        strength: From 1 (mild) to 5 (heavy).
        seed: Seed of random corruptions, drawn image by image and the same at every strength.

    Returns:
        Corrupted images (N, C, H, W) uint8.

    Raises:
        SeewhyError: For an unknown corruption, a strength out of range, and images of the wrong
            shape or range.
    """
    function = bind(CORRUPTIONS, corruption, "corruption", n_supplied=3)
    if not isinstance(strength, Integral) or strength not in STRENGTHS:
        raise SeewhyError(
            f"strength must be a whole number from 1 (mild) to 5 (heavy), found {strength!r}"
        )
    check_images(images)
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on every device
    corrupted = []
    for batch in torch.split(images.detach(), max(1, _VALUES // images[0].numel())):
        pixels = batch.float() / 255 if batch.dtype == torch.uint8 else batch
        corrupted.append(_to_uint8(function(pixels, int(strength), generator)))
    return torch.cat(corrupted)


def noise(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """Gaussian sensor noise on every value; NOISE has the standard deviations."""
    # one image at a time, so that the batch size does not change the draws
    values = torch.stack([torch.randn(image.shape, generator=generator) for image in images])
    return (images + NOISE[strength - 1] * values.to(images)).clamp(0, 1)


def blur(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """Gaussian blur (defocus) that ignores pixels outside the image; BLUR has the widths."""
    sigma = BLUR[strength - 1] * _unit(images)

    def weights(side: int) -> Tensor:  # (side, side), weights of the input pixels
        positions = torch.arange(side, dtype=torch.float64)
        bell = (-0.5 * ((positions - positions[:, None]) / sigma) ** 2).exp()
        return bell / bell.sum(1, keepdim=True)

    return _mix_pixels(images, weights)


def brightness(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """Overexposure: BRIGHTNESS is added to every value, which is then clipped."""
    return (images + BRIGHTNESS[strength - 1]).clamp(0, 1)


def contrast(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """Low contrast: every value moved toward the mean of its channel; CONTRAST has the factors."""
    mean = images.mean((2, 3), keepdim=True)
    return (mean + CONTRAST[strength - 1] * (images - mean)).clamp(0, 1)


def jpeg(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """JPEG compression, per channel unless there are one or three; JPEG has the qualities."""
    color = images.shape[1] == 3
    pixels = _to_uint8(images).permute(0, 2, 3, 1) if color else _to_uint8(images).flatten(0, 1)
    decoded = torch.stack([_compress(image, JPEG[strength - 1]) for image in pixels.cpu()])
    decoded = decoded.permute(0, 3, 1, 2) if color else decoded.view(images.shape)
    return decoded.to(images) / 255


def pixelate(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """Low resolution: blocks of pixels replaced by their mean; PIXELATE has the block counts."""

    def weights(side: int) -> Tensor:  # (side, side), weights of the input pixels
        blocks = max(1, round(PIXELATE[strength - 1] * side / _unit(images)))
        block = torch.arange(side) * blocks // side
        same = (block == block[:, None]).double()
        return same / same.sum(1, keepdim=True)

    return _mix_pixels(images, weights)


def fog(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """Fog of uneven thickness (Koschmieder 1924): pixels times t, plus FOG_LIGHT times 1 - t.

    The transmission t is exp(-FOG * thickness), with a thickness from 0.5 to 1.5 in every image.
    """
    clouds = _clouds(len(images), images.shape[2:], generator).to(images)
    transmission = torch.exp(-FOG[strength - 1] * (0.5 + clouds))
    return (FOG_LIGHT + transmission * (images - FOG_LIGHT)).clamp(0, 1)


CORRUPTIONS: dict[str, Callable[..., Tensor]] = {
    "noise": noise,
    "blur": blur,
    "brightness": brightness,
    "contrast": contrast,
    "jpeg": jpeg,
    "pixelate": pixelate,
    "fog": fog,
}


def _unit(images: Tensor) -> float:
    """Pixels of these images per pixel of an image of 32; at least 1."""
    return max(1.0, max(images.shape[2:]) / 32)


def _clouds(count: int, size: torch.Size, generator: Generator) -> Tensor:
    """Smooth noise in octaves, (count, 1, H, W) float32 from 0 to 1 in every image.

    Each octave is twice as fine and half as strong as the one before.
    """
    (height, width), longer = size, max(size)
    # cells along the longer side
    octaves = [2**octave for octave in range(1, max(2, longer.bit_length()))]
    grids = [
        (1 + -(-cells * height // longer), 1 + -(-cells * width // longer)) for cells in octaves
    ]
    sizes = [rows * columns for rows, columns in grids]
    draws = torch.stack([torch.rand(sum(sizes), generator=generator) for _ in range(count)])
    field = torch.zeros(count, 1, *size)
    for cells, grid, values in zip(octaves, grids, torch.split(draws, sizes, 1), strict=True):
        corners = values.view(count, 1, *grid)
        field += F.interpolate(corners, size, mode="bicubic", align_corners=True) / cells
    low, high = field.amin((2, 3), keepdim=True), field.amax((2, 3), keepdim=True)
    return (field - low) / (high - low).clamp_min(torch.finfo(field.dtype).tiny)


def _mix_pixels(images: Tensor, weights: Callable[[int], Tensor]) -> Tensor:
    """Multiply the columns and then the rows of pixels by the `weights` for their length."""
    height, width = images.shape[2:]
    return (weights(height).to(images) @ images @ weights(width).T.to(images)).clamp(0, 1)


def _compress(image: Tensor, quality: int) -> Tensor:  # (H, W, 3) or (H, W) uint8
    with io.BytesIO() as file:
        Image.fromarray(image.numpy()).save(file, "JPEG", quality=quality)
        decoded = open_image(file.getvalue())
        pixels = torch.frombuffer(bytearray(decoded.tobytes()), dtype=torch.uint8)
    return pixels.view(image.shape)


def _to_uint8(images: Tensor) -> Tensor:
    return images.mul(255).round().clamp(0, 255).byte()
