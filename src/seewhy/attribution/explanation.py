"""`explain`: maps of several methods at several layers, and the status of every map."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import torch
from torch import Tensor

from seewhy.attribution.capture import Capture, Captures, capture_batch, capture_chunks
from seewhy.attribution.layers import Layers, layer_names
from seewhy.attribution.methods import BoundMethod, Methods, bind_methods
from seewhy.attribution.target import (
    ForwardPass,
    PreparedInputs,
    Relative,
    Target,
    TargetSpec,
    batch_size,
    prepare,
    run_forward,
)
from seewhy.errors import SeewhyError, lookup
from seewhy.models.classifier import ClassifierLike

PIXELS = "pixels"  # layer name of methods that need no layer

OK = "ok"
NOT_FINITE = "not finite"
SATURATED = "saturated"
NO_GRADIENT = "no gradient"
ALL_ZERO = "all zero"
ALL_NEGATIVE = "all negative"

REASONS = {
    NOT_FINITE: "the model's activations or gradients are infinite or NaN; check its weights, "
    "or use bf16 or fp32 instead of fp16",
    ALL_NEGATIVE: "every position is evidence against the class, and the method shows only "
    "evidence for it",
    ALL_ZERO: "nothing in the layer contributes to the score",
    NO_GRADIENT: "the score does not depend on the layer's spatial positions, as after the last "
    "attention to a class token",
    SATURATED: "the model returns probabilities near 0 or 1, with a gradient of rounding noise; "
    "use a model that returns logits",
}


@dataclass(frozen=True, eq=False)
class MapStatus:
    """Status of the maps of one method at one layer, one per image.

    Args:
        kinds: N of "ok", "all negative", "all zero", "no gradient", "saturated", "not finite".
        clipped: (N,) float32 in [0, 1], fraction of the signed map's absolute sum that the method's
            ReLU removes; 0 without a ReLU.
    """

    kinds: tuple[str, ...]
    clipped: Tensor

    def take(self, rows: slice) -> "MapStatus":
        """The status of the maps of some images."""
        return MapStatus(self.kinds[rows], self.clipped[rows])

    def __add__(self, other: "MapStatus") -> "MapStatus":
        return MapStatus(self.kinds + other.kinds, torch.cat([self.clipped, other.clipped]))


Maps = dict[tuple[str, str], Tensor]  # by (layer, method)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps of N images, the explained scores, and the status of every map; all on the CPU.

    Args:
        maps: By (layer, method): (N, h, w) float32 in the layer's own resolution.
        statuses: By (layer, method).
        logits: (N, K) float32.
        weights: (N, K) float32; the explained scores are `(logits * weights).sum(1)`.
        labels: True classes (N,) int64, if known.
        classes: Names of the K classes.
    """

    maps: Mapping[tuple[str, str], Tensor]
    statuses: Mapping[tuple[str, str], MapStatus]
    logits: Tensor
    weights: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        count = len(self.logits)
        images = f"{count} image{'s' * (count != 1)}"
        return f"Explanation({images}, {', '.join(self.methods)} at {', '.join(self.layers)})"

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers, as requested; "pixels" for methods that need none."""
        return tuple(dict.fromkeys(layer for layer, _ in self.maps))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, as requested."""
        return tuple(dict.fromkeys(method for _, method in self.maps))

    @property
    def predicted(self) -> Tensor:
        """Predicted classes (N,) int64."""
        return self.logits.argmax(1)

    @property
    def confidence(self) -> Tensor:
        """Probability of the predicted class (N,) float32."""
        return self.logits.softmax(1).amax(1)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One warning for each layer and method with maps that are not ok."""
        return status_warnings(self.statuses)

    def take(self, rows: slice) -> "Explanation":
        """The explanation of some images."""
        return replace(
            self,
            maps={key: maps[rows] for key, maps in self.maps.items()},
            statuses={key: status.take(rows) for key, status in self.statuses.items()},
            logits=self.logits[rows],
            weights=self.weights[rows],
            labels=None if self.labels is None else self.labels[rows],
        )

    def at(self, layer: str, method: str | None = None) -> Tensor:
        """The maps (N, h, w) float32 of one layer and method.

        Args:
            layer: One of `layers`.
            method: One of `methods`; may be left out if there is only one at this layer.

        Raises:
            SeewhyError: For a layer or method without maps, and if the method is ambiguous.
        """
        methods = [name for at, name in self.maps if at == layer]
        if method is None and len(methods) > 1:
            raise SeewhyError(
                f"layer {layer!r} has maps of several methods; choose one of {', '.join(methods)}"
            )
        method = method or next(iter(methods), self.methods[0])
        known = {f"{at} {name}": maps for (at, name), maps in self.maps.items()}
        return lookup(known, f"{layer} {method}", "map")


def explain(
    classifier: ClassifierLike,
    images: Tensor,
    methods: Methods = "grad-cam",
    layers: Layers = "auto",
    target: Target = Relative.PREDICTED,
    *,
    labels: Tensor | None = None,
    smooth: str = "none",
    warn: bool = True,
) -> Explanation:
    """Explain predictions with maps of every method at every layer.

    Methods that need the same activations and gradients share one forward and one backward pass.
    The model is left unchanged.

    Args:
        classifier: A Classifier, a Run, or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1].
        methods: Entries of CAMS and ATTRIBUTIONS, with settings as in "rise:masks=500", or
            functions from a Capture to maps (N, h, w).
        layers: Names of layers, modules, or "auto" (see `list_layers`); ignored by methods that
            need no layer.
        target: Explained class: "predicted", "true", "runner-up", a class name, or a class index. A
            pair of these for a difference of logits, such as ("cat", "dog"). Or one class index per
            image, (N,) int64; or weights of the logits, (N, K) float.
        labels: True classes (N,) int64, for the target "true".
        smooth: "flip" averages over mirrored images, "flip-scale" also over three brightnesses.
        warn: Whether to warn about maps that are not ok; `Explanation.warnings` lists them anyway.

    Raises:
        SeewhyError: For a model in training mode, for an unknown method, layer or target, and for
            images that do not fit the model.
    """
    bound = bind_methods(methods)
    views = lookup(SMOOTHING, smooth, "smoothing")
    inputs = prepare(classifier, images, target, labels)
    explanation = explain_prepared(inputs, bound, names_for(bound, inputs, layers), views)
    if warn and explanation.warnings:
        warnings.warn("; ".join(explanation.warnings), stacklevel=2)
    return explanation


@dataclass(frozen=True)
class View:
    """A transformation of images (N, C, H, W) in [0, 1], and its inverse for maps (N, h, w)."""

    change: Callable[[Tensor], Tensor]
    restore: Callable[[Tensor], Tensor]


def _same(values: Tensor) -> Tensor:
    return values


def _mirror(values: Tensor) -> Tensor:
    return values.flip(-1)


def _brightness(factor: float, mirror: bool) -> View:
    flip = _mirror if mirror else _same
    return View(lambda images: (flip(images) * factor).clamp(max=1), flip)


SMOOTHING: dict[str, tuple[View, ...]] = {  # additional views of the image
    "none": (),
    "flip": (View(_mirror, _mirror),),
    "flip-scale": (
        View(_mirror, _mirror),
        *(_brightness(factor, mirror) for factor in (0.9, 1.1) for mirror in (False, True)),
    ),
}


def names_for(methods: Sequence[BoundMethod], inputs: PreparedInputs, layers: Layers) -> list[str]:
    """Names of the layers; empty if no method needs one."""
    return layer_names(inputs, layers) if any(method.of_layer for method in methods) else []


def explain_prepared(
    inputs: PreparedInputs,
    methods: Sequence[BoundMethod],
    names: Sequence[str],
    views: Sequence[View] = (),
) -> Explanation:
    """`explain` for prepared inputs, at named layers."""
    parts = []
    for forward, captures in _passes(inputs, names):
        classes = inputs.classifier.class_names(forward.logits.shape[1])
        signed = _signed_maps(methods, forward, captures)
        for view in views:
            weights = TargetSpec(forward.weights)
            changed = replace(inputs, images=view.change(forward.images), target=weights)
            maps = _signed_maps(methods, *_one_pass(changed, names))
            signed = {key: total + view.restore(maps[key]) for key, total in signed.items()}
        signed = {key: total / (len(views) + 1) for key, total in signed.items()}
        parts.append(_explanation(methods, forward, captures, signed, classes))
    labels = inputs.target.labels
    return replace(concatenate(parts), labels=None if labels is None else labels.cpu())


def _passes(inputs: PreparedInputs, names: Sequence[str]) -> Iterator[tuple[ForwardPass, Captures]]:
    """Passes over batches of images; forward only if there are no layers."""
    if not names:
        yield from ((run_forward(batch), {}) for batch in inputs.batches())
        return
    for captures in capture_chunks(inputs, names, batch_size(inputs.images)):
        yield captures[names[0]].forward, captures


def _one_pass(inputs: PreparedInputs, names: Sequence[str]) -> tuple[ForwardPass, Captures]:
    if not names:
        return run_forward(inputs), {}
    captures = capture_batch(inputs, names)
    return captures[names[0]].forward, captures


def _signed_maps(methods: Sequence[BoundMethod], forward: ForwardPass, captures: Captures) -> Maps:
    """The maps before their ReLU, on the model's device; layer by layer, pixels first."""
    maps: Maps = {}
    device = forward.images.device
    for method in methods:
        values: Mapping[str, Capture | ForwardPass] = captures
        if not method.of_layer:
            values = {PIXELS: forward}
        for layer, value in values.items():
            with torch.autocast(device.type, enabled=False):  # autocast would round the sums
                result = method.function(value)
            _check_result(result, method, len(forward.images))
            maps[layer, method.text] = result.detach().to(device)
    order = [PIXELS, *captures]
    return dict(sorted(maps.items(), key=lambda item: order.index(item[0][0])))


