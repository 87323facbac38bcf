"""Splits by image and by group: stratified, and no group on two sides."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.data.memory import check_dataset
from seewhy.data.sources import load, reload_data
from seewhy.data.splitting import grouped_folds, grouped_split
from seewhy.errors import SeewhyError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path_factory.mktemp("cache")))


def scene(number: int, shift: int = 0) -> Image.Image:
    """A picture of its own; with a shift, the next photograph of a burst."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    whole = Image.fromarray(coarse).resize((60, 60), Image.Resampling.BICUBIC)
    return whole.crop((4 + shift, 4, 52 + shift, 52))


def bursts(root: Path, scenes: int = 10, images: int = 3) -> Path:
    """Class folders with `images` photographs of each scene."""
    for number in range(scenes):
        folder = root / ("ant" if number % 2 else "bee")
        folder.mkdir(parents=True, exist_ok=True)
        for shot in range(images):
            scene(number, shot).save(folder / f"s{number}-{shot}.png")
    return root


def scenes_of(names: object) -> set[str]:
    return {re.findall(r"s\d+", name)[0] for name in names}  # type: ignore[attr-defined]


def test_grouped_split_keeps_groups_whole_and_classes_in_proportion() -> None:
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 400, 3000)
    labels = (groups % 3 + (generator.random(3000) < 0.2)) % 3
    kept, held = grouped_split(labels, groups, 0.2, seed=1)
    assert not np.intersect1d(groups[kept], groups[held]).size
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(3000))
    shares = np.bincount(labels[held]) / np.bincount(labels)
    assert np.abs(shares - 0.2).max() < 0.01
    sizes = np.bincount(groups)
    assert abs(sizes[np.unique(groups[held])].mean() - sizes.mean()) < 1  # not only large groups
    assert np.array_equal(held, grouped_split(labels, groups, 0.2, seed=1)[1])
    assert not np.array_equal(held, grouped_split(labels, groups, 0.2, seed=2)[1])


