"""Metrics of labels that are independent of each other: of each label, and over all."""

import math
from dataclasses import dataclass, replace

import torch

from seewhy.diagnosis.predictions import MultiLabelPredictions
from seewhy.diagnosis.statistics import wilson_interval
from seewhy.diagnosis.thresholds import ClassRanking, ranking_scores, threshold_curve


@dataclass(frozen=True)
class LabelScore:
    """Precision, recall and F1 of one label at its threshold, in [0, 1], with 95% intervals."""

    name: str
    images: int  # with the label
    predicted: int  # images predicted to have it
    threshold: float  # images of at least this probability are predicted to have it
    precision: float  # nan if the label is never predicted
    precision_interval: tuple[float, float]
    recall: float  # nan without images
    recall_interval: tuple[float, float]
    f1: float  # nan if the label neither occurs nor is predicted
    auroc: float  # nan if no image has the label, or all have it
    average_precision: float  # nan likewise


@dataclass(frozen=True)
class MultiLabelScores:
    """Scores over all labels, in [0, 1]; means leave out labels whose score is undefined."""

    exact_match: float  # fraction of the images whose labels are all right: subset accuracy
    exact_match_interval: tuple[float, float]  # 95%
    label_accuracy: float  # fraction of all labels of all images that are right
    micro_precision: float  # of the labels of all images together; nan if none is predicted
    micro_recall: float  # nan if no image has a label
    micro_f1: float  # nan if both
    macro_f1: float  # mean over the labels
    mean_average_precision: float  # mean over the labels
    macro_auroc: float  # mean over the labels
    labels: tuple[LabelScore, ...]  # in the order of the classes


def multi_label_scores(predictions: MultiLabelPredictions) -> MultiLabelScores:
    """Measure each label at its threshold, and all of them together (Zhang & Zhou 2014, sec. 2.2).

    AUROC and average precision do not depend on the thresholds, see `ranking_scores`.

    Args:
        predictions: Predictions of N images.
    """
    true, predicted = predictions.labels, predictions.predicted
    hits = (true & predicted).sum(0).tolist()
    images, positives = true.sum(0).tolist(), predicted.sum(0).tolist()
    thresholds = predictions.thresholds or (0.5,) * len(predictions.classes)
    labels = tuple(
        _label_score(row, hits[row.index], positives[row.index], thresholds[row.index])
        for row in ranking_scores(predictions).classes
    )
    exact = int(predictions.correct.sum())
    return MultiLabelScores(
        exact_match=exact / len(true),
        exact_match_interval=wilson_interval(exact, len(true)),
        label_accuracy=(true == predicted).double().mean().item(),
        micro_precision=_share(sum(hits), sum(positives)),
        micro_recall=_share(sum(hits), sum(images)),
        micro_f1=_share(2 * sum(hits), sum(images) + sum(positives)),
        macro_f1=_mean([row.f1 for row in labels]),
        mean_average_precision=_mean([row.average_precision for row in labels]),
        macro_auroc=_mean([row.auroc for row in labels]),
        labels=labels,
    )


def choose_thresholds(predictions: MultiLabelPredictions) -> tuple[float, ...]:
    """The threshold of each label with its highest F1 (Lipton et al. 2014).

    Choose them on validation images, and measure them on test images, with `with_thresholds`: on
    the images that they were chosen on, F1 is too high. Any threshold between two probabilities
    that occur has the same F1: 0.5 is chosen if it is among the best, else the middle between two
    that is closest to it. A label without images keeps 0.5.

    Args:
        predictions: Predictions of N images.

    Returns:
        K probabilities in [0, 1].
    """
    thresholds = []
    for index in range(len(predictions.classes)):
        curve = threshold_curve(predictions, index)
        if not curve.true_positives[-1]:
            thresholds.append(0.5)
            continue
        predicted = curve.true_positives + curve.false_positives
        f1 = 2 * curve.true_positives / (curve.true_positives[-1] + predicted)
        upper = curve.thresholds[f1 == f1.max()]
        ascending = predictions.probabilities[:, index].double().cpu().sort().values
        ascending = torch.cat([torch.zeros(1).double(), ascending])  # below the lowest one
        lower = ascending[torch.searchsorted(ascending, upper) - 1]
        middle = torch.where((lower < 0.5) & (upper >= 0.5), 0.5, (lower + upper) / 2)
        thresholds.append(float(middle[int((middle - 0.5).abs().argmin())]))
    return tuple(thresholds)


def with_thresholds(
    predictions: MultiLabelPredictions, validation: MultiLabelPredictions
) -> MultiLabelPredictions:
    """The predictions with the thresholds of `choose_thresholds` on validation images."""
    return replace(predictions, thresholds=choose_thresholds(validation))


def _label_score(row: ClassRanking, hits: int, predicted: int, threshold: float) -> LabelScore:
    return LabelScore(
        name=row.name,
        images=row.images,
        predicted=predicted,
        threshold=threshold,
        precision=_share(hits, predicted),
        precision_interval=_interval(hits, predicted),
        recall=_share(hits, row.images),
        recall_interval=_interval(hits, row.images),
        f1=_share(2 * hits, row.images + predicted),
        auroc=row.auroc,
        average_precision=row.average_precision,
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _interval(part: int, whole: int) -> tuple[float, float]:
    return wilson_interval(part, whole) if whole else (math.nan, math.nan)


def _mean(values: list[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan
