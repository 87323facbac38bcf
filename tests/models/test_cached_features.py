"""Features of images of any size, computed once."""

from pathlib import Path

import pytest
import torch
from torch import nn

from seewhy.errors import SeewhyError
from seewhy.models import cached_features as module
from seewhy.models.cached_features import cached_features
from seewhy.models.classifier import Classifier
from seewhy.models.features import extract_features


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path))


@pytest.fixture
def network() -> Classifier:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Classifier(nn.Sequential(*layers, nn.Linear(6, 4)), image_shape=(3, 32, 32))


def images_of(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def test_features_are_computed_once(network: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    images = images_of(7, 3, 32, 32)
    first = cached_features(network, images, quiet=True)
    assert torch.allclose(first, extract_features(network, images), atol=1e-5)
    counts: list[int] = []

    def counting(classifier: Classifier, images: torch.Tensor, **options: bool) -> torch.Tensor:
        counts.append(len(images))
        return extract_features(classifier, images, **options)

    monkeypatch.setattr(module, "extract_features", counting)
    more = torch.cat([images_of(9, 3, 32, 32)[7:], images])
    again = cached_features(network, more, quiet=True)
    assert torch.equal(again[2:], first)
    assert counts == [2, 2]  # two are computed to verify the cache, and two are new


def test_interruption_keeps_the_features_of_finished_blocks(
    network: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, counts = images_of(9, 3, 32, 32), list[int]()
    expected = extract_features(network, images)

    def counting(classifier: Classifier, images: torch.Tensor, **options: bool) -> torch.Tensor:
        if len(counts) == 2:
            raise KeyboardInterrupt
        counts.append(len(images))
        return extract_features(classifier, images, **options)

    monkeypatch.setattr(module, "_CHUNK", 2)
    monkeypatch.setattr(module, "extract_features", counting)
    with pytest.raises(KeyboardInterrupt):
        cached_features(network, images, quiet=True)
    assert counts == [2, 2]  # one block, and half of the next one
    counts[:] = [0, 0, 0]  # from here on nothing interrupts
    features = cached_features(network, images, quiet=True)
    assert counts == [0, 0, 0, 2, 2, 2, 2, 1]  # two verify the cache, and seven are new
    torch.testing.assert_close(features, expected)


def test_images_are_resized_to_the_models_size_and_enlarged_at_most_fourfold(
    network: Classifier,
) -> None:
    large = images_of(3, 3, 64, 64)
    resized = nn.functional.interpolate(
        large.float(), size=(32, 32), mode="bilinear", antialias=True
    )
    expected = extract_features(network, resized.round().byte())
    assert torch.allclose(cached_features(network, large, quiet=True), expected, atol=1e-5)
    small = images_of(3, 1, 4, 8)  # gray, too
    resized = nn.functional.interpolate(small.float(), size=(16, 32), mode="bilinear")
    expected = extract_features(network, resized.round().byte().expand(-1, 3, -1, -1))
    assert torch.allclose(cached_features(network, small, quiet=True), expected, atol=1e-5)


def test_features_of_a_model_without_a_head_are_not_kept(tmp_path: Path) -> None:
    """Its weights may not be known, as those of an ONNX file: another would look the same."""

    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.factor * images.mean((2, 3))

    images = images_of(5, 3, 8, 8)
    one, two = (cached_features(Scaled(factor), images, quiet=True) for factor in (1.0, 2.0))
    assert torch.allclose(two, 2 * one)
    assert not (tmp_path / "features").exists()


def test_features_that_are_not_finite_are_an_error(network: Classifier) -> None:
    weight = network.model.get_submodule("0").weight
    assert isinstance(weight, nn.Parameter)
    weight.data[0] = float("nan")
    with pytest.raises(SeewhyError, match="features are not finite"):
        cached_features(network, images_of(2, 3, 32, 32), quiet=True)


def test_images_that_do_not_fit_the_model_are_an_error(network: Classifier) -> None:
    gray = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), image_shape=(1, 8, 8))
    with pytest.raises(SeewhyError, match="takes images with 1 channel, found 3; load the data"):
        cached_features(gray, images_of(2, 3, 8, 8), quiet=True)
    with pytest.raises(SeewhyError, match="no images to compute features of"):
        cached_features(network, images_of(0, 3, 32, 32), quiet=True)
