"""Leaving some parameters alone from an epoch on."""

from collections.abc import Sequence

from torch import nn

from seewhy.errors import SeewhyError, did_you_mean
from seewhy.notation import parse


def frozen_after(entries: Sequence[str]) -> dict[str, float]:
    """The epochs after which parameters are frozen: `("whiten:3",)` is `{"whiten": 3.0}`."""
    epochs: dict[str, float] = {}
    for entry in entries:
        name, values, keywords = parse(entry)
        try:
            (epoch,) = map(float, values)
        except ValueError:
            epoch = -1.0
        if not name or keywords or not 0 <= epoch < float("inf"):
            raise SeewhyError(f"freeze takes names with an epoch, as in whiten:3, found {entry!r}")
        epochs[name] = epoch
    return epochs


def freezable(model: nn.Module, epochs: dict[str, float]) -> list[tuple[nn.Parameter, float]]:
    """Every trainable parameter that `epochs` names, with the epoch after which it is frozen.

    A name stands for the parameter or module of that name. Raises SeewhyError for one that has nothing to freeze.
    """
    trainable = [
        (name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad
    ]
    found = []
    for wanted, epoch in epochs.items():
        matches = [
            (parameter, epoch)
            for name, parameter in trainable
            if f"{name}.".startswith(f"{wanted}.")
        ]
        if not matches:
            tops = dict.fromkeys(name.split(".")[0] for name, _ in trainable)
            raise SeewhyError(
                f"nothing to freeze is called {wanted!r}{did_you_mean(wanted, tops)}; possible: {', '.join(tops)}"
            )
        found += matches
    return found
