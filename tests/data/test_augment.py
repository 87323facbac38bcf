import random
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from seewhy.data.augment import AUGMENTATIONS, bind_augmentations, encode_labels
from seewhy.data.batch import Batch
from seewhy.data.pixels import hash32, symmetric_beta
from seewhy.errors import SeewhyError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(images, epoch=0):
    """Each image has a class of its own, so that mixed labels tell whose pixels went where."""
    count = len(images)
    return Batch(images, encode_labels(torch.arange(count), count), torch.arange(count), epoch)


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(seed))


def apply(step, images, seed=0, epoch=0):
    return bind_augmentations([step])(batch_of(images, epoch), seeded(seed))


def same(left, right):
    return torch.equal(left.images, right.images) and torch.equal(left.labels, right.labels)


# --- each augmentation against an independent computation


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 9, 7), (1, 8, 8)])
@pytest.mark.parametrize(
    ("mode", "padding"), [("reflect", 3), ("constant", 3), ("constant", 10), ("reflect", 0)]
)
def test_crop_is_a_slice_of_the_padded_image(shape, mode, padding):
    images = noise(400 if padding == 3 else 40, *shape)
    cropped = apply(f"crop:{padding},mode={mode}", images).images.numpy()
    _, height, width = shape
    found = []
    for before, after in zip(images.numpy(), cropped, strict=True):
        padded = np.pad(before, ((0, 0), (padding, padding), (padding, padding)), mode=mode)
        offsets = [
            (y, x)
            for y, x in product(range(2 * padding + 1), repeat=2)
            if np.array_equal(padded[:, y : y + height, x : x + width], after)
        ]
        assert offsets, "not a slice of the padded image"
        found.append(offsets[0])
    if padding == 3:
        assert len(set(found)) == 49  # 400 images reach every offset, corners included
        assert len(set(found[:20])) > 5


def test_crop_takes_a_fraction_of_the_shorter_side():
    images = noise(20, 3, 12, 8)
    whole, fraction = (apply(step, images).images for step in ("crop:2", "crop:0.25"))
    assert torch.equal(whole, fraction)
    assert not torch.equal(whole, apply("crop:0.375", images).images)


@pytest.mark.parametrize("channels", [1, 3])
def test_flip_draws_for_each_image(channels):
    images = noise(2000, channels, 4, 6)
    flipped = apply("flip:0.3", images).images
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert abs(mirrored.double().mean() - 0.3) < 0.04
    assert torch.equal(apply("flip:0", images).images, images)
    assert torch.equal(apply("flip:1", images).images, images.flip(3))


def test_alternating_flip_alternates_between_epochs():
    images = noise(1000, 3, 4, 4)
    first, second, third = (
        apply("alternating-flip", images, epoch=epoch).images for epoch in (0, 1, 2)
    )
    assert torch.equal(second, first.flip(3))
    assert torch.equal(third, first)
    share = (first != images).flatten(1).any(1).double().mean()
    assert abs(share - 0.5) < 0.06


