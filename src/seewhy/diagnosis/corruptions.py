"""Images made worse as cameras, weather and files make them worse, in five strengths.

The idea, not the code or its constants, is that of Hendrycks & Dietterich 2019 (ImageNet-C). A corruption is a function
`(images, strength, generator, settings with defaults) -> images`, and one line in CORRUPTIONS.
"""

import io
from collections.abc import Callable
from numbers import Integral

import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional as F

from seewhy.errors import SeewhyError
from seewhy.models.inspection import check_images
from seewhy.notation import bind

STRENGTHS = (1, 2, 3, 4, 5)  # from mild to heavy

# What a strength means. Lengths are in pixels of an image whose longer side has 32: a larger one has longer ones, so that it
# loses as much of what it shows; a smaller one has the same, as it would otherwise hardly change.
NOISE = (0.02, 0.04, 0.06, 0.09, 0.13)  # standard deviation, of pixels in [0, 1]
BLUR = (0.4, 0.6, 0.8, 1.05, 1.35)  # standard deviation of the Gaussian, in such pixels
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)  # added to every pixel
CONTRAST = (0.7, 0.5, 0.35, 0.23, 0.14)  # what remains of the distance from the mean
JPEG = (70, 50, 35, 22, 12)  # quality as Pillow counts it, of 100
PIXELATE = (
    0.9,
    0.75,
    0.6,
    0.45,
    0.3,
)  # blocks for each such pixel, along either side: 29 to 10 along 32
FOG = (
    0.3,
    0.6,
    1.0,
    1.4,
    1.9,
)  # optical thickness where it is 1: 74% to 15% of the light come through

FOG_LIGHT = 0.9  # the gray of the fog itself
_VALUES = 2**23  # of pixels that are held as floats at once, 32 MB


def corrupt(
    images: Tensor,  # (N, C, H, W) uint8, or float in [0, 1]
    corruption: str,
    strength: int,
    seed: int = 0,
) -> Tensor:  # (N, C, H, W) uint8
    """The images after what `corruption` names in CORRUPTIONS, as "fog", at a `strength` of 1 to 5, in whole pixel values.

    What is random is drawn image by image from `seed`, the same at every strength. Raises SeewhyError for an unknown corruption,
    a strength that is not one of the five, and images that are not pixels.
    """
    function = bind(CORRUPTIONS, corruption, "corruption", n_supplied=3)
    if not isinstance(strength, Integral) or strength not in STRENGTHS:
        raise SeewhyError(
            f"strength must be a whole number from 1 (mild) to 5 (heavy), found {strength!r}"
        )
    check_images(images)
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws for every device
    worse = []
    for batch in torch.split(images.detach(), max(1, _VALUES // images[0].numel())):
        pixels = batch.float() / 255 if batch.dtype == torch.uint8 else batch
        worse.append(_whole(function(pixels, int(strength), generator)))
    return torch.cat(worse)


def noise(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """Gaussian noise on every value, clipped to [0, 1]: that of a sensor in the dark. NOISE has its standard deviations."""
    # image by image, so that the size of the batch does not change what is drawn
    drawn = torch.stack([torch.randn(image.shape, generator=generator) for image in images])
    return (images + NOISE[strength - 1] * drawn.to(images)).clamp(0, 1)


def blur(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """A Gaussian mean of the pixels around, of those inside the image: out of focus. BLUR has its widths."""
    sigma = BLUR[strength - 1] * _unit(images)

    def weights(side: int) -> Tensor:  # (side, side), of the pixels from which a pixel is made
        place = torch.arange(side, dtype=torch.float64)
        bell = (-0.5 * ((place - place[:, None]) / sigma) ** 2).exp()
        return bell / bell.sum(1, keepdim=True)

    return _mixed(images, weights)


def brightness(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """Every value raised and clipped to [0, 1]: overexposed. BRIGHTNESS has what is added."""
    return (images + BRIGHTNESS[strength - 1]).clamp(0, 1)


def contrast(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """Every value moved towards the mean of its channel in the image: flat light. CONTRAST has the shares that remain."""
    mean = images.mean((2, 3), keepdim=True)
    return (mean + CONTRAST[strength - 1] * (images - mean)).clamp(0, 1)


def jpeg(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """Stored as JPEG and read again, each channel by itself unless there are one or three. JPEG has the qualities."""
    color = images.shape[1] == 3
    pictures = _whole(images).permute(0, 2, 3, 1) if color else _whole(images).flatten(0, 1)
    stored = torch.stack([_stored(picture, JPEG[strength - 1]) for picture in pictures.cpu()])
    return (stored.permute(0, 3, 1, 2) if color else stored.view(images.shape)).to(images) / 255


def pixelate(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """Blocks of pixels that have their mean: a low resolution. PIXELATE says how many."""

    def weights(side: int) -> Tensor:  # (side, side), of the pixels from which a pixel is made
        blocks = max(1, round(PIXELATE[strength - 1] * side / _unit(images)))
        block = torch.arange(side) * blocks // side
        same = (block == block[:, None]).double()
        return same / same.sum(1, keepdim=True)

    return _mixed(images, weights)


def fog(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """Fog of uneven thickness before everything (Koschmieder 1924): pixels times t, plus FOG_LIGHT times 1 - t.

    The transmission t is exp(-FOG * thickness); the thickness, from 0.5 to 1.5 in every image, is the same in all channels.
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
    """The length, in pixels, that a pixel has in an image of 32."""
    return max(1.0, max(images.shape[2:]) / 32)


def _clouds(
    count: int, size: torch.Size, generator: Generator
) -> Tensor:  # (count, 1, H, W) float32 in [0, 1]
    """Smooth noise in octaves: twice as fine, half as strong. Each image's reaches from 0 to 1."""
    (height, width), longer = size, max(size)
    octaves = [
        2**octave for octave in range(1, max(2, longer.bit_length()))
    ]  # cells along the longer side
    grids = [
        (1 + -(-cells * height // longer), 1 + -(-cells * width // longer)) for cells in octaves
    ]
    sizes = [rows * columns for rows, columns in grids]
    drawn = torch.stack([torch.rand(sum(sizes), generator=generator) for _ in range(count)])
    field = torch.zeros(count, 1, *size)
    for cells, grid, values in zip(octaves, grids, torch.split(drawn, sizes, 1), strict=True):
        corners = values.view(count, 1, *grid)
        field += F.interpolate(corners, size, mode="bicubic", align_corners=True) / cells
    low, high = field.amin((2, 3), keepdim=True), field.amax((2, 3), keepdim=True)
    return (field - low) / (high - low).clamp_min(torch.finfo(field.dtype).tiny)


def _mixed(images: Tensor, weights: Callable[[int], Tensor]) -> Tensor:
    """Each column and then each row of pixels multiplied by the `weights` of its length."""
    height, width = images.shape[2:]
    return (weights(height).to(images) @ images @ weights(width).T.to(images)).clamp(0, 1)


def _stored(picture: Tensor, quality: int) -> Tensor:  # (H, W, 3) or (H, W) uint8, as it comes back
    with io.BytesIO() as file:
        Image.fromarray(picture.numpy()).save(file, "JPEG", quality=quality)
        with Image.open(file) as read:
            return torch.frombuffer(bytearray(read.tobytes()), dtype=torch.uint8).view(
                picture.shape
            )


def _whole(images: Tensor) -> Tensor:
    """Pixels in [0, 1] as uint8."""
    return images.mul(255).round().clamp(0, 255).byte()
