"""Weak slices on planted weaknesses and on none; image attributes."""

import colorsys

import numpy as np
import pytest
import torch
from scipy.stats import fisher_exact
from torch import Tensor

from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.slices import (
    Slice,
    image_attributes,
    weak_slices,
)
from seewhy.errors import SeewhyError

NAMES = ("cat", "dog", "ship")


def planted(
    seed: int, images: int = 3000, weak: float = 0.4, usual: float = 0.95
) -> tuple[Predictions, Tensor, dict[str, Tensor], Tensor]:
    """Ten clouds of features; accuracy in the first, mostly of cats, is `weak`, else `usual`."""
    rng = np.random.default_rng(seed)
    cloud = rng.integers(0, 10, images)
    points = 6 * rng.normal(size=(10, 16))[cloud] + rng.normal(size=(images, 16))
    labels = np.where((cloud == 0) & (rng.random(images) < 0.8), 0, rng.integers(0, 3, images))
    right = rng.random(images) < np.where(cloud == 0, weak, usual)
    predicted = np.where(right, labels, (labels + 1) % 3)
    outputs = torch.nn.functional.one_hot(torch.from_numpy(predicted), 3).float()
    brightness = torch.from_numpy(np.where(cloud == 0, 0.1, 0.5) + 0.1 * rng.random(images))
    attributes = {"brightness": brightness, "contrast": torch.from_numpy(rng.random(images))}
    predictions = Predictions(outputs, torch.from_numpy(labels), NAMES)
    return (
        predictions,
        torch.from_numpy(points).float(),
        attributes,
        torch.from_numpy(np.flatnonzero(cloud == 0)),
    )


def test_weak_slices_find_a_planted_slice() -> None:
    predictions, points, attributes, members = planted(1)
    found = weak_slices(predictions, points, attributes)
    joined = torch.cat([each.members for each in found]).unique()
    assert torch.isin(members, joined).double().mean() > 0.9
    assert torch.isin(joined, members).double().mean() > 0.95
    similar = [each for each in found if each.kind == "similar images"]
    assert similar
    assert all(
        each.description.startswith("mostly cat (") and "darker than 9" in each.description
        for each in similar
    )


def test_weak_slices_by_brute_force() -> None:
    predictions, points, attributes, _ = planted(2)
    right = predictions.correct.numpy()
    found = weak_slices(predictions, points, attributes)
    excess = []
    for each in found:
        inside = np.isin(np.arange(len(right)), each.members.numpy())
        assert each.images == inside.sum() == len(each.members.unique())
        assert each.accuracy == pytest.approx(right[inside].mean())
        assert each.rest_accuracy == pytest.approx(right[~inside].mean())
        assert each.interval[0] < each.accuracy < each.interval[1] < each.rest_accuracy
        table = [
            [(~right[inside]).sum(), right[inside].sum()],
            [(~right[~inside]).sum(), right[~inside].sum()],
        ]
        raw = fisher_exact(table, alternative="greater").pvalue
        assert raw <= each.p_value <= 100 * raw + 1e-12
        assert each.p_value <= 0.05
        excess.append(each.images * (each.rest_accuracy - each.accuracy))
    assert excess == sorted(excess, reverse=True)


@pytest.mark.slow
def test_weak_slices_find_an_end_of_an_attribute() -> None:
    rng = np.random.default_rng(3)
    sharpness = rng.random(2000)
    right = rng.random(2000) < np.where(sharpness < 0.1, 0.5, 0.95)
    labels = torch.zeros(2000, dtype=torch.int64)
    outputs = torch.from_numpy(np.stack([right, ~right, np.zeros(2000)], 1)).float()
    predictions = Predictions(outputs, labels, NAMES)
    points = torch.from_numpy(rng.normal(size=(2000, 8)))
    attributes = {
        "sharpness": torch.from_numpy(sharpness),
        "size": torch.from_numpy(sharpness.round()),
    }
    [found] = weak_slices(predictions, points, attributes)
    assert found.kind == "attribute"
    assert (
        found.members.tolist()
        == np.argsort(sharpness)[:200][np.argsort(np.argsort(sharpness)[:200])].tolist()
    )
    bound = np.sort(sharpness)[199]
    assert found.description == f"blurriest 10% of images (sharpness ≤ {bound:.3g})"
    [found] = weak_slices(predictions, points, {"size": -torch.from_numpy(sharpness)})
    assert found.description == f"highest-size 10% of images (size ≥ {-bound:.3g})"


