"""Gradients at the pixels against finite differences and closed forms."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode

from seewhy.attribution.gradients import (
    ATTRIBUTIONS,
    guided_backpropagation,
    guided_gradients,
    integrated_gradients,
    pixel_gradients,
    smooth_grad,
    vanilla_gradients,
)
from seewhy.attribution.target import forward_pass
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier

HEIGHT, WIDTH, CLASSES = 5, 7, 3
PIXELS = HEIGHT * WIDTH
TARGET = torch.tensor([2, 0, 1])


def images_of(count=3, channels=2, height=HEIGHT, width=WIDTH, seed=0):
    return torch.rand(
        count,
        channels,
        height,
        width,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(seed),
    )


def network(activation=nn.Tanh, seed=0):
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), activation(), nn.Flatten(), nn.Linear(4 * PIXELS, CLASSES)
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator)
                / math.sqrt(max(1, parameter[0].numel()))
            )
    return model.double().eval()


class Quadratic(nn.Module):
    """The score is the sum of a times squared pixels, whose gradient is 2 a times the pixel."""

    def __init__(self, shape=(2, HEIGHT, WIDTH)):
        super().__init__()
        self.a = nn.Parameter(
            torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        )

    def forward(self, x):
        score = (self.a * x.square()).flatten(1).sum(1)
        return torch.stack([score, torch.zeros_like(score)], 1)


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.above = nn.Conv2d(2, 3, 1, dtype=torch.float64)  # a gradient comes this far

    def forward(self, x):
        return self.above(x.detach()).mean((2, 3))


class Undifferentiable(nn.Module):
    @torch.no_grad()
    def forward(self, x):
        return x.mean((2, 3))


def near(result, expected, tolerance=1e-9):
    expected = np.asarray(expected)
    np.testing.assert_allclose(
        np.asarray(result), expected, rtol=0, atol=tolerance * np.abs(expected).max()
    )


@torch.no_grad()
def measured(model, images, target, step=1e-6):
    """The gradient (N, C, H, W) of the score, by central differences at every single pixel."""
    result = torch.empty_like(images)
    for n, image in enumerate(images):
        nudges = step * torch.eye(image.numel(), dtype=torch.float64).view(-1, *image.shape)
        result[n] = (
            (model(image + nudges) - model(image - nudges))[:, target[n]] / (2 * step)
        ).view(image.shape)
    return result.numpy()


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_gradients_match_finite_differences(activation):
    model, images = network(activation), images_of()
    result = vanilla_gradients(forward_pass(model, images, TARGET))
    expected = measured(model, images, TARGET)
    assert result.shape == (3, HEIGHT, WIDTH)
    for n, row, column in np.ndindex(result.shape):
        assert result[n, row, column].item() == pytest.approx(
            max(abs(expected[n, c, row, column]) for c in range(2)), abs=1e-7
        )


def test_gradients_of_pair():
    model, images = network(), images_of()
    one, other = (pixel_gradients(forward_pass(model, images, target), images) for target in (2, 0))
    near(vanilla_gradients(forward_pass(model, images, (2, 0))), (one - other).abs().amax(1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    ["gradients", "guided-backpropagation", "smooth-grad", "integrated-gradients", "full-grad"],
)
def test_pixel_methods_are_independent_of_batch(method, images_per_batch):
    """Nor on how many go through the network at once."""
    model, images = network(nn.ReLU), images_of()
    whole = ATTRIBUTIONS[method](forward_pass(model, images, TARGET))
    near(ATTRIBUTIONS[method](forward_pass(model, images[1:2], TARGET[1:2])), whole[1:2])
    images_per_batch(2)
    near(ATTRIBUTIONS[method](forward_pass(model, images, TARGET)), whole)


@pytest.mark.parametrize("model", [Detached(), Undifferentiable()], ids=["below", "everywhere"])
@pytest.mark.parametrize(
    "method", ["gradients", "smooth-grad", "integrated-gradients", "full-grad"]
)
def test_pixel_methods_reject_model_without_gradient(method, model):
    with pytest.raises(SeewhyError, match="no gradient flows from the logits to the pixels"):
        ATTRIBUTIONS[method](forward_pass(model.eval(), images_of()))


class OnPaper(nn.Module):
    """Pixels x, y: z = (x, x - y, y - 0.1, 2x + y), h = relu(z), relu(h0 + 5 h1 - 2 h2 + 3 h3)."""

    def __init__(self, relu):
        super().__init__()
        self.relu = relu
        self.first, self.second = nn.Linear(2, 4), nn.Linear(4, 2, bias=False)
        self.first.weight.data = torch.tensor(
            [[1, 0], [1, -1], [0, 1], [2, 1]], dtype=torch.float64
        )
        self.first.bias.data = torch.tensor([0, 0, -0.1, 0], dtype=torch.float64)
        self.second.weight.data = torch.tensor([[1, 5, -2, 3], [-1, 0, -1, 0]], dtype=torch.float64)

    def forward(self, pixels):
        return self.relu(self.second(self.relu(self.first(pixels.flatten(1)))))


def dropped(values):
    """In place, and the result is read from what was given."""
    values.relu_()
    return values


RELUS = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda values: F.relu(values, inplace=True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu by name": lambda values: torch.relu(input=values),
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda values: values.relu(),
    "Tensor.relu_": lambda values: values.relu_(),
    "Tensor.relu_ for its effect": dropped,
    "F.relu in place for its effect": lambda values: (F.relu(values, inplace=True), values)[1],
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "F.relu6 in place": lambda values: F.relu6(values, inplace=True),
    "nn.Hardtanh": nn.Hardtanh(0, 4),
    "clamp": lambda values: values.clamp(min=0),
    "clamp between": lambda values: torch.clamp(values, 0, 9),
    "clamp_min": lambda values: values.clamp_min(0),
    "clamp_": lambda values: values.clamp_(0),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_guided_backpropagation_of_small_model(relu):
    """At x = 0.2, y = 0.5 z is 0.2, -0.3, 0.4, 0.9: the second is off, the third weighs -2.

    Guided, the first and last remain, with weights 1 and 3: dx = 1 * 1 + 3 * 2 = 7, dy = 3 * 1 = 3.
    Unguided, the third counts too: dy = 3 - 2 = 1. The second logit's ReLU is off.
    """
    model = OnPaper(relu).eval()
    images = torch.tensor([0.2, 0.5], dtype=torch.float64).view(1, 1, 1, 2)
    assert guided_gradients(forward_pass(model, images, 0)).flatten().tolist() == pytest.approx(
        [7, 3]
    )
    assert guided_backpropagation(
        forward_pass(model, images, 0)
    ).flatten().tolist() == pytest.approx([7, 3])
    assert vanilla_gradients(forward_pass(model, images, 0)).flatten().tolist() == pytest.approx(
        [7, 1]
    )
    assert guided_gradients(forward_pass(model, images, 1)).flatten().tolist() == [0, 0]


def test_guided_backpropagation_above_six():
    """ReLU6 is flat from 6 on; with all values times 20 only the first, 4, is below."""
    model = OnPaper(nn.ReLU6()).eval()
    model.first.weight.data *= 20
    model.first.bias.data *= 20
    model.second.weight.data /= 20
    images = torch.tensor([0.2, 0.5], dtype=torch.float64).view(1, 1, 1, 2)
    assert guided_gradients(forward_pass(model, images, 0)).flatten().tolist() == pytest.approx(
        [1, 0]
    )


@pytest.mark.parametrize("hardswish", [nn.Hardswish(), nn.Hardswish(inplace=True), F.hardswish])
def test_guided_backpropagation_of_hardswish(hardswish):
    """Its slope is z / 3 + 1 / 2 between -3 and 3: 17/30, 2/5, 19/30, 4/5 at the z above.

    Unguided, dy = (-5 * 2/5 - 2 * 19/30 + 3 * 4/5) of the slope of the output; guided without the
    third. The sum is 0.2833 h0 ... hence only the ratio of the two derivatives is compared.
    """
    model = OnPaper(hardswish).eval()
    images = torch.tensor([0.2, 0.5], dtype=torch.float64).view(1, 1, 1, 2)
    dx, dy = guided_gradients(forward_pass(model, images, 0)).flatten().tolist()
    assert dy / dx == pytest.approx(
        (-5 * 2 / 5 + 3 * 4 / 5) / (17 / 30 + 5 * 2 / 5 + 2 * 3 * 4 / 5)
    )
    dx, dy = vanilla_signed(model, images)
    assert dy / dx == pytest.approx(
        (-5 * 2 / 5 - 2 * 19 / 30 + 3 * 4 / 5) / (17 / 30 + 5 * 2 / 5 + 2 * 3 * 4 / 5)
    )


def vanilla_signed(model, images):
    return pixel_gradients(forward_pass(model, images, 0), images).flatten().tolist()


def test_guided_gradients_are_signed():
    """The first layer has no ReLU before it: what goes on to the pixels may be negative."""
    model = OnPaper(nn.ReLU()).eval()
    model.first.weight.data[3] = torch.tensor([2.0, -1.0])
    model.first.bias.data[3] = 1
    images = torch.tensor([0.2, 0.5], dtype=torch.float64).view(1, 1, 1, 2)
    assert guided_gradients(forward_pass(model, images, 0)).flatten().tolist() == pytest.approx(
        [7, -3]
    )
    assert guided_backpropagation(
        forward_pass(model, images, 0)
    ).flatten().tolist() == pytest.approx([7, 3])


@pytest.mark.parametrize(
    "relu", [nn.ReLU(), nn.ReLU(inplace=True), torch.relu], ids=["module", "in place", "call"]
)
def test_guided_backpropagation_with_positive_weights_is_gradients(relu):
    class Positive(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolutions = nn.ModuleList(
                [nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)]
            )
            self.head = nn.Linear(3, CLASSES)

        def forward(self, x):
            for convolution in self.convolutions:
                x = relu(convolution(x))
            return self.head(x.mean((2, 3)))

    model = Positive().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    forward = forward_pass(model, images_of(), TARGET)
    near(guided_backpropagation(forward), vanilla_gradients(forward))


@pytest.mark.parametrize("fails", [False, True])
def test_guided_backpropagation_leaves_model_unchanged(fails):
    class Fragile(nn.ReLU):
        fail = False

        def forward(self, x):
            if self.fail:
                raise ArithmeticError("broken")
            return super().forward(x)

    model, images = network(Fragile), images_of()
    forward = forward_pass(model, images, TARGET)
    before, relu, hooks = (
        vanilla_gradients(forward),
        F.relu,
        [dict(module._forward_hooks) for module in model.modules()],
    )
    Fragile.fail = fails
    if fails:
        with pytest.raises(ArithmeticError, match="broken"):
            guided_backpropagation(forward)
    else:
        assert not torch.allclose(guided_backpropagation(forward), before)
    Fragile.fail = False
    assert F.relu is relu
    assert _get_current_function_mode() is None
    assert type(model[1]) is Fragile
    assert [dict(module._forward_hooks) for module in model.modules()] == hooks
    assert torch.equal(vanilla_gradients(forward), before)


def test_guided_backpropagation_rejects_model_without_relu():
    with pytest.raises(
        SeewhyError, match="ReLU, ReLU6 and Hardswish, and this model has none; use gradients"
    ):
        guided_backpropagation(forward_pass(network(nn.Tanh), images_of()))


def test_smooth_grad_without_noise_is_gradients():
    forward = forward_pass(network(), images_of(), TARGET)
    near(smooth_grad(forward, samples=3, noise=0.0), vanilla_gradients(forward))


def test_smooth_grad_of_parabola():
    """The mean gradient is 2 a (x + mean noise): its deviation falls with the samples' root."""
    images = torch.cat([images_of(1, 1, 20, 25), images_of(1, 1, 20, 25) * 0.5 + 0.25])
    model = Quadratic((1, 20, 25)).eval()
    ranges = images.amax((1, 2, 3)) - images.amin((1, 2, 3))
    assert ranges[1] < 0.6 < ranges[0]
    for samples, noise in ((1, 0.1), (16, 0.4)):
        result = smooth_grad(forward_pass(model, images, 0), samples=samples, noise=noise)
        pixels = (
            result / (2 * model.a.abs()).detach()
        )  # the absolute value of pixel plus mean noise
        bright = images[:, 0] > 0.4  # where that is positive
        for n in range(2):
            error = (pixels[n] - images[n, 0])[bright[n]]
            expected = noise * ranges[n].item() / math.sqrt(samples)
            assert error.std().item() == pytest.approx(expected, rel=0.15)
            assert abs(error.mean().item()) < 4 * expected / math.sqrt(len(error))


