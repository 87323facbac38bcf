import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from seewhy.data.augment import bind_augmentations, encode_labels
from seewhy.data.batch import Batch
from seewhy.data.geometry import random_boxes
from seewhy.errors import SeewhyError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def apply(steps, images, size=None, seed=0):
    count = len(images)
    batch = Batch(images, encode_labels(torch.zeros(count).long(), 2), torch.arange(count), 0, size)
    return bind_augmentations(steps)(batch, seeded(seed)).images


def published_boxes(height, width, scale, ratio, count):
    """RandomResizedCrop.get_params of torchvision, written out: (count, 4) top left height width"""
    generator, boxes = np.random.default_rng(0), []
    for _ in range(count):
        for _ in range(10):
            area = height * width * generator.uniform(scale, 1)
            aspect = math.exp(generator.uniform(math.log(ratio), math.log(1 / ratio)))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                box = (generator.integers(height - h + 1), generator.integers(width - w + 1), h, w)
                break
        else:
            w, h = width, height
            if width / height < ratio:
                h = round(width / ratio)
            elif width / height > 1 / ratio:
                w = round(height / ratio)
            box = ((height - h) // 2, (width - w) // 2, h, w)
        boxes.append(box)
    return np.array(boxes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [((64, 64), 0.35, 0.75), ((40, 60), 0.08, 0.75), ((30, 90), 0.9, 0.8)],
)
def test_resized_crop_draws_boxes_like_torchvision(size, scale, ratio):
    count = 3000
    images = torch.zeros(count, 1, 1, 1, dtype=torch.uint8).expand(-1, -1, *size)
    drawn = random_boxes(images, seeded(), scale, ratio).T.numpy()
    expected = published_boxes(*size, scale, ratio, count)
    for column in range(4):
        values = np.union1d(drawn[:, column], expected[:, column])
        bins = np.append(values[:: max(1, len(values) // 12)], values[-1] + 1)
        table = [np.histogram(each[:, column], bins)[0] for each in (drawn, expected)]
        table = np.array(table)[:, np.sum(table, 0) > 0]
        assert table.shape[1] == 1 or stats.chi2_contingency(table).pvalue > 1e-3
    # the shapes together, not only each side
    areas = [each[:, 2] * each[:, 3] for each in (drawn, expected)]
    assert stats.ks_2samp(*areas).pvalue > 1e-3


def test_resized_crop_samples_its_box():
    y, x = np.mgrid[0:48, 0:48] + 0.5
    ramps = np.stack([4 * y, 4 * x]).round().astype(np.uint8)  # bilinear sampling is exact on them
    images = torch.from_numpy(ramps).expand(50, -1, -1, -1).contiguous()
    after = apply(["resized-crop:scale=0.3"], images, (40, 32)).float().numpy()
    assert after.shape == (50, 2, 40, 32)
    boxes = random_boxes(images, seeded(), 0.3, 0.75).T.numpy()
    for pixels, (top, left, height, width) in zip(after, boxes, strict=True):
        rows = 4 * (top + (np.arange(40) + 0.5) * height / 40)
        columns = 4 * (left + (np.arange(32) + 0.5) * width / 32)
        inner = slice(2, -2)  # outside the image its border is repeated
        assert np.abs(pixels[0, inner, inner] - rows[inner, None]).max() <= 1
        assert np.abs(pixels[1, inner, inner] - columns[inner]).max() <= 1
    assert len(np.unique(boxes, axis=0)) > 40  # a box of its own for each image


def test_rotate_equals_pillow():
    generator = np.random.default_rng(0)
    photos = [
        Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((40, 40))
        for _ in range(20)
    ]
    images = torch.from_numpy(np.stack([np.asarray(each) for each in photos])).permute(0, 3, 1, 2)
    after = apply(["rotate:30"], images.contiguous()).permute(0, 2, 3, 1).numpy()
    angles = 30 * (2 * torch.rand(20, generator=seeded()) - 1)
    inside = np.hypot(*(np.mgrid[0:40, 0:40] - 19.5)) < 18
    for picture, angle, pixels in zip(photos, angles.tolist(), after, strict=True):
        turned = np.asarray(picture.rotate(angle, Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(pixels - turned)[inside].max() <= 2
    assert (after > 0).any(-1).all()  # reflected, no black corners


def test_a_margin_moves_real_pixels_into_view():
    numbered = (torch.arange(36, dtype=torch.uint8).view(6, 6) * 7).expand(400, 1, 6, 6)
    centered = apply([], numbered, (4, 4))
    assert torch.equal(centered, numbered[:, :, 1:5, 1:5])
    cropped = apply(["crop:0"], numbered, (4, 4))
    windows = {
        tuple(numbered[0, 0, y : y + 4, x : x + 4].flatten().tolist())
        for y in range(3)
        for x in range(3)
    }
    assert {tuple(image.flatten().tolist()) for image in cropped} == windows
    flipped = apply(["crop:0", "flip:1"], numbered, (4, 4))
    assert torch.equal(flipped, cropped.flip(3))  # the same draws, then mirrored


def test_rotate_keeps_the_margin_for_later_crops():
    bright = torch.zeros(64, 1, 20, 20, dtype=torch.uint8)
    bright[:, :, 0] = 255  # a row that only the margin has
    assert not apply(["rotate:0"], bright, (16, 16)).any()
    turned = apply(["rotate:0", "crop:0"], bright, (16, 16))
    assert 0 < turned[:, 0, 0].float().mean() < 255


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("resized-crop:scale=0", "scale must be above 0 and at most 1"),
        ("resized-crop:ratio=2", "ratio must be above 0 and at most 1"),
        ("rotate:181", "degrees must be between 0 and 180"),
        ("rand-augment:n=0", "n must be 1 or more"),
        ("rand-augment:magnitude=31", "magnitude must be between 0 and 30"),
    ],
)
def test_geometry_rejects_settings_out_of_range(step, message):
    with pytest.raises(SeewhyError, match=message):
        apply([step], torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


def test_a_step_must_keep_the_size_or_crop_to_the_target():
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    half = apply([lambda images: images[:, :, 2:6, 2:6]], images, (4, 4))
    assert half.shape[2:] == (4, 4)
    with pytest.raises(SeewhyError, match="must keep images"):
        apply([lambda images: images[:, :, 1:6, 1:6]], images, (4, 4))