def test_alternating_flip_depends_on_the_index_and_the_seed_only():
    images, generator = noise(1000, 1, 2, 5), seeded(7)
    augment = bind_augmentations(["alternating-flip"])
    before = augment(batch_of(images), generator).images
    torch.rand(10, generator=generator)
    assert torch.equal(augment(batch_of(images), generator).images, before)
    order = torch.randperm(1000, generator=generator)
    shuffled = replace(batch_of(images), images=images[order], indices=order)
    assert torch.equal(augment(shuffled, generator).images, before[order])
    agree = (
        (apply("alternating-flip", images, seed=8).images == before)
        .flatten(1)
        .all(1)
        .double()
        .mean()
    )
    assert abs(agree - 0.5) < 0.06


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3, 4, 20])
def test_cutout_covers_a_uniform_clipped_square(size):
    height, width = 5, 6
    covered = (
        apply(
            f"cutout:{size},fill=7", torch.full((6000, 2, height, width), 200, dtype=torch.uint8)
        ).images
        == 7
    ).numpy()
    assert (covered[:, 0] == covered[:, 1]).all()
    expected = {}  # each possible square by its bytes, and how many centers lead to it
    for y, x in product(range(height), range(width)):
        square = np.zeros((height, width), bool)
        square[
            max(0, y - size // 2) : y - size // 2 + size,
            max(0, x - size // 2) : x - size // 2 + size,
        ] = True
        expected[square.tobytes()] = expected.get(square.tobytes(), 0) + 1
    counts = dict.fromkeys(expected, 0)
    for mask in covered[:, 0]:
        counts[mask.tobytes()] += 1  # a KeyError is a shape that no center gives
    if len(expected) > 1:
        frequencies = 6000 * np.array(list(expected.values())) / (height * width)
        assert stats.chisquare(list(counts.values()), frequencies).pvalue > 0.001


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("size", "padding"), [(3, 0), (3, 2), (4, 5)])
def test_cutout_anywhere_is_uniform_over_positions_in_the_padded_image(size, padding):
    height, width, count = 5, 6, 6000
    step = f"cutout:{size},fill=7,where=anywhere,padding={padding}"
    images = torch.full((count, 2, height, width), 200, dtype=torch.uint8)
    covered = (apply(step, images).images == 7).numpy()
    assert (covered[:, 0] == covered[:, 1]).all()
    padded, expected = (height + 2 * padding, width + 2 * padding), {}
    positions = list(product(range(padded[0] - size + 1), range(padded[1] - size + 1)))
    for y, x in positions:
        square = np.zeros(padded, bool)
        square[y : y + size, x : x + size] = True
        inner = square[padding : padding + height, padding : padding + width].tobytes()
        expected[inner] = expected.get(inner, 0) + 1
    counts = dict.fromkeys(expected, 0)
    for mask in covered[:, 0]:
        counts[mask.tobytes()] += 1  # a KeyError is a shape that no position gives
    frequencies = count * np.array(list(expected.values())) / len(positions)
    assert stats.chisquare(list(counts.values()), frequencies).pvalue > 0.001


def test_cutout_draws_sides_from_min_size_to_size():
    step = "cutout:5,fill=0,where=anywhere,min_size=2"
    images = torch.full((4000, 1, 12, 12), 200, dtype=torch.uint8)
    hole = apply(step, images).images[:, 0] == 0
    heights, widths = hole.any(2).sum(1), hole.any(1).sum(1)
    assert torch.equal(hole.sum((1, 2)), heights * widths)
    sides = (4 * (heights - 2) + widths - 2).bincount(minlength=16)
    assert stats.chisquare(sides.numpy()).pvalue > 0.001  # all 16 pairs are equally likely


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("cutout:4,min_size=5", "min_size must be between 0 and size, found 5"),
        ("cutout:4,padding=2", "padding needs where=anywhere, found 2"),
        ("cutout:4,where=anywhere,padding=-1", "padding must be 0 or more, found -1"),
        ("cutout:4,where=middle", "unknown where 'middle'"),
    ],
)
def test_cutout_rejects_settings_out_of_range(step, message):
    with pytest.raises(SeewhyError, match=message):
        apply(step, noise(2, 3, 8, 8))


def test_cutout_fills_with_the_mean_of_each_channel():
    images = noise(300, 3, 8, 8) // torch.tensor([1, 2, 4], dtype=torch.uint8)[:, None, None]
    after = apply("cutout:3", images).images
    mean = images.double().mean((0, 2, 3)).round().byte()[:, None, None]
    changed = (after != images).any(1, keepdim=True)
    assert changed.flatten(1).any(1).double().mean() > 0.95
    assert torch.equal(torch.where(changed, mean, images), after)


def test_brightness_contrast_is_linear():
    images = 90 + noise(500, 3, 6, 6) // 4  # no clipping
    before = images.double().flatten(1)
    bright = (
        apply("brightness-contrast:brightness=0.3,contrast=0", images).images.double().flatten(1)
    )
    gain = (bright * before).sum(1) / (before**2).sum(1)
    assert (bright - gain[:, None] * before).abs().max() < 1
    assert 0.7 <= gain.min() < 0.72
    assert 1.28 < gain.max() <= 1.301
    contrasted = (
        apply("brightness-contrast:brightness=0,contrast=0.5", images).images.double().flatten(1)
    )
    mean = before.mean(1, keepdim=True)
    spread = ((contrasted - mean) * (before - mean)).sum(1) / ((before - mean) ** 2).sum(1)
    assert (contrasted - mean - spread[:, None] * (before - mean)).abs().max() < 1
    assert 0.49 < spread.min() < 0.53
    assert 1.47 < spread.max() < 1.51
    assert torch.equal(apply("brightness-contrast:0,0", images).images, images)


