"""Findings are ranked by the errors that they explain, and each says what to do next."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from seewhy.diagnosis.diagnosis import Diagnosis
from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.slices import Slice
from seewhy.reporting.context import ReportContext
from seewhy.reporting.findings import Finding, label_note, ranked_findings, weakness_note

Pairs = dict[tuple[int, int], int]  # images by true and predicted class
CLASSES = ("ant", "bee", "cat", "dog")


def context_of(pairs: Pairs, slices: tuple[Slice, ...] = (), confidence: float = 3.0) -> Any:
    """The part of a context that findings read."""
    rows = [pair for pair, images in pairs.items() for _ in range(images)]
    labels = torch.tensor([true for true, _ in rows])
    predicted = torch.tensor([predicted for _, predicted in rows])
    logits = confidence * torch.nn.functional.one_hot(predicted, len(CLASSES)).float()
    diagnosis = cast(Diagnosis, SimpleNamespace(slices=slices))
    none = cast(Any, None)
    return ReportContext(none, none, Predictions(logits, labels, CLASSES), diagnosis)


def slice_of(images: int, accuracy: float, rest: float) -> Slice:
    return Slice(
        "dark images", "attribute", torch.arange(images), images, accuracy, (0.0, 1.0), rest, 0.01
    )


def found(context: ReportContext) -> dict[str, Finding]:
    return {finding.key: finding for finding in ranked_findings(context)}


def test_failing_class_comes_first() -> None:
    """0 of 15 dogs are right, 14 of 20 errors are dogs predicted as cats; one label is in doubt."""
    pairs = {(0, 0): 30, (1, 1): 28, (2, 2): 29, (0, 1): 3, (1, 0): 2, (3, 2): 14, (3, 0): 1}
    first, second, *rest = ranked_findings(context_of(pairs))
    assert [each.key for each in (first, second, *rest)] == ["classes", "errors", "label-issues"]
    assert (first.errors, second.errors) == (14, 14)
    assert "dog predicted as cat: 14 errors, 70% of all 20" in second.text
    assert first.text == (
        "0 of 15 images of dog are classified correctly, 15 errors, 75% of all 20. 14 of these "
        "errors are predicted as cat."
    )
    assert (
        "add training images of it; check that it and cat are labeled consistently"
        in first.next_step
    )
    assert all(finding.next_step.endswith(".") for finding in (first, second, *rest))


def test_findings_are_ranked_by_explained_errors() -> None:
    """A class explains its errors beyond the error rate of the others, and so does a slice."""
    pairs = {(0, 0): 40, (1, 1): 40, (2, 2): 38, (3, 3): 20, (2, 1): 2, (3, 0): 10, (3, 1): 10}
    base = context_of(pairs)
    assert found(base)["classes"].errors == round(20 - 40 * 2 / 120)
    assert found(base)["errors"].errors == 10
    for accuracy, position in ((0.2, 0), (0.7, 2)):
        weak = slice_of(30, accuracy, 0.95)
        findings = ranked_findings(context_of(pairs, (weak,)))
        assert findings[position].key == "slices"
        assert findings[position].errors == round(30 * (0.95 - accuracy))
        assert [each.errors for each in findings] == sorted(
            (each.errors for each in findings), reverse=True
        )


def test_equally_frequent_confusions_are_named_as_such() -> None:
    pairs = {(k, k): 20 for k in range(4)} | {(0, 1): 4, (2, 3): 4, (1, 0): 2}
    finding = found(context_of(pairs))["errors"]
    assert finding.text == (
        "The most frequent confusions are ant predicted as bee and cat predicted as dog: each 4 "
        "errors, 40% of all 10."
    )
    assert "each pair" in finding.next_step
    finding = found(context_of(pairs | {(1, 0): 4}))["errors"]
    assert finding.text == (
        "3 confusions are equally frequent, such as ant predicted as bee: each 4 errors, 33% of "
        "all 12."
    )
    finding = found(context_of(pairs | {(0, 1): 5}))["errors"]
    assert finding.text.startswith("The most frequent confusion is ant predicted as bee: 5 errors")
    assert finding.next_step.endswith("images that tell ant from bee.")


def test_equal_classes_are_no_finding() -> None:
    pairs = {(k, k): 20 for k in range(4)} | {(k, (k + 1) % 4): 1 for k in range(4)}
    assert "classes" not in found(context_of(pairs))
    assert "errors" not in found(context_of(pairs))


def test_without_errors_there_are_no_findings() -> None:
    assert ranked_findings(context_of({(0, 0): 9, (1, 1): 9})) == []


def test_label_issues_explain_errors_that_predict_the_suggestion() -> None:
    pairs = {(0, 0): 60, (1, 1): 60, (0, 1): 4}
    finding = found(context_of(pairs))["label-issues"]
    assert finding.errors == 4
    assert finding.text == (
        "4 suspected label errors; if the labels are wrong, 4 errors of the model are correct "
        "predictions."
    )
    assert label_note(context_of(pairs)) == ""


@pytest.mark.parametrize(("right", "weak"), [(10, True), (120, False)])
def test_weak_model_says_what_means_little(right: int, weak: bool) -> None:
    """Slices and suspected labels come last, and say so."""
    pairs = {(k, k): right for k in range(4)} | {(k, (k + 1) % 4): 20 for k in range(4)}
    context = context_of(pairs, (slice_of(60, 0.1, 0.9),))
    findings = ranked_findings(context)
    note = weakness_note(context, "slices")
    assert bool(note) == weak
    slices = next(each for each in findings if each.key == "slices")
    labels = next(each for each in findings if each.key == "label-issues")
    assert labels.errors == 0
    assert labels.text.endswith("improve the model first.")
    if weak:
        assert note == "At an accuracy of 33.3%, slices mean little: improve the model first."
        assert slices.errors == 0
        assert slices.text.endswith(note)
        assert findings[0].key == "errors"
    else:
        assert "That many are mostly errors of the model" in label_note(context)
        assert findings[0].key == "slices"
