"""Corruptions against formulas written out, scipy and Pillow, and what holds for all of them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import kstest, pearsonr
from torch import Tensor

from seewhy.diagnosis import corruptions
from seewhy.diagnosis.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from seewhy.errors import SeewhyError

RANDOM = ("noise", "fog")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(count: int = 3, channels: int = 3, height: int = 13, width: int = 17) -> Tensor:
    """Noise from black to white, float64."""
    return torch.rand(count, channels, height, width, generator=seeded(1), dtype=torch.float64)


def scenes(count: int = 4, side: int = 32) -> Tensor:
    """Bright and dark squares and stripes, uint8."""
    images = torch.full((count, 3, side, side), 60, dtype=torch.uint8)
    for place, image in enumerate(images):
        image[:, 4 + place : 20, 6 : 18 + place] = torch.tensor([200, 140, 90], dtype=torch.uint8)[
            :, None, None
        ]
        image[:, 22:, :: 3 + place] = 230
    return images


def apply(name: str, images: Tensor, strength: int, seed: int = 0) -> Tensor:
    return CORRUPTIONS[name](images, strength, seeded(seed))


# --- each of them


@pytest.mark.parametrize("strength", [1, 3, 5])
def test_noise_is_normal_and_independent(strength: int) -> None:
    gray = torch.full((4, 3, 50, 50), 0.5, dtype=torch.float64)
    drawn = (apply("noise", gray, strength).numpy() - 0.5) / (0.02, 0.04, 0.06, 0.09, 0.13)[
        strength - 1
    ]
    assert kstest(drawn.flatten()[:5000], "norm").pvalue > 0.01
    for one, other in (
        (drawn[0], drawn[1]),
        (drawn[:, 0], drawn[:, 1]),
        (drawn[..., 1:], drawn[..., :-1]),
    ):
        assert abs(pearsonr(one.flatten(), other.flatten()).statistic) < 0.03


def test_noise_is_clipped() -> None:
    dark = apply("noise", torch.zeros(1, 3, 50, 50), 3)
    assert dark.min() == 0
    assert 0.4 < (dark == 0).float().mean() < 0.6


@pytest.mark.parametrize(("height", "width"), [(13, 17), (32, 8), (1, 9), (20, 64)])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_blur_equals_scipy_inside_the_image(strength: int, height: int, width: int) -> None:
    images = pixels(2, 3, height, width)
    sigma = (0.4, 0.6, 0.8, 1.05, 1.35)[strength - 1] * (2 if width == 64 else 1)

    def smooth(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, sigma, axes=(2, 3), mode="constant", truncate=40)

    expected = smooth(images.numpy()) / smooth(np.ones(images.shape))
    np.testing.assert_allclose(apply("blur", images, strength).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_brightness_adds_and_clips(strength: int) -> None:
    images = pixels()
    expected = np.minimum(images.numpy() + strength / 10, 1)
    np.testing.assert_allclose(apply("brightness", images, strength).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_contrast_keeps_means_and_scales_deviations(strength: int) -> None:
    images = pixels()
    found, kept = (
        apply("contrast", images, strength).numpy(),
        (0.7, 0.5, 0.35, 0.23, 0.14)[strength - 1],
    )
    np.testing.assert_allclose(found.mean((2, 3)), images.numpy().mean((2, 3)), atol=1e-12)
    np.testing.assert_allclose(found.std((2, 3)), kept * images.numpy().std((2, 3)), atol=1e-12)
    assert pearsonr(found[0, 0].flatten(), images[0, 0].flatten()).statistic > 1 - 1e-9


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_jpeg_equals_pillow(strength: int, channels: int) -> None:
    images = (255 * pixels(2, channels)).round().byte()

    def stored(array: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(array).save(file, "JPEG", quality=(70, 50, 35, 22, 12)[strength - 1])
        return np.asarray(Image.open(file))

    found = apply("jpeg", images.double() / 255, strength)
    for image, worse in zip(images.numpy(), found, strict=True):
        if channels == 3:
            expected = stored(image.transpose(1, 2, 0)).transpose(2, 0, 1)
        else:
            expected = np.stack([stored(channel) for channel in image])
        np.testing.assert_allclose(255 * worse.numpy(), expected, atol=1e-9)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("height", "width", "unit"), [(13, 17, 1), (32, 32, 1), (2, 5, 1), (48, 96, 3)]
)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_pixelate_averages_blocks(strength: int, height: int, width: int, unit: int) -> None:
    images, share = pixels(2, 3, height, width), (0.9, 0.75, 0.6, 0.45, 0.3)[strength - 1]
    blocks = [max(1, round(share * side / unit)) for side in (height, width)]
    rows, columns = (
        np.arange(side) * number // side
        for side, number in zip((height, width), blocks, strict=True)
    )
    expected = np.empty(images.shape)
    for row in range(blocks[0]):
        for column in range(blocks[1]):
            block = np.ix_(
                range(2), range(3), np.flatnonzero(rows == row), np.flatnonzero(columns == column)
            )
            expected[block] = images.numpy()[block].mean((2, 3), keepdims=True)
    np.testing.assert_allclose(apply("pixelate", images, strength).numpy(), expected, atol=1e-12)


# --- fog


def transmission(images: Tensor, strength: int, seed: int = 0) -> Tensor:
    """What is left of the difference between two scenes."""
    darker = 0.5 * images
    return (apply("fog", images, strength, seed) - apply("fog", darker, strength, seed)) / (
        images - darker
    )


@pytest.mark.slow
@pytest.mark.parametrize("strength", STRENGTHS)
def test_fog_transmission_follows_its_thickness(strength: int) -> None:
    images, density = pixels(5, 3, 32, 48).clamp_min(0.05), (0.3, 0.6, 1.0, 1.4, 1.9)[strength - 1]
    through = transmission(images, strength)
    torch.testing.assert_close(through, through[:, :1].expand_as(through))
    thickness = -through.log() / density
    torch.testing.assert_close(
        thickness.amin((1, 2, 3)), torch.full((5,), 0.5, dtype=torch.float64), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        thickness.amax((1, 2, 3)), torch.full((5,), 1.5, dtype=torch.float64), atol=1e-5, rtol=0
    )
    assert 0.8 < thickness.mean() < 1.2


@pytest.mark.slow
def test_fog_keeps_pixels_of_its_own_gray() -> None:
    gray = torch.full((2, 3, 20, 20), 0.9, dtype=torch.float64)
    torch.testing.assert_close(apply("fog", gray, 5), gray)


@pytest.mark.slow
def test_fog_clouds_depend_on_the_image_only() -> None:
    images = pixels(4, 3, 32, 32).clamp_min(0.05)
    mild, heavy = transmission(images, 1).log(), transmission(images, 5).log()
    torch.testing.assert_close(heavy, mild * 1.9 / 0.3)
    assert not torch.allclose(mild[0], mild[1], atol=1e-3)


@pytest.mark.parametrize("side", [16, 64])
def test_fog_clouds_are_large(side: int) -> None:
    """Most of their power is in waves longer than a fourth of the image, of any size."""
    clouds = transmission(pixels(20, 1, side, side).clamp_min(0.05), 3).log()[:, 0].numpy()
    power = np.abs(np.fft.fft2(clouds - clouds.mean((1, 2), keepdims=True))) ** 2
    waves = np.abs(np.fft.fftfreq(side, 1 / side))
    long = np.maximum(waves[:, None], waves) <= 4
    assert power[:, long].sum() / power.sum() > 0.85


# --- all of them


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(
    "shape", [(2, 3, 32, 32), (1, 1, 28, 28), (2, 4, 9, 30), (1, 3, 1, 1), (1, 2, 1, 6)]
)
def test_corrupt_images_of_any_shape(name: str, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=seeded(2))
    before = images.clone()
    for strength in (1, 5):
        found = apply(name, images, strength)
        assert found.shape == images.shape
        assert found.dtype == images.dtype
        assert found.min() >= 0
        assert found.max() <= 1
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupt_changes_more_with_strength(name: str) -> None:
    images = scenes()
    changes = [
        (corrupt(images, name, strength).int() - images).abs().float().mean().item()
        for strength in STRENGTHS
    ]
    assert changes[0] > 0
    assert changes == sorted(changes)


@pytest.mark.parametrize("name", ["blur", "pixelate"])
def test_corrupt_scales_lengths_with_the_image(name: str) -> None:
    small = scenes(side=32)
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    change = [
        (corrupt(images, name, 3).int() - images).abs().float().mean() for images in (small, large)
    ]
    assert 0.7 < change[0] / change[1] < 1.4


# --- corrupt()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupt_returns_uint8(name: str) -> None:
    images = scenes()
    before = images.clone()
    found = corrupt(images, name, 2, seed=3)
    expected = np.clip(np.round(255 * apply(name, images.float() / 255, 2, seed=3).numpy()), 0, 255)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), expected)
    assert torch.equal(corrupt(images.float() / 255, name, 2, seed=3), found)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupt_does_not_depend_on_batches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = scenes(5)
    expected = corrupt(images, name, 3)
    assert torch.equal(corrupt(images[:2], name, 3), expected[:2])
    monkeypatch.setattr(corruptions, "_VALUES", 2 * images[0].numel())
    sizes: list[int] = []

    def counted(batch: Tensor, strength: int, generator: torch.Generator) -> Tensor:
        sizes.append(len(batch))
        return kept(batch, strength, generator)

    kept = CORRUPTIONS[name]
    monkeypatch.setitem(CORRUPTIONS, name, counted)
    assert torch.equal(corrupt(images, name, 3), expected)
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("name", RANDOM)
def test_corrupt_depends_on_the_seed_only(name: str) -> None:
    images = scenes()
    with torch.random.fork_rng():
        state = torch.get_rng_state()
        one = corrupt(images, name, 2)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(99)
        assert torch.equal(corrupt(images, name, 2), one)
    assert not torch.equal(corrupt(images, name, 2, seed=1), one)


def test_corrupt_with_a_custom_corruption(monkeypatch: pytest.MonkeyPatch) -> None:
    def darker(
        images: Tensor, strength: int, generator: torch.Generator, by: float = 0.1
    ) -> Tensor:
        return images - by * strength

    monkeypatch.setitem(CORRUPTIONS, "darker", darker)
    found = corrupt(torch.tensor([0.1, 1.0]).view(1, 1, 1, 2), "darker:by=0.2", 2)
    assert found.flatten().tolist() == [0, 153]


@pytest.mark.parametrize("strength", [0, 6, -1, 2.0, "3"])
def test_corrupt_refuses_other_strengths(strength: object) -> None:
    with pytest.raises(
        SeewhyError, match=r"strength must be a whole number from 1 \(mild\) to 5 \(heavy\), found"
    ):
        corrupt(scenes(), "fog", strength)  # type: ignore[arg-type]


def test_corrupt_refuses_wrong_names_and_images() -> None:
    with pytest.raises(
        SeewhyError,
        match=r"unknown corruption 'frog' .did you mean 'fog'.*possible: blur, brightness",
    ):
        corrupt(scenes(), "frog", 1)
    with pytest.raises(SeewhyError, match=r"values in \[0, 1\]"):
        corrupt(scenes().float(), "fog", 1)
    with pytest.raises(SeewhyError, match=r"\(N, C, H, W\)"):
        corrupt(scenes()[0], "fog", 1)
