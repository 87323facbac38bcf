"""Attribution methods by name, with their paper, cost and properties (METHODS)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from seewhy.attribution.cams import CAMS
from seewhy.attribution.gradients import ATTRIBUTIONS
from seewhy.attribution.rollout import ATTENTION_MAPS
from seewhy.errors import SeewhyError, lookup
from seewhy.notation import bind, parse


@dataclass(frozen=True)
class Method:
    """Properties of an entry of CAMS, ATTENTION_MAPS or ATTRIBUTIONS.

    Args:
        paper: Authors and year.
        passes: Passes of one image through the model, F forward and B backward. "Shared" methods
            share one forward and one backward pass.
        discriminative: Maps of two classes differ by more than a factor.
        rectified: The last step of the paper is a ReLU.
        differentiates: Uses the gradient at the image itself, which may be missing or noise.
        sums_products: Adds gradient times activation over the channels, or takes its sign from
            there, which cancels where a normalization reads the layer.
    """

    paper: str
    passes: str
    discriminative: bool
    rectified: bool = False
    differentiates: bool = True
    sums_products: bool = False


_SHARED = "F + B, shared"

METHODS: dict[str, Method] = {
    "grad-cam": Method("Selvaraju et al. 2017", _SHARED, True, True),
    "grad-cam++": Method("Chattopadhay et al. 2018", _SHARED, True, True),
    "hires-cam": Method("Draelos & Carin 2020", _SHARED, True, sums_products=True),
    "xgrad-cam": Method("Fu et al. 2020", _SHARED, True, True),
    "layer-cam": Method("Jiang et al. 2021", _SHARED, True, True),
    "element-wise-grad-cam": Method("pytorch-grad-cam", _SHARED, True),
    "eigen-cam": Method("Muhammad & Yeasin 2020", _SHARED, False, differentiates=False),
    "eigen-grad-cam": Method("pytorch-grad-cam", _SHARED, True, sums_products=True),
    "shapley-cam": Method("Cai 2025", "2 F + 3 B", True, True),
    "finer-cam": Method("Zhang et al. 2025", "2 F + 2 B", True, True),
    "cam": Method("Zhou et al. 2016", _SHARED, True, differentiates=False),
    "guided-grad-cam": Method("Selvaraju et al. 2017", "2 F + 2 B", True),
    "score-cam": Method("Wang et al. 2020", "F per channel", True, True, differentiates=False),
    "ablation-cam": Method(
        "Desai & Ramaswamy 2020", "F above the layer, per channel", True, True, differentiates=False
    ),
    "attention-rollout": Method("Abnar & Zuidema 2020", _SHARED, False, differentiates=False),
    "chefer-cam": Method("Chefer et al. 2021", _SHARED, True),
    "gradients": Method("Simonyan et al. 2014", "F + B", True),
    "guided-backpropagation": Method("Springenberg et al. 2015", "F + B", False),
    "smooth-grad": Method("Smilkov et al. 2017", "25 F + 25 B", True),
    "integrated-gradients": Method(
        "Sundararajan et al. 2017", "32 F + 32 B", True, differentiates=False
    ),
    "full-grad": Method("Srinivas & Fleuret 2019", "F + B", True),
    "lrp": Method("Bach et al. 2015", "up to 5 F + 4 B", True),
    "le-grad": Method("Bousselham et al. 2024", "2 F + B", True),
    "rise": Method("Petsiuk et al. 2018", "2000 F", True, differentiates=False),
    "occlusion": Method("Zeiler & Fergus 2014", "F per square", True, differentiates=False),
    "lime": Method("Ribeiro et al. 2016", "500 F", True, differentiates=False),
}

Subject = Literal["layer", "attention", "pixels"]
TABLES: dict[Subject, dict[str, Callable[..., Tensor]]] = {
    "layer": CAMS,
    "attention": ATTENTION_MAPS,
    "pixels": ATTRIBUTIONS,
}

MethodLike = str | Callable[..., Tensor]  # "rise:masks=500", or a function of a Capture
Methods = MethodLike | Sequence[MethodLike]


@dataclass(frozen=True)
class BoundMethod:
    """A method with its settings.

    By what it explains, it is called with a Capture, an AttentionCapture, or a ForwardPass.
    """

    text: str
    function: Callable[..., Tensor]
    explains: Subject
    rectified: bool = False
    differentiates: bool = True
    sums_products: bool = False


def bind_method(method: MethodLike) -> BoundMethod:
    """Bind a method given by name, such as "grad-cam:eigen=true", or as a function of a Capture.

    Raises SeewhyError for a name that is in no table, and for an unknown setting.
    """
    if callable(method):
        name = getattr(method, "__name__", type(method).__name__)
        return BoundMethod(name, method, "layer")
    name, *_ = parse(method)
    known = {each: subject for subject, table in TABLES.items() for each in table}
    subject = lookup(known, name, "method")
    function = bind(TABLES[subject], method, "method", n_supplied=1)
    properties = METHODS.get(name)
    if properties is None:  # added by a user
        return BoundMethod(method, function, subject, differentiates=subject != "pixels")
    return BoundMethod(
        method,
        function,
        subject,
        properties.rectified,
        properties.differentiates,
        properties.sums_products,
    )


def bind_methods(methods: Methods) -> list[BoundMethod]:
    """Bind one method or several. Raises SeewhyError if there are none or duplicates."""
    listed = [methods] if callable(methods) or isinstance(methods, str) else methods
    if not isinstance(listed, Iterable):
        raise SeewhyError(
            f"methods must be the name of a method or a list of names, found {methods!r}; "
            "`seewhy methods` lists them"
        )
    bound = [bind_method(each) for each in listed]
    texts = [each.text for each in bound]
    if not bound or len(set(texts)) < len(texts):
        raise SeewhyError(
            f"methods must be at least one and each only once, found {', '.join(texts) or 'none'}"
        )
    return bound
