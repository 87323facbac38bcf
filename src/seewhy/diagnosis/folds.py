"""Diagnosing a cross-validation: each image by a model that was not trained on it."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from seewhy.data.dataset import Dataset
from seewhy.data.duplicates import DuplicatePair, near_duplicates
from seewhy.diagnosis.error_maps import MapPairs, map_pairs
from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.saliency import Saliency
from seewhy.models.classifier import Classifier


def first_fold(data: Dataset) -> Tensor:
    """Indices of the test images that the first model was not trained on, (N,) int64; else all."""
    if data.folds is None:
        return torch.arange(len(data.test))
    return (data.folds == 0).nonzero()[:, 0]


def take_predictions(predictions: Predictions, rows: Tensor) -> Predictions:
    """The predictions of the images `rows` (R,) int64."""
    return replace(predictions, logits=predictions.logits[rows], labels=predictions.labels[rows])


def leaked_duplicates(data: Dataset) -> tuple[DuplicatePair, ...]:
    """Near-duplicates of which one is tested by a model that was trained on the other."""
    if data.folds is None:
        return near_duplicates(data.splits)
    pairs = near_duplicates({"test": data.test}, within=["test"])
    return tuple(pair for pair in pairs if data.folds[pair.first[1]] != data.folds[pair.second[1]])


def with_maps_of_folds(
    saliency: Saliency,
    models: Sequence[Classifier],
    data: Dataset,
    predictions: Predictions,
    errors: Tensor,
) -> Saliency:
    """The saliency with maps of errors (M,) int64, each of the model that made it."""
    assert data.folds is not None
    methods, layers = saliency.maps.methods, saliency.maps.layers
    parts: list[MapPairs] = []
    rows: list[Tensor] = []
    for fold, model in enumerate(models):
        mine = (data.folds[errors] == fold).nonzero()[:, 0]
        index = errors[mine]
        exact = replace(model, precision="fp32")
        predicted = predictions.predicted[index]
        parts.append(map_pairs(exact, data.test, index, predicted, methods, layers))
        rows.append(mine)
    values = (torch.cat(stack) for stack in zip(*(part.values for part in parts), strict=True))
    maps = replace(saliency.maps, values=tuple(values))
    return replace(saliency, maps=maps.take(torch.cat(rows).argsort()))
