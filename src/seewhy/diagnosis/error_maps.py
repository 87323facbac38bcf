"""Maps of an error for the predicted and for the true class, small enough for a report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seewhy.attribution.explanation import signed_maps
from seewhy.attribution.maps import resize_maps
from seewhy.attribution.methods import bind_methods
from seewhy.attribution.statuses import PIXELS, Key
from seewhy.attribution.target import prepare
from seewhy.data.dataset import Split
from seewhy.diagnosis.budget import images_within
from seewhy.models.classifier import ClassifierLike

MAX_MAP_SIDE = 12  # larger maps are downsized to it, hardly visible in a report

_PIXELS = 2**18  # pixels per batch


@dataclass(frozen=True, eq=False)
class MapPairs:
    """Signed maps of M images by layer and method, for the predicted and for the true class.

    The two maps of a pair share a scale, with 127 as the largest magnitude, so that they can be
    compared and subtracted.

    Args:
        keys: Layer and method of each tensor in `values`; the layer is "pixels" for a method that
            needs none.
        values: (M, 2, h, w) int8 each; the map for the predicted class comes first.
    """

    keys: tuple[Key, ...]
    values: tuple[Tensor, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, as requested."""
        return tuple(dict.fromkeys(method for _, method in self.keys))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers by depth, without "pixels"."""
        return tuple(dict.fromkeys(layer for layer, _ in self.keys if layer != PIXELS))

    def of(self, method: str) -> tuple[Tensor, ...]:
        """The values of a method: one tensor per layer, or a single one if it needs none."""
        return tuple(
            values
            for (_, name), values in zip(self.keys, self.values, strict=True)
            if name == method
        )

    def needs_layer(self, method: str) -> bool:
        """Whether a method has maps of each layer."""
        return (PIXELS, method) not in self.keys

    def take(self, rows: Tensor) -> "MapPairs":
        """The maps of the images `rows` (R,) int64."""
        return replace(self, values=tuple(values[rows] for values in self.values))


def map_pairs(
    classifier: ClassifierLike,
    split: Split,
    index: Tensor,
    predicted: Tensor,
    methods: Sequence[str],
    layers: Sequence[str],
    seconds: float = math.inf,
) -> MapPairs:
    """Compute maps of images for the predicted and for the true class.

    Args:
        classifier: A run, a Classifier, or a module in evaluation mode.
        split: Images with their true classes.
        index: (M,) int64, the images to explain.
        predicted: (M,) int64, the predicted class of each.
        methods: As in `explain`.
        layers: Names of layers.
        seconds: Time to take; by the pace so far, the last images for which it does not suffice are
            left out.

    Raises:
        SeewhyError: If a method fails.
    """
    if not len(index):  # the sizes are those of a map of any image
        one = map_pairs(classifier, split, torch.tensor([0]), split.labels[:1], methods, layers)
        return one.take(index)
    bound = bind_methods(methods)
    parts: list[dict[Key, Tensor]] = []
    height, width = split.images.shape[2:]
    most = max(1, _PIXELS // (height * width))
    for span in images_within(seconds, len(index), most):
        rows = torch.arange(span.start, span.stop)
        batch = split.take(index[rows])
        predicted_maps, true_maps = (
            signed_maps(prepare(classifier, batch.images, target), bound, layers)
            for target in (predicted[rows], batch.labels)
        )
        parts.append(
            {
                key: _quantize(torch.stack((_shrink(maps), _shrink(true_maps[key])), 1))
                for key, maps in predicted_maps.items()
            }
        )
    keys = sorted(parts[0], key=lambda key: methods.index(key[1]))  # stable: layers by depth
    return MapPairs(tuple(keys), tuple(torch.cat([part[key] for part in parts]) for key in keys))


def _shrink(maps: Tensor) -> Tensor:
    """Maps (N, h, w) on the CPU, no side above MAX_MAP_SIDE, zero where they are not finite."""
    maps = maps.detach().float().cpu().nan_to_num(0, 0, 0)
    height, width = (min(side, MAX_MAP_SIDE) for side in maps.shape[1:])
    return maps if maps.shape[1:] == (height, width) else resize_maps(maps, (height, width))


def _quantize(maps: Tensor) -> Tensor:  # (M, 2, h, w) int8
    largest = maps.abs().amax((1, 2, 3), keepdim=True)
    return (127 * maps / largest.where(largest > 0, 1)).round().to(torch.int8)