@pytest.mark.slow
def test_smooth_grad_averages_signed_gradients():
    """A gradient whose sign changes with the noise leaves less than its mean absolute value."""
    images = torch.full((1, 2, HEIGHT, WIDTH), 1e-3, dtype=torch.float64)
    images[0, 0, 0, 0] = 1
    model = Quadratic().eval()
    result = (
        smooth_grad(forward_pass(model, images, 0), samples=400, noise=0.2)[0, 1:]
        / (2 * model.a.abs()).detach().amax(0)[1:]
    )
    assert result.mean() < 0.2 * math.sqrt(2 / math.pi) / 4


def test_smooth_grad_seed():
    forward = forward_pass(network(), images_of(), TARGET)
    assert torch.equal(smooth_grad(forward), smooth_grad(forward))
    assert not torch.equal(smooth_grad(forward), smooth_grad(forward, seed=1))


@pytest.mark.parametrize("settings", [{"samples": 0}, {"noise": -0.1}])
def test_smooth_grad_errors(settings):
    with pytest.raises(SeewhyError, match="samples of at least 1 and noise of at least 0, found"):
        smooth_grad(forward_pass(network(), images_of()), **settings)


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_integrated_gradients_of_parabola(baseline):
    """The gradient is linear, so midpoints are exact: a (x^2 - baseline^2) in every pixel."""
    model, images = Quadratic().eval(), images_of()
    expected = (model.a.detach() * (images**2 - baseline**2)).sum(1)
    for steps in (1, 8):
        near(
            integrated_gradients(forward_pass(model, images, 0), steps=steps, baseline=baseline),
            expected,
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "steps", "tolerance"), [(nn.Tanh, 64, 1e-4), (nn.ReLU, 400, 1e-2)]
)
@pytest.mark.parametrize("baseline", [0.0, 1.0])
def test_integrated_gradients_are_complete(activation, steps, tolerance, baseline):
    model, images = network(activation), images_of()
    with torch.no_grad():
        difference = (model(images) - model(torch.full_like(images, baseline))).gather(
            1, TARGET[:, None]
        )[:, 0]
    result = integrated_gradients(
        forward_pass(model, images, TARGET), steps=steps, baseline=baseline
    ).sum((1, 2))
    near(result, difference, tolerance)


