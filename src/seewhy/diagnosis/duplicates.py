"""Pictures that are in a data set twice, also where they were re-encoded, brightened, mirrored or moved by a pixel."""

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

MAX_PAIRS = 8  # pairs of an image with those of one split: a picture that is there a hundred times would drown the rest

_SIDE = 8  # of a sketch: so many area means in each direction
_ALIKE = 0.7  # cosine of two sketches from which on the images themselves are compared
_FLAT = 0.01  # standard deviation of a sketch in [0, 1] below which it is noise
_FINE = 64  # pixels of the longer side at which edges are compared, or up to twice as many
_FARTHEST = 0.15  # mean absolute difference up to which a picture may be brighter; forms alike in other colors are beyond
_SMALLEST = 16  # pixels of the shorter side below which different pictures look alike, and only equal ones are told
_ROWS, _COLUMNS = 1000, 4000  # of the matrix of cosines held at once
_BLOCK_VALUES = 2**24  # held as floats at once


@dataclass(frozen=True)
class DuplicatePair:
    """Two places of one picture."""

    first: tuple[str, int]  # split and index
    second: tuple[str, int]
    difference: float  # mean absolute difference of the pixels in [0, 1], mirrored and moved so that they fit; 0 where equal
    mirrored: bool
    same_label: bool


def near_duplicates(
    splits: Mapping[str, Split], threshold: float = 0.7, across: bool = True
) -> tuple[DuplicatePair, ...]:
    """Pairs of images that are one picture in two of `splits`, and without `across` also twice in "test", the most equal first.

    `threshold` is how alike the edges of both must be: their correlation, where the images are mirrored and moved by a pixel to
    fit best. The candidates are those whose coarse structure fits; of each image the 8 nearest in every other split are looked
    at. Pixels may differ by 0.15 on average: the same form in other colors is another picture. Images without contrast, or
    smaller than 16 pixels, are told only where they are equal. No more than a block of images is held as floats. Raises
    SeewhyError for a threshold outside of 0 to 1, and where images differ in shape.
    """
    if not 0 < threshold <= 1:
        raise SeewhyError(f"threshold is a correlation above 0 and up to 1, found {threshold}")
    shapes = {name: tuple(split.images.shape[1:]) for name, split in splits.items() if len(split)}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
        raise SeewhyError(
            f"near duplicates are looked for among images of one shape, found {found}; load both with one size"
        )
    sketches = {name: _sketch(splits[name].images) for name in shapes}
    pairs: list[DuplicatePair] = []
    for one, other in combinations(shapes, 2):
        candidates = _candidates(sketches[one], sketches[other])
        pairs += _verified(splits, one, other, candidates, threshold)
    if not across and "test" in shapes:
        candidates = _candidates(sketches["test"], sketches["test"], within=True)
        pairs += _verified(splits, "test", "test", candidates, threshold)
    if any(sketch.flat.any() for sketch in sketches.values()):
        pairs += _equal_where_flat(splits, sketches, across)
    return tuple(sorted(pairs, key=lambda pair: (pair.difference, pair.first, pair.second)))


@dataclass(frozen=True, eq=False)
class _Sketch:
    """The coarse structure of N images, as unit vectors; mirroring an image turns the sign of its odd part only."""

    even: Tensor  # (N, D) float32
    odd: Tensor  # (N, D) float32
    flat: Tensor  # (N,) bool, where there is no structure; both parts are 0


def _sketch(images: Tensor) -> _Sketch:
    """Cosine coefficients of 8x8 area means, weighted by their frequency, as natural images have less of the higher ones.

    So the mean of each channel plays no part, and unrelated images have a cosine of about 0.
    """
    waves = torch.arange(_SIDE, dtype=torch.float32)
    basis = torch.cos(math.pi / _SIDE * waves[:, None] * (waves + 0.5))
    basis = F.normalize(basis, dim=1)
    weights = (waves[:, None].square() + waves.square()).sqrt()  # 0 for the mean
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for block in torch.split(images, _images_per_block(images)):
        means = F.adaptive_avg_pool2d(block.float() / 255, _SIDE).cpu()
        flat = (means - means.mean((2, 3), keepdim=True)).square().mean((1, 2, 3)).sqrt() < _FLAT
        if min(images.shape[2:]) < _SMALLEST:
            flat = torch.ones_like(flat)
        coefficients = basis @ means @ basis.T * weights
        coefficients[flat] = 0
        coefficients = F.normalize(coefficients.flatten(1), dim=1).view_as(coefficients)
        parts.append((coefficients[..., 0::2].flatten(1), coefficients[..., 1::2].flatten(1), flat))
    even, odd, flat = (torch.cat(each) for each in zip(*parts, strict=True))
    return _Sketch(even, odd, flat)


