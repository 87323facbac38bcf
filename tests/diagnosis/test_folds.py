"""A cross-validation is diagnosed with the models that were not trained on the images."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from seewhy.data.dataset import Dataset, Split
from seewhy.diagnosis.diagnosis import diagnose
from seewhy.diagnosis.error_maps import map_pairs
from seewhy.diagnosis.predictions import Predictions, predict_split
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier

CLASSES = ("a", "b", "c")


def model(seed: int) -> Classifier:
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return Classifier(nn.Sequential(layers, nn.Linear(6, 3)).eval(), CLASSES)


@pytest.fixture
def folded() -> Dataset:
    """Images of which number 3 is copied as number 4, in another fold, and 6 as 9, in the same."""
    images = torch.randint(0, 256, (30, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    images[4], images[9] = images[3], images[6]
    split = Split(images.byte(), torch.arange(30) % 3, [str(index) for index in range(30)])
    data = Dataset("noise", CLASSES, split, split, None, "0" * 32)
    return replace(data, folds=torch.arange(30) % 3)


@pytest.mark.slow
def test_a_diagnosis_of_folds_uses_models_that_did_not_see_the_images(folded: Dataset) -> None:
    assert folded.folds is not None
    models, last = [model(seed) for seed in (1, 2, 3)], model(4)
    logits = torch.zeros(30, 3)
    for fold, each in enumerate(models):
        rows = folded.folds == fold
        logits[rows] = predict_split(each, folded.test).logits[rows]
    predictions = Predictions(logits, folded.test.labels, CLASSES)
    diagnosis = diagnose(last, folded, predictions, folds=models, quiet=True, minutes=None)
    assert len(diagnosis.errors) > 10
    assert diagnosis.saliency is not None
    maps = diagnosis.saliency.maps
    for row, index in enumerate(diagnosis.errors.tolist()):
        own = models[int(folded.folds[index])]
        chosen, predicted = torch.tensor([index]), predictions.predicted[index : index + 1]
        expected = map_pairs(own, folded.test, chosen, predicted, maps.methods, maps.layers)
        for found, wanted in zip(maps.values, expected.values, strict=True):
            assert torch.equal(found[row], wanted[0])
    first = folded.folds == 0
    assert diagnosis.fold_images == diagnosis.attacks[0].images == int(first.sum())
    clean = predictions.correct[first].float().mean().item()
    assert diagnosis.attacks[0].accuracy[0].item() == pytest.approx(clean)
    assert diagnosis.corruptions[0].accuracy[0].item() == pytest.approx(clean)
    pairs = [(pair.first, pair.second) for pair in diagnosis.duplicates]
    assert pairs == [(("test", 3), ("test", 4))]
    assert not diagnosis.limited


def test_folds_need_as_many_models(folded: Dataset) -> None:
    with pytest.raises(SeewhyError, match="noise has 3 folds, found 0 models of folds"):
        diagnose(model(0), folded)
