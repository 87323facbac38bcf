"""The nearest training images of images."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from seewhy.data.dataset import Dataset, Split
from seewhy.diagnosis.feature_space import balanced_order, error_neighbors
from seewhy.diagnosis.nearest import nearest_images
from seewhy.diagnosis.predictions import predict_split
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier


def test_nearest_images_are_those_of_all_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.diagnosis.nearest._ROWS", 7)
    generator = torch.Generator().manual_seed(0)
    features, train = (torch.randn(n, 6, generator=generator) for n in (20, 90))
    labels, train_labels = (torch.randint(3, (n,), generator=generator) for n in (20, 90))
    found = nearest_images(features, labels, train, train_labels, 4)
    for row, (image, label) in enumerate(zip(features.double().numpy(), labels, strict=True)):
        norms = np.linalg.norm(train.double().numpy(), axis=1) * np.linalg.norm(image)
        cosines = train.double().numpy() @ image / norms
        expected = np.argsort(-cosines)
        own = expected[train_labels.numpy()[expected] == int(label)]
        assert found.nearest[row].tolist() == expected[:4].tolist()
        assert found.of_label[row].tolist() == own[:4].tolist()
        np.testing.assert_allclose(found.similarity[row], cosines[expected[:4]], atol=1e-6)
        np.testing.assert_allclose(found.of_label_similarity[row], cosines[own[:4]], atol=1e-6)


def test_missing_neighbors_are_marked() -> None:
    found = nearest_images(
        torch.eye(2), torch.tensor([0, 5]), torch.eye(2), torch.tensor([0, 1]), count=3
    )
    assert found.nearest.tolist() == [[0, 1, -1], [1, 0, -1]]
    assert found.of_label.tolist() == [[0, -1, -1], [-1, -1, -1]]
    assert found.of_label_similarity.tolist() == [[1, 0, 0], [0, 0, 0]]


def test_nearest_images_reject_what_does_not_fit() -> None:
    eye, labels = torch.eye(3), torch.arange(3)
    with pytest.raises(SeewhyError, match="one row per label, found"):
        nearest_images(eye, labels[:2], eye, labels)
    with pytest.raises(SeewhyError, match="one length, found 3 and 2"):
        nearest_images(eye, labels, eye[:, :2], labels)
    with pytest.raises(SeewhyError, match="count must be at least 1, found 0"):
        nearest_images(eye, labels, eye, labels, 0)


def test_a_balanced_order_takes_all_classes_alike() -> None:
    labels = torch.tensor([0] * 50 + [1] * 5 + [2] * 20)
    order = balanced_order(labels)
    assert order.sort().values.tolist() == list(range(75))
    assert labels[order[:15]].bincount().tolist() == [5, 5, 5]
    assert labels[order[:45]].bincount().tolist() == [20, 5, 20]


def test_errors_find_their_copies_among_the_training_images() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 8, 8), generator=generator, dtype=torch.uint8)
    labels, names = torch.arange(40) % 4, [str(index) for index in range(40)]
    train = Split(images, labels, names)
    test = Split(images[20:30], (labels[20:30] + 1) % 4, names[20:30])  # another label
    data = Dataset("copies", ("a", "b", "c", "d"), train, test, None, "1" * 32)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 30), nn.ReLU(), nn.Linear(30, 4)).eval()
    classifier = Classifier(network)
    predictions = predict_split(classifier, test)
    search = partial(error_neighbors, classifier, data, predictions)
    found = search(torch.tensor([3, 0]), float("inf"))
    assert found is not None
    assert (found.searched, found.train_images) == (40, 40)
    assert found.neighbors.nearest[:, 0].tolist() == [23, 20]
    assert (labels[found.neighbors.of_label] == test.labels[[3, 0], None]).all()
    shown = found.thumbnails.indices
    assert torch.equal(found.labels, labels[shown])
    assert torch.equal(found.thumbnails.images, images[shown])
    assert set(found.neighbors.nearest.flatten().tolist()) <= set(shown.tolist())
    few = search(torch.tensor([3]), 1e-9)
    assert few is not None
    assert few.searched == 16
    assert search(torch.tensor([]).long(), 1.0) is None
    assert error_neighbors(None, data, predictions, torch.tensor([3]), 1.0) is None
