"""Images as a page shows them: whole where they are small, otherwise as thumbnails."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.data.dataset import Split
from seewhy.figures.tiles import thumbnails

SIDE = 96  # pixels; larger images are shrunk to it


@dataclass(frozen=True, eq=False)
class Shown:
    """Images of a split that a page may show."""

    index: Tensor  # (T,) int64, ascending places in the split
    images: Tensor  # (T, C, h, w) uint8


def shown(split: Split, indices: Sequence[int]) -> Shown:
    """The images at `indices`, each once, no side longer than 96 pixels."""
    index = torch.tensor(sorted(set(indices)), dtype=torch.int64)
    images = [thumbnails(split.images[some], SIDE) for some in torch.split(index, 256)] if len(index) else [split.images[:0]]
    return Shown(index, torch.cat(images))