def test_integrated_gradients_errors():
    forward = forward_pass(network(), images_of())
    with pytest.raises(SeewhyError, match="at least one step, found 0"):
        integrated_gradients(forward, steps=0)
    with pytest.raises(SeewhyError, match="baseline must be a pixel value from 0 to 1, found 2"):
        integrated_gradients(forward, baseline=2.0)


def test_pixel_methods_in_bf16():
    model, images = network(nn.ReLU).float(), images_of().float()
    for method in ("gradients", "guided-backpropagation", "integrated-gradients", "full-grad"):
        result = ATTRIBUTIONS[method](
            forward_pass(Classifier(model, precision="bf16"), images, TARGET)
        )
        assert result.dtype == torch.float32
        exact = ATTRIBUTIONS[method](forward_pass(model, images, TARGET))
        assert 0 < (result - exact).abs().max() < 0.1 * exact.abs().max(), method


@pytest.mark.slow
def test_gradients_of_a_vector_import_no_sympy():
    """sympy and what comes with it take a second, before the first map or attack."""
    code = """import sys, torch; from seewhy.attribution.hooks import gradients_at
x = torch.tensor([1.0, 2.0], requires_grad=True); y = x**2
with torch.no_grad():
    (slope,) = gradients_at(y, [x], torch.tensor([3.0, -1.0]))
print(slope.tolist(), "sympy" in sys.modules)"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[6.0, -4.0] False"
