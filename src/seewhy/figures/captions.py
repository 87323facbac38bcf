"""What the pictures of explanations say in words; measured within `STYLE`, which says how large text is."""

from collections.abc import Sequence

from seewhy.attribution.explanation import Explanation
from seewhy.figures.image_grid import WIDEST, Label, text_width, truncate
from seewhy.figures.style import VERMILION


def prediction_caption(explanation: Explanation, row: int) -> Label:
    """What the image is and what the model says, and what is explained unless it is just that."""
    wrong = explanation.labels is not None and explanation.labels[row] != explanation.predicted[row]
    lines = (
        *truth(explanation, row),
        prediction(explanation, row, before="predicted "),
        *target_caption(explanation, row),
    )
    return Label(lines, VERMILION if wrong else "black")


def truth(explanation: Explanation, row: int) -> tuple[str, ...]:
    """A line for the true class, where it is known."""
    if explanation.labels is None:
        return ()
    return (_fitted("true ", explanation.classes[int(explanation.labels[row])]),)


def prediction(explanation: Explanation, row: int, width: float = WIDEST, before: str = "") -> str:
    """The predicted class with its probability, and whether it is right, in `width` inches."""
    predicted = int(explanation.predicted[row])
    mark = (
        ""
        if explanation.labels is None
        else " ✓"
        if int(explanation.labels[row]) == predicted
        else " ✗"
    )
    return _fitted(
        before, explanation.classes[predicted], f" {explanation.confidence[row]:.2f}{mark}", width
    )


def target_caption(explanation: Explanation, row: int, width: float = WIDEST) -> tuple[str, ...]:
    """A line for a target that is not the predicted class."""
    weights = explanation.weights[row]
    named = [
        (explanation.classes[place], weights[place].item())
        for place in weights.nonzero().flatten().tolist()
    ]
    if weights[explanation.predicted[row]] == 1 and len(named) == 1:
        return ()
    if any(abs(weight) != 1 for _, weight in named) or len(named) not in (1, 2):
        return ("explained: weighted classes",)
    named.sort(key=lambda each: -each[1])
    words = [name if weight > 0 else f"not {name}" for name, weight in named]
    return (_fitted("explained ", ", ".join(words), "", width),)


def headers(explanation: Explanation, keys: Sequence[tuple[str, str]]) -> list[str]:
    """The layers, and the methods where there are several."""
    return [
        f"{layer}\n{method}" if len(explanation.methods) > 1 else layer for layer, method in keys
    ]


def corner(explanation: Explanation) -> str:
    """The method where there is only one, so that it need not stand above every column."""
    return explanation.methods[0] if len(explanation.methods) == 1 else ""


def _fitted(before: str, name: str, after: str = "", width: float = WIDEST) -> str:
    """A class in a line of text, shortened so that the rest of the line stays whole."""
    return (
        before + truncate(name, width - text_width(before + "|") - text_width("|" + after)) + after
    )