def test_brightness_contrast_clips_to_white():
    after = apply(
        "brightness-contrast:brightness=1,contrast=0",
        torch.full((200, 1, 2, 2), 250, dtype=torch.uint8),
    ).images
    assert after.max() == 255
    assert (after == 255).flatten(1).all(
        1
    ).double().mean() > 0.35  # about half the gains are above 1: none wrapped to dark
    assert after.min() < 20


def test_random_erasing_fills_a_box_of_the_drawn_area_and_aspect():
    side, count = 40, 800
    images = torch.zeros(count, 3, side, side, dtype=torch.uint8)
    after = apply(
        "random-erasing:p=0.6,min_area=0.1,max_area=0.3,min_aspect=0.4", images
    ).images.numpy()
    touched = after.any(1)
    erased = touched.any((1, 2))
    assert abs(erased.mean() - 0.6) < 0.05
    areas, aspects, pixels = [], [], []
    for image, mask in zip(after[erased], touched[erased], strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (box.any(0)).mean() > 0.99  # three random bytes are all 0 once in 2^24
        areas.append(box[0].size / side**2)
        aspects.append(box.shape[1] / box.shape[2])
        pixels.append(box.ravel())
    assert 0.085 < min(areas) < 0.12
    assert 0.28 < max(areas) < 0.32
    assert 0.35 < min(aspects) < 0.5
    assert 2.0 < max(aspects) < 2.85
    assert abs(np.log(aspects).mean()) < 0.06
    values = np.concatenate(pixels)
    assert stats.chisquare(np.bincount(values, minlength=256)).pvalue > 0.001
    assert touched[:, 0].any()
    assert touched[:, -1].any()


def test_random_erasing_fits_into_a_flat_image():
    after = apply(
        "random-erasing:p=1,min_area=0.5,max_area=0.5,min_aspect=0.1",
        torch.zeros(200, 1, 4, 60, dtype=torch.uint8),
    )
    columns = after.images.any(2).sum(
        2
    )  # a flat image of 4x60 leaves room for boxes at least 30 wide
    assert columns.min() >= 28


@pytest.mark.parametrize("channels", [1, 3])
def test_mixup_blends_pixels_and_labels_by_one_weight(channels):
    images = noise(300, channels, 5, 5)
    mixed = apply("mixup:1.0", images)
    assert torch.allclose(mixed.labels.sum(1), torch.ones(300))
    expected = torch.einsum(
        "bk,kchw->bchw", mixed.labels.double(), images.double()
    )  # class k is image k
    assert (mixed.images.double() - expected).abs().max() < 0.501
    assert mixed.labels.diagonal().unique().numel() > 250
    assert (mixed.labels > 0).sum(0).max() <= 2  # a permutation: nobody is everybody's partner


@pytest.mark.slow
def test_mixup_weight_follows_alpha():
    shares = (
        apply("mixup:0.4", torch.zeros(4000, 1, 1, 1, dtype=torch.uint8)).labels.diagonal().double()
    )
    assert abs(shares.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.008


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 3.0, 100.0])
def test_symmetric_beta_follows_its_distribution(alpha):
    draws = symmetric_beta(alpha, 20_000, torch.device("cpu"), seeded(1)).double().numpy()
    assert ((draws >= 0) & (draws <= 1)).all()
    assert abs(draws.mean() - 0.5) < 0.015
    assert abs(draws.var() / (1 / (4 * (2 * alpha + 1))) - 1) < 0.05
    between = (0.001, 0.05, 0.2, 0.4, 0.5, 0.7, 0.9, 0.999)
    assert (
        np.abs([(draws <= x).mean() - stats.beta.cdf(x, alpha, alpha) for x in between]).max()
        < 0.012
    )


