"""Checks by the features of a pretrained network: off-topic images, and wrong labels."""

import numpy as np
import torch

from seewhy.checks.inputs import NEIGHBORS, CheckInputs
from seewhy.checks.result import FOUND, OK, Check, Finding, NotJudged, count
from seewhy.diagnosis.label_issues import LabelIssue, find_label_issues
from seewhy.diagnosis.outliers import DISTINCT
from seewhy.diagnosis.predictions import Predictions
from seewhy.train.logistic import fit_logistic, out_of_fold_logits

MIN_IMAGES = 20  # of all splits, below which no image is unlike all others


def outliers(inputs: CheckInputs) -> Check:
    """Images unlike all others in the features of the model."""
    features = inputs.features
    if len(features) < MIN_IMAGES:
        raise NotJudged(f"of {count(len(features), 'image')}, each may be the only one of its kind")
    ordered = inputs.by_similarity
    findings = tuple(
        Finding(
            each.deviations, (inputs.image(each.index),), note=f"similarity {each.similarity:.2f}"
        )
        for each in ordered
        if each.distinct
    )
    sentence = "No image is unlike all others."
    if findings:
        verb = "is" if len(findings) == 1 else "are"
        total = count(len(features), "image")
        sentence = f"{len(findings):,} of {total} {verb} unlike all others, perhaps off topic."
    return Check(
        f"deviations of the similarity to {NEIGHBORS} neighbors",
        judged=len(features),
        value=ordered[0].deviations,
        threshold=DISTINCT,
        findings=findings,
        sentence=sentence,
        verdict=FOUND if findings else OK,
    )


def label_issues(inputs: CheckInputs) -> Check:
    """Labels that a probe on the features contradicts, by confident learning, and of outliers.

    The probe predicts each training image without its fold; it was not fitted on images of other
    splits.
    """
    features, labels = inputs.features.numpy(), inputs.labels
    classes = inputs.data.classes
    train = inputs.rows_of("train") if "train" in inputs.splits else np.arange(len(labels))
    if len(np.unique(labels[train])) < 2:
        raise NotJudged("there is only one class, so no other label is possible")
    if np.bincount(labels[train]).max() < 2:
        raise NotJudged("no class has two images to compare")
    logits, fold_of = out_of_fold_logits(features[train], labels[train], len(classes))
    judged, parts = train[fold_of >= 0], [logits[fold_of >= 0]]
    others = np.setdiff1d(np.arange(len(labels)), train)
    if len(others):
        fit = fit_logistic(features[None, train], labels[train], len(classes))
        judged = np.concatenate([judged, others])
        parts.append(features[others] @ fit.weight.T + fit.bias)
    predictions = Predictions(
        torch.from_numpy(np.concatenate(parts)).float(), torch.from_numpy(labels[judged]), classes
    )
    confidence = dict(zip(judged.tolist(), _self_confidence(predictions), strict=True))
    # an image that is unlike all others is of none of the classes, whatever the probe says
    off_topic = [row for row in _off_topic_rows(inputs) if row in confidence]
    findings = [
        Finding(confidence[row], (inputs.image(row),), note="suggested: none of the classes")
        for row in off_topic
    ]
    for issue in find_label_issues(predictions):
        row = int(judged[issue.index])
        if row not in off_topic:
            findings.append(_label_finding(inputs, issue, row))
    accuracy = f"a probe on the features predicts {100 * predictions.accuracy:.1f}% of the labels"
    sentence = f"No label is contradicted; {accuracy}."
    if findings:
        verb = "is" if len(findings) == 1 else "are"
        total = count(len(judged), "label")
        sentence = f"{len(findings):,} of {total} {verb} suspicious; {accuracy}."
    return Check(
        "probability of the label, 0 to 1",
        judged=len(judged),
        value=min((each.value for each in findings), default=None),
        below=True,
        findings=tuple(findings),
        sentence=sentence,
        verdict=FOUND if findings else OK,
    )


def _off_topic_rows(inputs: CheckInputs) -> list[int]:
    if len(inputs.labels) < MIN_IMAGES:
        return []
    return [each.index for each in inputs.by_similarity if each.distinct]


def _self_confidence(predictions: Predictions) -> list[float]:
    """Probability of the label of each image, in [0, 1]."""
    own: list[float] = predictions.probabilities.gather(1, predictions.labels[:, None])[
        :, 0
    ].tolist()
    return own


def _label_finding(inputs: CheckInputs, issue: LabelIssue, row: int) -> Finding:
    suggested = inputs.data.classes[issue.suggested_label]
    note = f"suggested: {suggested}, {issue.probability:.2f}"
    return Finding(issue.self_confidence, (inputs.image(row),), note=note)
