"""What is put where pixels are taken away: plain baselines, and ROAD's imputation, of which a network sees little."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import SeewhyError

TOLERANCE = 1e-3  # of pixels in [0, 1], a quarter of a gray level: the largest correction that is the last one
MOST_STEPS = 100  # three to eight are enough for every mask that we tried
UNKNOWN = 0.5  # what an image becomes of which nothing is known: mid-gray
AT_ONCE = {
    "cpu": 2**20,
    "cuda": 2**25,
}  # values: what a CPU's caches and malloc handle well, what a GPU's memory holds


def noisy_linear(
    images: Tensor,  # (N, C, H, W) float in [0, 1]
    removed: Tensor,  # (N, H, W) bool
    noise: float = 0.01,
    generator: torch.Generator | None = None,
) -> Tensor:  # (N, C, H, W), like the images
    """Noisy linear imputation (Rong et al. 2022, section 4.2), exact to about 1e-3, which is a quarter of a gray level.

    Every removed pixel becomes the weighted mean of its neighbors, removed ones included: 1/6 for each of the direct ones and
    1/12 for each of the diagonal ones, scaled to a sum of 1 at the image's edges. On top comes Gaussian noise with a standard
    deviation of `noise`, drawn from `generator` where it is; the result is not clamped. The other pixels stay. An image whose
    pixels are all removed becomes mid-gray with noise. Raises SeewhyError where the shapes, the types or `noise` do not fit.
    """
    _check(images, removed, noise)
    hidden = removed[:, None].to(images.device)
    size = max(1, AT_ONCE.get(images.device.type, 2**20) // images[0].numel())
    with torch.no_grad():
        parts = zip(torch.split(images, size), torch.split(hidden, size), strict=True)
        painted = torch.cat([_painted(part, mask, noise, generator) for part, mask in parts])
        return torch.where(hidden, painted, images)


def _painted(
    images: Tensor, removed: Tensor, noise: float, generator: torch.Generator | None
) -> Tensor:
    """A few images, right where they are removed."""
    wide = images.float() if images.dtype.itemsize < 4 else images
    painted = _mean_of_neighbors(wide, removed.to(wide.dtype))
    if noise:
        device = images.device if generator is None else generator.device
        drawn = torch.randn(images.shape, generator=generator, device=device, dtype=painted.dtype)
        painted = painted.add(drawn.to(images.device), alpha=noise)
    return painted.to(images.dtype)


def _check(images: Tensor, removed: Tensor, noise: float) -> None:
    if images.ndim != 4 or images.numel() == 0 or not images.is_floating_point():
        raise SeewhyError(
            f"imputation needs images (N, C, H, W) float in [0, 1], found {tuple(images.shape)} {images.dtype}"
        )
    shape = (len(images), *images.shape[2:])
    if removed.shape != shape or removed.dtype != torch.bool:
        raise SeewhyError(
            f"imputation needs removed {shape} bool, one mask per image, found {tuple(removed.shape)} {removed.dtype}"
        )
    if not noise >= 0:
        raise SeewhyError(f"noise is a standard deviation of at least 0, found {noise}")


def _mean_of_neighbors(
    images: Tensor, removed: Tensor
) -> Tensor:  # (N, C, H, W), (N, 1, H, W) 1 or 0
    """The images with x = mean of the neighbors of x on what is removed, by conjugate gradients with a multigrid preconditioner.

    The system, diagonal minus weights on the removed pixels, is symmetric and positive definite as soon as one pixel is known. A
    correction that the multigrid cycle proposes is close to the true error, so its largest value says when to stop.
    """
    grids = _pyramid(removed)
    known = images.contiguous() * (
        1 - removed
    )  # channels_last would make the masks of one channel slow
    residual = removed * _weighted_neighbors(known)
    solution, direction, energy = (
        torch.zeros_like(known),
        torch.zeros_like(known),
        known.new_ones(()),
    )
    for _ in range(MOST_STEPS):
        correction = _cycle(grids, residual)
        if not correction.abs().max() > TOLERANCE:  # the one wait for the device in a step
            solution += correction
            break
        previous, energy = energy, (residual * correction).sum((2, 3), keepdim=True)
        direction = correction.addcmul_(direction, _ratio(energy, previous))
        change = _apply(grids[0], direction)
        step = _ratio(energy, (direction * change).sum((2, 3), keepdim=True))
        solution.addcmul_(step, direction)
        residual.addcmul_(step, change, value=-1)
    empty = removed.amin((1, 2, 3), keepdim=True) > 0
    return torch.where(empty, UNKNOWN, known + solution)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their quotient; 0 where the denominator is, as it is for an image that is solved or has nothing to solve."""
    return torch.where(denominator > 0, numerator / denominator, 0)


@dataclass(frozen=True, eq=False)
class _Grid:
    """The system on the cells of a grid: diagonal * x - weighted neighbors of x, where a cell is removed; x is 0 elsewhere."""

    removed: Tensor  # (N, 1, h, w) 1 or 0
    diagonal: Tensor  # (N, 1, h, w)
    inverse: Tensor  # (N, 1, h, w), 1 / diagonal where removed, else 0


