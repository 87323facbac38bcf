"""PROBES: how the head of a model is set before the first step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from seewhy.errors import SeewhyError
from seewhy.notation import bind


@dataclass(frozen=True)
class Probe:
    """Settings of a logistic regression on the features of the training images."""

    views: Literal["none", "flip"]  # of an image, besides itself
    c: float  # inverse of the penalty, see `fit_logistic`; 0 chooses it by cross-validation
    folds: int  # of the cross-validation

    @property
    def num_views(self) -> int:
        """Number of views of an image, with itself."""
        return 2 if self.views == "flip" else 1


def bind_probe(text: str) -> Probe | None:
    """The probe of a text such as `logistic:views=flip`; None for none.

    Raises:
        SeewhyError: For an unknown probe or setting, or a value out of range.
    """
    probe: Probe | None = bind(PROBES, text, "probe", n_supplied=0)()
    return probe


def none() -> None:
    """No probe: training starts from the weights of the head as the model was made."""


def logistic(views: Literal["none", "flip"] = "none", c: float = 0.0, folds: int = 5) -> Probe:
    """Logistic regression with an L2 penalty, chosen by cross-validation unless `c` is set.

    With `views=flip`, each image is also shown mirrored.
    """
    if c < 0:
        raise SeewhyError(f"probe setting c must be 0 (to choose it) or more, found {c:g}")
    if folds < 2:
        raise SeewhyError(f"probe setting folds must be at least 2, found {folds}")
    return Probe(views, c, folds)


PROBES: dict[str, Callable[..., Probe | None]] = {"logistic": logistic, "none": none}
