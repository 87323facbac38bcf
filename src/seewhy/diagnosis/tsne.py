"""t-SNE in seconds: sparse attraction between neighbors, repulsion on a grid."""

import math

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from seewhy.diagnosis.components import principal_components

PERPLEXITY = 15.0
NEIGHBORS = 45  # of a point that attract it: three times the perplexity
STEPS, EARLY_STEPS = 400, 100
EXAGGERATION = 12.0  # of the attraction in the early steps
SPACING = 0.5  # of the grid; the kernel has a width of 1
MAX_SPAN = 120.0  # of the points on the grid, whose spacing grows above it

_ROWS = 1000  # of the matrix of distances in memory at once
_BISECTIONS = 40

Array = NDArray[np.float32]


def t_sne(points: Tensor) -> Tensor:
    """Embed points in the plane by t-SNE, from their first two principal components.

    Only the nearest neighbors attract a point (van der Maaten 2014, section 4.1). The repulsion of
    all points is interpolated on a grid, where it is a convolution (Linderman et al. 2019, "Fast
    interpolation-based t-SNE"); here the interpolation is bilinear. The learning rate is that of
    Belkina et al. 2019. The same points give the same plane.

    Args:
        points: (N, D) float, N of at least 10.

    Returns:
        (N, 2) float32, with a mean of zero.
    """
    count = min(NEIGHBORS, len(points) - 1)
    attraction = _affinities(*_neighbors(points.float(), count))
    entries = np.diff(attraction.indptr)
    plane = _principal_plane(points).numpy()
    velocity, gains = np.zeros_like(plane), np.ones_like(plane)
    rate, kernels = max(len(points) / EXAGGERATION / 4, 1.0), dict[tuple[int, float], Array]()
    for step in range(STEPS):
        early = step < EARLY_STEPS
        gradient = _gradient(plane, attraction, entries, EXAGGERATION if early else 1.0, kernels)
        slower = gradient * velocity < 0  # the velocity is against the gradient: keep going
        gains = np.where(slower, gains + 0.2, 0.8 * gains).clip(0.01)
        velocity = (0.5 if early else 0.8) * velocity - rate * gains * gradient
        plane = plane + velocity
        plane -= plane.mean(0)
    return torch.from_numpy(plane.astype(np.float32))


def _neighbors(points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nearest neighbors of each point and their squared distances, (N, count)."""
    squares, indices, distances = points.square().sum(1), [], []
    for start in range(0, len(points), _ROWS):
        block = points[start : start + _ROWS]
        squared = block.square().sum(1, keepdim=True) + squares - 2 * block @ points.T
        own = torch.arange(len(block))
        squared[own, start + own] = torch.inf
        nearest = squared.clamp_min_(0).topk(count, dim=1, largest=False)
        indices.append(nearest.indices)
        distances.append(nearest.values)
    return torch.cat(indices), torch.cat(distances)


def _affinities(neighbors: Tensor, distances: Tensor) -> csr_array:  # (N, N)
    """Symmetric affinities with a sum of 1; the Gaussian of a point has the perplexity."""
    images, count = neighbors.shape
    entropy = math.log(min(PERPLEXITY, count / 3))
    distances = (distances - distances[:, :1]).double()
    low, high = torch.zeros(images, 1), torch.full((images, 1), torch.inf)
    precision = 1 / distances.mean(1, keepdim=True).clamp_min(1e-12)
    low, high = low.double(), high.double()
    for _ in range(_BISECTIONS):
        shares = torch.softmax(-precision * distances, 1)
        wide = torch.special.entr(shares).sum(1, keepdim=True) > entropy
        low, high = torch.where(wide, precision, low), torch.where(wide, high, precision)
        precision = torch.where(high.isinf(), 2 * precision, (low + high) / 2)
    ends = np.arange(0, images * count + 1, count)
    directed = csr_array(
        (shares.float().numpy().ravel(), neighbors.numpy().ravel(), ends), (images, images)
    )
    both: csr_array = ((directed + directed.T) / (2 * images)).tocsr()
    return both


def _principal_plane(points: Tensor) -> Tensor:  # (N, 2) float32
    """The first two principal components, scaled to a standard deviation of 1e-4."""
    plane, _ = principal_components(points, 2)
    if plane.shape[1] < 2:  # points on a line
        plane = torch.cat([plane, torch.zeros(len(plane), 2 - plane.shape[1])], 1)
    scaled: Tensor = 1e-4 * plane / plane[:, 0].std().clamp_min(1e-12)
    return scaled.float()


def _gradient(
    plane: Array,  # (N, 2)
    attraction: csr_array,
    entries: NDArray[np.int32],  # of each row of `attraction`
    exaggeration: float,
    kernels: dict[tuple[int, float], Array],
) -> Array:
    """The gradient of the Kullback-Leibler divergence (van der Maaten & Hinton 2008, eq. 5)."""
    squared = np.ones_like(attraction.data)
    for axis in plane.T.copy():  # contiguous: three times as fast
        squared += (np.repeat(axis, entries) - axis.take(attraction.indices)) ** 2
    strength = exaggeration * attraction.data / squared
    pulls = csr_array((strength, attraction.indices, attraction.indptr), attraction.shape)
    pull = plane * pulls.sum(1)[:, None] - pulls @ plane
    push, total = _repulsion(plane, kernels)
    gradient: Array = 4 * (pull - push / total)
    return gradient


def _repulsion(
    plane: Array, kernels: dict[tuple[int, float], Array]
) -> tuple[Array, float]:  # (N, 2)
    """The sums over the other points at distances d of their repulsion, and of 1 / (1 + d²).

    The repulsion is (1 + d²)⁻² times the difference; its sum is (N, 2), the other sum is over all
    pairs. `kernels` keeps the transformed kernels by size and spacing of the grid.
    """
    corner = plane.min(0)
    span = float((plane.max(0) - corner).max())
    spacing = SPACING * 2 ** max(0, math.ceil(math.log2(max(span, 1e-9) / MAX_SPAN)))
    size = 2 ** math.ceil(math.log2(2 * (span / spacing + 3)))  # twice the span: no wrapping
    if (size, spacing) not in kernels:
        kernels[size, spacing] = _kernels(size, spacing)
    cells, inside = np.divmod((plane - corner) / spacing, 1)
    right, below = inside.T
    weights = np.stack(
        [(1 - right) * (1 - below), (1 - right) * below, right * (1 - below), right * below], 1
    )
    first = (cells @ [size, 1]).astype(np.int64)
    nodes = first[:, None] + [0, 1, size, size + 1]
    density = np.bincount(nodes.ravel(), weights.ravel(), size * size).reshape(size, size)
    spectrum = scipy.fft.rfft2(density.astype(np.float32)) * kernels[size, spacing]
    fields = scipy.fft.irfft2(spectrum, (size, size)).reshape(3, -1)
    total, *push = (fields[:, nodes] * weights).sum(2)
    return np.stack(push, 1), float(total.sum()) - len(plane)  # without a point and itself


def _kernels(size: int, spacing: float) -> Array:  # (3, size, size // 2 + 1) complex
    """Transforms of 1 / (1 + d²), and of (1 + d²)⁻² times the rows and the columns of d."""
    offsets = spacing * scipy.fft.fftfreq(size, 1 / size).astype(np.float32)
    rows, columns = offsets[:, None], offsets[None]
    kernel = 1 / (1 + rows**2 + columns**2)
    transforms: Array = scipy.fft.rfft2(np.stack([kernel, kernel**2 * rows, kernel**2 * columns]))
    return transforms
