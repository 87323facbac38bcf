"""What is known of every method: its paper, its cost, whether it tells classes apart, whether it ends in a ReLU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from seewhy.attribution.cams import CAMS
from seewhy.attribution.gradients import ATTRIBUTIONS
from seewhy.errors import SeewhyError, lookup
from seewhy.notation import bind, parse


@dataclass(frozen=True)
class Method:
    """The facts about an entry of CAMS or ATTRIBUTIONS."""

    paper: str
    passes: str  # through the network, for an image; F forward, B backward; methods that say "shared" share one F + B
    discriminative: bool  # maps of two classes of one image differ by more than their scale
    rectified: bool = False  # the paper's last step is a ReLU
    differentiates: bool = (
        True  # reads gradients at the image itself, which can be missing or noise
    )


_SHARED = "F + B, shared"

METHODS: dict[str, Method] = {
    "grad-cam": Method("Selvaraju et al. 2017", _SHARED, True, True),
    "grad-cam++": Method("Chattopadhay et al. 2018", _SHARED, True, True),
    "hires-cam": Method("Draelos & Carin 2020", _SHARED, True),
    "xgrad-cam": Method("Fu et al. 2020", _SHARED, True, True),
    "layer-cam": Method("Jiang et al. 2021", _SHARED, True, True),
    "element-wise-grad-cam": Method("pytorch-grad-cam", _SHARED, True),
    "eigen-cam": Method("Muhammad & Yeasin 2020", _SHARED, False, differentiates=False),
    "eigen-grad-cam": Method("pytorch-grad-cam", _SHARED, True),
    "shapley-cam": Method("Cai 2025", "2 F + 3 B", True, True),
    "finer-cam": Method("Zhang et al. 2025", "2 F + 2 B", True, True),
    "cam": Method("Zhou et al. 2016", _SHARED, True, differentiates=False),
    "guided-grad-cam": Method("Selvaraju et al. 2017", "2 F + 2 B", True),
    "score-cam": Method("Wang et al. 2020", "F, each channel", True, True, differentiates=False),
    "ablation-cam": Method(
        "Desai & Ramaswamy 2020", "F above, each channel", True, True, differentiates=False
    ),
    "gradients": Method("Simonyan et al. 2014", "F + B", True),
    "guided-backpropagation": Method("Springenberg et al. 2015", "F + B", False),
    "smooth-grad": Method("Smilkov et al. 2017", "25 F + 25 B", True),
    "integrated-gradients": Method(
        "Sundararajan et al. 2017", "32 F + 32 B", True, differentiates=False
    ),
    "full-grad": Method("Srinivas & Fleuret 2019", "F + B", True),
    "rise": Method("Petsiuk et al. 2018", "2000 F", True, differentiates=False),
    "occlusion": Method("Zeiler & Fergus 2014", "F, each square", True, differentiates=False),
}


@dataclass(frozen=True)
class BoundMethod:
    """A method with its settings, ready to be called with a capture or a question."""

    text: str
    function: Callable[..., Tensor]
    of_layer: bool  # an entry of CAMS, called with a Capture; otherwise of ATTRIBUTIONS, called with a Question
    rectified: bool = False
    differentiates: bool = True


def bind_method(text: str | Callable[..., Tensor]) -> BoundMethod:
    """The method that `text` names, such as `grad-cam`, `grad-cam:eigen=true` or `rise:masks=500`, or a function of a Capture.

    Raises SeewhyError for a name that is in neither table, and for a setting that the method lacks.
    """
    if callable(text):
        return BoundMethod(getattr(text, "__name__", type(text).__name__), text, of_layer=True)
    name, *_ = parse(text)
    table = CAMS if name in CAMS else ATTRIBUTIONS
    if name not in table:
        lookup({**CAMS, **ATTRIBUTIONS}, name, "method")
    facts = METHODS.get(name)
    bound = bind(table, text, "method", n_supplied=1)
    if facts is None:
        return BoundMethod(text, bound, table is CAMS, differentiates=table is CAMS)
    return BoundMethod(text, bound, table is CAMS, facts.rectified, facts.differentiates)


def bind_methods(
    methods: str | Callable[..., Tensor] | Sequence[str | Callable[..., Tensor]],
) -> list[BoundMethod]:
    """One method or several. Raises SeewhyError where there is none, or one twice."""
    found = [
        bind_method(each)
        for each in ([methods] if callable(methods) or isinstance(methods, str) else methods)
    ]
    texts = [each.text for each in found]
    if not found or len(set(texts)) < len(texts):
        raise SeewhyError(
            f"methods must be named once each and at least one, found {', '.join(texts) or 'none'}"
        )
    return found
