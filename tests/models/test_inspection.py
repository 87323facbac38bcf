"""Running a model leaves no trace in it; its inputs and outputs are checked."""

import random
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from seewhy.errors import SeewhyError
from seewhy.models.inspection import (
    check_images,
    evaluating,
    inspecting,
    memory_format_of,
    prepare_images,
    unwrap_model,
)


def small_net():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    return net.eval()


def images_of(count=2, dtype=torch.float32):
    return torch.rand(count, 3, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))


def stance():
    return torch._dynamo.eval_frame._stance.stance


def surroundings():
    """All that a caller would notice besides the model itself."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002  # the global one is what is looked at
        "python": random.getstate(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "dtype": torch.get_default_dtype(),
        "stance": stance(),
    }


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("around", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_inspecting_gradients_and_restored_state(around, error):
    model, images = small_net(), images_of()
    model[0].bias.requires_grad_(False)
    model[6].weight.grad = kept = torch.ones(2, 4)
    before = [parameter.requires_grad for parameter in model.parameters()]
    with around():
        outside = surroundings()
        with pytest.raises(error) if error else nullcontext(), inspecting(model) as same:
            assert same is model
            assert not any(parameter.requires_grad for parameter in model.parameters())
            pixels = prepare_images(images, model).requires_grad_()
            torch.rand(3)  # as a model with noise in it would draw
            model(pixels).sum().backward()
            assert pixels.grad.abs().sum() > 0
            if error:
                raise error
        assert surroundings() == outside
    assert [parameter.requires_grad for parameter in model.parameters()] == before
    assert model[6].weight.grad is kept
    assert torch.equal(kept, torch.ones(2, 4))
    assert all(
        parameter.grad is None
        for parameter in model.parameters()
        if parameter is not model[6].weight
    )


@pytest.mark.slow
def test_evaluating_takes_a_model_around_an_exported_program():
    program = torch.export.export(small_net(), (images_of(),)).module()
    model = nn.Sequential(nn.Dropout(0.5), program)
    model.training = False
    with evaluating(model) as found:
        assert (found is model, model.training, model[0].training) == (True, False, False)
    assert (model.training, model[0].training) == (False, True)


def test_inspecting_nested():
    model = small_net()
    with inspecting(model):
        with inspecting(model):
            pass
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_inspecting_ignores_outer_autocast():
    def gradient():
        with inspecting(model):
            pixels = prepare_images(images, model).requires_grad_()
            return torch.autograd.grad(model(pixels).square().sum(), pixels)[0]

    torch.manual_seed(0)
    model, images = (
        nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 2)).eval(),
        images_of(),
    )
    alone = gradient()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gradient(), alone)
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.slow
def test_inspecting_restores_compiler_stance():
    with torch.compiler.set_stance("eager_on_recompile"):
        with inspecting(small_net()):
            assert stance() == "force_eager"
        assert stance() == "eager_on_recompile"
    assert stance() == "default"


def test_inspecting_does_not_import_the_compiler(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    with inspecting(small_net()):
        pass
    assert "torch._dynamo" not in sys.modules


def test_inspecting_refuses_training_mode():
    model = small_net().train()
    with (
        pytest.raises(
            SeewhyError, match=r"evaluation mode, but it is in training mode.*call model.eval\(\)"
        ),
        inspecting(model),
    ):
        pass
    model.eval()
    model[3].train()
    with pytest.raises(SeewhyError, match="its layer '3' is in training mode"), inspecting(model):
        pass
    assert [module.training for module in model.modules()] == [
        False,
        False,
        False,
        False,
        True,
        False,
        False,
        False,
    ]


def test_inspecting_refuses_weights_without_gradient():
    with torch.inference_mode():
        model = small_net()
    with (
        pytest.raises(SeewhyError, match=r"created under torch.inference_mode.*outside"),
        inspecting(model),
    ):
        pass
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(SeewhyError, match="no weights yet"), inspecting(small_net().to("meta")):
        pass


def test_inspecting_model_without_weights():
    with inspecting(nn.Flatten().eval()) as model:
        assert prepare_images(images_of(), model).shape == (2, 3, 8, 8)


def test_unwrap_model():
    model = small_net()
    wrapped = nn.DataParallel(torch.compile(nn.DataParallel(model), backend="eager"))
    assert unwrap_model(wrapped) is model
    assert unwrap_model(model) is model


def test_prepare_images_uint8_and_float():
    model, stored = small_net(), torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).reshape(2, 3, 8, 8)
    pixels = prepare_images(stored, model)
    assert pixels.dtype == torch.float32
    np.testing.assert_allclose(pixels.numpy(), stored.numpy().astype(np.float64) / 255, rtol=1e-6)
    double, model = images_of(dtype=torch.float64).requires_grad_(), model.double()
    assert torch.equal(prepare_images(double, model), double)
    assert not prepare_images(double, model).requires_grad
    assert prepare_images(double, model).dtype == torch.float64
    assert prepare_images(double, nn.ReLU().eval()).dtype == torch.float64  # without weights
    assert prepare_images(stored, model.half()).dtype == torch.float16


def test_prepare_images_made_in_inference_mode():
    model = small_net()
    with torch.inference_mode():
        images = images_of()
        with inspecting(model):
            assert prepare_images(images, model).requires_grad_().square().sum().requires_grad


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (
            np.zeros((2, 3, 8, 8)),
            r"tensor \(N, C, H, W\).*found ndarray \(2, 3, 8, 8\) float64; "
            r"pass torch.from_numpy\(images\)$",
        ),
        (np.zeros((2, 9, 8, 3)), r"pass torch.from_numpy\(images\).permute\(0, 3, 1, 2\)$"),
        (np.zeros((9, 8, 3)), r"pass torch.from_numpy\(images\).permute\(2, 0, 1\)\[None\]$"),
        (torch.zeros(3, 8, 8), r"\(3, 8, 8\) float32; pass images\[None\]$"),
        ([torch.zeros(3, 8, 8)], r"pass torch.stack\(images\)$"),
        ("photo.jpg", r"found str; `seewhy explain RUN FILE` reads image files$"),
        (None, "found NoneType"),
        (torch.zeros(3, 8, 8), r"found \(3, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), r"found \(0, 3, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "uint8, or float.*found int64"),
        (torch.full((2, 3, 8, 8), 1.5), r"found 1.5 to 1.5;.*seewhy.models.Normalize\(mean, std\)"),
        (torch.full((2, 3, 8, 8), -0.1), "found -0.1 to -0.1"),
        (torch.full((2, 3, 8, 8), torch.nan), "found nan to nan"),
        (torch.full((2, 3, 8, 8), torch.inf), "found inf to inf"),
    ],
)
def test_check_images_errors(images, found):
    with pytest.raises(SeewhyError, match=found):
        check_images(images)


class Viewer(nn.Module):
    """Takes a view that only contiguous values allow."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 2)

    def forward(self, x):
        return self.linear(self.conv(x).view(len(x), -1))


def test_prepare_images_memory_format():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    plain, last = Viewer().eval(), nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last).eval()
    assert prepare_images(images, plain).is_contiguous()
    assert plain(prepare_images(images, plain)).shape == (2, 2)
    assert memory_format_of(last) == torch.channels_last
    assert prepare_images(images, last).is_contiguous(memory_format=torch.channels_last)
    assert memory_format_of(nn.Conv2d(3, 4, 1).eval()) == torch.contiguous_format
