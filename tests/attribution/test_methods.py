"""METHODS against the methods: signatures, passes, maps of two classes."""

import inspect
import re
from collections import OrderedDict

import pytest
import tiny_transformer
import torch
from tiny_transformer import TinyTransformer
from torch import nn

from seewhy.attribution.cams import CAMS, grad_cam
from seewhy.attribution.explanation import explain
from seewhy.attribution.gradients import ATTRIBUTIONS
from seewhy.attribution.methods import METHODS, TABLES, Method, bind_method, bind_methods
from seewhy.attribution.rollout import ATTENTION_MAPS
from seewhy.errors import SeewhyError
from seewhy.models.batching import batch_size


def network():
    """A ReLU, a GELU above the layer, a head with positions: all methods differ."""
    return seeded(nn.Conv2d(5, 6, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(6 * 64, 3))


def plain():
    """Pooling and a linear head."""
    return seeded(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))


def seeded(*above):
    layer = nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.ReLU())
    model = nn.Sequential(OrderedDict(layer=layer, above=nn.Sequential(*above))).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        layer[0].bias.fill_(0.5)  # no channel is empty
    return model.eval()


def images_of(count=1):
    return torch.rand(
        count, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )


def example(name, count=1):
    """A small model that the method can explain, and images."""
    if name in (*ATTENTION_MAPS, "le-grad"):
        return TinyTransformer(), tiny_transformer.images_of(count)
    return plain() if name == "cam" else network(), images_of(count)


FUNCTIONS = {"gradients": "vanilla_gradients"}  # where the function is called otherwise


def test_methods_describe_every_method():
    functions = {name: each for table in TABLES.values() for name, each in table.items()}
    assert set(METHODS) == set(functions)
    assert len(functions) == sum(map(len, TABLES.values()))
    for name, facts in METHODS.items():
        assert isinstance(facts, Method), name
        function = functions[name]
        assert function.__name__ == FUNCTIONS.get(
            name, name.replace("++", "_plus_plus").replace("-", "_")
        )
        year = re.search(r"\b(19|20)\d\d\b", facts.paper)
        assert year is None or year[0] in function.__doc__, (
            f"{name} is of another year in its own words"
        )


def passes(name):
    """Forward passes of a single image through its first layer, and those that METHODS says."""
    (model, images), runs = example(name), []
    batch_size(model, images)  # takes a pass, the first time
    model.layer.register_forward_hook(lambda module, inputs, output: runs.append(len(output)))
    explain(model, images, name, "layer", 0, warn=False)
    return sum(runs)


@pytest.mark.slow
def test_passes_are_those_of_methods():
    """Methods of pixels are asked after one more pass, which says what is to be explained."""
    for name, facts in METHODS.items():
        count, passes_text = passes(name), facts.passes
        if name in ("rise", "lime"):
            assert count - 1 == int(passes_text.split()[0])
        elif name == "occlusion":
            assert passes_text == "F per square"
            assert count - 1 == 7 * 7  # squares of 2 pixels, a pixel apart
        elif name == "score-cam":
            assert passes_text == "F per channel"
            assert count == 1 + 5 + 1  # the capture, the channels, the baseline
        elif name == "ablation-cam":
            assert passes_text == "F above the layer, per channel"
            assert count == 1 + 1 + 1  # below the layer it runs once
        elif name == "lrp":
            assert count - 1 == 3  # the image, black and white; all layers run several times
        else:
            forward = re.fullmatch(r"(\d+ )?F \+ (\d+ )?B(, shared)?", passes_text)
            assert count - (name in ATTRIBUTIONS) == int(forward[1] or 1), name


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("rise", "masks"),
        ("lime", "samples"),
        ("smooth-grad", "samples"),
        ("integrated-gradients", "steps"),
    ],
)
def test_passes_are_those_of_defaults(name, setting):
    default = inspect.signature(ATTRIBUTIONS[name]).parameters[setting].default
    numbers = set(re.findall(r"\d+", METHODS[name].passes))
    assert numbers == {str(default)}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", sorted(set(METHODS) - {"guided-backpropagation"}))
