"""Datasets: class counts and weights, stratified splits, fingerprints."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.data.dataset import (
    Dataset,
    Split,
    class_counts,
    class_weights,
    compute_digest,
    fingerprint,
    stratified_split,
)
from seewhy.data.sources import load
from seewhy.errors import SeewhyError


def a_split(labels: list[int], seed: int = 0) -> Split:
    images = torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (len(labels), 3, 4, 5), dtype=np.uint8)
    )
    return Split(images, torch.tensor(labels), [f"{i}.png" for i in range(len(labels))])


def test_split_take_copies() -> None:
    split = a_split([0, 1, 2, 1])
    taken = split.take(torch.tensor([3, 0]))
    assert taken.labels.tolist() == [1, 0]
    assert taken.names == ["3.png", "0.png"]
    taken.images.zero_()
    assert split.images[3].any()


def test_dataset_repr() -> None:
    data = Dataset("toys", ("a", "b"), a_split([0, 1] * 600), a_split([0, 1]), a_split([1]), "")
    assert data.image_shape == (3, 4, 5)
    assert repr(data) == "Dataset(toys: 1,200 train, 1 validation, 2 test images, 2 classes, 3x4x5)"


def test_class_weights_are_balanced() -> None:
    split = a_split([0, 0, 0, 1])
    assert class_counts(split, 3).tolist() == [3, 1, 0]
    # N / (K * count), and 0 for the class without images
    torch.testing.assert_close(class_weights(split, 3), torch.tensor([4 / 9, 4 / 3, 0.0]))
    assert class_weights(a_split([0, 1, 0, 1]), 2).tolist() == [1, 1]


def test_stratified_split_holds_out_a_fraction_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 2])
    kept, held_out = stratified_split(labels, 0.2, seed=0)
    assert np.bincount(labels[held_out]).tolist() == [20, 10, 1]
    assert sorted([*kept, *held_out]) == list(range(152))
    again = stratified_split(labels, 0.2, seed=0)
    assert np.array_equal(held_out, again[1])
    assert not np.array_equal(held_out, stratified_split(labels, 0.2, seed=1)[1])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2.0])
def test_stratified_split_rejects_bad_fractions(fraction: float) -> None:
    with pytest.raises(SeewhyError, match="must be above 0 and below 1"):
        stratified_split(np.array([0, 1]), fraction, 0)


def test_fingerprint_depends_on_pixels_labels_and_classes() -> None:
    def of(split: Split, classes: tuple[str, ...] = ("a", "b"), role: str = "train") -> str:
        return fingerprint(classes, {role: compute_digest(split)})

    split = a_split([0, 1, 1])
    renamed = Split(split.images.clone(), split.labels.clone(), ["x", "y", "z"])
    assert of(split) == of(renamed)
    changed = split.images.clone()
    changed[2, 2, 3, 4] ^= 1
    reshaped = Split(split.images.reshape(3, 3, 5, 4), split.labels, split.names)
    others = [
        of(Split(changed, split.labels, split.names)),
        of(Split(split.images, torch.tensor([0, 1, 0]), split.names)),
        of(reshaped),
        of(split, ("a", "c")),
        of(split, role="test"),
    ]
    assert len({of(split), *others}) == 6


def test_originals_are_recorded_before_images_are_resized(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def save(name: str, height: int, width: int, **options: Any) -> int:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, **options)
        return path.stat().st_size

    exif = Image.Exif()
    exif[0x0112] = 6  # on its side: height and width change places
    expected = [
        (200, 300, save("train/a/0.jpg", 200, 300), b"JPEG"),  # decoded at a fraction of its size
        (300, 40, save("train/a/1.jpg", 40, 300, exif=exif), b"JPEG"),
        (20, 30, save("train/b/2.dat.png", 20, 30), b"PNG"),
        (9, 12, save("train/b/3.gif", 9, 12), b"GIF"),
    ]
    for name in ("a", "b"):
        save(f"test/{name}/4.bmp", 7, 8)
    data = load(tmp_path, image_size=16, quiet=True)
    assert data.train.originals is not None
    assert data.train.originals.tolist() == expected
    assert data.train.take(torch.tensor([3, 0])).originals.tolist() == [expected[3], expected[0]]  # type: ignore[union-attr]
    again = load(tmp_path, image_size=16, limit=2, quiet=True).train.originals
    assert again is not None
    assert len(again) == 2


def test_originals_of_arrays_have_no_file(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 6, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(10) % 2)
    originals = load(tmp_path / "x.npz", quiet=True).train.originals
    assert originals is not None
    assert set(originals.tolist()) == {(6, 5, 0, b"")}