def test_symmetric_beta_of_tiny_alpha():
    draws = symmetric_beta(1e-4, 10_000, torch.device("cpu"), seeded())
    assert (
        set(draws.unique().tolist()) <= {0.0, 1.0}
        or ((draws < 0.01) | (draws > 0.99)).float().mean() > 0.99
    )
    assert draws.isfinite().all()


def test_cutmix_weights_labels_by_the_pasted_area():
    count, height, width = 200, 9, 12
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(
        count, 3, height, width
    )
    mixed = apply("cutmix", images)
    counted = torch.zeros(count, count).scatter_add_(
        1, mixed.images[:, 0].flatten(1).long(), torch.ones(count, height * width)
    )
    assert torch.allclose(mixed.labels, counted / (height * width), atol=1e-6)
    foreign = mixed.images[:, 0] != images[:, 0]
    rows, columns = foreign.any(2), foreign.any(1)
    assert torch.equal(foreign, rows[:, :, None] & columns[:, None, :])  # a box
    shapes = {(int(r), int(c)) for r, c in zip(rows.sum(1), columns.sum(1), strict=True)}
    assert len(shapes) > 30
    assert foreign[:, 0, 0].any()  # boxes reach the border
    assert foreign[:, -1, -1].any()


def test_cutmix_box_has_the_drawn_area():
    images = torch.arange(250, dtype=torch.uint8)[:, None, None, None].expand(250, 1, 40, 40)
    mixed = apply("cutmix:100000", images)  # the share is one half, nearly
    pasted = 1 - mixed.labels.diagonal()
    assert pasted.max() == (28 / 40) ** 2  # 28 = int(40 * sqrt(1 / 2))
    assert (
        (14 / 40) ** 2 <= pasted[pasted > 0].min() < 0.16
    )  # a quarter of it, where its center is in a corner


# --- all augmentations

ALL = sorted(AUGMENTATIONS)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 18, 24), (4, 17, 16)])
def test_augmentations_keep_shape_dtype_and_order(name, shape):
    batch = replace(batch_of(noise(1, *shape).repeat(64, 1, 1, 1)), epoch=3)
    images, labels = batch.images.clone(), batch.labels.clone()
    after = AUGMENTATIONS[name](batch, seeded())
    assert after.images.shape == images.shape
    assert after.images.dtype == torch.uint8
    assert after.labels.dtype == torch.float32
    assert after.epoch == 3
    assert torch.equal(after.indices, batch.indices)
    assert torch.equal(batch.images, images), "the input was changed"
    assert torch.equal(batch.labels, labels), "the input was changed"
    looks = after.labels.diagonal() if name in ("mixup", "cutmix") else after.images.flatten(1)
    assert len(torch.unique(looks, dim=0)) > 1, "64 copies of an image came out the same"


@pytest.mark.parametrize("name", ALL)
def test_augmentations_repeat_with_the_generator(name):
    augment, batch = bind_augmentations([name, "flip"]), batch_of(noise(32, 3, 16, 16))
    first, state, second = None, None, None
    for _ in range(2):
        generator = seeded(5)
        again = augment(batch, generator)
        assert first is None or same(first, again)
        first, state, second = again, generator.get_state(), augment(batch, generator)
    restored = torch.Generator()
    restored.set_state(state)
    assert same(augment(batch, restored), second)
    assert not same(augment(batch, seeded(6)), first)


@pytest.mark.parametrize("name", ALL)
def test_augmentations_leave_global_generators_alone(name):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    apply(name, noise(8, 3, 16, 16))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]


@pytest.mark.parametrize("name", ALL)
def test_augmentations_keep_the_memory_format(name):
    images = noise(16, 3, 16, 16)
    plain = apply(name, images)
    last = apply(name, images.contiguous(memory_format=torch.channels_last))
    assert plain.images.is_contiguous()
    assert last.images.is_contiguous(memory_format=torch.channels_last)
    assert same(plain, last)


