"""What a network looks at in its mistakes: maps at every stage, for the class it says and for the true one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.data.dataset import Split
from seewhy.explaining.capture import capture
from seewhy.explaining.methods import bind_methods
from seewhy.explaining.resize import resized

LARGEST = 12  # a side of a map that is kept: finer ones are averaged, which at the size of a page is hardly seen
TARGETS = (
    "predicted",
    "true",
)  # their difference is that of the maps; Grad-CAM's and HiResCAM's is that of the scores' difference
_PIXELS = 2**18  # of the images whose activations are held at once


@dataclass(frozen=True, eq=False)
class StageMaps:
    """Signed maps of M images by method, target and layer, in whole numbers: 127 is the largest magnitude of an image's
    two maps by one method at one layer, so that the two can be compared and subtracted."""

    methods: tuple[str, ...]
    layers: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]  # height and width of the maps of each layer
    values: tuple[Tensor, ...]  # of each layer: (M, methods, 2 targets, h, w) int8

    def take(self, rows: Tensor) -> "StageMaps":
        """The maps of some of the images."""
        return replace(self, values=tuple(values[rows] for values in self.values))


def stage_maps(
    model: nn.Module,
    split: Split,
    index: Tensor,  # (M,) int64
    predicted: Tensor,  # (M,) int64
    methods: Sequence[str],
    layers: Sequence[str],
    classes: int,
) -> StageMaps:
    """Maps of the images at `index` for the `predicted` class of each and for its true one, by methods of a layer."""
    if not len(index):  # as many maps as there are images, of the sizes that those of an image would have
        one = stage_maps(model, split, torch.tensor([0]), split.labels[:1], methods, layers, classes)
        return one.take(index)
    bound = bind_methods(methods)
    parts: list[list[Tensor]] = []
    height, width = split.images.shape[2:]
    for rows in torch.split(torch.arange(len(index)), max(1, _PIXELS // (height * width))):
        some = split.take(index[rows])
        by_target = []
        for goal in (predicted[rows], some.labels):
            captures = capture(model, some.images, list(layers), F.one_hot(goal, classes).float())
            by_target.append([torch.stack([_small(method.function(captures[name])) for method in bound], 1) for name in layers])
        parts.append([_whole_numbers(torch.stack(pair, 2)) for pair in zip(*by_target, strict=True)])
    values = tuple(torch.cat(part) for part in zip(*parts, strict=True))
    return StageMaps(tuple(methods), tuple(layers), tuple((v.shape[-2], v.shape[-1]) for v in values), values)


def _small(maps: Tensor) -> Tensor:
    """Maps (N, h, w) on the CPU with no side above LARGEST; what is not finite shows nothing."""
    maps = maps.detach().float().cpu().nan_to_num(0, 0, 0)
    height, width = (min(side, LARGEST) for side in maps.shape[1:])
    return maps if maps.shape[1:] == (height, width) else resized(maps, (height, width))


def _whole_numbers(maps: Tensor) -> Tensor:  # (M, methods, targets, h, w)
    largest = maps.abs().amax((2, 3, 4), keepdim=True)
    return (127 * maps / largest.where(largest > 0, 1)).round().to(torch.int8)