def _check_result(maps: object, method: BoundMethod, count: int) -> None:
    if not isinstance(maps, Tensor) or maps.ndim != 3 or len(maps) != count:
        result = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise SeewhyError(
            f"method {method.text!r} must return maps ({count}, h, w), found {result}"
        )


def _explanation(
    methods: Sequence[BoundMethod],
    forward: ForwardPass,
    captures: Captures,
    signed: Maps,
    classes: tuple[str, ...],
) -> Explanation:
    """The explanation of a batch, on the CPU and without labels."""
    by_text = {method.text: method for method in methods}
    maps, statuses = {}, {}
    for (layer, text), values in signed.items():
        method = by_text[text]
        gradient = captures[layer].gradient if method.of_layer else None
        statuses[layer, text] = map_status(values, forward, method, gradient)
        maps[layer, text] = (values.clamp(min=0) if method.rectified else values).float().cpu()
    logits, weights = forward.logits.float().cpu(), forward.weights.float().cpu()
    return Explanation(maps, statuses, logits, weights, None, classes)


def concatenate(parts: Sequence[Explanation]) -> Explanation:
    """One explanation of several batches, of the same methods, layers and target."""
    labels = [part.labels for part in parts if part.labels is not None]
    keys = list(parts[0].maps)
    return replace(
        parts[0],
        maps={key: torch.cat([part.maps[key] for part in parts]) for key in keys},
        statuses={key: reduce(add, [part.statuses[key] for part in parts]) for key in keys},
        logits=torch.cat([part.logits for part in parts]),
        weights=torch.cat([part.weights for part in parts]),
        labels=torch.cat(labels) if len(labels) == len(parts) else None,
    )


