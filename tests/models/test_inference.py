"""Logits in batches, and the model as it was before."""

import numpy as np
import pytest
import torch
from torch import nn

from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.features import predict_with_features
from seewhy.models.inference import compute_logits
from seewhy.models.inspection import device_of, evaluating
from seewhy.models.registry import blank_sample, build_model


def images_of(count, channels=3, side=8):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(
        0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator
    )


class Recorder(nn.Module):
    """Remembers what it was given, and answers with the mean of every channel."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append((tuple(x.shape), x.dtype, self.training, torch.is_grad_enabled()))
        return x.mean((2, 3))


def test_compute_logits_scale_and_order():
    images, model = images_of(10), Recorder()
    expected = images.numpy().astype(np.float64).mean((2, 3)) / 255
    found = compute_logits(model, images, batch_size=4)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert model.seen == [((n, 3, 8, 8), torch.float32, False, False) for n in (4, 4, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_compute_logits_in_batches(batch_size):
    torch.manual_seed(0)
    images = images_of(8, side=16)
    model = build_model("davidnet", 5, blank_sample(3, 16, 16))
    model(images / 255)  # so that the running statistics are not those of the start
    with torch.no_grad(), evaluating(model):
        expected = model(images / 255)
    torch.testing.assert_close(
        compute_logits(model, images, batch_size=batch_size), expected, atol=1e-5, rtol=1e-4
    )


def test_compute_logits_tells_how_many_images_are_done():
    done = []
    model = build_model("davidnet", 5, blank_sample(3, 16, 16))
    compute_logits(model, images_of(8, side=16), batch_size=3, progress=done.append)
    assert done == [3, 3, 2]


def test_compute_logits_bf16():
    torch.manual_seed(0)
    model, images = (
        build_model("speednet:width=0.25", 5, blank_sample(1, 8, 8)),
        images_of(6, channels=1),
    )
    exact = compute_logits(model, images)
    rounded = compute_logits(Classifier(model, precision="bf16"), images)
    assert exact.dtype == rounded.dtype == torch.float32
    assert 0 < (exact - rounded).abs().max() < 0.05 * exact.abs().max()


def test_compute_logits_ignores_outer_autocast():
    torch.manual_seed(0)
    model, images = (
        build_model("speednet:width=0.25", 5, blank_sample(1, 8, 8)),
        images_of(6, channels=1),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = compute_logits(model, images)
    assert torch.equal(inside, compute_logits(model, images))


def test_compute_logits_may_enter_a_graph():
    temperature = torch.ones((), requires_grad=True)
    found = compute_logits(Recorder(), images_of(3))
    (found / temperature).square().sum().backward()
    assert temperature.grad.isfinite()


def test_compute_logits_memory_mapped(tmp_path):
    images = images_of(9)
    np.save(tmp_path / "images.npy", images.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "images.npy", mmap_mode="r+"))
    assert torch.equal(
        compute_logits(Recorder(), mapped, batch_size=2), compute_logits(Recorder(), images)
    )


def test_compute_logits_keeps_images():
    images = images_of(4)
    before = images.clone()
    compute_logits(Recorder(), images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("fails", [False, True])
def test_compute_logits_restores_modes(fails):
    model = nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Sequential(nn.Dropout(), Broken() if fails else nn.ReLU()),
        nn.Flatten(),
    ).train()
    model[0].eval()
    model[1][0].eval()
    before = [module.training for module in model.modules()]
    if fails:
        with pytest.raises(SeewhyError, match="cannot take images of 3x8x8 float32: broken"):
            compute_logits(model, images_of(2))
    else:
        compute_logits(model, images_of(2))
    assert [module.training for module in model.modules()] == before


def test_compute_logits_keeps_statistics_and_generator():
    model = build_model("davidnet:dropout=0.5", 3, blank_sample(3, 8, 8))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    compute_logits(model, images_of(4))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(2, 3, 8, 8),
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.zeros(0, 3, 8, 8, dtype=torch.uint8),
    ],
)
def test_compute_logits_wrong_images(images):
    with pytest.raises(SeewhyError, match=r"needs images \(N, C, H, W\) uint8"):
        compute_logits(Recorder(), images)


def test_compute_logits_that_are_not_finite():
    class Broken(nn.Module):
        def forward(self, pixels):
            return pixels.flatten(1)[:, :2] / torch.tensor([1.0, 0.0])

    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    images[1] = 1  # 1 / 0 is infinite, 0 / 0 is no number
    with pytest.raises(SeewhyError, match="logits of 3 of 3 images are not finite; check the w"):
        compute_logits(Broken(), images)
    assert compute_logits(Broken(), images, check_finite=False)[:, 0].isfinite().all()


def test_compute_logits_wrong_batch_size():
    with pytest.raises(SeewhyError, match="batch_size must be at least 1, found 0"):
        compute_logits(Recorder(), images_of(1), batch_size=0)


def test_device_of():
    assert device_of(nn.Linear(1, 1, device="meta")).type == "meta"
    assert device_of(nn.BatchNorm2d(1, affine=False, device="meta")).type == "meta"
    assert device_of(nn.ReLU()).type == "cpu"


class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("broken")


class WithFeatures(Recorder):
    """Returns a tuple, as some models of other packages do."""

    def forward(self, x):
        return super().forward(x), x


def test_compute_logits_of_a_tuple():
    images = images_of(3)
    assert torch.equal(compute_logits(WithFeatures(), images), compute_logits(Recorder(), images))


@pytest.mark.parametrize("ends_in_sigmoid", [False, True])
def test_what_a_model_returns_does_not_depend_on_the_images(ends_in_sigmoid: bool) -> None:
    """All logits of the lighter image are in [0, 1] by chance, like probabilities."""

    class Labels(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            mean = pixels.mean((1, 2, 3))
            logits = torch.stack([mean, 4 * mean - 2], 1)
            return logits.sigmoid() if ends_in_sigmoid else logits

    classifier = Classifier(Labels().eval(), activation="sigmoid")
    images = torch.tensor([40, 160]).byte().view(2, 1, 1, 1).expand(2, 3, 4, 4)
    expected = torch.tensor([[160 / 255, 4 * 160 / 255 - 2]])
    for chosen in (images, images[1:]):
        logits = compute_logits(classifier, chosen)[-1:]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(predict_with_features(classifier, chosen)[0][-1:], logits)