@pytest.mark.slow  # the first dispatch mode of a process takes seconds
@pytest.mark.parametrize("name", ALL)
def test_augmentations_do_not_synchronize(name):
    class NoSync(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            op = func.overloadpacket.__name__
            assert op not in (
                "_local_scalar_dense",
                "nonzero",
                "masked_select",
                "bincount",
                "_unique2",
                "repeat_interleave",
            ), op
            assert op not in ("lift_fresh", "_to_copy") or not (kwargs or {}).get("device"), op
            masks = args[1] if op in ("index", "index_put_") else ()
            assert all(
                mask is None or mask.dtype not in (torch.bool, torch.uint8) for mask in masks
            ), op
            return func(*args, **(kwargs or {}))

    batch = batch_of(noise(8, 3, 16, 16))
    with NoSync():
        AUGMENTATIONS[name](batch, seeded())


def test_bind_augmentations_applies_steps_in_order():
    images = noise(20, 3, 8, 8)
    batch, generator = batch_of(images), seeded(3)
    by_hand = AUGMENTATIONS["flip"](AUGMENTATIONS["crop"](batch, generator, padding=2), generator)
    assert same(bind_augmentations(["crop:2", "flip"])(batch, seeded(3)), by_hand)
    assert same(
        bind_augmentations("crop:2")(batch, seeded(3)),
        AUGMENTATIONS["crop"](batch, seeded(3), padding=2),
    )
    assert same(bind_augmentations([])(batch, seeded()), batch)


def test_one_hot():
    labels = torch.tensor([2, 0, 1, 2])
    assert np.array_equal(encode_labels(labels, 4).numpy(), np.eye(4, dtype=np.float32)[labels])
    assert encode_labels(labels, 4).dtype == torch.float32


def test_hash32_is_lowbias32():
    def lowbias32(x):
        x %= 2**32
        x = (x ^ x >> 16) * 0x7FEB352D % 2**32
        x = (x ^ x >> 15) * 0x846CA68B % 2**32
        return x ^ x >> 16

    values = [0, 1, 2, 12345, 2**31, 2**32 - 1, 2**40 + 17]
    assert hash32(torch.tensor(values)).tolist() == [lowbias32(value) for value in values]


# --- errors


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("crop:-1", "padding must be 0 or more, found -1"),
        ("crop:2.5", "padding must be whole pixels, or a fraction below 1, found 2.5"),
        ("crop:8", "padding must be below 8 to reflect images of 8x10, found 8"),
        ("crop:2,mode=wrap", "mode 'wrap'; possible: reflect, constant"),
        (
            partial(AUGMENTATIONS["crop"], mode="wrap"),
            "mode must be reflect or constant, found 'wrap'",
        ),
        ("flip:1.5", "p must be between 0 and 1, found 1.5"),
        ("cutout:0", "size must be 1 or more, found 0"),
        ("cutout:4,fill=median", "fill must be mean or a number from 0 to 255, found 'median'"),
        ("cutout:4,fill=256", "found 256"),
        ("brightness-contrast:brightness=-0.1", "brightness must be between 0 and 1, found -0.1"),
        ("brightness-contrast:contrast=2", "contrast must be between 0 and 1, found 2.0"),
        ("random-erasing:p=-1", "p must be between 0 and 1, found -1.0"),
        (
            "random-erasing:min_area=0.5,max_area=0.1",
            r"min_area <= max_area <= 1, found \(0.5, 0.1\)",
        ),
        ("random-erasing:min_aspect=0", "min_aspect must be above 0 and at most 1, found 0.0"),
        ("mixup:0", "alpha must be above 0, found 0.0"),
        ("cutmix:-1", "alpha must be above 0, found -1.0"),
    ],
)
def test_augmentations_reject_values_out_of_range(step, message):
    with pytest.raises(SeewhyError, match=message):
        apply(step, noise(2, 3, 8, 10))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("flipp", "did you mean 'flip'"),
        ("crop:size=4", "crop has no argument 'size'"),
        (5, "a string or a function, found 5"),
        (lambda a, b, c: a, "found 3 required parameters"),
    ],
)
def test_bind_augmentations_rejects_bad_steps(step, message):
    with pytest.raises(SeewhyError, match=message):
        bind_augmentations([step])


# --- functions of the user


class Invert(nn.Module):
    def forward(self, images):
        return 255 - images


class InvertAny(nn.Module):
    def forward(self, *inputs):
        return 255 - inputs[0]


def shift(images, by=1):
    return images.roll(by, dims=3)