@pytest.mark.slow
def test_weak_slices_without_a_weakness_are_rare() -> None:
    """At 5% in all, one of 20 datasets may have a slice by chance."""
    findings = sum(
        bool(weak_slices(*planted(seed, images=1500, weak=0.9, usual=0.9)[:3]))
        for seed in range(20)
    )
    assert findings <= 3


def overlap(slices: tuple[Slice, ...]) -> float:
    shares = [
        torch.isin(each.members, stronger.members).double().mean().item()
        for place, each in enumerate(slices)
        for stronger in slices[:place]
    ]
    return max(shares, default=0.0)


def test_weak_slices_do_not_overlap() -> None:
    predictions, points, attributes, _ = planted(5)
    copies = {f"copy {index}": attributes["brightness"] for index in range(3)}
    found = weak_slices(predictions, points, attributes | copies)
    assert overlap(found) <= 0.5
    assert len({each.description for each in found}) == len(found)


def test_weak_slices_of_degenerate_data_are_none() -> None:
    labels = torch.zeros(3, dtype=torch.int64)
    assert (
        weak_slices(
            Predictions(torch.eye(3), labels, NAMES), torch.randn(3, 4), {"a": torch.rand(3)}
        )
        == ()
    )
    labels = torch.arange(300) % 3
    outputs = torch.nn.functional.one_hot(labels, 3).float()
    perfect = Predictions(outputs, labels, NAMES)
    assert weak_slices(perfect, torch.ones(300, 4), {"a": torch.ones(300)}) == ()
    points = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    assert weak_slices(perfect, points, {}) == ()
    assert (
        weak_slices(Predictions(outputs.roll(1, 1), labels, NAMES), points, {}) == ()
    )  # nothing is worse than the rest


def test_weak_slices_refuse_wrong_values() -> None:
    predictions, points, attributes, _ = planted(6, images=100)
    with pytest.raises(
        SeewhyError, match=r"features must be \(100, D\), one row per image, found \(99, 16\)"
    ):
        weak_slices(predictions, points[1:], attributes)
    with pytest.raises(SeewhyError, match="features are not finite"):
        weak_slices(predictions, points / 0, attributes)
    with pytest.raises(SeewhyError, match=r"attribute 'a' must be \(100,\), .* found \(3,\)"):
        weak_slices(predictions, points, {"a": torch.zeros(3)})
    with pytest.raises(SeewhyError, match="significance must be a probability between 0 and 1"):
        weak_slices(predictions, points, attributes, significance=5)


def images_of(count: int, channels: int = 3, side: int = 12) -> Tensor:
    return torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (count, channels, side, side), dtype=np.uint8)
    )


def test_image_attributes_by_definition() -> None:
    images = images_of(9)
    found = image_attributes(images)
    for index, image in enumerate(images.numpy().astype(np.float64) / 255):
        red, green, blue = image
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        padded = np.pad(luma, 1, mode="edge")
        steps = [
            4 * luma[y, x]
            - padded[y, x + 1]
            - padded[y + 2, x + 1]
            - padded[y + 1, x]
            - padded[y + 1, x + 2]
            for y in range(12)
            for x in range(12)
        ]
        ranges = [colorsys.rgb_to_hsv(*image[:, y, x]) for y in range(12) for x in range(12)]
        expected = {
            "brightness": luma.mean(),
            "contrast": luma.std(),
            "sharpness": np.abs(steps).mean(),
            "saturation": np.mean([saturation * value for _, saturation, value in ranges]),
            "warmth": red.mean() - blue.mean(),
        }
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name][index].item() == pytest.approx(value, abs=1e-5), name


def test_image_attributes_of_gray_images_and_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    gray = image_attributes(images_of(5, channels=1))
    assert set(gray) == {"brightness", "contrast", "sharpness"}
    whole = image_attributes(images_of(5))
    monkeypatch.setattr("seewhy.diagnosis.slices._BLOCK_VALUES", 2 * 3 * 12 * 12)
    assert all(
        torch.equal(values, whole[name]) for name, values in image_attributes(images_of(5)).items()
    )
