"""The logits among the tensors that a model returns, and their probabilities."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import SeewhyError, describe_value, first_line
from seewhy.models.memory import is_out_of_memory
from seewhy.wording import counted

LEAST_PROBABILITY = 1e-12  # instead of 0, whose logarithm is infinite
LEAST_ODDS = 1e-6  # of a sigmoid, likewise; float32 has few numbers near 1
SOFTMAX_TOLERANCE = 1e-3  # of the sum of probabilities, which bf16 rounds
TWO_LOGITS = (
    "for two classes, let it return two logits: torch.cat([torch.zeros_like(z), z], 1) for a logit "
    "z (N, 1)"
)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # from logits (N, K) to probabilities
    "softmax": lambda logits: logits.softmax(1),  # of one class
    "sigmoid": lambda logits: logits.sigmoid(),  # of each label by itself
    "none": lambda scores: scores,  # of no class: a regression, a similarity
}
RETURNED = {
    "auto": "logits, or probabilities if they look so",
    "logits": "logits",
    "probabilities": "probabilities",
}
Parts = dict[str | int, object]  # of a model's output, by key, field, or index
Output = str | int | Callable[[Any], Tensor] | None  # which of them are the logits


def extract_logits(output: object, num_classes: int | None = None, name: Output = None) -> Tensor:
    """The logits (N, K) in a model's output.

    Args:
        output: A tensor, or a tuple, list, dict, or object that holds tensors.
        num_classes: Number of classes, K; None if it is not known.
        name: Key, field, or index of the logits, or a function from the output to them. By default
            the part `logits`, or the only float tensor (N, D), or the only one with D = K.

    Raises:
        SeewhyError: If there are no logits, or several tensors could be the logits.
    """
    if isinstance(output, Tensor) and name is None:
        return _checked(output, output)
    if callable(name):
        logits = applied(name, output, "output")
        return _checked(logits, logits)
    parts = _parts(output)
    name = "logits" if name is None and "logits" in parts else name
    if name is not None:
        if name not in parts:
            raise SeewhyError(f"the model returns no output {name!r}; it returns {_listed(parts)}")
        return _checked(parts[name], output)
    tensors = {key: part for key, part in parts.items() if isinstance(part, Tensor)}
    matrices = {k: t for k, t in tensors.items() if t.ndim == 2 and t.is_floating_point()}
    if len(matrices) > 1:
        fitting = {k: t for k, t in matrices.items() if t.shape[1] == num_classes}
        if len(fitting) != 1:
            raise _ambiguous(fitting or matrices, num_classes)
        matrices = fitting
    return _checked(next(iter((matrices or tensors).values()), None), output)


def _parts(output: object) -> Parts:
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, tuple | list):
        fields: tuple[str, ...] = getattr(output, "_fields", ())  # of a named tuple
        return dict(zip(fields, output, strict=True)) if fields else dict(enumerate(output))
    if isinstance(output, Tensor):
        return {0: output}
    parts: Parts = dict(getattr(output, "__dict__", {}))
    return parts | {"logits": output.logits} if hasattr(output, "logits") else parts


def _checked(logits: object, output: object) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        found = describe_value(logits if isinstance(logits, Tensor) else output)
        remedy = ""
        if isinstance(logits, Tensor) and logits.ndim == 1:
            remedy = f"; {TWO_LOGITS}; to explain a score, pass target=lambda scores: scores"
        raise SeewhyError(
            f"the model must return logits (N, K), or a tuple, dict, or object with them, "
            f"found {found}{remedy}"
        )
    return logits


def _ambiguous(matrices: Mapping[str | int, Tensor], num_classes: int | None) -> SeewhyError:
    if num_classes is None:
        several, remedy = "several tensors (N, D)", "pass the class names, or "
    else:
        fit = any(matrix.shape[1] == num_classes for matrix in matrices.values())
        several = f"{'several' if fit else 'no'} logits of {counted(num_classes, 'class')}"
        remedy = ""
    example = f"Classifier(model, output={next(iter(matrices))!r})"
    return SeewhyError(
        f"the model returns {several} among its outputs: {_listed(matrices)}; "
        f"{remedy}name the logits, as in {example}"
    )


def applied(function: Callable[[Any], Any], output: object, argument: str) -> Any:
    """What a function given as an argument makes of a model's output.

    Raises SeewhyError with what it was given if it fails.
    """
    try:
        return function(output)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = "" if isinstance(error, SeewhyError) else f"{type(error).__name__}: "
        raise SeewhyError(
            f"the function given as {argument} failed: {reason}{first_line(error)}; it is called "
            f"with what the model returns for batches of any size, here {describe_output(output)}"
        ) from error


def describe_output(output: object) -> str:
    """What a model returned: each part with its shape or type."""
    return describe_value(output) if isinstance(output, Tensor) else _listed(_parts(output))


def batch_sizes(output: object) -> set[int]:
    """Lengths of the tensors in a model's output, also of those in lists and dicts inside it."""
    sizes: set[int] = set()
    for part in _parts(output).values():
        if isinstance(part, Tensor):
            sizes |= set(part.shape[:1])
        elif isinstance(part, Mapping | tuple | list):
            sizes |= batch_sizes(part)
    return sizes


def _listed(parts: Mapping[str | int, object]) -> str:
    """Each part with its shape or type, as in `main (8, 10) float32, loss float`."""
    return ", ".join(f"{key} {describe_value(part)}" for key, part in parts.items()) or "nothing"


def returns_probabilities(
    outputs: Tensor, activation: str, returns: str, of_others: Callable[[], Tensor]
) -> bool:
    """Whether a model ends in its activation, by its outputs (N, K).

    The logits of few images may look like probabilities by chance: `of_others` computes the outputs
    of other images, if they do. `returns` is an entry of RETURNED.
    """
    looks_so = {"softmax": are_probabilities, "sigmoid": _are_within_0_and_1}.get(activation)
    if returns == "logits" or looks_so is None:
        return False
    return returns == "probabilities" or (looks_so(outputs) and looks_so(of_others()))


def other_images(images: Tensor) -> Tensor:
    """Images (8, C, H, W) uint8 of the shape of `images`: noise of eight levels of contrast."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(8, *images.shape[1:], generator=generator)
    return (255 * torch.linspace(1 / 8, 1, 8)[:, None, None, None] * noise).byte().to(images.device)


def logits_of(probabilities: Tensor, activation: str) -> Tensor:
    """The logits whose probabilities (N, K) by the activation are given."""
    if activation == "sigmoid":
        return probabilities.logit(LEAST_ODDS)
    return probabilities.clamp_min(LEAST_PROBABILITY).log()


def _are_within_0_and_1(outputs: Tensor) -> bool:
    return bool(((outputs >= 0) & (outputs <= 1)).all())


def are_probabilities(outputs: Tensor) -> bool:
    """Whether the outputs of a model (N, K) are those of a softmax, for K of at least 2."""
    if outputs.shape[1] < 2 or not len(outputs) or not bool(outputs.min() >= 0):
        return False
    return bool(((outputs.float().sum(1) - 1).abs() < SOFTMAX_TOLERANCE).all())