def test_grouped_split_never_takes_a_class_from_train() -> None:
    labels = np.array([0] * 6 + [1] * 6 + [2] * 2)
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6])  # all of class 2 is group 6
    for seed in range(20):
        kept, held = grouped_split(labels, groups, 0.4, seed)
        assert set(labels[kept]) == {0, 1, 2}
        assert set(labels[held]) == {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize("group_by", [r"s\d+", r"/(s\d+)-", "duplicates"])
def test_images_of_one_scene_stay_together(tmp_path: Path, group_by: str) -> None:
    data = load(bursts(tmp_path / "photos"), group_by=group_by, validation=0.2, quiet=True)
    found = [scenes_of(split.names) for split in data.splits.values()]
    assert sum(map(len, found)) == 10  # no scene in two splits
    assert sum(map(len, data.splits.values())) == 30
    assert len(data.test) == 6
    assert data.held_out == ("test", "validation")
    assert data.origin.load_args["group_by"] == group_by
    again = reload_data(data.origin)
    assert again.test.names == data.test.names
    # without groups, scenes are in train and test
    plain = load(tmp_path / "photos", quiet=True)
    assert scenes_of(plain.test.names) & scenes_of(plain.train.names)


@pytest.mark.slow
def test_split_pools_the_given_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bursts(tmp_path / "photos/train")
    for label in ("ant", "bee"):
        (tmp_path / "photos/test" / label).mkdir(parents=True)
        for path in sorted((tmp_path / "photos/train" / label).glob("*-2.png")):
            path.rename(tmp_path / "photos/test" / label / path.name)
    given = load(tmp_path / "photos", group_by=r"s\d+")
    assert len(given.test) == 10
    assert "10 groups have images in train and in another split" in capsys.readouterr().err
    by_group = load(tmp_path / "photos", split="group", group_by=r"s\d+", seed=3)
    assert "30 images in 10 groups, the largest of 3" in capsys.readouterr().err
    assert not scenes_of(by_group.test.names) & scenes_of(by_group.train.names)
    assert (len(by_group.train), len(by_group.test)) == (24, 6)
    at_random = load(tmp_path / "photos", split="random", quiet=True)
    assert (len(at_random.train), len(at_random.test)) == (24, 6)
    assert {*at_random.train.names, *at_random.test.names} == {
        *given.train.names,
        *given.test.names,
    }
    colors = dict(zip(given.train.names, given.train.images, strict=True))
    for name, image in zip(at_random.train.names, at_random.train.images, strict=True):
        assert name not in colors or (colors[name] == image).all()
    assert load(tmp_path / "photos", split="folder", quiet=True).test.names == given.test.names


def test_split_options_are_refused_in_one_line(tmp_path: Path) -> None:
    root = bursts(tmp_path / "photos", scenes=2)
    for options, message in [
        ({"split": "scene"}, "unknown split 'scene'; possible: folder, group, random"),
        ({"group_by": "("}, r"group_by '\(' is no regular expression"),
        ({"group_by": "patient"}, "is no column and matches no name, such as 'ant/s1-0.png'"),
        ({"split": "random", "group_by": "s"}, "group_by is for split='group'"),
        ({"split": "folder"}, "photos has no test split; leave split out"),
        ({"group_by": r"s\d+"}, "needs a class with at least two groups of images"),
    ]:
        with pytest.raises(SeewhyError, match=message) as caught:
            load(root, quiet=True, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_names_outside_the_pattern_are_groups_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = bursts(tmp_path / "photos")
    scene(99).save(root / "ant" / "other.png")
    load(root, group_by=r"s\d+")
    assert "matches 30 of 31 names; the others, such as 'ant/other.png'" in capsys.readouterr().err


def test_grouped_folds_keep_groups_whole_and_classes_in_proportion() -> None:
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 400, 3000)
    labels = (groups % 3 + (generator.random(3000) < 0.2)) % 3
    folds = grouped_folds(labels, groups, 5, seed=1)
    for group in range(400):
        assert len(np.unique(folds[groups == group])) <= 1
    for fold in range(5):
        shares = np.bincount(labels[folds == fold]) / np.bincount(labels)
        assert np.abs(shares - 0.2).max() < 0.01
    assert np.array_equal(folds, grouped_folds(labels, groups, 5, seed=1))
    assert not np.array_equal(folds, grouped_folds(labels, groups, 5, seed=2))


def test_few_images_of_folds_have_each_class_in_each_fold() -> None:
    message = "limit must be at least the number of classes in all folds of digits, 50, found 49"
    with pytest.raises(SeewhyError, match=message):
        load("digits", folds=5, limit=49, quiet=True)
    data = load("digits", folds=5, limit=50, quiet=True)
    assert data.folds is not None
    assert len(set(zip(data.train.labels.tolist(), data.folds.tolist(), strict=True))) == 50
    message = "digits, fold 2 of 5: the test split has classes missing from train: '3'; add or"
    with pytest.raises(SeewhyError, match=message):
        check_dataset(replace(data, folds=data.folds.where(data.train.labels != 3, 1)))


def test_folds_leave_a_test_folder_alone_unless_all_images_are_divided(tmp_path: Path) -> None:
    bursts(tmp_path / "train", scenes=6)
    bursts(tmp_path / "test", scenes=2)
    alone = load(tmp_path, folds=2, group_by=r"s\d+", quiet=True)
    assert len(alone.train) == len(alone.test) == 18
    assert alone.folds is not None
    sides = [
        {name for name, at in zip(alone.train.names, alone.folds, strict=True) if at == fold}
        for fold in range(2)
    ]
    assert not scenes_of(sides[0]) & scenes_of(sides[1])
    assert load(tmp_path, quiet=True).fingerprint != alone.fingerprint
    everything = load(tmp_path, folds=2, split="random", margin=8, image_size=32, quiet=True)
    assert len(everything.train) == 24
    assert everything.train.images.shape[2:] == (40, 40)  # a margin, also of what a fold tests
    assert torch.equal(everything.train.images[:, :, 4:-4, 4:-4], everything.test.images)
    with pytest.raises(SeewhyError, match="needs 7 groups of images, found 6"):
        load(tmp_path, folds=7, group_by=r"s\d+", quiet=True)
    with pytest.raises(SeewhyError, match="all images of 'ant' are in one fold"):
        load(tmp_path, folds=2, group_by="ant|s[02]", quiet=True)


def test_a_class_of_two_images_is_too_small_for_test_and_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bursts(tmp_path / "two", scenes=2, images=2)
    with pytest.raises(SeewhyError) as caught:
        load(tmp_path / "two", validation=0.2, quiet=True)
    assert str(caught.value).endswith(
        "two: after the test split, 'ant', 'bee' have one image each, so none is left for the "
        "validation split; leave validation out, or add images"
    )
    assert len(load(tmp_path / "two", quiet=True).test) == 2
    bursts(tmp_path / "three", scenes=1, images=2)
    bursts(tmp_path / "three", scenes=2, images=3)
    (tmp_path / "three/bee/s0-2.png").unlink()
    capsys.readouterr()
    data = load(tmp_path / "three", validation=0.2)
    assert data.validation is not None
    assert len(data.validation) == 1
    warning = (
        "the validation split has no images of 'bee', which after the test split have only one"
    )
    assert warning in capsys.readouterr().err
    load(tmp_path / "three", folds=2)
    assert "three: 2 folds from CLASS/" in capsys.readouterr().err
