import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from seewhy.data.augment import bind_augmentations, encode_labels
from seewhy.data.batch import Batch
from seewhy.data.operations import (
    OPERATIONS,
    STANDARD,
    STRENGTHS,
    apply_operations,
    trivial_augment,
)

SIDE = 32
STEPS = range(STRENGTHS)


def pictures(channels, height=SIDE, width=SIDE, count=STRENGTHS):
    """Smooth images of few values with a little noise, which equalize and auto-contrast change."""
    generator = np.random.default_rng(channels)
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        90
        + 30 * np.sin(x * generator.uniform(0.1, 0.6) + 3 * c)
        + 25 * np.cos(y * generator.uniform(0.1, 0.6) + i)
        for i in range(count)
        for c in range(channels)
    ]
    noisy = np.array(waves).reshape(count, channels, height, width) + generator.normal(
        0, 4, (count, channels, height, width)
    )
    return torch.from_numpy(noisy.clip(0, 255).astype(np.uint8))


def ours(name, images, direction=1):
    """`images` (STRENGTHS, C, H, W) after operation `name`, at strengths from 0 to 1."""
    count = len(images)
    operation = torch.full((count,), OPERATIONS.index(name))
    return apply_operations(
        images, operation, torch.arange(count) / (STRENGTHS - 1), torch.full((count,), direction)
    ).numpy()


