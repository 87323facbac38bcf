"""How a map is: whether there is anything on it, and if not, why not."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import torch
from torch import Tensor

from seewhy.attribution.capture import Capture, capture_layers
from seewhy.attribution.layers import Layers, resolve_layers
from seewhy.attribution.methods import BoundMethod, bind_methods
from seewhy.attribution.target import ForwardPass, Target, batch_size, check_rows, forward_pass
from seewhy.errors import SeewhyError, lookup
from seewhy.models.classifier import ClassifierLike, as_classifier
from seewhy.models.inspection import inspecting, prepare_images, unwrap_model

FINE, ALL_NEGATIVE, ALL_ZERO, NO_GRADIENT, SATURATED = (
    "fine",
    "all negative",
    "all zero",
    "no gradient",
    "saturated",
)
NOT_FINITE = "not finite"

REASONS = {
    NOT_FINITE: "the network's values or gradients are infinite or no numbers; its weights may be, or fp16 is too small for them",
    ALL_NEGATIVE: "every place speaks against the class, and the method shows only what speaks for it",
    ALL_ZERO: "nothing of the layer counts for the score",
    NO_GRADIENT: "the score does not depend on the layer's places, which is so behind the last attention of a class token",
    SATURATED: "the model returns probabilities near 0 or 1, whose gradient is rounding noise; explain its logits instead",
}


@dataclass(frozen=True, eq=False)
class MapStatus:
    """How the maps of one method at one layer are, image by image."""

    kinds: tuple[str, ...]  # N of: fine, all negative, all zero, no gradient, saturated, not finite
    clipped: Tensor  # (N,) float32 in [0, 1], share of the signed map's total size that its ReLU cuts off; 0 without a ReLU

    def take(self, rows: slice) -> "MapStatus":
        """The status of some of the maps."""
        return MapStatus(self.kinds[rows], self.clipped[rows])

    def __add__(self, other: "MapStatus") -> "MapStatus":
        return MapStatus(self.kinds + other.kinds, torch.cat([self.clipped, other.clipped]))


def status_of(
    signed: Tensor, question: ForwardPass, method: BoundMethod, gradient: Tensor | None = None
) -> MapStatus:
    """The status of maps (N, h, w) before the ReLU that `method` may have; `gradient` (N, C, h, w) is that of their layer."""
    finite = signed.isfinite().flatten(1).all(1)
    places = signed.where(finite[:, None, None], 0).flatten(1)
    size, negative = places.abs().sum(1), places.clamp(max=0).abs().sum(1)
    against = (places <= 0).all(1) & method.rectified
    saturated = _saturated(question) & method.differentiates
    empty = ~places.any(1)
    blind = torch.zeros_like(finite)
    if (
        gradient is not None and method.differentiates and empty.any()
    ):  # without a gradient these methods give nothing
        blind = empty & ~gradient.flatten(1).any(1)
    kinds = []
    for flags in torch.stack([~finite, saturated, blind, empty, against], dim=1).tolist():
        named = zip(
            flags, (NOT_FINITE, SATURATED, NO_GRADIENT, ALL_ZERO, ALL_NEGATIVE), strict=True
        )
        kinds.append(next((kind for flag, kind in named if flag), FINE))
    clipped = torch.where(size > 0, negative / size, 0) * method.rectified
    return MapStatus(tuple(kinds), clipped.float().cpu())


def concerns(statuses: Mapping[tuple[str, str], MapStatus]) -> tuple[str, ...]:
    """A sentence for each (layer, method) with maps that show nothing or noise, with a layer that does better."""
    found = []
    for (layer, method), status in statuses.items():
        for kind, reason in REASONS.items():
            count = status.kinds.count(kind)
            if count:
                better = _better(statuses, layer, method)
                advice = f"; look at {better} instead" if better and kind != SATURATED else ""
                found.append(
                    f"{method} at {layer}: {kind} for {count} of {len(status.kinds)} images, as {reason}{advice}"
                )
    return tuple(found)


def _better(statuses: Mapping[tuple[str, str], MapStatus], layer: str, method: str) -> str | None:
    """The layer at which the method has the most maps that are fine, if it is another one; the last of equals."""
    fine = {
        at: status.kinds.count(FINE) for (at, name), status in statuses.items() if name == method
    }
    best = max(fine, key=lambda at: (fine[at], list(fine).index(at)))
    return best if fine[best] > fine[layer] else None


def _saturated(question: ForwardPass) -> Tensor:  # (N,) bool
    """Whether the outputs are probabilities and the explained one is so near 0 or 1 that its gradient vanishes."""
    logits = question.logits
    probabilities = ((logits >= 0) & (logits <= 1)).all(1) & ((logits.sum(1) - 1).abs() < 1e-3)
    explained = logits.gather(1, question.target[:, None])[:, 0]
    return probabilities & ((explained > 0.999) | (explained < 0.001))


PIXELS = "pixels"  # stands for the layer of a method that needs none

Maps = dict[tuple[str, str], Tensor]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps of N images, what they explain, and how each of them is; all on the CPU."""

    maps: Mapping[
        tuple[str, str], Tensor
    ]  # by (layer, method): (N, h, w) float32, as the paper has them
    statuses: Mapping[tuple[str, str], MapStatus]
    logits: Tensor  # (N, K) float32
    weights: Tensor  # (N, K) float32: the explained score is (logits * weights).sum(1)
    labels: Tensor | None  # (N,) int64, the true classes where they are known
    classes: tuple[str, ...]  # K names

    def __repr__(self) -> str:
        count = len(self.logits)
        return f"Explanation({count} image{'s' * (count != 1)}, {', '.join(self.methods)} at {', '.join(self.layers)})"

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that there are maps of, in the order in which they were asked for; `pixels` for methods without one."""
        return tuple(dict.fromkeys(layer for layer, _ in self.maps))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, as they were asked for."""
        return tuple(dict.fromkeys(method for _, method in self.maps))

    @property
    def predicted(self) -> Tensor:  # (N,) int64
        return self.logits.argmax(1)

    @property
    def confidence(self) -> Tensor:  # (N,) float32, probability of the predicted class
        return self.logits.softmax(1).amax(1)

    @property
    def concerns(self) -> tuple[str, ...]:
        """A sentence for each layer and method with maps that show nothing, with a reason and a better layer."""
        return concerns(self.statuses)

    def take(self, rows: slice) -> "Explanation":
        """The explanation of some of the images."""
        return replace(
            self,
            maps={key: maps[rows] for key, maps in self.maps.items()},
            statuses={key: status.take(rows) for key, status in self.statuses.items()},
            logits=self.logits[rows],
            weights=self.weights[rows],
            labels=None if self.labels is None else self.labels[rows],
        )

    def at(self, layer: str, method: str | None = None) -> Tensor:  # (N, h, w) float32
        """The maps of a layer, by its only method or the one that is named."""
        there = [name for at, name in self.maps if at == layer]
        if method is None and len(there) > 1:
            raise SeewhyError(
                f"there are maps at {layer!r} of several methods; name one of {', '.join(there)}"
            )
        method = method or next(iter(there), self.methods[0])
        known = {f"{at} {name}": maps for (at, name), maps in self.maps.items()}
        return lookup(known, f"{layer} {method}", "map")