def _pyramid(removed: Tensor) -> list[_Grid]:
    """The grids from that of the pixels to that of a single cell; each cell stands for four of the grid before."""
    grids, pull = (
        [],
        torch.zeros_like(removed),
    )  # how strongly known pixels that the grid cannot show hold a cell at 0
    while True:
        diagonal = _weighted_neighbors(torch.ones_like(removed[:1])) + pull
        grids.append(_Grid(removed, diagonal, _ratio(removed, diagonal)))
        if max(removed.shape[2:]) == 1:
            return grids
        coarse = (_gather(removed) > 0).to(removed.dtype)
        absorbed = (1 - removed) * _spread(coarse, removed)
        # Half of the links: a coarse cell's center is twice as far from the pixels that it is held by.
        links = 0.5 * removed * _weighted_neighbors(absorbed) + removed * pull
        removed, pull = coarse, _gather(links)


def _cycle(grids: list[_Grid], residual: Tensor) -> Tensor:  # (N, C, h, w) both
    """A multigrid V-cycle, symmetric as conjugate gradients need it: about the solution for this residual.

    Two undamped Jacobi steps smooth before and after, of which each leaves at most a third of the high frequencies.
    """
    grid = grids[0]
    solution = grid.inverse * residual  # the first step, from 0
    if len(grids) == 1:
        return solution
    solution = _smoothed(grid, solution, residual)
    coarse = _cycle(grids[1:], _gather(residual - _apply(grid, solution)))
    solution = solution + grid.removed * _spread(coarse, residual)
    return _smoothed(grid, _smoothed(grid, solution, residual), residual)


def _smoothed(grid: _Grid, solution: Tensor, residual: Tensor) -> Tensor:
    return _weighted_neighbors(solution).add_(residual).mul_(grid.inverse)


def _apply(grid: _Grid, x: Tensor) -> Tensor:
    return (grid.diagonal * x).sub_(_weighted_neighbors(x)).mul_(grid.removed)


def _weighted_neighbors(x: Tensor) -> Tensor:  # (N, C, h, w) to the same
    """Sums of direct neighbors / 2 and diagonal ones / 4, three times what the paper has, so that a diagonal is about 3.

    They are (1/2 1 1/2) down and across less the middle, by sums of slices: a convolution of one channel is far slower. In a
    single row or column the middle stays, there and so in the diagonal: undamped Jacobi steps would not converge.
    """
    rows = x.clone()
    rows[..., 1:, :].add_(x[..., :-1, :], alpha=0.5)
    rows[..., :-1, :].add_(x[..., 1:, :], alpha=0.5)
    both = rows.clone() if _single(x) else rows - x
    both[..., 1:].add_(rows[..., :-1], alpha=0.5)
    both[..., :-1].add_(rows[..., 1:], alpha=0.5)
    return both


def _gather(x: Tensor) -> Tensor:
    """The sum of each 2 x 2 cells, (N, C, ceil(h / 2), ceil(w / 2)): the transpose of `_spread`.

    Along a single row it is twice that: cells twice as far apart are linked half as strongly, and `_Grid` keeps the links as
    they are. On an area the greater distance and the greater width even out.
    """
    height, width = x.shape[2:]
    rows = x[..., ::2, :].clone()
    rows[..., : height // 2, :] += x[..., 1::2, :]
    cells = rows[..., ::2].clone()
    cells[..., : width // 2] += rows[..., 1::2]
    return cells * 2 if _single(x) else cells


def _single(x: Tensor) -> bool:
    """Whether the cells are a single row or a single column."""
    return (x.shape[2] == 1) != (x.shape[3] == 1)


def _spread(coarse: Tensor, like: Tensor) -> Tensor:
    """Each coarse cell's value at its four cells, as many as `like` has."""
    return F.interpolate(coarse, scale_factor=2.0)[..., : like.shape[2], : like.shape[3]]


def black(images: Tensor) -> Tensor:
    """0 everywhere."""
    return torch.zeros_like(images)


def gray(images: Tensor) -> Tensor:
    """0.5 everywhere."""
    return torch.full_like(images, 0.5)


def mean(images: Tensor) -> Tensor:
    """The mean of each channel of each image."""
    return images.mean((2, 3), keepdim=True).expand_as(images)


def blur(images: Tensor, width: float = 0.1) -> Tensor:
    """Gaussian blur with a standard deviation of `width` times the shorter side; beyond its edge an image goes on as there."""
    if not width > 0:
        raise SeewhyError(f"blur's width is a share of the shorter side, above 0, found {width}")
    sigma = width * min(images.shape[2:])
    radius = max(1, round(3 * sigma))
    at = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    weights = torch.softmax(-at.square() / (2 * sigma * sigma), 0)
    planes = F.pad(images.flatten(0, 1)[:, None], (radius,) * 4, mode="replicate")
    return F.conv2d(
        F.conv2d(planes, weights[None, None, None]), weights[None, None, :, None]
    ).reshape(images.shape)


BASELINES: dict[
    str, Callable[..., Tensor]
] = {  # images (N, C, H, W) float to what replaces them, of the same shape
    "black": black,
    "gray": gray,
    "mean": mean,
    "blur": blur,
}