def _candidates(one: _Sketch, other: _Sketch, within: bool = False) -> Tensor:  # (P, 2) int64
    """For every image of `other` the indices of at most 8 in `one` that resemble it, as it is or mirrored, and its own.

    `within` compares a split with itself: each pair once, and no image with itself.
    """
    found = [torch.zeros(0, 2, dtype=torch.int64)]
    for top in range(0, len(other.even), _ROWS):
        rows = slice(top, top + _ROWS)
        scores, columns = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
        for left in range(0, top + _ROWS if within else len(one.even), _COLUMNS):
            block = slice(left, left + _COLUMNS)
            cosines = (
                other.odd[rows] @ one.odd[block].T
            ).abs_()  # mirrored or not, whichever fits better
            cosines.addmm_(other.even[rows], one.even[block].T)
            if within:
                cosines.tril_(top - left - 1)
            best = cosines.topk(min(MAX_PAIRS, cosines.shape[1]), dim=1)
            scores = torch.cat([scores.reshape(len(cosines), -1), best.values], 1)
            columns = torch.cat([columns.reshape(len(cosines), -1), best.indices + left], 1)
        nearest = scores.topk(min(MAX_PAIRS, scores.shape[1]), dim=1)
        row, place = (nearest.values > _ALIKE).nonzero(as_tuple=True)
        found.append(torch.stack([columns[row, nearest.indices[row, place]], row + top], 1))
    return torch.cat(found)


def _verified(
    splits: Mapping[str, Split], one: str, other: str, candidates: Tensor, threshold: float
) -> Iterator[DuplicatePair]:
    """Those of `candidates` (P, 2) whose edges agree, with how much their pixels differ."""
    first, second = splits[one], splits[other]
    labels_agree = first.labels.cpu()[candidates[:, 0]] == second.labels.cpu()[candidates[:, 1]]
    chunk = max(1, _images_per_block(first.images) // 4)
    for indices, same in zip(
        torch.split(candidates, chunk), torch.split(labels_agree, chunk), strict=True
    ):
        ours, theirs = (
            split.images[column.to(split.images.device)].cpu().float() / 255
            for split, column in zip((first, second), indices.unbind(1), strict=True)
        )
        upright, mirrored = _agreement(ours, theirs), _agreement(ours, theirs.flip(3))
        turned = mirrored > upright
        differences = _difference(
            ours, torch.where(turned[:, None, None, None], theirs.flip(3), theirs)
        )
        kept = (torch.maximum(upright, mirrored) >= threshold) & (differences <= _FARTHEST)
        columns = (column[kept].tolist() for column in (indices, differences, turned, same))
        rows = zip(*columns, strict=True)
        for (left, right), difference, turn, agree in rows:
            yield DuplicatePair((one, left), (other, right), difference, turn, agree)


def _agreement(ours: Tensor, theirs: Tensor) -> Tensor:  # (P,) float32 in [-1, 1]
    """Correlation of the edges of images (P, C, H, W) with those of others, which are moved by up to a pixel to fit best."""
    step = max(1, max(ours.shape[2:]) // _FINE)
    edges, others = _edges(ours, step), _edges(theirs, step)
    height, width = edges.shape[2] - 2, edges.shape[3] - 2
    inner = F.normalize(edges[:, :, 1:-1:step, 1:-1:step].flatten(1), dim=1)
    best = torch.full((len(ours),), -1.0)
    for down in range(3):
        for right in range(3):
            moved = others[:, :, down : down + height : step, right : right + width : step]
            best = torch.maximum(best, (inner * F.normalize(moved.flatten(1), dim=1)).sum(1))
    return best


def _edges(images: Tensor, step: int) -> Tensor:  # (P, 2 C, h, w)
    """How means over 2 `step` pixels change from `step` pixels to the left and above: noise and encoding are in finer ones.

    The square root of the change, with its sign: else a horizon or a frame would outweigh all else, and many images have those.
    """
    means = F.avg_pool2d(images, 2 * step, stride=1)
    corner = means[:, :, step:, step:]
    changes = torch.cat(
        [corner - means[:, :, step:, :-step], corner - means[:, :, :-step, step:]], 1
    )
    return changes.sign() * changes.abs().sqrt()


def _difference(ours: Tensor, theirs: Tensor) -> Tensor:  # (P,) float32 in [0, 1]
    """Mean absolute difference of images (P, C, H, W) where both are there, moved by up to a pixel to differ least."""
    height, width = ours.shape[2:]
    least = torch.ones(len(ours))
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            here = ours[
                :, :, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)
            ]
            there = theirs[
                :,
                :,
                max(0, -down) : height + min(0, -down),
                max(0, -right) : width + min(0, -right),
            ]
            least = torch.minimum(least, (here - there).abs().mean((1, 2, 3)))
    return least


def _equal_where_flat(
    splits: Mapping[str, Split], sketches: Mapping[str, _Sketch], across: bool
) -> Iterator[DuplicatePair]:
    """Equal images without contrast: each with at most 8 of every other split, and without `across` also in "test"."""
    for group in exact_duplicates(splits).groups:
        name, index = group[0]
        if not sketches[name].flat[index]:
            continue  # found by its structure
        members = {name: [place for split, place in group if split == name] for name in splits}
        for one, other in combinations(splits, 2):
            yield from _equal(
                splits,
                one,
                other,
                [(i, j) for j in members[other] for i in members[one][:MAX_PAIRS]],
            )
        if not across and "test" in splits:
            within = [
                (i, j)
                for place, j in enumerate(members["test"])
                for i in members["test"][:place][:MAX_PAIRS]
            ]
            yield from _equal(splits, "test", "test", within)


def _equal(
    splits: Mapping[str, Split], one: str, other: str, places: list[tuple[int, int]]
) -> Iterator[DuplicatePair]:
    for i, j in places:
        same = bool(splits[one].labels[i] == splits[other].labels[j])
        yield DuplicatePair((one, i), (other, j), 0.0, mirrored=False, same_label=same)


def _images_per_block(images: Tensor) -> int:
    return max(1, _BLOCK_VALUES // math.prod(images.shape[1:]))