def explain(
    classifier: ClassifierLike,
    images: Tensor,  # (N, C, H, W) uint8, or float in [0, 1]
    methods: str | Callable[..., Tensor] | Sequence[str | Callable[..., Tensor]] = "grad-cam",
    layers: Layers = "auto",
    target: Target = "predicted",
    *,
    labels: Tensor | None = None,
    smooth: str = "none",
    warn: bool = True,
) -> Explanation:
    """Maps of every method at every layer, of one forward and one backward pass where the methods share them.

    `methods` names entries of CAMS and ATTRIBUTIONS, with settings as in `rise:masks=500`; `layers` and `target` are those of
    `capture`, `labels` (N,) int64 the true classes. `smooth` "flip" or "flip-scale" takes the mean over mirrored images, or over
    these at three brightnesses. The model is left as it was. Warns of maps that show nothing, which `concerns` also says, unless
    `warn` is False. Raises SeewhyError for input that does not fit.
    """
    bound = bind_methods(methods)
    views = lookup(SMOOTHING, smooth, "smoothing")
    classifier = as_classifier(classifier)
    model = unwrap_model(classifier.model)
    with inspecting(model):
        pixels = prepare_images(images, model)
    check_rows(target, labels, len(pixels))
    names = resolve_layers(model, pixels, layers) if any(each.of_layer for each in bound) else []

    def look(
        some: Tensor, goal: Target, truth: Tensor | None
    ) -> tuple[ForwardPass, dict[str, Capture]]:
        if not names:
            return forward_pass(classifier, some, goal, labels=truth), {}
        captures = capture_layers(classifier, some, names, goal, labels=truth)
        return captures[names[0]].question, captures

    parts = []
    for start in range(0, len(pixels), batch_size(pixels)):
        rows = slice(start, start + batch_size(pixels))
        truth = None if labels is None else labels[rows]
        question, captures = look(
            pixels[rows], target[rows] if isinstance(target, Tensor) else target, truth
        )
        known = classifier.class_names(question.logits.shape[1])
        signed = _signed(bound, question, captures)
        for view in views:
            mirrored = _signed(bound, *look(view.change(question.images), question.weights, None))
            signed = {key: maps + view.restore(mirrored[key]) for key, maps in signed.items()}
        signed = {key: maps / (len(views) + 1) for key, maps in signed.items()}
        parts.append(_part(bound, question, captures, signed, truth, known))
    explanation = concatenate(parts)
    if warn and explanation.concerns:
        warnings.warn("; ".join(explanation.concerns), stacklevel=2)
    return explanation


