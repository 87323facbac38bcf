"""`explain`: maps of several methods at several layers, and the status of every map."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add

import torch
from torch import Tensor

from seewhy.attribution.capture import Attention, SharedPass, capture_batch, capture_chunks
from seewhy.attribution.layers import Layers, layer_names
from seewhy.attribution.methods import BoundMethod, Methods, Subject, bind_methods
from seewhy.attribution.statuses import (
    PIXELS,
    Key,
    MapStatus,
    failure_warnings,
    map_status,
    status_warnings,
)
from seewhy.attribution.target import (
    PreparedInputs,
    Relative,
    Target,
    TargetSpec,
    prepare,
    run_forward,
)
from seewhy.errors import SeewhyError, lookup
from seewhy.models.batching import batch_size
from seewhy.models.classifier import ClassifierLike
from seewhy.models.outputs import ACTIVATIONS, logits_of

# Cheap methods that explain a class, for transformers and for CNNs.
AUTO_METHODS = ("chefer-cam", "le-grad", "grad-cam", "hires-cam", "layer-cam", "lrp")

Maps = dict[Key, Tensor]
Failures = dict[Key, str]  # reasons


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps of N images, the explained scores, and the status of every map; all on the CPU.

    Args:
        maps: By (layer, method): (N, h, w) float32 in the layer's own resolution.
        statuses: By (layer, method).
        logits: (N, K) float32; the scores (N, 1) if the target is a function.
        weights: (N, K) float32; the explained scores are `(logits * weights).sum(1)`.
        labels: True classes (N,) int64, if known.
        classes: Names of the K classes; the name of the function if it is the target.
        failures: By (layer, method): why a method has no maps, as guided backpropagation of a model
            without ReLUs.
        activation: What makes probabilities of the logits, see `Classifier`.
        returns: What the model returns in place of logits, "logits" or "probabilities".
    """

    maps: Mapping[Key, Tensor]
    statuses: Mapping[Key, MapStatus]
    logits: Tensor
    weights: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    failures: Mapping[Key, str] = field(default_factory=dict)
    activation: str = "softmax"
    returns: str = "logits"

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
        """Probability of the predicted class (N,) float32; the score of a function."""
        return self.probabilities.amax(1)

    @property
    def probabilities(self) -> Tensor:
        """Probabilities of the classes (N, K) float32; the scores of a function."""
        logits = self.logits
        if self.returns == "probabilities":
            logits = logits_of(logits, self.activation)
        return ACTIVATIONS[self.activation](logits)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One warning for each layer and method that failed or has maps that are not ok."""
        return (*failure_warnings(self.failures), *status_warnings(self.statuses))

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
    A method that cannot explain the model fails alone, and `Explanation.failures` has the reason.
    The model is left unchanged.

    Args:
        classifier: A Classifier, a Run, or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1].
        methods: Entries of CAMS, ATTENTION_MAPS and ATTRIBUTIONS, with settings as in
            "rise:masks=500", or functions from a Capture to maps (N, h, w).
        layers: Names of layers, modules, or "auto" (see `list_layers`); ignored by methods that
            need no layer.
        target: Explained class: "predicted", "true", "runner-up", a class name, or a class index. A
            pair of these for a difference of logits, such as ("cat", "dog"). Or one class index per
            image, (N,) int64; or weights of the logits, (N, K) float. Or a function from what the
            model returns to one score per image (N,) float, differentiable, for batches of any
            size, each from its own image only.
        labels: True classes (N,) int64, for the target "true".
        smooth: "flip" averages over mirrored images, "flip-scale" also over three brightnesses.
        warn: Whether to warn about maps that are not ok; `Explanation.warnings` lists them anyway.

    Raises:
        SeewhyError: For a model in training mode, for an unknown method, layer or target, for
            images that do not fit the model, and if all methods fail.
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
    if any(method.explains == "layer" for method in methods):
        return layer_names(inputs, layers)
    return []


def explain_prepared(
    inputs: PreparedInputs,
    methods: Sequence[BoundMethod],
    names: Sequence[str],
    views: Sequence[View] = (),
) -> Explanation:
    """`explain` for prepared inputs, at named layers."""
    parts: list[Explanation] = []
    failures: Failures = {}
    attention = _attention_for(methods)
    for shared in _passes(inputs, names, attention):
        forward = shared.forward
        classes = inputs.classifier.class_names(forward.logits.shape[1])
        signed = _signed_maps(methods, shared, failures)
        for view in views:
            weights = TargetSpec(forward.weights)
            changed = replace(inputs, images=view.change(forward.images), target=weights)
            maps = _signed_maps(methods, _one_pass(changed, names, attention), failures)
            signed = {key: signed[key] + view.restore(each) for key, each in maps.items()}
        signed = {key: total / (len(views) + 1) for key, total in signed.items()}
        if not signed:
            first = {method: reason for (_, method), reason in reversed(failures.items())}
            raise SeewhyError("; ".join(dict.fromkeys(first.values())))
        parts.append(_explanation(methods, shared, signed, classes))
    labels = inputs.target.labels
    whole = concatenate([replace(part, failures=failures) for part in parts])
    return replace(whole, labels=None if labels is None else labels.cpu())


def resolve_methods(methods: Methods, inputs: PreparedInputs, layers: Layers) -> list[BoundMethod]:
    """The methods, bound; "auto" are those of AUTO_METHODS that can explain the first image.

    Raises SeewhyError for an unknown method, and if no method can explain the image.
    """
    if methods not in ("auto", ["auto"], ("auto",)):
        return bind_methods(methods)
    bound = bind_methods(AUTO_METHODS)
    first = inputs.take(slice(0, 1))
    explanation = explain_prepared(first, bound, names_for(bound, first, layers))
    failed = {method for _, method in explanation.failures}
    return [method for method in bound if method.text not in failed]


def signed_maps(
    inputs: PreparedInputs, methods: Sequence[BoundMethod], names: Sequence[str]
) -> Maps:
    """Maps by layer and method, as `explain_prepared` but before the ReLU of the papers.

    Raises SeewhyError if a method fails.
    """
    failures: Failures = {}
    parts = [
        _signed_maps(methods, shared, failures)
        for shared in _passes(inputs, names, _attention_for(methods))
    ]
    if failures:
        raise SeewhyError("; ".join(dict.fromkeys(failures.values())))
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _attention_for(methods: Sequence[BoundMethod]) -> Attention:
    """What the methods need of the attention."""
    reading = [method for method in methods if method.explains == "attention"]
    if not reading:
        return Attention.NOTHING
    differentiates = any(method.differentiates for method in reading)
    return Attention.GRADIENTS if differentiates else Attention.PROBABILITIES


def _passes(
    inputs: PreparedInputs, names: Sequence[str], attention: Attention
) -> Iterator[SharedPass]:
    """Passes over batches of images; forward only if nothing is captured."""
    if not names and attention is Attention.NOTHING:
        yield from (_one_pass(batch, names, attention) for batch in inputs.batches())
        return
    yield from capture_chunks(inputs, names, batch_size(inputs.model, inputs.images), attention)


def _one_pass(inputs: PreparedInputs, names: Sequence[str], attention: Attention) -> SharedPass:
    if not names and attention is Attention.NOTHING:
        return SharedPass(run_forward(inputs), {}, "")
    return capture_batch(inputs, names, attention)


def _signed_maps(methods: Sequence[BoundMethod], shared: SharedPass, failures: Failures) -> Maps:
    """The maps before their ReLU, on the model's device; layer by layer, pixels first.

    A method that fails, now or earlier, is left out, and the reason is added to `failures`.
    """
    maps: Maps = {}
    forward, captures = shared.forward, shared.captures
    device = forward.images.device
    subjects: dict[Subject, Mapping[str, object]] = {
        "layer": captures,
        "attention": {PIXELS: shared.attention},
        "pixels": {PIXELS: forward},
    }
    for method in methods:
        for layer, value in subjects[method.explains].items():
            key = layer, method.text
            if key in failures:
                continue
            try:
                if isinstance(value, str):
                    raise SeewhyError(value)
                with torch.autocast(device.type, enabled=False):  # autocast would round the sums
                    result = method.function(value)
                _check_result(result, method, len(forward.images))
            except SeewhyError as error:
                failures[key] = str(error)
            else:
                maps[key] = result.detach().to(device)
    order = [PIXELS, *captures]
    return dict(sorted(maps.items(), key=lambda item: order.index(item[0][0])))


def _check_result(maps: object, method: BoundMethod, count: int) -> None:
    if not isinstance(maps, Tensor) or maps.ndim != 3 or len(maps) != count:
        result = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise SeewhyError(
            f"method {method.text!r} must return maps ({count}, h, w), found {result}"
        )


def _explanation(
    methods: Sequence[BoundMethod], shared: SharedPass, signed: Maps, classes: tuple[str, ...]
) -> Explanation:
    """The explanation of a batch, on the CPU and without labels."""
    forward = shared.forward
    by_text = {method.text: method for method in methods}
    maps, statuses = {}, {}
    for (layer, text), values in signed.items():
        method = by_text[text]
        capture = shared.captures.get(layer) if method.explains == "layer" else None
        statuses[layer, text] = map_status(values, forward, method, capture)
        maps[layer, text] = (values.clamp(min=0) if method.rectified else values).float().cpu()
    logits, weights = forward.logits.float().cpu(), forward.weights.float().cpu()
    activation, returns = forward.classifier.activation, forward.classifier.returns
    return Explanation(
        maps, statuses, logits, weights, None, classes, activation=activation, returns=returns
    )


def concatenate(parts: Sequence[Explanation]) -> Explanation:
    """One explanation of several batches, of the same methods, layers and target."""
    labels = [part.labels for part in parts if part.labels is not None]
    failures = {key: reason for part in reversed(parts) for key, reason in part.failures.items()}
    # A method that failed in one batch has no maps of all images.
    keys = [key for key in parts[0].maps if key not in failures]
    return replace(
        parts[0],
        maps={key: torch.cat([part.maps[key] for part in parts]) for key in keys},
        statuses={key: reduce(add, [part.statuses[key] for part in parts]) for key in keys},
        logits=torch.cat([part.logits for part in parts]),
        weights=torch.cat([part.weights for part in parts]),
        labels=torch.cat(labels) if len(labels) == len(parts) else None,
        failures=failures,
    )