@pytest.mark.parametrize(
    ("step", "oracle"),
    [
        (lambda images: 255 - images, lambda x: 255 - x),
        (Invert(), lambda x: 255 - x),
        (InvertAny(), lambda x: 255 - x),
        (torch.bitwise_not, lambda x: 255 - x),
        (shift, lambda x: np.roll(x, 1, 3)),
        (partial(shift, by=2), lambda x: np.roll(x, 2, 3)),
        (
            lambda batch, generator: replace(batch, images=batch.images + 1),
            lambda x: x + np.uint8(1),
        ),
    ],
)
def test_bind_augmentations_takes_callables(step, oracle):
    images = noise(6, 3, 5, 5)
    assert np.array_equal(apply(step, images).images.numpy(), oracle(images.numpy()))


def test_bind_augmentations_passes_the_generator():
    def dim(batch, generator):
        return replace(
            batch,
            images=batch.images
            // torch.randint(1, 4, (len(batch.images), 1, 1, 1), generator=generator).byte(),
        )

    images = noise(16, 3, 5, 5)
    assert same(apply(dim, images, seed=1), apply(dim, images, seed=1))
    assert not same(apply(dim, images, seed=1), apply(dim, images, seed=2))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            lambda images: images / 255,
            r"<lambda> must keep images as \(4, 3, 6, 6\) uint8 on cpu, found .* float32",
        ),
        (lambda images: images[:, :, 1:], r"found \(4, 3, 5, 6\) uint8"),
        (lambda images: None, "found NoneType"),
        (lambda images: images.numpy(), "found ndarray"),
        (lambda batch, generator: batch.images, "must return a Batch, found Tensor"),
        (
            lambda batch, generator: replace(batch, labels=batch.labels.argmax(1)),
            r"labels as \(4, 4\) float32.*int64",
        ),
    ],
)
def test_bind_augmentations_checks_results(step, message):
    with pytest.raises(SeewhyError, match=message):
        apply(step, noise(4, 3, 6, 6))


@pytest.fixture
def albumentations(monkeypatch):
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    return pytest.importorskip("albumentations")


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_albumentations_pipeline(albumentations, channels):
    pipeline = albumentations.Compose(
        [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)]
    )
    images = noise(300, channels, 6, 6)
    after = apply(pipeline, images).images
    assert same(apply(pipeline, images), apply(pipeline, images))
    assert not same(apply(pipeline, images, seed=1), apply(pipeline, images))
    # the four orientations are all there: the parts of a pipeline draw independently of one another
    for oriented in (images, images.flip(3), images.flip(2), images.flip(2, 3)):
        assert 45 < (after == oriented).flatten(1).all(1).sum() < 110


@pytest.mark.slow
def test_albumentations_single_transform(albumentations):
    images = noise(5, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    after = apply(albumentations.HorizontalFlip(p=1), images).images
    assert torch.equal(after, images.flip(3))
    assert after.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_albumentations_keeps_the_callers_random_state(albumentations):
    pipeline = albumentations.Compose([albumentations.HorizontalFlip(p=0.5)], seed=3)
    before = pipeline.py_random.getstate()
    apply(pipeline, noise(5, 3, 6, 6))
    assert pipeline.py_random.getstate() == before


@pytest.mark.slow
def test_albumentations_must_keep_size_and_dtype(albumentations):
    with pytest.raises(
        SeewhyError, match=r"RandomCrop must return \(6, 6, 3\) uint8, found \(4, 4, 3\) uint8"
    ):
        apply(albumentations.RandomCrop(4, 4), noise(2, 3, 6, 6))
    with pytest.raises(SeewhyError, match="leave out Normalize"):
        apply(albumentations.Compose([albumentations.Normalize()]), noise(2, 3, 6, 6))


def test_cutout_takes_the_mean_before_augmentation():
    """Not of what the crop before it has put black borders around."""
    images = torch.full((50, 1, 8, 8), 200, dtype=torch.uint8)
    after = bind_augmentations(["crop:4,mode=constant", "cutout:3"])(
        batch_of(images), seeded()
    ).images
    assert (after == 0).any()
    assert after[after > 0].unique().tolist() == [200]
