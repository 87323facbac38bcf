"""diagnose on typical and odd models and data."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diagnosis_cases import DiagnosedCase, DiagnosisCase

from seewhy.attribution.statuses import PIXELS
from seewhy.diagnosis.diagnosis import STEPS, Diagnosis, diagnose
from seewhy.diagnosis.predictions import Predictions, predict_split
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.serialization import load, save

MakeCase = Callable[[str], DiagnosisCase]
Same = Callable[[Any, Any], bool]


def errors_by_confidence(predictions: Predictions) -> list[int]:
    """The errors one by one, the most confident first."""
    probabilities = predictions.logits.double().softmax(1)
    errors = [
        index
        for index, label in enumerate(predictions.labels.tolist())
        if predictions.logits[index].argmax() != label
    ]
    return sorted(errors, key=lambda index: -probabilities[index].max().item())


def test_diagnosis_is_consistent(diagnosed_case: DiagnosedCase) -> None:
    _, _, predictions, diagnosis = diagnosed_case
    assert sorted(diagnosis.errors.tolist()) == sorted(errors_by_confidence(predictions))
    confidence = predictions.confidence[diagnosis.errors]
    assert (confidence[:-1] >= confidence[1:]).all()
    assert set(diagnosis.errors.tolist()) <= set(diagnosis.thumbnails.indices.tolist())
    assert len(diagnosis.names) == len(predictions.labels)
    clean = (predictions.logits.argmax(1) == predictions.labels).double().mean().item()
    for curve in (*diagnosis.attacks, *diagnosis.corruptions):
        # samples of 250 and 500 images are all images here
        assert curve.accuracy[0].item() == pytest.approx(clean)
        assert curve.images == len(predictions.labels)
        assert curve.accuracy.isfinite().all()


def test_saliency_has_maps_of_every_error_or_a_reason(diagnosed_case: DiagnosedCase) -> None:
    diagnosis = diagnosed_case.diagnosis
    if diagnosis.saliency is None:
        assert "no layer of this model has spatial output" in diagnosis.saliency_error
        assert diagnosis.adversarial_maps is None
    else:
        assert diagnosis.saliency_error == ""
        maps = diagnosis.saliency.maps
        assert len(maps.keys) == 3 * len(maps.layers) + 1
        assert (PIXELS, "lrp") in maps.keys
        for values in maps.values:
            assert values.shape[:2] == (len(diagnosis.errors), 2)
        assert diagnosis.saliency.class_attribution.mean_maps.isfinite().all()
        no_examples = len(diagnosis.adversarial.index) == 0
        assert (diagnosis.adversarial_maps is None) == no_examples


def test_cases_are_what_their_names_say(make_case: MakeCase) -> None:
    for name, errors in (("perfect", 0), ("all wrong", 24), ("one error", 1)):
        assert int((~make_case(name).predictions.correct).sum()) == errors
    assert 3 not in make_case("absent class").predictions.labels
    assert make_case("oblong").data.test.images.shape[1:] == (3, 96, 64)
    assert make_case("grayscale").data.test.images.shape[1] == 1
    for name in ("perfect", "two classes", "grayscale"):
        case = make_case(name)
        assert len(case.predictions.predicted.unique()) == len(case.data.classes)


@pytest.mark.slow
def test_diagnose_predicts_the_test_split(make_case: MakeCase, same: Same) -> None:
    model, data, predictions = make_case("one error")
    assert same(diagnose(model, data, quiet=True), diagnose(model, data, predictions, quiet=True))


@pytest.mark.slow
def test_diagnose_says_the_accuracy_at_once_and_each_step(
    make_case: MakeCase, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier, data = make_case("usual")[:2]
    diagnosis = diagnose(classifier, data)
    waiting, first, *lines, last = capsys.readouterr().err.splitlines()
    predictions = predict_split(classifier, data.test)
    count, errors = len(data.test), len(diagnosis.errors)
    assert waiting == f"predicting {count} test images"
    assert first == (
        f"accuracy {100 * predictions.accuracy:.2f}% on {count} test images, {errors} errors"
    )
    named = [line.partition(": ")[2].partition(",")[0] for line in lines]
    assert list(dict.fromkeys(named)) == list(STEPS)
    assert "near-duplicates, about 0:0" in lines[-1]
    assert last.startswith("diagnosing: done in ")


@pytest.mark.slow
def test_diagnose_a_model_with_one_layer(make_case: MakeCase) -> None:
    saliency = diagnose(*make_case("one layer"), quiet=True).saliency
    assert saliency is not None
    assert saliency.maps.layers == ("2",)
    assert {score.layer for score in saliency.scores} == {"2", PIXELS}


@pytest.mark.slow
def test_diagnose_a_model_without_layers(make_case: MakeCase) -> None:
    diagnosis = diagnose(*make_case("no layer"), quiet=True)
    assert diagnosis.saliency is None
    assert "gradients, rise and occlusion need none" in diagnosis.saliency_error
    assert diagnosis.corruptions
    assert len(diagnosis.thumbnails.indices)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_diagnosis_is_deterministic_and_survives_saving(
    precision: str, make_case: MakeCase, same: Same, tmp_path: Path
) -> None:
    model, data, predictions = make_case("one error")
    classifier = Classifier(model, precision=precision)
    first, second = (diagnose(classifier, data, predictions, quiet=True) for _ in range(2))
    assert same(first, second)
    save(first, tmp_path / "diagnosis.npz")
    assert same(load(Diagnosis, tmp_path / "diagnosis.npz"), first)


@pytest.mark.slow
def test_diagnose_restores_the_model_and_random_states(make_case: MakeCase) -> None:
    model, data, predictions = make_case("one error")
    model[1].weight.requires_grad_(False)  # type: ignore[index, union-attr]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    requires_grad = [parameter.requires_grad for parameter in model.parameters()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    images = data.test.images.clone()
    diagnose(model, data, predictions, quiet=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    for module in model.modules():
        assert not module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tobytes() == states[2]  # noqa: NPY002
    assert torch.equal(data.test.images, images)


@pytest.mark.slow
def test_diagnose_finds_duplicates_in_the_validation_split(make_case: MakeCase) -> None:
    model, data, predictions = make_case("validation")
    assert data.validation is not None
    images = data.validation.images.clone()
    images[4] = data.test.images[11]
    data = replace(data, validation=replace(data.validation, images=images))
    diagnosis = diagnose(model, data, predictions, quiet=True)
    assert diagnosis.other_splits == ("train", "validation")
    duplicate = {("test", 11), ("validation", 4)}
    pair = next(pair for pair in diagnosis.duplicates if {pair.first, pair.second} == duplicate)
    assert pair in diagnosis.duplicates[:12]
    thumbnails = diagnosis.duplicate_thumbnails[1]
    assert torch.equal(thumbnails.images[thumbnails.indices == 4][0], images[4])
    assert 11 in diagnosis.thumbnails.indices


@pytest.mark.slow
def test_diagnose_explains_errors_of_every_confusion(
    make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data, predictions = make_case("all wrong")
    most_confident: dict[tuple[int, int], int] = {}
    for index in errors_by_confidence(predictions):
        confusion = int(predictions.labels[index]), int(predictions.predicted[index])
        most_confident.setdefault(confusion, index)
    monkeypatch.setattr("seewhy.diagnosis.diagnosis.MAX_ERRORS", len(most_confident))
    diagnosis = diagnose(model, data, predictions, quiet=True)
    assert sorted(diagnosis.errors.tolist()) == sorted(most_confident.values())
    assert len(diagnose(model, data, predictions, full=True, quiet=True).errors) == 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values[:20], "20 images instead of 24"),
        (lambda values: values.flip(0), "other labels; make them with"),
    ],
)
def test_diagnose_refuses_predictions_of_other_images(
    make_case: MakeCase, change: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    model, data, predictions = make_case("one error")
    other = replace(
        predictions, logits=change(predictions.logits), labels=change(predictions.labels)
    )
    with pytest.raises(SeewhyError, match=rf"not of the test split of one error: {message}"):
        diagnose(model, data, other, quiet=True)


def test_diagnose_refuses_a_model_in_training_mode(make_case: MakeCase) -> None:
    model, data, predictions = make_case("one error")
    model.train()
    try:
        with pytest.raises(SeewhyError, match="training mode"):
            diagnose(model, data, predictions, quiet=True)
        assert model.training
    finally:
        model.eval()
