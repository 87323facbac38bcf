"""The status of maps: whether they show something, and if not, why."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.attribution.capture import Capture
from seewhy.attribution.maps import is_residue
from seewhy.attribution.methods import BoundMethod
from seewhy.attribution.target import ForwardPass
from seewhy.wording import counted

PIXELS = "pixels"  # layer name of methods that need no layer

Key = tuple[str, str]  # layer, method

OK = "ok"
NOT_FINITE = "not finite"
SAME_CLASS = "same class"
SATURATED = "saturated"
NO_GRADIENT = "no gradient"
RESIDUE = "residue"
ALL_ZERO = "all zero"
ALL_NEGATIVE = "all negative"

REASONS = {
    NOT_FINITE: "the model's activations or gradients are infinite or NaN; check its weights, "
    "or use bf16 or fp32 instead of fp16",
    SAME_CLASS: "both classes of the target are the same, so the score is 0 whatever the image "
    "shows; choose another pair",
    ALL_NEGATIVE: "every position is evidence against the class, and the method shows only "
    "evidence for it",
    ALL_ZERO: "nothing in the layer contributes to the score",
    NO_GRADIENT: "the gradient is zero at the whole layer, because weights behind it are zero or "
    "ReLUs behind it are off",
    RESIDUE: "gradient times activation cancels over the channels, because a normalization such as "
    "LayerNorm reads the layer, so the map is rounding noise; use a layer before the residual sum "
    "or behind the normalization, or layer-cam",
    SATURATED: "the model returns probabilities near 0 or 1, with a gradient of rounding noise; "
    "use a model that returns logits",
}
ONLY_PREFIX = (  # instead of the reason above
    "the score does not depend on the layer's spatial positions, only on its class token"
)


@dataclass(frozen=True, eq=False)
class MapStatus:
    """Status of the maps of one method at one layer, one per image.

    Args:
        kinds: N of "ok", "all negative", "all zero", "residue", "no gradient", "saturated",
            "same class", "not finite".
        clipped: (N,) float32 in [0, 1], fraction of the signed map's absolute sum that the method's
            ReLU removes; 0 without a ReLU.
        reads_prefix: Whether the score depends on the layer's tokens before the grid, such as a
            class token; the reason if it does not depend on the grid.
    """

    kinds: tuple[str, ...]
    clipped: Tensor
    reads_prefix: bool = False

    def take(self, rows: slice) -> "MapStatus":
        """The status of the maps of some images."""
        return MapStatus(self.kinds[rows], self.clipped[rows], self.reads_prefix)

    def __add__(self, other: "MapStatus") -> "MapStatus":
        clipped = torch.cat([self.clipped, other.clipped])
        return MapStatus(self.kinds + other.kinds, clipped, self.reads_prefix or other.reads_prefix)

    def reason(self, kind: str) -> str:
        """Why maps have this status."""
        return ONLY_PREFIX if kind == NO_GRADIENT and self.reads_prefix else REASONS[kind]


def map_status(
    signed: Tensor, forward: ForwardPass, method: BoundMethod, capture: Capture | None = None
) -> MapStatus:
    """The status of maps (N, h, w) before the method's ReLU; `capture` for methods of a layer."""
    finite = signed.isfinite().flatten(1).all(1)
    values = signed.where(finite[:, None, None], 0).flatten(1)
    size, negative = values.abs().sum(1), values.clamp(max=0).abs().sum(1)
    empty = ~values.any(1)
    gradient = None if capture is None or not method.differentiates else capture.derivative
    no_gradient = residue = torch.zeros_like(finite)
    if capture is not None and isinstance(gradient, Tensor):
        no_gradient = empty & ~gradient.flatten(1).any(1)
        if method.sums_products:
            residue = is_residue(capture.activation, gradient, forward.precision) & ~empty
    flags = {  # the first match is the status
        NOT_FINITE: ~finite,
        SAME_CLASS: empty & ~forward.weights.to(empty.device).any(1),
        SATURATED: _saturated(forward) & method.differentiates,
        NO_GRADIENT: no_gradient,
        RESIDUE: residue,
        ALL_ZERO: empty,
        ALL_NEGATIVE: (values <= 0).all(1) & method.rectified,
    }
    kinds = tuple(
        next((kind for kind, flag in zip(flags, row, strict=True) if flag), OK)
        for row in torch.stack(list(flags.values()), dim=1).tolist()
    )
    clipped = torch.where(size > 0, negative / size, 0) * method.rectified
    reads_prefix = capture is not None and capture.reads_prefix
    return MapStatus(kinds, clipped.float().cpu(), reads_prefix)


def _saturated(forward: ForwardPass) -> Tensor:  # (N,) bool
    """Whether the outputs are probabilities and the explained one is close to 0 or 1."""
    logits = forward.logits
    if forward.classifier.activation == "none":
        return torch.zeros_like(logits[:, 0], dtype=torch.bool)
    probabilities = ((logits >= 0) & (logits <= 1)).all(1) & ((logits.sum(1) - 1).abs() < 1e-3)
    explained = logits.gather(1, forward.target[:, None])[:, 0]
    return probabilities & ((explained > 0.999) | (explained < 0.001))


def failure_warnings(failures: Mapping[Key, str]) -> tuple[str, ...]:
    """One sentence per method and reason, with the layers at which the method failed."""
    layers: dict[tuple[str, str], list[str]] = {}
    for (layer, method), reason in failures.items():
        layers.setdefault((method, reason), []).append(layer)
    sentences = []
    for (method, reason), names in layers.items():
        where = "" if names == [PIXELS] else f" at {', '.join(names)}"
        sentences.append(f"{method}{where} failed: {reason}")
    return tuple(sentences)


def status_warnings(statuses: Mapping[Key, MapStatus]) -> tuple[str, ...]:
    """One warning per (layer, method) with maps that are not ok, with a better layer if any."""
    sentences = []
    for (layer, method), status in statuses.items():
        for kind in REASONS:
            count = status.kinds.count(kind)
            if count:
                better = _better_layer(statuses, layer, method)
                advice = f"; use {better} instead" if better and kind != SATURATED else ""
                images = f"{count} of {counted(len(status.kinds), 'image')}"
                sentences.append(
                    f"{method} at {layer}: {kind} for {images}: {status.reason(kind)}{advice}"
                )
    return tuple(sentences)


def _better_layer(statuses: Mapping[Key, MapStatus], layer: str, method: str) -> str | None:
    """The layer with the most ok maps of the method (ties: the last); None if it is `layer`."""
    counts = {at: each.kinds.count(OK) for (at, name), each in statuses.items() if name == method}
    best = max(counts, key=lambda at: (counts[at], list(counts).index(at)))
    return best if counts[best] > counts[layer] else None