def pillow(images, change):
    """The same by Pillow: `change(image, step)` for each."""
    changed = []
    for step, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        picture = Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image)
        changed.append(np.asarray(change(picture, step)).reshape(image.shape))
    return np.stack(changed).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("identity", lambda image, step: image),
        ("auto-contrast", lambda image, step: ImageOps.autocontrast(image)),
        ("equalize", lambda image, step: ImageOps.equalize(image)),
        ("solarize", lambda image, step: ImageOps.solarize(image, 256 - 256 * step // 30)),
        ("posterize", lambda image, step: ImageOps.posterize(image, 8 - 6 * step // 30)),
        ("color", lambda image, step: ImageEnhance.Color(image).enhance(0.01 + 1.99 * step / 30)),
        (
            "contrast",
            lambda image, step: ImageEnhance.Contrast(image).enhance(0.01 + 1.99 * step / 30),
        ),
        (
            "brightness",
            lambda image, step: ImageEnhance.Brightness(image).enhance(0.01 + 1.99 * step / 30),
        ),
        (
            "sharpness",
            lambda image, step: ImageEnhance.Sharpness(image).enhance(0.01 + 1.99 * step / 30),
        ),
    ],
)
def test_pixel_operations_equal_pillow(name, change, channels):
    images = pictures(channels)
    difference = np.abs(ours(name, images).astype(int) - pillow(images, change))
    # Pillow truncates a blend, which we round; twice a difference of one gray level makes 2
    exact = name in ("identity", "equalize", "solarize", "posterize")
    assert difference.max() <= (0 if exact else 2 if name == "color" else 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize(
    ("name", "coefficients"),
    [
        ("shear-x", lambda strength: (1, 0.99 * strength, 0, 0, 1, 0)),
        ("shear-y", lambda strength: (1, 0, 0, 0.99 * strength, 1, 0)),
        ("translate-x", lambda strength: (1, 0, int(24 * strength), 0, 1, 0)),
        ("translate-y", lambda strength: (1, 0, 0, 0, 1, int(32 * strength))),
    ],
)
def test_affine_transforms_equal_pillow(name, coefficients, direction, channels):
    images = pictures(channels, height=40, width=24)

    def change(image, step):
        return image.transform(
            image.size, Image.Transform.AFFINE, coefficients(direction * step / 30)
        )

    agree = ours(name, images, direction) == pillow(images, change)
    assert agree.all(axis=(1, 2, 3)).mean() > 0.5  # the rest are ties of nearest pixels
    assert agree.mean((1, 2, 3)).min() > 0.98


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("size", [(32, 32), (20, 36)])
def test_rotation_equals_pillow(size, direction):
    images = pictures(3, *size)
    agree = ours("rotate", images, direction) == pillow(
        images, lambda image, step: image.rotate(direction * 135 * step / 30)
    )
    assert agree.mean((1, 2, 3)).min() > 0.97
    assert agree.mean() > 0.995


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_operations_change_only_their_images(name, channels):
    images = pictures(channels)
    changed = (ours(name, images) != images.numpy()).any((1, 2, 3))
    if name == "identity" or (name == "color" and channels == 1):
        assert not changed.any()
    else:
        assert changed[-1]
    if name not in ("auto-contrast", "equalize", "color", "contrast", "brightness", "sharpness"):
        assert not changed[0]  # strength 0 is none
    operation = torch.zeros(len(images), dtype=torch.int64)
    operation[::2] = OPERATIONS.index(name)
    mixed = apply_operations(images, operation, torch.ones(len(images)), torch.ones(len(images)))
    assert torch.equal(mixed[1::2], images[1::2])


@pytest.mark.parametrize("name", ["auto-contrast", "equalize", "contrast", "sharpness"])
@pytest.mark.parametrize("size", [(8, 8), (2, 2), (1, 1)])
def test_operations_of_uniform_and_tiny_images(name, size):
    images = torch.full((STRENGTHS, 3, *size), 77, dtype=torch.uint8)
    assert np.array_equal(ours(name, images), images.numpy())


def test_equalize_of_a_small_image_equals_pillow():
    images = pictures(1, 12, 12)
    assert np.array_equal(
        ours("equalize", images), pillow(images, lambda image, step: ImageOps.equalize(image))
    )


def test_translation_of_small_images_is_limited():
    images = torch.full((STRENGTHS, 1, 8, 8), 200, dtype=torch.uint8)
    moved = ours("translate-x", images)
    assert moved.any((1, 2, 3))[:-1].all()
    assert not moved[-1].any()


def test_trivial_augment_draws_uniformly(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "seewhy.data.operations.apply_operations",
        lambda *arguments: drawn.append(arguments) or arguments[0],
    )
    trivial_augment(
        torch.zeros(20_000, 1, 1, 1, dtype=torch.uint8), torch.Generator().manual_seed(0)
    )
    _, operation, strength, direction = drawn[0]
    assert stats.chisquare(np.bincount(operation, minlength=len(OPERATIONS))).pvalue > 0.001
    assert (
        stats.chisquare(np.bincount((30 * strength).round().long(), minlength=STRENGTHS)).pvalue
        > 0.001
    )
    assert strength.min() == 0
    assert strength.max() == 1
    assert set(direction.tolist()) == {-1, 1}
    assert abs(direction.double().mean()) < 0.03
    pairs = np.histogram2d(operation, direction, bins=(len(OPERATIONS), 2))[0]
    assert stats.chi2_contingency(pairs).pvalue > 0.001


def test_trivial_augment_keeps_labels():
    images = pictures(3, 16, 16, count=60)
    batch = Batch(images, encode_labels(torch.arange(60) % 5, 5), torch.arange(60), 0)
    after = bind_augmentations(["trivial-augment"])(batch, torch.Generator().manual_seed(1))
    assert torch.equal(after.labels, batch.labels)
    changed = (after.images != images).flatten(1).any(1)
    assert (
        0.75 < changed.double().mean() < 1
    )  # one in fourteen is the identity, and some strengths are 0
    assert torch.equal(after.images, trivial_augment(images, torch.Generator().manual_seed(1)))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("brightness", lambda image, sign: ImageEnhance.Brightness(image).enhance(1 + 0.27 * sign)),
        ("contrast", lambda image, sign: ImageEnhance.Contrast(image).enhance(1 + 0.27 * sign)),
        ("posterize", lambda image, sign: ImageOps.posterize(image, 7)),
        ("solarize", lambda image, sign: ImageOps.solarize(image, 180)),
        ("rotate", lambda image, sign: image.rotate(9 * sign)),
        (
            "shear-x",
            lambda image, sign: image.transform(
                image.size, Image.Transform.AFFINE, (1, 0.09 * sign, 0, 0, 1, 0)
            ),
        ),
        (
            "translate-y",
            lambda image, sign: image.transform(
                image.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, 4 * sign)
            ),
        ),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_rand_augment_of_magnitude_9_equals_pillow(name, change, sign):
    # the ranges of RandAugment: 0.3 shear, 150/331 of a side, 30 degrees, 4 bits, 0.9
    images = pictures(3)
    operation = torch.full((len(images),), OPERATIONS.index(name))
    strength, direction = torch.full(operation.shape, 0.3), torch.full(operation.shape, sign)
    ours_ = apply_operations(images, operation, strength, direction, STANDARD).numpy()
    difference = np.abs(ours_.astype(int) - pillow(images, lambda image, _: change(image, sign)))
    assert (difference <= 1).mean() > 0.985  # the rest are ties of nearest pixels


def test_rand_augment_applies_n_operations_to_each_image(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "seewhy.data.operations.apply_operations",
        lambda *arguments: drawn.append(arguments[1:]) or arguments[0],
    )
    images = torch.zeros(7000, 3, 2, 2, dtype=torch.uint8)
    batch = Batch(images, encode_labels(torch.zeros(7000).long(), 2), torch.arange(7000), 0)
    bind_augmentations(["rand-augment:n=3,magnitude=12"])(batch, torch.Generator().manual_seed(0))
    assert len(drawn) == 3
    for operation, strength, direction, space in drawn:
        assert stats.chisquare(np.bincount(operation, minlength=len(OPERATIONS))).pvalue > 0.001
        assert torch.allclose(strength, torch.tensor(0.4))
        assert abs(direction.double().mean()) < 0.05
        assert space is STANDARD
    assert not torch.equal(drawn[0][0], drawn[1][0])
