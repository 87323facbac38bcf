"""Near-duplicates: copies of images, possibly re-encoded, mirrored, cropped or shifted."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.data.dataset import Split
from seewhy.data.statistics import exact_duplicates
from seewhy.errors import SeewhyError

MAX_PAIRS = 4  # per image and other split: an image with a hundred copies would swamp the rest

_SIDE = 32  # of the thumbnails that are compared, in area means
_SKETCH = 8  # side of a sketch, in area means
_WAVES, _COLOR_WAVES = 5, 3  # of a sketch in each direction, of brightness and of colors
_MIN_COSINE = 0.75  # of two sketches; images below it are not compared
_MIN_COARSE = 0.45  # correlation of coarse edges; pairs below it are not aligned
_MIN_CONTRAST = 0.01  # standard deviation of a sketch in [0, 1]; below it is noise
_VIEWS = ((0.0, 0.0), *((down, right) for down in (-0.05, 0.05) for right in (-0.05, 0.05)))
_SCALES = (1.0, 0.92, 1 / 0.92)  # of one image to the other
_REACH = 2  # largest shift, in pixels of a thumbnail of half the side
_MIN_SIDE = 16  # of the shorter side, in pixels; smaller images are too similar
_ROWS, _COLUMNS = 250, 4000  # of the cosine matrix in memory at once
_PAIRS = 250  # compared at once
_BLOCK_VALUES = 2**24  # pixel values held as floats at once


@dataclass(frozen=True)
class DuplicatePair:
    """Two occurrences of one image."""

    first: tuple[str, int]  # split and index
    second: tuple[str, int]
    difference: float  # mean absolute, of 32x32 area means in [0, 1], after alignment
    mirrored: bool
    same_label: bool


def near_duplicates(
    splits: Mapping[str, Split], threshold: float = 0.9, within: Sequence[str] = ()
) -> tuple[DuplicatePair, ...]:
    """Find near-duplicates across splits, and within some of them.

    Candidates are images of similar coarse structure, the 4 nearest of each image in every other
    split, mirrored or not. Thumbnails of 32x32 are aligned, by a shift of up to 5 pixels and a
    scale of 0.92, 1 or 1 / 0.92, where their edges correlate most. The similarity is a third of
    this correlation and two thirds of that of their pixels, averaged over 4x4. Of images without
    contrast, or smaller than 16 pixels, only exact duplicates are found.

    Args:
        splits: Splits by name, with images of one shape.
        threshold: Smallest similarity, above 0 and up to 1.
        within: Names of splits whose images are also compared with each other.

    Returns:
        Pairs, the smallest difference first.

    Raises:
        SeewhyError: For a threshold out of range, and images of different shapes.
    """
    if not 0 < threshold <= 1:
        raise SeewhyError(f"threshold must be a similarity above 0 and up to 1, found {threshold}")
    shapes = {name: tuple(split.images.shape[1:]) for name, split in splits.items() if len(split)}
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
        raise SeewhyError(
            f"near-duplicates need images of one shape, found {sizes}; load both with one size"
        )
    reduced = {name: replace(splits[name], images=_reduced(splits[name].images)) for name in shapes}
    sketches = {name: _sketch(split.images) for name, split in reduced.items()}
    pairs: list[DuplicatePair] = []
    for one, other in combinations(shapes, 2):
        candidates = _candidates(sketches[one], reduced[other].images)
        pairs += _verify(reduced, one, other, candidates, threshold)
    for name in within:
        if name in shapes:
            candidates = _candidates(sketches[name], reduced[name].images, within=True)
            pairs += _verify(reduced, name, name, candidates, threshold)
    if any(sketch.flat.any() for sketch in sketches.values()):
        pairs += _equal_flat_images(splits, sketches, within)
    return tuple(sorted(pairs, key=lambda pair: (pair.difference, pair.first, pair.second)))


@dataclass(frozen=True, eq=False)
class _Sketch:
    """Coarse structure of N images as unit vectors; mirroring changes the sign of the odd part."""

    even: Tensor  # (N, D) float32
    odd: Tensor  # (N, D) float32
    flat: Tensor  # (N,) bool, without structure: both parts are 0


@dataclass(frozen=True, eq=False)
class _Candidates:
    """P pairs of similar sketches."""

    pairs: Tensor  # (P, 2) int64, indices
    mirrored: Tensor  # (P,) bool, whether the second image has to be mirrored

    def take(self, rows: Tensor) -> "_Candidates":
        return _Candidates(self.pairs[rows], self.mirrored[rows])


def _reduced(images: Tensor) -> Tensor:
    """Images (N, C, 32, 32) uint8 of area means, each made once; images that are too small stay."""
    if min(images.shape[2:]) < _MIN_SIDE:
        return images
    blocks = torch.split(images, _images_per_block(images))
    return torch.cat([(255 * _thumbnails(block)).round().byte() for block in blocks])


def _sketch(images: Tensor) -> _Sketch:
    blocks = torch.split(images, _images_per_block(images))
    small = min(images.shape[2:]) < _MIN_SIDE
    parts = [_sketch_thumbnails(_thumbnails(block), small) for block in blocks]
    return _Sketch(*(torch.cat([getattr(part, name) for part in parts]) for name in _PARTS))


_PARTS = ("even", "odd", "flat")


def _sketch_thumbnails(thumbnails: Tensor, small: bool = False) -> _Sketch:
    """The lowest cosine coefficients of 8x8 area means, weighted against natural images' 1/f.

    The mean of each channel is ignored, and the highest coefficients, which a shift changes most,
    have little weight. Of three channels, color has fewer coefficients than brightness. Those of
    `small` images are 0.
    """
    waves = torch.arange(_SKETCH, dtype=torch.float32)
    basis = torch.cos(math.pi / _SKETCH * waves[:, None] * (waves + 0.5))
    basis = F.normalize(basis, dim=1)
    frequency = (waves[:, None].square() + waves.square()).sqrt()
    weights = frequency**1.5 * torch.exp(-frequency.square() / 18)  # 0 for the mean
    means = F.adaptive_avg_pool2d(thumbnails, _SKETCH)
    deviations = (means - means.mean((2, 3), keepdim=True)).square().mean((1, 2, 3)).sqrt()
    coefficients = (basis @ means @ basis.T * weights)[:, :, :_WAVES, :_WAVES]
    groups = [coefficients]
    if means.shape[1] == 3:
        red, green, blue = coefficients.unbind(1)
        color = torch.stack([(red - blue) / 2**0.5, (red - 2 * green + blue) / 6**0.5], 1)
        groups = [(red + green + blue)[:, None] / 3**0.5, color[..., :_COLOR_WAVES, :_COLOR_WAVES]]
    even = torch.cat([group[..., 0::2].flatten(1) for group in groups], 1)
    odd = torch.cat([group[..., 1::2].flatten(1) for group in groups], 1)
    length = (even.square().sum(1) + odd.square().sum(1)).sqrt()[:, None].clamp_min(1e-12)
    flat = deviations < _MIN_CONTRAST
    if small:
        flat = torch.ones_like(flat)
    even, odd = (torch.where(flat[:, None], 0, part / length) for part in (even, odd))
    return _Sketch(even, odd, flat)


def _candidates(one: _Sketch, others: Tensor, within: bool = False) -> _Candidates:
    """For every image of `others` (N, C, H, W) at most 4 similar images of `one`.

    The images are compared as they are, and slightly shifted in four directions. `within` compares
    a split with itself: each pair once, and no image with itself.
    """
    pairs, mirrored = [torch.zeros(0, 2, dtype=torch.int64)], [torch.zeros(0, dtype=torch.bool)]
    if min(others.shape[2:]) < _MIN_SIDE:
        return _Candidates(pairs[0], mirrored[0])
    for top in range(0, len(others), _ROWS):
        thumbnails = _thumbnails(others[top : top + _ROWS])
        views = [_sketch_thumbnails(_moved(thumbnails, *view)) for view in _VIEWS]
        scores, columns = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
        for left in range(0, top + _ROWS if within else len(one.even), _COLUMNS):
            block = slice(left, left + _COLUMNS)
            cosines = _cosines(one, block, views)
            if within:
                cosines.tril_(top - left - 1)
            best = cosines.topk(min(MAX_PAIRS, cosines.shape[1]), dim=1)
            scores = torch.cat([scores.reshape(len(cosines), -1), best.values], 1)
            columns = torch.cat([columns.reshape(len(cosines), -1), best.indices + left], 1)
        nearest = scores.topk(min(MAX_PAIRS, scores.shape[1]), dim=1)
        row, rank = (nearest.values > _MIN_COSINE).nonzero(as_tuple=True)
        column = columns[row, nearest.indices[row, rank]]
        pairs.append(torch.stack([column, row + top], 1))
        mirrored.append(_is_mirrored(one, column, views, row))
    return _Candidates(torch.cat(pairs), torch.cat(mirrored))


def _cosines(one: _Sketch, columns: slice, views: list[_Sketch]) -> Tensor:
    """Cosines (rows, columns) of sketches, mirrored or not and of the view that is most similar."""
    best: Tensor | None = None
    for view in views:
        cosines = (view.odd @ one.odd[columns].T).abs_()
        cosines.addmm_(view.even, one.even[columns].T)
        best = cosines if best is None else torch.maximum(best, cosines, out=best)
    assert best is not None
    return best


def _is_mirrored(one: _Sketch, column: Tensor, views: list[_Sketch], row: Tensor) -> Tensor:
    """Whether the pairs of sketches (P,) are more similar if one of the images is mirrored."""
    odd = torch.stack([(view.odd[row] * one.odd[column]).sum(1) for view in views])
    even = torch.stack([(view.even[row] * one.even[column]).sum(1) for view in views])
    best = (even + odd.abs()).argmax(0, keepdim=True)
    return odd.gather(0, best)[0] < 0


def _verify(
    splits: Mapping[str, Split], one: str, other: str, candidates: _Candidates, threshold: float
) -> Iterator[DuplicatePair]:
    """The candidates that are similar after their alignment."""
    labels, other_labels = splits[one].labels.cpu(), splits[other].labels.cpu()
    kept, alignment = _aligned(splits, one, other, candidates)
    for members, scale, down, right in _groups(alignment):
        part = kept.take(members)
        first, second = _pair_of_thumbnails(splits[one], splits[other], part)
        similarity, difference = _compare(_zoomed(first, _SCALES[scale]), second, down, right)
        for row in (similarity >= threshold).nonzero()[:, 0].tolist():
            left, index = part.pairs[row].tolist()
            yield DuplicatePair(
                (one, left),
                (other, index),
                float(difference[row]),
                bool(part.mirrored[row]),
                torch.equal(labels[left], other_labels[index]),
            )


def _aligned(
    splits: Mapping[str, Split], one: str, other: str, candidates: _Candidates
) -> tuple[_Candidates, Tensor]:
    """The candidates whose coarse edges correlate, and how they are aligned (P, 3)."""
    rows, alignments = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, 3, dtype=torch.int64)]
    for start in range(0, len(candidates.pairs), _PAIRS):
        part = torch.arange(len(candidates.pairs))[start : start + _PAIRS]
        thumbnails = _pair_of_thumbnails(splits[one], splits[other], candidates.take(part))
        coarse, alignment = _align(*thumbnails)
        rows.append(part[coarse >= _MIN_COARSE])
        alignments.append(alignment[coarse >= _MIN_COARSE])
    return candidates.take(torch.cat(rows)), torch.cat(alignments)


def _groups(alignment: Tensor) -> Iterator[tuple[Tensor, int, int, int]]:
    """The rows (P,) of each distinct alignment, at most `_PAIRS` at once."""
    distinct = {(scale, down, right) for scale, down, right in alignment.tolist()}
    for scale, down, right in sorted(distinct):
        members = (alignment == torch.tensor([scale, down, right])).all(1)
        for rows in torch.split(members.nonzero()[:, 0], _PAIRS):
            yield rows, scale, down, right


def _pair_of_thumbnails(one: Split, other: Split, pairs: _Candidates) -> tuple[Tensor, Tensor]:
    first = _thumbnails(_taken(one.images, pairs.pairs[:, 0]))
    second = _thumbnails(_taken(other.images, pairs.pairs[:, 1]))
    return first, torch.where(pairs.mirrored[:, None, None, None], second.flip(3), second)


def _align(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The best correlation (P,) of coarse edges, and where it is (P, 3): scale, down, right.

    The scale is an index into `_SCALES`; first[y, x] is second[y + down, x + right]. On brightness
    alone, at half the side, where a shift is an even number of pixels.
    """
    edges = _edges(F.avg_pool2d(second.mean(1, keepdim=True), 2), 1)
    inner, shifts = edges.shape[2] - 2 * _REACH, 2 * _REACH + 1
    windows = edges.unfold(2, inner, 1).unfold(3, inner, 1).permute(0, 2, 3, 1, 4, 5)
    windows = windows.reshape(len(edges), shifts * shifts, -1)
    gray = first.mean(1, keepdim=True)
    scaled = [_edges(F.avg_pool2d(_zoomed(gray, scale), 2), 1) for scale in _SCALES]
    inside = [_center(each, _REACH).flatten(1) for each in scaled]
    centers = F.normalize(torch.stack(inside, 2), dim=1)
    lengths = windows.square().sum(2, keepdim=True).sqrt().clamp_min(1e-9)
    best, index = (torch.bmm(windows, centers) / lengths).flatten(1).max(1)
    shift, scale = index // len(_SCALES), index % len(_SCALES)
    down, right = (2 * (part - _REACH) for part in (shift // shifts, shift % shifts))
    return best, torch.stack([scale, down, right], 1)


def _compare(first: Tensor, second: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """Similarity and difference (P,) at the best shift within a pixel of the given one."""
    reach = 2 * _REACH + 1
    edges, others = (_edges(F.avg_pool2d(part, 2, 1), 2) for part in (first, second))
    pixels, other_pixels = (F.avg_pool2d(part, 4, 1) for part in (first, second))
    center, center_pixels = _center(edges, reach), _center(pixels, reach)
    best = torch.full((len(first),), -1.0)
    similarity, difference = best.clone(), best.clone()
    for y in range(down - 1, down + 2):
        for x in range(right - 1, right + 2):
            correlation = _correlation(center, _center(others, reach, y, x))
            better = correlation > best
            if not better.any():
                continue
            best = torch.where(better, correlation, best)
            window = _center(other_pixels, reach, y, x)
            by_pixels = _correlation(_centered(center_pixels), _centered(window))
            similarity = torch.where(better, (correlation + 2 * by_pixels) / 3, similarity)
            change = _overlap(first, -y, -x) - _overlap(second, y, x)
            difference = torch.where(better, change.abs().mean((1, 2, 3)), difference)
    return similarity, difference


def _edges(means: Tensor, step: int) -> Tensor:  # (P, 2 C, h - step, w - step)
    """Differences of area means over `step` positions, which average out noise and encoding.

    Returns their signed square root. Otherwise a strong edge such as a horizon or a frame would
    dominate.
    """
    corner = means[:, :, step:, step:]
    horizontal = corner - means[:, :, step:, :-step]
    vertical = corner - means[:, :, :-step, step:]
    changes = torch.cat([horizontal, vertical], 1)
    return changes.sign() * changes.abs().sqrt()


def _correlation(first: Tensor, second: Tensor) -> Tensor:  # (P,) float32 in [-1, 1]
    return (F.normalize(first.flatten(1), dim=1) * F.normalize(second.flatten(1), dim=1)).sum(1)


def _centered(values: Tensor) -> Tensor:
    return values - values.mean((2, 3), keepdim=True)


def _center(values: Tensor, margin: int, down: int = 0, right: int = 0) -> Tensor:
    """The values without their margin, shifted by up to the margin."""
    height, width = (side - 2 * margin for side in values.shape[2:])
    top, left = margin + down, margin + right
    return values[:, :, top : top + height, left : left + width]


def _overlap(values: Tensor, down: int, right: int) -> Tensor:
    """The part of the images that is left after a shift."""
    height, width = values.shape[2:]
    rows = slice(max(0, down), height + min(0, down))
    return values[:, :, rows, max(0, right) : width + min(0, right)]


def _zoomed(thumbnails: Tensor, scale: float) -> Tensor:
    """The central part of this relative side, resampled to the whole side."""
    return thumbnails if scale == 1 else _resampled(thumbnails, scale, 0.0, 0.0)


def _moved(thumbnails: Tensor, down: float, right: float) -> Tensor:
    """Shifted by fractions of the side."""
    return thumbnails if down == right == 0 else _resampled(thumbnails, 1.0, down, right)


def _resampled(thumbnails: Tensor, scale: float, down: float, right: float) -> Tensor:
    affine = torch.tensor([[scale, 0, -2 * right], [0, scale, -2 * down]])
    grid = F.affine_grid(
        affine.expand(len(thumbnails), 2, 3), list(thumbnails.shape), align_corners=False
    )
    return F.grid_sample(thumbnails, grid, padding_mode="border", align_corners=False)


def _thumbnails(images: Tensor) -> Tensor:  # (N, C, 32, 32) float32 in [0, 1]
    blocks = [block.float() / 255 for block in torch.split(images, _images_per_block(images))]
    height, width = images.shape[2:]
    if height % _SIDE or width % _SIDE:
        blocks = [F.adaptive_avg_pool2d(block, _SIDE) for block in blocks]
    elif (height, width) != (_SIDE, _SIDE):  # the same means in a quarter of the time
        blocks = [F.avg_pool2d(block, (height // _SIDE, width // _SIDE)) for block in blocks]
    return torch.cat(blocks).cpu()


def _taken(images: Tensor, indices: Tensor) -> Tensor:
    return images[indices.to(images.device)]


def _equal_flat_images(
    splits: Mapping[str, Split], sketches: Mapping[str, _Sketch], within: Sequence[str]
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
        for name in within:
            own = members.get(name, [])
            pairs = [(i, j) for rank, j in enumerate(own) for i in own[:rank][:MAX_PAIRS]]
            yield from _equal_pairs(splits, name, name, pairs)


def _equal_pairs(
    splits: Mapping[str, Split], one: str, other: str, indices: list[tuple[int, int]]
) -> Iterator[DuplicatePair]:
    for i, j in indices:
        same = torch.equal(splits[one].labels[i], splits[other].labels[j])
        yield DuplicatePair((one, i), (other, j), 0.0, mirrored=False, same_label=same)


def _images_per_block(images: Tensor) -> int:
    return max(1, _BLOCK_VALUES // math.prod(images.shape[1:]))