def test_discriminative(name):
    """Two classes of one image: those that do not tell them apart give one map, up to its scale.

    Guided backpropagation depends on the class a little in a small model, hardly in a large one.
    """
    model, images = example(name)
    one, other = (
        next(iter(explain(model, images, name, "layer", c, warn=False).maps.values())).flatten()
        for c in (0, 1)
    )
    alike = torch.cosine_similarity(one.double(), other.double(), dim=0).item() > 0.9999
    assert alike != METHODS[name].discriminative


@pytest.mark.slow
def test_rectified_maps():
    """Of two opposite scores one loses to the ReLU, unless all weights are positive."""
    for name in CAMS:
        model = plain() if name == "cam" else network()
        result = [
            explain(model, images_of(5), name, "layer", target, warn=False)
            for target in ((0, 1), (1, 0))
        ]
        least = min(each.at("layer").min() for each in result)
        clipped = max(each.statuses["layer", name].clipped.max() for each in result)
        if METHODS[name].rectified:
            assert least >= 0, name
            assert (clipped > 0) == (name not in ("score-cam", "layer-cam", "grad-cam++")), name
        else:
            assert clipped == 0, name
            assert (least < 0) == (name in ("hires-cam", "cam", "eigen-grad-cam")), name
    assert not any(METHODS[name].rectified for name in (*ATTENTION_MAPS, *ATTRIBUTIONS))


def test_bind_method():
    result = bind_method("rise:masks=7,keep=0.25")
    assert (result.text, result.explains, result.rectified) == (
        "rise:masks=7,keep=0.25",
        "pixels",
        False,
    )
    assert result.function.keywords == {"masks": 7, "keep": 0.25}
    result = bind_method("grad-cam:true")
    assert (result.explains, result.rectified, result.differentiates) == ("layer", True, True)
    assert result.function.func is grad_cam
    assert result.function.keywords == {"eigen": True}


def test_bind_method_of_function(monkeypatch):
    def mine(capture):
        return capture.activation.sum(1)

    class Callable:
        def __call__(self, capture):
            return capture.activation.sum(1)

    assert bind_method(mine).text == "mine"
    assert bind_method(Callable()).text == "Callable"
    assert not bind_method(mine).rectified
    monkeypatch.setitem(CAMS, "mine", mine)
    monkeypatch.setitem(ATTRIBUTIONS, "of-pixels", mine)
    assert (bind_method("mine").explains, bind_method("of-pixels").explains) == ("layer", "pixels")
    assert not bind_method("mine").rectified


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Grad-CAM", r"unknown method 'Grad-CAM' \(did you mean 'grad-cam'\?\)"),
        ("gradcam++", r"unknown method 'gradcam\+\+' \(did you mean 'grad-cam\+\+'\?\)"),
        ("smoothgrad", r"\(did you mean 'smooth-grad'\?\)"),
        ("", "unknown method ''; possible: ablation-cam"),
        (
            "rise:mask=5",
            r"rise has no argument 'mask' \(did you mean 'masks'\?\); it takes masks, grid, keep,",
        ),
        ("eigen-cam:eigen=true", "eigen-cam has no argument 'eigen'; it takes no arguments"),
        ("occlusion:size=big", "size must be int, found 'big'"),
        ("grad-cam:eigen=1", "eigen must be bool, found 1"),
    ],
)
def test_bind_method_errors(text, message):
    with pytest.raises(SeewhyError, match=message):
        bind_method(text)


def test_bind_methods():
    assert [each.text for each in bind_methods("grad-cam")] == ["grad-cam"]
    assert [each.text for each in bind_methods(grad_cam)] == ["grad_cam"]
    assert [each.text for each in bind_methods(["rise:masks=5", "rise", grad_cam])] == [
        "rise:masks=5",
        "rise",
        "grad_cam",
    ]
    for methods, listed in (([], "none"), (["rise", "grad-cam", "rise"], "rise, grad-cam, rise")):
        with pytest.raises(
            SeewhyError, match=f"methods must be at least one and each only once, found {listed}"
        ):
            bind_methods(methods)