@dataclass(frozen=True)
class View:
    """Another look at images (N, C, H, W) in [0, 1], whose maps (N, h, w) are put back in place."""

    change: Callable[[Tensor], Tensor]
    restore: Callable[[Tensor], Tensor]


def _same(values: Tensor) -> Tensor:
    return values


def _mirror(values: Tensor) -> Tensor:
    return values.flip(-1)


def _brighter(factor: float, mirror: bool) -> View:
    turn = _mirror if mirror else _same
    return View(lambda images: (turn(images) * factor).clamp(max=1), turn)


SMOOTHING: dict[str, tuple[View, ...]] = {  # views besides the image itself
    "none": (),
    "flip": (View(_mirror, _mirror),),
    "flip-scale": (
        View(_mirror, _mirror),
        *(_brighter(factor, mirror) for factor in (0.9, 1.1) for mirror in (False, True)),
    ),
}


def _signed(
    bound: Sequence[BoundMethod], question: ForwardPass, captures: Mapping[str, Capture]
) -> Maps:
    """The maps before their ReLU, by layer and method, on the model's device."""
    found = {}
    for method in bound:
        given = captures if method.of_layer else {PIXELS: question}
        for layer, what in given.items():
            with torch.autocast(
                question.images.device.type, enabled=False
            ):  # a caller's would round the sums
                maps = method.function(what)
            if not isinstance(maps, Tensor) or maps.ndim != 3 or len(maps) != len(question.images):
                shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
                raise SeewhyError(
                    f"method {method.text!r} must return maps ({len(question.images)}, h, w), found {shape}"
                )
            found[layer, method.text] = maps.detach().to(question.images.device)
    return dict(sorted(found.items(), key=lambda item: [PIXELS, *captures].index(item[0][0])))


def _part(
    bound: Sequence[BoundMethod],
    question: ForwardPass,
    captures: Mapping[str, Capture],
    signed: Maps,
    labels: Tensor | None,
    classes: tuple[str, ...],
) -> Explanation:
    """The explanation of some of the images."""
    methods = {method.text: method for method in bound}
    maps, statuses = {}, {}
    for (layer, text), values in signed.items():
        method = methods[text]
        gradient = captures[layer].gradient if method.of_layer else None
        statuses[layer, text] = status_of(values, question, method, gradient)
        maps[layer, text] = (values.clamp(min=0) if method.rectified else values).float().cpu()
    logits, weights = question.logits.float().cpu(), question.weights.float().cpu()
    return Explanation(
        maps, statuses, logits, weights, None if labels is None else labels.cpu(), classes
    )


def concatenate(parts: Sequence[Explanation]) -> Explanation:
    """One explanation of several batches of images, which were asked for the same."""
    labels = [part.labels for part in parts if part.labels is not None]
    return replace(
        parts[0],
        maps={key: torch.cat([part.maps[key] for part in parts]) for key in parts[0].maps},
        statuses={
            key: reduce(add, [part.statuses[key] for part in parts]) for key in parts[0].maps
        },
        logits=torch.cat([part.logits for part in parts]),
        weights=torch.cat([part.weights for part in parts]),
        labels=torch.cat(labels) if len(labels) == len(parts) else None,
    )
