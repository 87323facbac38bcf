"""Photographs kept with a margin, whole images, and what evaluation sees of both."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy.data.checksums import CheckedTensor
from seewhy.data.dataset import Dataset
from seewhy.data.decode import Preprocessing, crop_box, decode_image
from seewhy.data.memory import check_dataset
from seewhy.data.sources import load, reload_data
from seewhy.errors import SeewhyError
from seewhy.runs.prediction import find_split
from seewhy.runs.prediction_stream import read_image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth pictures of many shapes, as large as 90 pixels."""
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for label in ("ant", "bee"):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                coarse = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
                size = tuple(generator.integers(50, 90, 2).tolist())
                picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
                picture.save(root / split / label / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def data(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEWHY_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load(folder, image_size=32, margin=8, quiet=True)


def test_margin_keeps_larger_training_images(folder: Path, data: Dataset) -> None:
    assert data.train.images.shape == (12, 3, 40, 40)
    assert data.test.images.shape == (6, 3, 32, 32)
    assert data.image_shape == data.origin.image_shape == (3, 32, 32)
    assert "3x32x32" in repr(data)
    for path, image in zip(
        sorted((folder / "train").rglob("*.png")), data.train.images, strict=True
    ):
        assert torch.equal(image, decode_image(path, (40, 40), 3))


def test_margin_is_cropped_as_for_test_images(folder: Path, data: Dataset) -> None:
    assert data.preprocessing == Preprocessing(crop=0.8)
    for role, split in data.splits.items():
        for path, image in zip(sorted((folder / role).rglob("*.png")), split.images, strict=True):
            evaluated = decode_image(path, (32, 32), 3, data.preprocessing)
            assert (evaluated.int() - image.int()).abs().max() <= 1
    assert torch.equal(data.splits["train"].images, data.train.images[:, :, 4:36, 4:36])


def test_center_crop_reads_nothing(data: Dataset) -> None:
    fresh = load(**data.load_args, quiet=True).splits["train"]
    assert isinstance(fresh.images, CheckedTensor)
    assert isinstance(fresh.images[2:4], CheckedTensor)
    assert fresh.images._blocks.waiting.all()
    assert type(fresh.images[torch.tensor([1])]) is torch.Tensor
    assert not fresh.images._blocks.waiting.all()


@pytest.mark.train
def test_training_sees_crops_and_evaluates_the_center(folder: Path, data: Dataset) -> None:
    seen = []

    def record(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.shape[2:])
        return images

    recipe = replace(
        seewhy.RECIPES["demo"],
        augment=(record, "resized-crop:0.5", record),
        epochs=1,
        batch_size=4,
    )
    run = seewhy.fit(recipe, data, quiet=True)
    assert set(seen) == {(40, 40), (32, 32)}
    assert run.image_shape == (3, 32, 32)
    assert run.classifier.preprocessing == data.preprocessing
    path = sorted((folder / "test").rglob("*.png"))[0]
    difference = read_image(run.classifier, path).int() - data.test.images[0].int()
    assert not difference.any()
    assert reload_data(data.origin).fingerprint == data.fingerprint
    other, _ = find_split(run.classifier, folder, "test")  # not the run: as new data
    assert torch.equal(other.test.images, data.test.images)


def test_margin_of_data_in_memory_is_checked(data: Dataset) -> None:
    made = check_dataset(replace(data, fingerprint=""))
    assert made.fingerprint == data.fingerprint
    with pytest.raises(SeewhyError, match="images are 3x32x32 but those of train are 3x40x40"):
        check_dataset(replace(data, margin=0))
    with pytest.raises(SeewhyError, match="margin must be below the side of its images, found 40"):
        check_dataset(replace(data, margin=40))


def test_interpolation_is_kept_with_the_data(
    folder: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path))
    bilinear = load(folder, image_size=32, margin=8, interpolation="bilinear", quiet=True)
    assert bilinear.preprocessing == Preprocessing(0.8, "bilinear")
    path = sorted((folder / "train").rglob("*.png"))[0]
    expected = decode_image(path, (40, 40), 3, Preprocessing(interpolation="bilinear"))
    assert torch.equal(bilinear.train.images[0], expected)
    bicubic = load(folder, image_size=32, margin=8, quiet=True)  # of another cache entry
    assert bicubic.fingerprint == data.fingerprint != bilinear.fingerprint
    assert "interpolation" not in bicubic.load_args  # as in runs and caches of before
    assert reload_data(bilinear.origin).fingerprint == bilinear.fingerprint
    with pytest.raises(SeewhyError, match=r"unknown interpolation 'nearest'; .*bicubic, bilinear"):
        load(folder, interpolation="nearest")


def test_evaluation_resizes_files_as_prediction_does(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path))
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 2))
    preprocessing = Preprocessing(0.8, "bilinear")
    classifier = seewhy.Classifier(
        module, ("ant", "bee"), (3, 32, 32), preprocessing=preprocessing, returns="logits"
    )
    data, _ = find_split(classifier, folder, "test")
    for path, image in zip(sorted((folder / "test").rglob("*.png")), data.test.images, strict=True):
        assert torch.equal(read_image(classifier, path), image)


def test_letterbox_keeps_the_whole_image(tmp_path: Path) -> None:
    whole = Preprocessing(resize="letterbox")
    wide = Image.new("RGB", (80, 40), (255, 0, 0))
    pixels = decode_image(wide, (32, 32), 3, whole)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[8:24] = True
    assert torch.equal(pixels[:, inside].unique(dim=1), torch.tensor([[255], [0], [0]]).byte())
    assert (pixels[:, ~inside] == 128).all()
    assert crop_box((40, 80), (32, 32), whole) == (0, -20, 80, 60)
    narrow = Image.new("L", (3, 90), 7)
    assert ((decode_image(narrow, (30, 30), 1, whole) == 7).sum(2) == 1).all()
    square = Image.new("RGB", (50, 50), (1, 2, 3))
    assert torch.equal(decode_image(square, (32, 32), 3, whole), decode_image(square, (32, 32), 3))


def test_letterboxed_data_is_evaluated_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path))
    data = load(folder, image_size=32, resize="letterbox", quiet=True)
    assert data.preprocessing == Preprocessing(resize="letterbox")
    path = sorted((folder / "test").rglob("*.png"))[0]
    assert torch.equal(data.test.images[0], decode_image(path, (32, 32), 3, data.preprocessing))
    with pytest.raises(SeewhyError, match=r"unknown resize 'pad'; .*crop, letterbox"):
        load(folder, resize="pad")
    with pytest.raises(SeewhyError, match="margin must be at least 0, found -1"):
        load(folder, margin=-1)
