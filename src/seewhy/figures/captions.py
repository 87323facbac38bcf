"""Captions of explanations; create them inside `STYLE`, for its font."""

from collections.abc import Sequence

from seewhy.attribution.explanation import Explanation
from seewhy.figures.image_grid import MAX_LABEL, Label
from seewhy.figures.style import VERMILION
from seewhy.figures.text import text_width, truncate


def prediction_label(explanation: Explanation, row: int, top: int = 1) -> Label:
    """True class, `top` most probable classes, and target; colored if the prediction is wrong."""
    wrong = explanation.labels is not None and explanation.labels[row] != explanation.predicted[row]
    lines = (
        *true_class(explanation, row),
        predicted_class(explanation, row, prefix=_prefix(explanation)),
        *_further_classes(explanation, row, top),
        *target(explanation, row),
    )
    return Label(lines, VERMILION if wrong else "black")


def _prefix(explanation: Explanation) -> str:
    return "" if explanation.activation == "none" else "predicted: "


def true_class(explanation: Explanation, row: int) -> tuple[str, ...]:
    """A line with the true class, if it is known."""
    if explanation.labels is None:
        return ()
    return (_fit("true: ", explanation.classes[int(explanation.labels[row])]),)


def predicted_class(
    explanation: Explanation, row: int, width: float = MAX_LABEL, prefix: str = ""
) -> str:
    """The predicted class with its probability and ✓ or ✗, in `width` inches."""
    predicted = int(explanation.predicted[row])
    mark = ""
    if explanation.labels is not None:
        mark = " ✓" if int(explanation.labels[row]) == predicted else " ✗"
    suffix = f" {explanation.confidence[row]:.2f}{mark}"
    return _fit(prefix, explanation.classes[predicted], suffix, width)


def _further_classes(explanation: Explanation, row: int, top: int) -> list[str]:
    """The most probable classes after the predicted one, with their probabilities."""
    best = explanation.probabilities[row].topk(min(top, len(explanation.classes)))
    pairs = list(zip(best.values.tolist(), best.indices.tolist(), strict=True))[1:]
    return [_fit("", explanation.classes[index], f" {value:.2f}") for value, index in pairs]


def target(explanation: Explanation, row: int, width: float = MAX_LABEL) -> tuple[str, ...]:
    """A line with the target of the explanation, unless it is the predicted class."""
    weights = explanation.weights[row]
    terms = [  # in order of weight; two classes may have one name
        (weights[index].item(), explanation.classes[index])
        for index in weights.argsort(descending=True, stable=True).tolist()
        if weights[index] != 0
    ]
    if weights[explanation.predicted[row]] == 1 and len(terms) == 1:
        return ()
    if len(terms) not in (1, 2) or any(abs(weight) != 1 for weight, _ in terms):
        return ("target: weighted classes",)
    names = [name if weight > 0 else f"not {name}" for weight, name in terms]
    return (_fit("target: ", ", ".join(names), "", width),)


def headers(explanation: Explanation, keys: Sequence[tuple[str, str]]) -> list[str]:
    """The layer above each column, and the method if there are several."""
    if len(explanation.methods) == 1:
        return [layer for layer, _ in keys]
    return [f"{layer}\n{method}" for layer, method in keys]


def corner(explanation: Explanation) -> str:
    """The method if there is only one, so that it is not repeated above every column."""
    return explanation.methods[0] if len(explanation.methods) == 1 else ""


def _fit(prefix: str, name: str, suffix: str = "", width: float = MAX_LABEL) -> str:
    """A line of text with a shortened class name."""
    room = width - text_width(prefix + "|") - text_width("|" + suffix)
    return prefix + truncate(name, room) + suffix
