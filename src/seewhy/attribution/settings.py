"""Settings of a method: which to try, and their gains and costs on images."""

import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from seewhy.attribution.explanation import SMOOTHING, Explanation, View, explain_prepared, names_for
from seewhy.attribution.faithfulness import random_maps
from seewhy.attribution.layers import Layers
from seewhy.attribution.methods import BoundMethod, bind_method
from seewhy.attribution.mosaics import MAX_MOSAICS, make_mosaics, score_mosaics
from seewhy.attribution.sanity import randomize
from seewhy.attribution.scores import curve_area, without_residue
from seewhy.attribution.statuses import PIXELS
from seewhy.attribution.target import PreparedInputs, TargetSpec, run_forward
from seewhy.errors import SeewhyError

STEPS, RANDOM_MAPS = 8, 2  # of the curves; fewer than in `trust`, for more images
SMOOTHS = ("none", "flip")


def _values(*values: Any) -> Callable[[Any, int], Sequence[Any]]:
    return lambda default, side: values


def _multiples(*factors: float) -> Callable[[Any, int], Sequence[Any]]:
    return lambda default, side: [type(default)(round(each * default, 6)) for each in factors]


# Values to try of a setting besides its default, by the name of the parameter; from the default and
# the shorter side of the images. Without baselines: the curves replace pixels by black and by a
# blur, and would favor these.
TUNED_SETTINGS: dict[str, Callable[[Any, int], Sequence[Any]]] = {
    "eigen": _values(True),
    "gamma": _multiples(0.2, 5),
    "grid": _multiples(0.5, 2),
    "masks": _multiples(0.25, 2),
    "noise": _multiples(0.5, 2),
    "samples": _multiples(0.25, 2),
    "size": lambda default, side: (side // 8, side // 2),
    "steps": _multiples(0.25, 2),
}


@dataclass(frozen=True)
class Setting:
    """A method with its settings, a layer ("pixels" for a method of no layer), and a smoothing."""

    method: str
    layer: str
    smooth: str = "none"

    @property
    def arguments(self) -> dict[str, str]:
        """The arguments of `explain`."""
        layers = {} if self.layer == PIXELS else {"layers": self.layer}
        smooth = {} if self.smooth == "none" else {"smooth": self.smooth}
        return {"methods": self.method, **layers, **smooth}


def candidate_settings(inputs: PreparedInputs, method: str, layers: Layers) -> list[Setting]:
    """All settings of a method for prepared inputs; the default first, then the other layers."""
    bound = bind_method(method)
    names = names_for([bound], inputs, layers)[::-1] or [PIXELS]
    given, side = getattr(bound.function, "keywords", {}), min(inputs.images.shape[2:])
    options: list[list[str]] = []
    for name, parameter in inspect.signature(bound.function).parameters.items():
        default = parameter.default
        if name in TUNED_SETTINGS and name not in given and isinstance(default, int | float):
            values = TUNED_SETTINGS[name](default, side)
            others = dict.fromkeys(each for each in values if each != default)
            options.append(["", *(f"{name}={str(each).lower()}" for each in others)])
    settings = []
    for smooth, *values, layer in product(SMOOTHS, *options, names):
        text = ",".join(filter(None, values))
        separator = "" if not text else "," if ":" in method else ":"
        settings.append(Setting(f"{method}{separator}{text}", layer, smooth))
    return settings


@dataclass(frozen=True, eq=False)
class SettingRecord:
    """Measurements of a setting on the first images."""

    gains: Tensor  # (n,)
    seconds: float  # per image for its maps, in the fastest round
    cost: float  # per image for its maps and their curves, in seconds
    size: torch.Size  # of a map
    depends_on_weights: bool = True

    def extended(self, later: "SettingRecord") -> "SettingRecord":
        """With the measurements of further images."""
        gains = torch.cat([self.gains, later.gains])
        return replace(self, gains=gains, seconds=min(self.seconds, later.seconds))


class SettingMeter:
    """Measures settings on images in a random order; random maps of a size only once."""

    def __init__(self, inputs: PreparedInputs) -> None:
        count, device = len(inputs.images), inputs.images.device
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        labels = inputs.target.labels
        self.forward = run_forward(inputs).take(order.to(device))
        target = TargetSpec(self.forward.weights, None if labels is None else labels.cpu()[order])
        self.inputs = replace(inputs, images=self.forward.images, target=target)
        self.chance: dict[torch.Size, Tensor] = {}  # (N,), NaN where not measured
        self.chance_costs: dict[torch.Size, float] = {}  # seconds per image

    def measure(self, setting: Setting, rows: slice, randomized: bool = False) -> SettingRecord:
        """Gains on some images and their costs; if `randomized`, also with random weights.

        Raises SeewhyError if the method has no maps, or maps that are only residue.
        """
        explanation, seconds = self._explain(setting, rows)
        maps = without_residue(explanation).maps[setting.layer, setting.method]
        maps = maps.nan_to_num(0, 0, 0)
        chance = self._chance_level(maps, rows)
        began = time.monotonic()
        gains = curve_area(self.forward.take(rows), maps, STEPS).cpu() - chance
        cost = seconds + time.monotonic() - began
        count = len(maps)
        record = SettingRecord(gains, seconds / count, cost / count, maps.shape[1:])
        if not randomized:
            return record
        method, _, views = _bound(setting)
        check = randomize(self.inputs.take(rows), method, explanation, steps=1, views=views)
        return replace(record, depends_on_weights=check[setting.layer, setting.method].passed)

    def measure_time(self, setting: Setting, rows: slice) -> float:
        """Seconds for the map of an image."""
        explanation, seconds = self._explain(setting, rows)
        return seconds / len(explanation.logits)

    def _explain(self, setting: Setting, rows: slice) -> tuple[Explanation, float]:
        """The maps of some images, and the seconds that they take."""
        inputs, (method, names, views) = self.inputs.take(rows), _bound(setting)
        began = time.monotonic()
        explanation = explain_prepared(inputs, method, names, views)
        return explanation, time.monotonic() - began

    def _chance_level(self, maps: Tensor, rows: slice) -> Tensor:  # (n,)
        """Mean area of random maps of the size of `maps`."""
        size, forward = maps.shape[1:], self.forward.take(rows)
        levels = self.chance.setdefault(size, torch.full((len(self.inputs.images),), torch.nan))
        if levels[rows].isnan().any():
            began = time.monotonic()
            noises = random_maps(maps, RANDOM_MAPS, seed=rows.start)
            areas = [curve_area(forward, noise, STEPS).cpu() for noise in noises]
            levels[rows] = torch.stack(areas).mean(0).to(levels)
            self.chance_costs[size] = (time.monotonic() - began) / len(maps)
        return levels[rows]

    def cost(self, records: Mapping[Setting, SettingRecord], settings: Sequence[Setting]) -> float:
        """Seconds to measure another image with the settings."""
        sizes = {records[each].size for each in settings}
        curves = sum(records[each].cost for each in settings)
        return curves + sum(self.chance_costs[size] for size in sizes)

    def points_right(self, setting: Setting, rows: slice, seconds: float, end: float) -> bool:
        """Whether the maps point at the right image of mosaics.

        True if the images make no mosaics, and if there is no time for some until `end`, by the
        seconds for the map of an image.
        """
        inputs, (method, names, views) = self.inputs.take(rows), _bound(setting)
        count = affordable(end - time.monotonic(), 4 * seconds, MAX_MOSAICS)
        mosaics = make_mosaics(inputs, self.forward.logits[rows], count)
        if mosaics is None:
            return True
        with suppress(SeewhyError):  # the method fails for images of this size
            scores = score_mosaics(mosaics, inputs, method, names, views)
            return scores[setting.layer, setting.method].passed
        return True


def _bound(setting: Setting) -> tuple[list[BoundMethod], list[str], tuple[View, ...]]:
    """The arguments of `explain_prepared`: the method, the layer if it needs one, and the views."""
    names = [] if setting.layer == PIXELS else [setting.layer]
    return [bind_method(setting.method)], names, SMOOTHING[setting.smooth]


def affordable(seconds: float, each: float, most: int) -> int:
    """How many of `most` fit in the seconds, if one takes `each`."""
    return most if most * each <= seconds else math.floor(max(0.0, seconds) / each)
