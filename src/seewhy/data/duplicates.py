"""Near-duplicates: copies of images, possibly re-encoded, brightened, mirrored, or shifted."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.data.dataset import Split
from seewhy.data.statistics import exact_duplicates
from seewhy.errors import SeewhyError

MAX_PAIRS = 8  # per image and other split: an image with a hundred copies would swamp the rest

_SIDE = 8  # size of a sketch, in area means
_MIN_COSINE = 0.7  # of two sketches; images below it are not compared
_MIN_CONTRAST = 0.01  # standard deviation of a sketch in [0, 1]; below it is noise
_EDGE_SIDE = 64  # longer side at which edges are compared, or up to twice as much
_MAX_DIFFERENCE = (
    0.15  # mean absolute; below it brightened copies, above it equal shapes in other colors
)
_MIN_SIDE = 16  # of the shorter side, in pixels; smaller images are too similar
_ROWS, _COLUMNS = 1000, 4000  # of the cosine matrix in memory at once
_BLOCK_VALUES = 2**24  # pixel values held as floats at once


@dataclass(frozen=True)
class DuplicatePair:
    """Two occurrences of one image."""

    first: tuple[str, int]  # split and index
    second: tuple[str, int]
    difference: float  # mean absolute, of pixels in [0, 1], after alignment; 0 for equal images
    mirrored: bool
    same_label: bool


def near_duplicates(
    splits: Mapping[str, Split], threshold: float = 0.7, across: bool = True
) -> tuple[DuplicatePair, ...]:
    """Find near-duplicates across splits.

    Candidates are images of similar coarse structure, the 8 nearest of each image in every other
    split. A candidate is a duplicate if its edges correlate with those of the image, mirrored or
    not and shifted by up to a pixel, and its pixels differ by at most 0.15 on average. Of images
    without contrast, or smaller than 16 pixels, only exact duplicates are found.

    Args:
        splits: Splits by name, with images of one shape.
        threshold: Smallest correlation of the edges, above 0 and up to 1.
        across: Compare only images of different splits; otherwise also those within "test".

    Returns:
        Pairs, the smallest difference first.

    Raises:
        SeewhyError: For a threshold out of range, and images of different shapes.
    """
    if not 0 < threshold <= 1:
        raise SeewhyError(f"threshold must be a correlation above 0 and up to 1, found {threshold}")
    shapes = {name: tuple(split.images.shape[1:]) for name, split in splits.items() if len(split)}
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
        raise SeewhyError(
            f"near-duplicates need images of one shape, found {sizes}; load both with one size"
        )
    sketches = {name: _sketch(splits[name].images) for name in shapes}
    pairs: list[DuplicatePair] = []
    for one, other in combinations(shapes, 2):
        candidates = _candidates(sketches[one], sketches[other])
        pairs += _verify(splits, one, other, candidates, threshold)
    if not across and "test" in shapes:
        candidates = _candidates(sketches["test"], sketches["test"], within=True)
        pairs += _verify(splits, "test", "test", candidates, threshold)
    if any(sketch.flat.any() for sketch in sketches.values()):
        pairs += _equal_flat_images(splits, sketches, across)
    return tuple(sorted(pairs, key=lambda pair: (pair.difference, pair.first, pair.second)))


@dataclass(frozen=True, eq=False)
class _Sketch:
    """Coarse structure of N images as unit vectors; mirroring changes the sign of the odd part."""

    even: Tensor  # (N, D) float32
    odd: Tensor  # (N, D) float32
    flat: Tensor  # (N,) bool, without structure: both parts are 0


def _sketch(images: Tensor) -> _Sketch:
    """Cosine coefficients of 8x8 area means, weighted by frequency against natural images' 1/f.

    So the mean of each channel is ignored, and unrelated images have a cosine of about 0.
    """
    waves = torch.arange(_SIDE, dtype=torch.float32)
    basis = torch.cos(math.pi / _SIDE * waves[:, None] * (waves + 0.5))
    basis = F.normalize(basis, dim=1)
    weights = (waves[:, None].square() + waves.square()).sqrt()  # 0 for the mean
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for block in torch.split(images, _images_per_block(images)):
        means = F.adaptive_avg_pool2d(block.float() / 255, _SIDE).cpu()
        deviations = (means - means.mean((2, 3), keepdim=True)).square().mean((1, 2, 3)).sqrt()
        flat = deviations < _MIN_CONTRAST
        if min(images.shape[2:]) < _MIN_SIDE:
            flat = torch.ones_like(flat)
        coefficients = basis @ means @ basis.T * weights
        coefficients[flat] = 0
        coefficients = F.normalize(coefficients.flatten(1), dim=1).view_as(coefficients)
        parts.append((coefficients[..., 0::2].flatten(1), coefficients[..., 1::2].flatten(1), flat))
    even, odd, flat = (torch.cat(each) for each in zip(*parts, strict=True))
    return _Sketch(even, odd, flat)


def _candidates(one: _Sketch, other: _Sketch, within: bool = False) -> Tensor:
    """Index pairs (P, 2) int64: for every image of `other` at most 8 similar images of `one`.

    `within` compares a split with itself: each pair once, and no image with itself.
    """
    pairs = [torch.zeros(0, 2, dtype=torch.int64)]
    for top in range(0, len(other.even), _ROWS):
        rows = slice(top, top + _ROWS)
        scores, columns = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
        for left in range(0, top + _ROWS if within else len(one.even), _COLUMNS):
            block = slice(left, left + _COLUMNS)
            # mirrored or not, whichever is more similar
            cosines = (other.odd[rows] @ one.odd[block].T).abs_()
            cosines.addmm_(other.even[rows], one.even[block].T)
            if within:
                cosines.tril_(top - left - 1)
            best = cosines.topk(min(MAX_PAIRS, cosines.shape[1]), dim=1)
            scores = torch.cat([scores.reshape(len(cosines), -1), best.values], 1)
            columns = torch.cat([columns.reshape(len(cosines), -1), best.indices + left], 1)
        nearest = scores.topk(min(MAX_PAIRS, scores.shape[1]), dim=1)
        row, rank = (nearest.values > _MIN_COSINE).nonzero(as_tuple=True)
        pairs.append(torch.stack([columns[row, nearest.indices[row, rank]], row + top], 1))
    return torch.cat(pairs)


def _verify(
    splits: Mapping[str, Split], one: str, other: str, candidates: Tensor, threshold: float
) -> Iterator[DuplicatePair]:
    """The candidates (P, 2) with correlated edges and similar pixels."""
    labels, other_labels = splits[one].labels.cpu(), splits[other].labels.cpu()
    labels_agree = labels[candidates[:, 0]] == other_labels[candidates[:, 1]]
    chunk = max(1, _images_per_block(splits[one].images) // 4)
    for indices, same in zip(
        torch.split(candidates, chunk), torch.split(labels_agree, chunk), strict=True
    ):
        first, second = (
            split.images[column.to(split.images.device)].cpu().float() / 255
            for split, column in zip((splits[one], splits[other]), indices.unbind(1), strict=True)
        )
        upright = _edge_correlation(first, second)
        mirrored = _edge_correlation(first, second.flip(3))
        flipped = mirrored > upright
        aligned = torch.where(flipped[:, None, None, None], second.flip(3), second)
        differences = _difference(first, aligned)
        similar = (torch.maximum(upright, mirrored) >= threshold) & (differences <= _MAX_DIFFERENCE)
        columns = (column[similar].tolist() for column in (indices, differences, flipped, same))
        for (left, right), difference, flip, agree in zip(*columns, strict=True):
            yield DuplicatePair((one, left), (other, right), difference, flip, agree)


def _edge_correlation(first: Tensor, second: Tensor) -> Tensor:  # (P,) float32 in [-1, 1]
    """Correlation of the edges of images (P, C, H, W), at the best shift by up to a pixel."""
    step = max(1, max(first.shape[2:]) // _EDGE_SIDE)
    edges, others = _edges(first, step), _edges(second, step)
    height, width = edges.shape[2] - 2, edges.shape[3] - 2
    inner = F.normalize(edges[:, :, 1:-1:step, 1:-1:step].flatten(1), dim=1)
    best = torch.full((len(first),), -1.0)
    for down in range(3):
        for right in range(3):
            shifted = others[:, :, down : down + height : step, right : right + width : step]
            best = torch.maximum(best, (inner * F.normalize(shifted.flatten(1), dim=1)).sum(1))
    return best


def _edges(images: Tensor, step: int) -> Tensor:  # (P, 2 C, h, w)
    """Differences of area means over 2 `step` pixels, which average out noise and encoding.

    Returns their signed square root. Otherwise a strong edge such as a horizon or a frame would
    dominate.
    """
    means = F.avg_pool2d(images, 2 * step, stride=1)
    corner = means[:, :, step:, step:]
    horizontal = corner - means[:, :, step:, :-step]
    vertical = corner - means[:, :, :-step, step:]
    changes = torch.cat([horizontal, vertical], 1)
    return changes.sign() * changes.abs().sqrt()


def _difference(first: Tensor, second: Tensor) -> Tensor:  # (P,) float32 in [0, 1]
    """Mean absolute difference of the overlap, at the best shift by up to a pixel."""

    def overlap(shift: int, side: int) -> tuple[slice, slice]:
        start, stop = max(0, shift), side + min(0, shift)
        return slice(start, stop), slice(start - shift, stop - shift)

    height, width = first.shape[2:]
    least = torch.ones(len(first))
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            (rows, other_rows), (columns, other_columns) = (
                overlap(down, height),
                overlap(right, width),
            )
            change = first[:, :, rows, columns] - second[:, :, other_rows, other_columns]
            least = torch.minimum(least, change.abs().mean((1, 2, 3)))
    return least


def _equal_flat_images(
    splits: Mapping[str, Split], sketches: Mapping[str, _Sketch], across: bool
) -> Iterator[DuplicatePair]:
    """Exact duplicates without contrast, each with at most 8 images of another split."""
    for group in exact_duplicates(splits).groups:
        name, index = group[0]
        if not sketches[name].flat[index]:
            continue  # has structure: found by `_candidates`
        members = {name: [index for split, index in group if split == name] for name in splits}
        for one, other in combinations(splits, 2):
            pairs = [(i, j) for j in members[other] for i in members[one][:MAX_PAIRS]]
            yield from _equal_pairs(splits, one, other, pairs)
        if not across and "test" in splits:
            test = members["test"]
            pairs = [(i, j) for rank, j in enumerate(test) for i in test[:rank][:MAX_PAIRS]]
            yield from _equal_pairs(splits, "test", "test", pairs)


def _equal_pairs(
    splits: Mapping[str, Split], one: str, other: str, indices: list[tuple[int, int]]
) -> Iterator[DuplicatePair]:
    for i, j in indices:
        same = bool(splits[one].labels[i] == splits[other].labels[j])
        yield DuplicatePair((one, i), (other, j), 0.0, mirrored=False, same_label=same)


def _images_per_block(images: Tensor) -> int:
    return max(1, _BLOCK_VALUES // math.prod(images.shape[1:]))
