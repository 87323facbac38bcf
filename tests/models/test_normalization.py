"""Normalization inside the model, against numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from seewhy.data.dataset import Split
from seewhy.models.normalization import Normalize, normalize_for
from seewhy.models.registry import blank_sample, build_model


def split_of(images: torch.Tensor) -> Split:
    return Split(
        images, torch.zeros(len(images), dtype=torch.int64), [str(i) for i in range(len(images))]
    )


def test_normalize_equals_numpy():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 5, 7), dtype=np.uint8)
    pixels[:, 1] //= 4
    scaled = pixels.astype(np.float64) / 255
    expected = (scaled - scaled.mean((0, 2, 3), keepdims=True)) / scaled.std(
        (0, 2, 3), keepdims=True
    )
    normalize = normalize_for(split_of(torch.from_numpy(pixels)))
    found = normalize(torch.from_numpy(scaled).float())
    np.testing.assert_allclose(found.double().numpy(), expected, atol=1e-5)
    assert normalize.mean.shape == normalize.std.shape == (1, 3, 1, 1)


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_normalize_constant_channel(value):
    images = torch.full((3, 1, 4, 4), value, dtype=torch.uint8)
    found = normalize_for(split_of(images))(images / 255)
    torch.testing.assert_close(found, torch.zeros(3, 1, 4, 4))


def test_normalize_state_dict():
    saved = Normalize([0.1, 0.2], [0.3, 0.4]).state_dict()
    loaded = Normalize([0.0, 0.0], [1.0, 1.0])
    loaded.load_state_dict(saved)
    torch.testing.assert_close(loaded.mean.flatten(), torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(loaded.std.flatten(), torch.tensor([0.3, 0.4]))


def test_normalize_loads_weights_without_buffers():
    model = nn.Sequential(Normalize([0.25], [0.5]), nn.Conv2d(1, 1, 1))
    published = {"1.weight": torch.ones(1, 1, 1, 1), "1.bias": torch.zeros(1)}
    result = model.load_state_dict(published, strict=True)
    assert result.missing_keys == []
    assert set(published) == {"1.weight", "1.bias"}  # the caller's dictionary is as it was
    assert model[0].mean.item() == 0.25
    assert model[0].std.item() == 0.5
    assert model[1].weight.item() == 1


def test_normalize_reports_other_missing_weights():
    model = nn.Sequential(Normalize([0.25], [0.5]), nn.Conv2d(1, 1, 1))
    with pytest.raises(RuntimeError, match=r"1\.bias"):
        model.load_state_dict({"1.weight": torch.ones(1, 1, 1, 1)})


@pytest.mark.parametrize(
    "name",
    [pytest.param("resnet18", marks=pytest.mark.slow), "davidnet", "speednet"],
)
def test_models_normalize_first(name):
    generator = torch.Generator().manual_seed(1)
    sample = split_of(
        torch.randint(0, 200, (16, 3, 16, 16), dtype=torch.uint8, generator=generator)
    )
    model = build_model(name, 4, sample).eval()
    seen = []
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(sample.images / 255)
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        seen[0].std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0
    )


def test_normalize_for_on_meta():
    with torch.device("meta"):
        assert normalize_for(blank_sample(3, 4, 4)).mean.device.type == "meta"
