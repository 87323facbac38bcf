"""Planted defects of single images, and cleanvision's published formulas on the same images."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageStat
from scipy.ndimage import gaussian_filter, uniform_filter1d

from seewhy.checks import blur_effect, check, image_measures
from seewhy.checks.result import FOUND, NOT_JUDGED, OK
from seewhy.data.dataset import Dataset
from seewhy.data.sources import load

MakeData = Callable[..., Dataset]

IMAGE_CHECKS = ("dark", "light", "blurry", "low-information", "gray")


def darkened(image: np.ndarray) -> np.ndarray:
    return (image // 5).astype(np.uint8)


def lightened(image: np.ndarray) -> np.ndarray:
    return (255 - (255 - image) // 25).astype(np.uint8)


def blurred(image: np.ndarray) -> np.ndarray:
    return np.stack([gaussian_filter(channel, 3) for channel in image])


def emptied(image: np.ndarray) -> np.ndarray:
    page = np.full_like(image, 180)
    page[:, 20:24, 10:50] = (90 + np.arange(3) * 20)[:, None, None]
    return page


def grayed(image: np.ndarray) -> np.ndarray:
    return np.broadcast_to(image.mean(0, keepdims=True).astype(np.uint8), image.shape)


PLANTED = {
    "dark": darkened,
    "light": lightened,
    "blurry": blurred,
    "low-information": emptied,
    "gray": grayed,
}


@pytest.mark.parametrize("name", IMAGE_CHECKS)
def test_image_check_finds_only_the_planted_image(
    name: str, images: np.ndarray, data_of: MakeData
) -> None:
    assert check(data_of(images), only=[name])[name].verdict == OK
    images[50] = PLANTED[name](images[50])
    result = check(data_of(images), only=[name])[name]
    assert result.verdict == FOUND
    [finding] = result.findings
    [image] = finding.images
    assert (image.split, image.index, image.file, image.label) == ("test", 10, "test-10.png", "ant")
    assert result.value == finding.value
    assert result.threshold is not None
    assert (finding.value < result.threshold) == result.below
    assert result.sentence.startswith("1 of 60 images is ")


def test_image_check_does_not_judge_what_most_images_are(
    images: np.ndarray, data_of: MakeData
) -> None:
    result = check(data_of(darkened(images)), only=["dark", "gray"])
    assert result["dark"].verdict == NOT_JUDGED
    assert "below 0.32 in 100% of the images, so it is how they are" in result["dark"].sentence
    gray = check(data_of(images[:, :1]), only=["gray"])["gray"]
    assert (gray.verdict, gray.sentence) == (NOT_JUDGED, "all images are gray")


# cleanvision 0.3.7, issue_managers/image_property.py, with its default thresholds
def published(name: str, image: Image.Image) -> bool:
    pixels = np.asarray(image).astype(int)
    red, green, blue = pixels[:, :, 0], pixels[:, :, 1], pixels[:, :, 2]
    brightness = np.sqrt(0.241 * red**2 + 0.691 * green**2 + 0.068 * blue**2) / 255
    if name == "dark":
        return bool(np.percentile(brightness, 99) < 0.32)
    if name == "light":
        return bool(1 - np.percentile(brightness, 5) < 0.05)
    if name == "low-information":
        return 0.1 * image.entropy() < 0.3
    if name == "gray":
        return image.mode == "L"
    ratio = max(image.size) / 64
    small = image.resize((int(image.width // ratio), int(image.height // ratio)))
    gray = small.convert("L")
    edges = math.sqrt(ImageStat.Stat(gray.filter(ImageFilter.FIND_EDGES)).var[0])
    spread = 1 - math.exp(-0.01 * float(np.std(gray.histogram())))
    return min(1 - math.exp(-0.01 * edges) + (spread if spread > 0.18 else 0), 1) < 0.29


@pytest.mark.parametrize("name", ["dark", "light", "blurry", "low-information"])
def test_image_check_agrees_with_cleanvision(
    name: str, images: np.ndarray, data_of: MakeData
) -> None:
    """Gray differs: cleanvision reads the mode of the file, and gray JPEG files are often RGB."""
    for row, defect in enumerate(PLANTED.values()):
        images[10 * row : 10 * row + 3] = [defect(each) for each in images[10 * row : 10 * row + 3]]
    files = [Image.fromarray(image.transpose(1, 2, 0)) for image in images]
    expected = {row for row, file in enumerate(files) if published(name, file)}
    findings = check(data_of(images, test=0), only=[name])[name].findings
    found = {finding.images[0].index for finding in findings}
    if name == "blurry":  # cleanvision finds a part of the blurred images
        assert expected <= found
    else:
        assert found == expected
    assert len(found) == 3


def test_measures_equal_their_definitions() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 3, 20, 30), dtype=np.uint8)
    images[1] //= 3
    measures = image_measures(torch.from_numpy(images))
    for row, image in enumerate(images.astype(float)):
        brightness = np.sqrt(np.tensordot([0.241, 0.691, 0.068], image**2, 1)) / 255
        assert measures["darkest"][row] == pytest.approx(np.percentile(brightness, 5), abs=0.01)
        assert measures["lightest"][row] == pytest.approx(np.percentile(brightness, 99), abs=0.02)
        assert measures["green"][row] == pytest.approx(image[1].mean() / 255, abs=1e-5)
        frame = np.ones((20, 30), dtype=bool)
        frame[1:-1, 1:-1] = False
        border = image[2][frame].mean() / 255
        assert measures["border blue"][row] == pytest.approx(border, abs=1e-5)
    gray = image_measures(torch.from_numpy(images[:, :1]))
    entropies = [Image.fromarray(image[0]).entropy() for image in images]
    assert gray["entropy"].tolist() == pytest.approx(entropies, abs=1e-4)
    assert "red" not in gray


def test_blur_effect_equals_its_definition() -> None:
    rng = np.random.default_rng(1)
    luma = rng.random((4, 18, 25)).astype(np.float32)
    luma[1] = gaussian_filter(luma[1], 2)
    luma[2] = gaussian_filter(luma[2], (0, 3))  # along one axis only
    luma[3] = 0.5
    expected = []
    for image in luma[:3].astype(float):
        by_axis = []
        for axis in (0, 1):
            smooth = uniform_filter1d(image, 7, axis=axis, mode="nearest")
            edges, after = (np.abs(np.diff(each, axis=axis)) for each in (image, smooth))
            by_axis.append((edges.sum() - np.maximum(0, edges - after).sum()) / edges.sum())
        expected.append(max(by_axis))
    values = blur_effect(torch.from_numpy(luma))
    assert values.tolist() == pytest.approx([*expected, 0], abs=1e-4)
    assert values[0] < 0.5 < values[1] < values[2] + 0.2
    assert blur_effect(torch.from_numpy(luma[:, :15])).tolist() == [0, 0, 0, 0]


def test_odd_files_are_found_by_their_headers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = [(40, 50)] * 20 + [(48, 40)] * 18 + [(6, 7), (100, 30)]
    for number, (height, width) in enumerate(sizes):
        path = tmp_path / "train" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    for name in "ab":
        (tmp_path / "test" / name).mkdir(parents=True)
        (tmp_path / "train" / name / f"0{'ab'.index(name)}.png").rename(
            tmp_path / "test" / name / "0.png"
        )
    data = load(tmp_path, image_size=16, quiet=True)
    result = check(data, only=["odd-size", "odd-aspect"])
    [small], [long] = result["odd-size"].findings, result["odd-aspect"].findings
    assert (small.images[0].file, small.note) == ("train/a/38.png", "7x6 pixels")
    assert small.value == pytest.approx(math.sqrt(40 * 50 / 42), rel=0.05)
    assert (long.images[0].file, long.value) == ("train/b/39.png", 0.3)


def test_images_in_memory_have_no_odd_files(images: np.ndarray, data_of: MakeData) -> None:
    result = check(data_of(images), only=["odd-size"])["odd-size"]
    assert result.verdict == NOT_JUDGED
    assert "made in memory" in result.sentence
