"""Metrics of independent labels, against scikit-learn and float64 counts."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)
from torch import Tensor

from seewhy.diagnosis.multi_label import choose_thresholds, multi_label_scores, with_thresholds
from seewhy.diagnosis.predictions import MultiLabelPredictions
from seewhy.errors import SeewhyError

CLASSES = ("cat", "dog", "snow", "night")


def predictions_of(seed: int = 0, count: int = 200) -> MultiLabelPredictions:
    generator = torch.Generator().manual_seed(seed)
    shares = torch.tensor([0.5, 0.3, 0.1, 0.2])
    labels = torch.rand(count, 4, generator=generator) < shares
    noise = torch.randn(count, 4, generator=generator)
    strength = torch.tensor([3.0, 1.5, 2.0, 0.0])
    logits = (labels * strength + noise - 1.5).mul(8).round().div(8)  # with ties
    return MultiLabelPredictions(logits, labels, CLASSES)


@pytest.mark.parametrize("thresholds", [(), (0.2, 0.3, 0.7, 0.4)])
def test_scores_are_those_of_sklearn(thresholds: tuple[float, ...]) -> None:
    predictions = replace(predictions_of(), thresholds=thresholds)
    scores = multi_label_scores(predictions)
    true = predictions.labels.numpy()
    probability = 1 / (1 + np.exp(-predictions.logits.numpy().astype(float)))
    predicted = probability >= np.array(thresholds or [0.5] * 4) - 1e-9
    precision, recall, f1, images = precision_recall_fscore_support(true, predicted)
    for index, row in enumerate(scores.labels):
        assert (row.name, row.images) == (CLASSES[index], images[index])
        assert row.predicted == predicted[:, index].sum()
        np.testing.assert_allclose(
            (row.precision, row.recall, row.f1, row.auroc, row.average_precision),
            (
                precision[index],
                recall[index],
                f1[index],
                roc_auc_score(true[:, index], probability[:, index]),
                average_precision_score(true[:, index], probability[:, index]),
            ),
        )
    np.testing.assert_allclose(
        (
            scores.exact_match,
            scores.label_accuracy,
            scores.micro_f1,
            scores.macro_f1,
            scores.mean_average_precision,
            scores.macro_auroc,
        ),
        (
            (true == predicted).all(1).mean(),
            (true == predicted).mean(),
            f1_score(true, predicted, average="micro"),
            f1_score(true, predicted, average="macro"),
            average_precision_score(true, probability, average="macro"),
            roc_auc_score(true, probability, average="macro"),
        ),
    )


def test_no_threshold_has_a_higher_f1() -> None:
    predictions = predictions_of()
    chosen = replace(predictions, thresholds=choose_thresholds(predictions))
    best = [row.f1 for row in multi_label_scores(chosen).labels]
    probabilities = predictions.probabilities.double().numpy()
    for index in range(4):
        true = predictions.labels[:, index].numpy()
        tried = [
            f1_score(true, probabilities[:, index] >= each)
            for each in np.unique(probabilities[:, index])
        ]
        assert best[index] == pytest.approx(max(tried))


def test_a_threshold_is_far_from_the_probabilities_beside_it() -> None:
    def threshold(probabilities: list[float], labels: list[int]) -> float:
        logits = torch.tensor(probabilities)[:, None].logit()
        true = torch.tensor(labels).bool()[:, None]
        return choose_thresholds(MultiLabelPredictions(logits, true, ("a",)))[0]

    assert threshold([0.9, 0.1], [1, 0]) == 0.5
    assert threshold([0.9, 0.7], [1, 0]) == pytest.approx(0.8)
    assert threshold([0.3, 0.1], [1, 0]) == pytest.approx(0.2)
    assert threshold([0.3, 0.2], [1, 1]) == pytest.approx(0.1)
    assert threshold([0.9, 0.1], [0, 0]) == 0.5


def test_thresholds_are_chosen_on_other_images() -> None:
    test, validation = predictions_of(), predictions_of(1)
    assert with_thresholds(test, validation).thresholds == choose_thresholds(validation)


def test_scores_that_are_undefined_are_left_out_of_means() -> None:
    labels = torch.tensor([[True, False], [False, False]])
    logits = torch.tensor([[1.0, -1.0], [-1.0, -2.0]])
    scores = multi_label_scores(MultiLabelPredictions(logits, labels, ("a", "b")))
    assert math.isnan(scores.labels[1].recall)
    assert math.isnan(scores.labels[1].average_precision)
    assert (scores.macro_f1, scores.mean_average_precision, scores.exact_match) == (1, 1, 1)


@pytest.mark.parametrize(
    ("logits", "labels", "thresholds", "message"),
    [
        (
            torch.zeros(2, 2),
            torch.zeros(2, 3).bool(),
            (),
            r"2 labels need logits and labels \(N, 2",
        ),
        (torch.zeros(2, 2), torch.zeros(2, 2), (), "labels must be bool, found .* labels.bool"),
        (torch.zeros(0, 2), torch.zeros(0, 2).bool(), (), "no predictions to measure"),
        (torch.zeros(2, 2), torch.zeros(2, 2).bool(), (0.5,), "a threshold each, found 1"),
        (torch.full((2, 2), torch.nan), torch.zeros(2, 2).bool(), (), "are not finite"),
    ],
)
def test_predictions_that_do_not_fit(
    logits: Tensor, labels: Tensor, thresholds: tuple[float, ...], message: str
) -> None:
    with pytest.raises(SeewhyError, match=message):
        MultiLabelPredictions(logits, labels, ("a", "b"), thresholds=thresholds)
