"""The linear system of noisy linear imputation, by conjugate gradients and a multigrid V-cycle.

Images of 224 x 224 per second on one CPU core, relative to this file:
    1.00  V-cycle, 6 to 7 iterations, error below 3e-4
    0.14 to 0.32  Jacobi preconditioner, 78 to 242 iterations, error below 1.4e-3
    0.37 to 0.58  Jacobi preconditioner stopped early, error 0.02 to 0.07
    0.05  sparse direct solver (scipy's spsolve)
See benchmarks/NOTES.md and RESULTS.md.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 1e-3  # largest last correction of a pixel in [0, 1], a quarter of a gray level
MAX_ITERATIONS = 100  # at most eight were needed in our tests
UNKNOWN = 0.5  # fallback where no pixel is known: mid-gray


def mean_of_neighbors(images: Tensor, removed: Tensor) -> Tensor:
    """Replace removed pixels so that each is the weighted mean of its eight neighbors.

    The system, diagonal minus weights on the removed pixels, is symmetric, and positive definite if
    at least one pixel is known. The V-cycle's correction is close to the true error, so its largest
    value is the stopping criterion.

    Args:
        images: (N, C, H, W) float32 or float64.
        removed: (N, 1, H, W) of the same type, 1 where removed, else 0.
    """
    grids = _grids(removed)
    # contiguous: channels_last would slow down the masks, which have one channel
    known = images.contiguous() * (1 - removed)
    residual = removed * _weighted_neighbors(known)
    solution, direction = torch.zeros_like(known), torch.zeros_like(known)
    energy = known.new_ones(())
    for _ in range(MAX_ITERATIONS):
        correction = _v_cycle(grids, residual)
        if not correction.abs().max() > TOLERANCE:  # the only device sync per iteration
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
    """The quotient; 0 where the denominator is 0, such as in an image that has converged."""
    return torch.where(denominator > 0, numerator / denominator, 0)


@dataclass(frozen=True, eq=False)
class _Grid:
    """The system on one grid: diagonal * x - weighted neighbors of x, at removed cells.

    x is 0 elsewhere.
    """

    removed: Tensor  # (N, 1, h, w) 1 or 0
    diagonal: Tensor  # (N, 1, h, w)
    inverse: Tensor  # (N, 1, h, w), 1 / diagonal where removed, else 0


def _grids(removed: Tensor) -> list[_Grid]:
    """The grids from all pixels down to a single cell; each cell covers four of the finer grid."""
    grids = []
    pull = torch.zeros_like(removed)  # toward 0, by known pixels below the grid's resolution
    while True:
        diagonal = _weighted_neighbors(torch.ones_like(removed[:1])) + pull
        grids.append(_Grid(removed, diagonal, _ratio(removed, diagonal)))
        if max(removed.shape[2:]) == 1:
            return grids
        coarse = (_restrict(removed) > 0).to(removed.dtype)
        absorbed = (1 - removed) * _prolong(coarse, removed)
        # Half of the links: a coarse cell's center is twice as far from the known pixels.
        links = 0.5 * removed * _weighted_neighbors(absorbed) + removed * pull
        removed, pull = coarse, _restrict(links)


def _v_cycle(grids: list[_Grid], residual: Tensor) -> Tensor:  # (N, C, h, w) both
    """An approximate solution for a residual; symmetric, as conjugate gradients need it.

    Two undamped Jacobi steps smooth before and after; each leaves at most a third of the high
    frequencies.
    """
    grid = grids[0]
    solution = grid.inverse * residual  # the first step, from 0
    if len(grids) == 1:
        return solution
    solution = _jacobi_step(grid, solution, residual)
    coarse = _v_cycle(grids[1:], _restrict(residual - _apply(grid, solution)))
    solution = solution + grid.removed * _prolong(coarse, residual)
    return _jacobi_step(grid, _jacobi_step(grid, solution, residual), residual)


def _jacobi_step(grid: _Grid, solution: Tensor, residual: Tensor) -> Tensor:
    return _weighted_neighbors(solution).add_(residual).mul_(grid.inverse)


def _apply(grid: _Grid, x: Tensor) -> Tensor:
    return (grid.diagonal * x).sub_(_weighted_neighbors(x)).mul_(grid.removed)


def _weighted_neighbors(x: Tensor) -> Tensor:  # (N, C, h, w) to the same
    """Direct neighbors / 2 plus diagonal ones / 4: three times the paper's, a diagonal of about 3.

    That is (1/2 1 1/2) down and across minus the middle, by sums of slices: a convolution of one
    channel is far slower. In a single row or column the middle stays, here and in the diagonal:
    undamped Jacobi steps would not converge.
    """
    rows = x.clone()
    rows[..., 1:, :].add_(x[..., :-1, :], alpha=0.5)
    rows[..., :-1, :].add_(x[..., 1:, :], alpha=0.5)
    both = rows.clone() if _is_line(x) else rows - x
    both[..., 1:].add_(rows[..., :-1], alpha=0.5)
    both[..., :-1].add_(rows[..., 1:], alpha=0.5)
    return both


def _restrict(x: Tensor) -> Tensor:
    """Sums of 2 x 2 cells, (N, C, ceil(h / 2), ceil(w / 2)): the transpose of `_prolong`.

    Twice that along a single row: cells twice as far apart are linked half as strongly, and
    `_Grid` keeps the links. On an area the greater distance and the greater width cancel.
    """
    height, width = x.shape[2:]
    rows = x[..., ::2, :].clone()
    rows[..., : height // 2, :] += x[..., 1::2, :]
    cells = rows[..., ::2].clone()
    cells[..., : width // 2] += rows[..., 1::2]
    return cells * 2 if _is_line(x) else cells


def _is_line(x: Tensor) -> bool:
    """Whether the cells are a single row or a single column."""
    return (x.shape[2] == 1) != (x.shape[3] == 1)


def _prolong(coarse: Tensor, like: Tensor) -> Tensor:
    """Each coarse cell's value at its four cells, in the size of `like`."""
    return F.interpolate(coarse, scale_factor=2.0)[..., : like.shape[2], : like.shape[3]]