def map_status(
    signed: Tensor, forward: ForwardPass, method: BoundMethod, gradient: Tensor | None = None
) -> MapStatus:
    """The status of maps (N, h, w) before the method's ReLU.

    `gradient` (N, C, h, w) is that of the layer, for methods of a layer.
    """
    finite = signed.isfinite().flatten(1).all(1)
    values = signed.where(finite[:, None, None], 0).flatten(1)
    size, negative = values.abs().sum(1), values.clamp(max=0).abs().sum(1)
    empty = ~values.any(1)
    no_gradient = torch.zeros_like(finite)
    if gradient is not None and method.differentiates and empty.any():
        no_gradient = empty & ~gradient.flatten(1).any(1)
    flags = {  # the first match is the status
        NOT_FINITE: ~finite,
        SATURATED: _saturated(forward) & method.differentiates,
        NO_GRADIENT: no_gradient,
        ALL_ZERO: empty,
        ALL_NEGATIVE: (values <= 0).all(1) & method.rectified,
    }
    kinds = tuple(
        next((kind for kind, flag in zip(flags, row, strict=True) if flag), OK)
        for row in torch.stack(list(flags.values()), dim=1).tolist()
    )
    clipped = torch.where(size > 0, negative / size, 0) * method.rectified
    return MapStatus(kinds, clipped.float().cpu())


def _saturated(forward: ForwardPass) -> Tensor:  # (N,) bool
    """Whether the outputs are probabilities and the explained one is close to 0 or 1."""
    logits = forward.logits
    probabilities = ((logits >= 0) & (logits <= 1)).all(1) & ((logits.sum(1) - 1).abs() < 1e-3)
    explained = logits.gather(1, forward.target[:, None])[:, 0]
    return probabilities & ((explained > 0.999) | (explained < 0.001))


def status_warnings(statuses: Mapping[tuple[str, str], MapStatus]) -> tuple[str, ...]:
    """One warning per (layer, method) with maps that are not ok, with a better layer if any."""
    sentences = []
    for (layer, method), status in statuses.items():
        for kind, reason in REASONS.items():
            count = status.kinds.count(kind)
            if count:
                better = _better_layer(statuses, layer, method)
                advice = f"; use {better} instead" if better and kind != SATURATED else ""
                images = f"{count} of {len(status.kinds)} images"
                sentences.append(f"{method} at {layer}: {kind} for {images}: {reason}{advice}")
    return tuple(sentences)


def _better_layer(
    statuses: Mapping[tuple[str, str], MapStatus], layer: str, method: str
) -> str | None:
    """The layer with the most ok maps of the method (ties: the last); None if it is `layer`."""
    counts = {at: each.kinds.count(OK) for (at, name), each in statuses.items() if name == method}
    best = max(counts, key=lambda at: (counts[at], list(counts).index(at)))
    return best if counts[best] > counts[layer] else None
