import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seewhy.data.dataset import Dataset
from seewhy.diagnosis.diagnosis import Diagnosis, diagnose
from seewhy.diagnosis.predictions import Predictions
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.reporting.context import ReportContext
from seewhy.serialization import load, save

Case = tuple[nn.Module, Dataset, Predictions]
Make = Callable[[str], Case]
Same = Callable[[Any, Any], bool]


def by_hand(result: Predictions) -> list[int]:
    """The mistakes, the surest first, one by one."""
    probabilities = result.logits.double().softmax(1)
    wrong = [
        index
        for index in range(len(result.labels))
        if result.logits[index].argmax() != result.labels[index]
    ]
    return sorted(wrong, key=lambda index: -probabilities[index].max().item())


def test_odd_cases_are_diagnosed(odd: ReportContext) -> None:
    result, found = odd.predictions, odd.diagnosis
    assert sorted(found.errors.tolist()) == sorted(by_hand(result))
    confidence = result.confidence[found.errors]
    assert (confidence[:-1] >= confidence[1:]).all()
    assert set(found.errors.tolist()) <= set(found.thumbnails.indices.tolist())
    assert len(found.names) == len(result.labels)
    clean = (result.logits.argmax(1) == result.labels).double().mean().item()
    for curve in (*found.attacks, *found.corruptions):
        assert curve.accuracy[0].item() == pytest.approx(
            clean
        )  # of less than 250 images all are sampled
        assert curve.images == len(result.labels)
        assert curve.accuracy.isfinite().all()
    if found.saliency is None:
        assert "no layer of this model has spatial output" in found.saliency_error
        assert found.adversarial_maps is None
    else:
        assert found.saliency_error == ""
        for (height, width), values in zip(
            found.saliency.maps.sizes, found.saliency.maps.values, strict=True
        ):
            assert values.shape == (len(found.errors), 3, 2, height, width)
        assert found.saliency.class_attribution.mean_maps.isfinite().all()
        assert (found.adversarial_maps is None) == (len(found.adversarial.index) == 0)


def test_what_the_odd_cases_are(make_case: Make) -> None:
    """That each of them is what its name says."""
    perfect, wrong, one = (make_case(name)[2] for name in ("perfect", "all wrong", "one error"))
    assert [int((~result.correct).sum()) for result in (perfect, wrong, one)] == [0, 24, 1]
    assert 3 not in make_case("absent class")[2].labels
    assert make_case("oblong")[1].test.images.shape[1:] == (3, 96, 64)
    assert make_case("grayscale")[1].test.images.shape[1] == 1
    for name in ("perfect", "two classes", "grayscale"):
        predicted = make_case(name)[2].predicted
        assert len(predicted.unique()) == len(make_case(name)[1].classes)


def test_a_network_with_one_layer_is_explained_there(make_case: Make) -> None:
    looks = diagnose(*make_case("one layer"), quiet=True).saliency
    assert looks is not None
    assert looks.maps.layers == ("2",)
    assert {verdict.layer for verdict in looks.scores} == {"2"}


def test_without_layers_there_is_everything_else(make_case: Make) -> None:
    found = diagnose(*make_case("no layer"), quiet=True)
    assert found.saliency is None
    assert "gradients, rise and occlusion need none" in found.saliency_error
    assert found.corruptions
    assert len(found.thumbnails.indices)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_twice_is_equal_and_kept_whole(
    precision: str, make_case: Make, same: Same, tmp_path: Path
) -> None:
    model, data, result = make_case("one error")
    classifier = Classifier(model, precision=precision)
    first, second = (diagnose(classifier, data, result, quiet=True) for _ in range(2))
    assert same(first, second)
    save(first, tmp_path / "diagnosis.npz")
    assert same(load(Diagnosis, tmp_path / "diagnosis.npz"), first)


def test_the_model_and_the_world_are_left_as_they_were(make_case: Make) -> None:
    model, data, result = make_case("one error")
    model[1].weight.requires_grad_(False)  # type: ignore[index, union-attr]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    needs = [parameter.requires_grad for parameter in model.parameters()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    images = data.test.images.clone()
    diagnose(model, data, result, quiet=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == needs
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


def test_a_validation_split_is_searched_for_duplicates(make_case: Make) -> None:
    model, data, result = make_case("validation")
    assert data.validation is not None
    images = data.validation.images.clone()
    images[4] = data.test.images[11]
    data = replace(data, validation=replace(data.validation, images=images))
    found = diagnose(model, data, result, quiet=True)
    assert found.other_splits == ("train", "validation")
    pair = next(
        pair
        for pair in found.duplicates
        if {pair.first, pair.second} == {("test", 11), ("validation", 4)}
    )
    assert pair in found.duplicates[:12]
    assert torch.equal(
        found.duplicate_thumbnails[1].images[found.duplicate_thumbnails[1].indices == 4][0],
        images[4],
    )
    assert 11 in found.thumbnails.indices


def test_of_many_mistakes_some_of_all_kinds_are_explained(
    make_case: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data, result = make_case("all wrong")
    kinds = {
        (int(true), int(predicted))
        for true, predicted in zip(result.labels, result.predicted, strict=True)
    }
    monkeypatch.setattr("seewhy.diagnosis.diagnosis.MAX_ERRORS", len(kinds))
    found = diagnose(model, data, result, quiet=True)
    chosen = found.errors.tolist()
    order = by_hand(result)
    surest = {}
    for index in reversed(order):
        surest[int(result.labels[index]), int(result.predicted[index])] = index
    assert sorted(chosen) == sorted(surest.values())
    assert len(diagnose(model, data, result, full=True, quiet=True).errors) == 24


def test_predictions_of_other_images_are_refused(make_case: Make) -> None:
    model, data, result = make_case("one error")
    for other in (
        Predictions(result.logits[:20], result.labels[:20], result.classes),
        Predictions(result.logits, result.labels.flip(0), result.classes),
    ):
        with pytest.raises(
            SeewhyError, match="these predictions are not of the test split of one error"
        ):
            diagnose(model, data, other, quiet=True)


def test_a_model_in_training_mode_is_refused(make_case: Make) -> None:
    model, data, result = make_case("one error")
    model.train()
    try:
        with pytest.raises(SeewhyError, match="training mode"):
            diagnose(model, data, result, quiet=True)
        assert model.training
    finally:
        model.eval()
