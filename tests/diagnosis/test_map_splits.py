"""The map of test and training images together."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from seewhy.data.dataset import Dataset, Split
from seewhy.diagnosis.feature_space import map_splits
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier


@pytest.fixture
def copies() -> Dataset:
    """40 training images; the 12 test images are copies of those from the 20th on."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 24, 24), generator=generator, dtype=torch.uint8)
    labels, names = torch.arange(40) % 4, [f"a/{index}.png" for index in range(40)]
    train = Split(images, labels, names)
    test = Split(images[20:32], labels[20:32], names[20:32])
    return Dataset("copies", ("a", "b", "c", "d"), train, test, None, "1" * 32)


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(
        nn.Sequential(nn.Flatten(), nn.Linear(1728, 30), nn.ReLU(), nn.Linear(30, 4)).eval()
    )


def test_copies_lie_on_each_other(copies: Dataset, classifier: Classifier) -> None:
    found = map_splits(classifier, copies, math.inf)
    test, train = found.test.map, found.train.map
    assert test.indices.tolist() == list(range(12))
    assert train.indices.tolist() == list(range(40))
    distances = torch.cdist(test.positions, train.positions)
    assert distances.argmin(1).tolist() == list(range(20, 32))
    assert torch.equal(found.train_labels, copies.train.labels)
    assert found.train_names == tuple(copies.train.names)
    assert found.train_images == 40
    assert found.train.thumbnails.shape == (40, 3, 16, 16)
    assert torch.equal(found.test.thumbnails, found.train.thumbnails[20:32])


@pytest.mark.parametrize(("most", "counts"), [(30, (12, 18)), (20, (10, 10))])
def test_a_map_has_as_many_of_each_as_there_are(
    most: int,
    counts: tuple[int, int],
    copies: Dataset,
    classifier: Classifier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("seewhy.diagnosis.feature_space.MAX_IMAGES", most)
    found = map_splits(classifier, copies, math.inf)
    assert (len(found.test.map.indices), len(found.train.map.indices)) == counts
    rows = found.train.map.indices
    assert torch.equal(found.train_labels, copies.train.labels[rows])
    assert found.train_names == tuple(copies.train.names[row] for row in rows.tolist())


def test_a_map_with_training_images_is_refused_with_a_reason(
    copies: Dataset, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = replace(copies.train, images=copies.train.images[:0], labels=copies.train.labels[:0])
    few = replace(copies.test, images=copies.test.images[:9], labels=copies.test.labels[:9])
    folded = replace(copies, test=copies.train, folds=torch.arange(40) % 3)
    for data, reason in (
        (replace(copies, train=none), "training images besides those of the report; copies has"),
        (replace(copies, test=few), "at least 10 test images, found 9"),
        (folded, "every image is a test image of one fold"),
    ):
        with pytest.raises(SeewhyError, match=f"map_train needs .*{reason}"):
            map_splits(classifier, data, math.inf)
    monkeypatch.setattr("seewhy.diagnosis.feature_space._has_features", lambda *_: False)
    with pytest.raises(SeewhyError, match="map_train needs the features of a model that runs in"):
        map_splits(classifier, copies, math.inf)
