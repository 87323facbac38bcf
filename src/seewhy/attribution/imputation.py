"""Replacements for removed pixels: ROAD's noisy linear imputation, and plain baselines."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.attribution.multigrid import mean_of_neighbors
from seewhy.errors import SeewhyError, describe_value

# Values per batch of images: suits a CPU's caches and malloc, and a GPU's memory.
BATCH_VALUES = {"cpu": 2**20, "cuda": 2**25}


def noisy_linear(
    images: Tensor,
    removed: Tensor,
    noise: float = 0.01,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Noisy linear imputation (Rong et al. 2022, section 4.2), exact to about 1e-3.

    Every removed pixel becomes the weighted mean of its neighbors, removed ones included: 1/6 for
    each direct neighbor and 1/12 for each diagonal one, scaled to a sum of 1 at the image's edges.
    Then noise is added; the result is not clamped. An image without known pixels becomes mid-gray.

    Args:
        images: (N, C, H, W) float in [0, 1].
        removed: (N, H, W) bool, True where pixels are removed.
        noise: Standard deviation of the Gaussian noise.
        generator: Source of the noise.

    Returns:
        (N, C, H, W) in the type of the images; known pixels are unchanged.

    Raises:
        SeewhyError: For shapes, types or noise that do not fit.
    """
    _check(images, removed, noise)
    hidden = removed[:, None].to(images.device)
    size = max(1, BATCH_VALUES.get(images.device.type, 2**20) // images[0].numel())
    with torch.no_grad():
        batches = zip(torch.split(images, size), torch.split(hidden, size), strict=True)
        imputed = [_imputed(batch, mask, noise, generator) for batch, mask in batches]
        return torch.where(hidden, torch.cat(imputed), images)


def _imputed(
    images: Tensor, removed: Tensor, noise: float, generator: torch.Generator | None
) -> Tensor:
    """A batch of images, valid at removed pixels."""
    wide = images.float() if images.dtype.itemsize < 4 else images
    values = mean_of_neighbors(wide, removed.to(wide.dtype))
    if noise:
        device = images.device if generator is None else generator.device
        drawn = torch.randn(images.shape, generator=generator, device=device, dtype=values.dtype)
        values = values.add(drawn.to(images.device), alpha=noise)
    return values.to(images.dtype)


def _check(images: Tensor, removed: Tensor, noise: float) -> None:
    if images.ndim != 4 or images.numel() == 0 or not images.is_floating_point():
        raise SeewhyError(
            f"imputation needs images (N, C, H, W) float in [0, 1], found {describe_value(images)}"
        )
    shape = (len(images), *images.shape[2:])
    if removed.shape != shape or removed.dtype != torch.bool:
        raise SeewhyError(
            f"imputation needs removed {shape} bool, one mask per image, found "
            f"{describe_value(removed)}"
        )
    if not noise >= 0:
        raise SeewhyError(f"noise must be a standard deviation of at least 0, found {noise}")


def black(images: Tensor) -> Tensor:
    """Black: 0 everywhere."""
    return torch.zeros_like(images)


def gray(images: Tensor) -> Tensor:
    """Gray: 0.5 everywhere."""
    return torch.full_like(images, 0.5)


def mean(images: Tensor) -> Tensor:
    """The mean of each channel of each image."""
    return images.mean((2, 3), keepdim=True).expand_as(images)


def blur(images: Tensor, width: float = 0.1) -> Tensor:
    """Gaussian blur with a standard deviation of `width` times the shorter side.

    The image is extended by its edge pixels.
    """
    if not width > 0:
        raise SeewhyError(
            f"blur needs a width above 0, as a fraction of the shorter side, found {width}"
        )
    sigma = width * min(images.shape[2:])
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    weights = torch.softmax(-offsets.square() / (2 * sigma * sigma), 0)
    planes = F.pad(images.flatten(0, 1)[:, None], (radius,) * 4, mode="replicate")
    rows = F.conv2d(planes, weights[None, None, None])
    return F.conv2d(rows, weights[None, None, :, None]).reshape(images.shape)


# From images (N, C, H, W) float to replacements of the same shape.
BASELINES: dict[str, Callable[..., Tensor]] = {
    "black": black,
    "gray": gray,
    "mean": mean,
    "blur": blur,
}
