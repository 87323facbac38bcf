"""Programs, quantized models, and models that recompute parts: what works, or why not."""

import re
import warnings

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from seewhy.attribution.cams import eigen_cam
from seewhy.attribution.capture import capture_layers
from seewhy.attribution.explanation import PIXELS, explain
from seewhy.attribution.layers import list_layers
from seewhy.attribution.scores import trust
from seewhy.errors import SeewhyError
from seewhy.models.inspection import evaluating

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
GRADIENT_FREE = ["eigen-cam", "score-cam", "ablation-cam", "rise:masks=20", "occlusion"]
OF_PIXELS = ["gradients", "smooth-grad:samples=2", "integrated-gradients:steps=2", "rise:masks=9"]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).eval()


@pytest.fixture(scope="module")
def quantized():
    # The new layer is in training mode, whatever the model was.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch moves quantization to another package
        return torch.ao.quantization.quantize_dynamic(network(), {nn.Linear}, dtype=torch.qint8)


def test_quantized_model_with_gradient_free_methods(quantized):
    result = explain(quantized, IMAGES, GRADIENT_FREE, warn=False)
    assert result.layers == (PIXELS, "1", "4")
    assert not result.failures
    activation = capture_layers(network(), IMAGES, "4")["4"]
    torch.testing.assert_close(result.at("4", "eigen-cam"), eigen_cam(activation))
    assert all(maps.any() for maps in result.maps.values())


@pytest.mark.parametrize("method", ["grad-cam", "shapley-cam", "gradients", "full-grad"])
def test_quantized_model_with_gradients(quantized, method):
    with pytest.warns(
        UserWarning, match=rf"^{method}.* failed: no gradient .*quantized.*eigen-cam"
    ):
        result = explain(quantized, IMAGES, ["eigen-cam", method], "4")
    assert list(result.maps) == [("4", "eigen-cam")]
    with pytest.raises(SeewhyError, match=r"no gradient .*quantized"):
        explain(quantized, IMAGES, method, "4")


def recompute(part, images):
    return checkpoint(part, images, use_reentrant=True)


class Recomputing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.rest = network()[:2], network()[2:]

    def forward(self, images):
        return self.rest(recompute(self.first, images))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_reentrant_checkpointing():
    model = Recomputing().eval()
    result = explain(model, IMAGES, ["grad-cam", "eigen-cam", "gradients"], "rest.4", warn=False)
    plain = explain(network(), IMAGES, ["grad-cam", "eigen-cam"], "4", warn=False)
    for method in ("grad-cam", "eigen-cam"):
        torch.testing.assert_close(result.at("rest.4", method), plain.at("4", method))
    reason = result.failures[PIXELS, "gradients"]
    assert re.match("the backward pass of this model fails: .*use_reentrant=False", reason)
    assert "\n" not in reason
    result = explain(model, IMAGES, ["grad-cam", "score-cam"], "first", warn=False)
    assert list(result.maps) == [("first", "score-cam")]
    assert "reentrant checkpointing" in result.failures["first", "grad-cam"]


PROGRAMS = {
    "script": lambda: torch.jit.script(network()),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(network())),
    "traced": lambda: torch.jit.trace(network(), IMAGES),
    "export": lambda: torch.export.export(network(), (IMAGES,)).module(),
}
OLD = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@OLD
@pytest.mark.slow
@pytest.mark.parametrize("make", PROGRAMS.values(), ids=PROGRAMS)
def test_programs(make):
    """Methods of pixels work as for the module; the others name the kind of program."""
    model = make()
    kind = (
        "torch.export" if model is not None and "Graph" in type(model).__name__ else "TorchScript"
    )
    methods = [method for method in OF_PIXELS if kind == "TorchScript" or "rise" not in method]
    result = explain(model, IMAGES, methods, warn=False)
    expected = explain(network(), IMAGES, methods, warn=False)
    for method in methods:
        torch.testing.assert_close(
            result.at(PIXELS, method), expected.at(PIXELS, method), rtol=1e-4, atol=1e-5
        )
    message = f"the model is a {kind} program, whose layers cannot be observed; pass the nn.Module"
    for method in ("grad-cam", "guided-backpropagation", "full-grad"):
        with pytest.raises(SeewhyError, match=message) as error:
            explain(model, IMAGES, method)
        assert "\n" not in str(error.value)
    with pytest.raises(SeewhyError, match=message):
        explain(model, IMAGES, "grad-cam", "4")
    with pytest.raises(SeewhyError, match=message):
        list_layers(model, IMAGES)
    with pytest.raises(SeewhyError, match=message):
        trust(model, IMAGES, "gradients")
    with evaluating(model):
        pass


@OLD
def test_scripted_part():
    """Its layers are not listed, and methods that have to change all ReLUs say so."""
    model = nn.Sequential(torch.jit.script(network()[:3]), *network()[3:]).eval()
    assert [layer.name for layer in list_layers(model, IMAGES)] == ["1", "2"]
    result = explain(model, IMAGES, ["grad-cam", "full-grad"], warn=False)
    assert list(result.maps) == [("2", "grad-cam")]
    assert "TorchScript program" in result.failures[PIXELS, "full-grad"]


@pytest.mark.slow
def test_exported_program():
    program = torch.export.export(network(), (IMAGES,))
    with pytest.raises(SeewhyError, match=r"a torch.export program has no layers.*module\(\)"):
        explain(program, IMAGES)
