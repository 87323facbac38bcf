"""Calibration, temperature, and coverage against float64 loops, scipy, and known truths."""

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.metrics import log_loss
from torch import Tensor

from seewhy.diagnosis.calibration import (
    _halves,
    coverage_at_accuracy,
    fit_temperature,
    measure_calibration,
    risk_coverage_curve,
    selective_accuracy,
    temperature_scaling,
)
from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.statistics import wilson_interval
from seewhy.errors import SeewhyError


def drawn(
    images: int, classes: int = 5, temperature: float = 1.0, spread: float = 2.0, seed: int = 0
) -> Predictions:
    """Logits, and labels that are drawn from softmax(logits / temperature)."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(images, classes, generator=generator)
    labels = (logits / temperature).softmax(1).multinomial(1, generator=generator)[:, 0]
    return Predictions(logits, labels, tuple(f"class {index}" for index in range(classes)))


def sure(*answers: tuple[float, bool]) -> Predictions:
    """Two classes: a confidence above a half for every image, and whether it is right."""
    confidence = torch.tensor([confidence for confidence, _ in answers], dtype=torch.float64)
    labels = torch.tensor([0 if right else 1 for _, right in answers])
    return Predictions(
        torch.stack([confidence.log(), (1 - confidence).log()], 1), labels, ("a", "b")
    )


# --- calibration


@pytest.mark.parametrize("bins", [1, 4, 15])
@pytest.mark.parametrize("images", [3, 400])
def test_calibration_by_brute_force(images: int, bins: int) -> None:
    predictions = drawn(images, temperature=2.0)
    probabilities = softmax(predictions.logits.double().numpy(), axis=1)
    ece = mce = 0.0
    found = measure_calibration(predictions, bins)
    for place in range(bins):
        low, high = place / bins, (place + 1) / bins
        inside = [i for i, row in enumerate(probabilities) if low < row.max() <= high]
        assert found.images[place] == len(inside)
        if not inside:
            assert found.confidence[place].isnan()
            assert found.accuracy[place].isnan()
            continue
        confidence = np.mean([probabilities[i].max() for i in inside])
        accuracy = np.mean(
            [probabilities[i].argmax() == predictions.labels[i].item() for i in inside]
        )
        assert found.confidence[place].item() == pytest.approx(confidence, abs=1e-12)
        assert found.accuracy[place].item() == pytest.approx(accuracy, abs=1e-12)
        ece += len(inside) / images * abs(accuracy - confidence)
        mce = max(mce, abs(accuracy - confidence))
    assert (found.ece, found.mce) == pytest.approx((ece, mce), abs=1e-12)
    assert ece > 0.02
    np.testing.assert_allclose(found.edges, np.linspace(0, 1, bins + 1))
    assert found.images.dtype == torch.int64
    assert found.confidence.dtype == found.accuracy.dtype == found.edges.dtype == torch.float64


def test_brier_score_and_nll_by_definition() -> None:
    predictions = drawn(300, temperature=2.0)
    probabilities = softmax(predictions.logits.double().numpy(), axis=1)
    truth = np.eye(5)[predictions.labels.numpy()]
    found = measure_calibration(predictions)
    assert found.brier == pytest.approx(((probabilities - truth) ** 2).sum(1).mean(), abs=1e-12)
    assert found.nll == pytest.approx(
        log_loss(predictions.labels, probabilities, labels=range(5)), abs=1e-12
    )


def test_calibration_of_certain_predictions() -> None:
    logits = torch.tensor([[1000.0, 0.0], [1000.0, 0.0], [0.0, 1000.0], [0.0, 0.0]])
    found = measure_calibration(
        Predictions(logits, torch.tensor([0, 0, 0, 0]), ("a", "b")), bins=10
    )
    assert found.images.tolist() == [
        0,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        3,
    ]  # a half is the upper edge of the fifth
    assert found.confidence[9] == 1
    assert found.mce == 0.5
    assert found.ece == pytest.approx((3 * (1 - 2 / 3) + 1 * 0.5) / 4)
    assert found.brier == pytest.approx((0 + 0 + 2 + 0.5) / 4)
    assert found.nll == pytest.approx((1000 + math.log(2)) / 4)


def test_calibration_of_a_calibrated_model() -> None:
    honest, boastful = (
        measure_calibration(drawn(50_000)),
        measure_calibration(drawn(50_000, temperature=3.0)),
    )
    assert honest.ece < 0.01
    assert boastful.ece > 0.1


# --- temperature


@pytest.mark.parametrize(
    ("truth", "scale"), [(1.0, 1.0), (2.5, 1.0), (0.4, 1.0), (1.0, 30.0), (1.0, 0.1)]
)
def test_fit_temperature_equals_scipy_minimum(truth: float, scale: float) -> None:
    predictions = drawn(400, temperature=truth)
    logits = scale * predictions.logits.double().numpy()
    found = fit_temperature(torch.from_numpy(logits), predictions.labels)

    def loss(log_temperature: float) -> float:
        rows = log_softmax(logits / math.exp(log_temperature), axis=1)
        return float(-rows[np.arange(400), predictions.labels.numpy()].mean())

    theirs = minimize_scalar(
        loss, bounds=(math.log(0.01), math.log(100)), method="bounded", options={"xatol": 1e-10}
    )
    assert found == pytest.approx(math.exp(theirs.x), rel=1e-5)
    assert loss(math.log(found)) <= theirs.fun + 1e-14


@pytest.mark.sampled(3)
@pytest.mark.parametrize("truth", [0.3, 1.0, 4.0])
def test_fit_temperature_recovers_the_true_one(truth: float) -> None:
    predictions = drawn(40_000, temperature=truth)
    assert fit_temperature(predictions.logits, predictions.labels) == pytest.approx(truth, rel=0.03)


def test_fit_temperature_has_zero_slope() -> None:
    """d/db of mean(logsumexp(b z) - b z_y) is the mean of E[z] - z_y."""
    predictions = drawn(1000, temperature=1.7)
    logits, labels = predictions.logits.double().numpy(), predictions.labels.numpy()
    inverse = 1 / fit_temperature(predictions.logits, predictions.labels)
    expected = (
        np.exp(inverse * logits - logsumexp(inverse * logits, axis=1, keepdims=True)) * logits
    ).sum(1)
    assert (expected - logits[np.arange(1000), labels]).mean() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1, 2], 0.01),
        ([1, 2, 0], 100.0),
    ],  # all right: the colder the better; all wrong: the hotter
)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_fit_temperature_at_its_bounds(labels: list[int], expected: float, scale: float) -> None:
    found = fit_temperature(scale * torch.eye(3), torch.tensor(labels))
    if (
        scale == 1e4 and expected == 0.01
    ):  # where colder makes no difference that a double holds, any will do
        assert 0.01 <= found <= 100
        assert (
            measure_calibration(
                Predictions(scale * torch.eye(3) / found, torch.tensor(labels), ("a", "b", "c"))
            ).nll
            < 1e-12
        )
    else:
        assert found == expected


def test_fit_temperature_of_constant_logits_is_one() -> None:
    assert fit_temperature(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])) == 1


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), r"found \(3,\)"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "labels must be from 0 to 2"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "no predictions"),
        (torch.full((1, 3), torch.inf), torch.zeros(1, dtype=torch.int64), "not finite"),
    ],
)
def test_fit_temperature_refuses_wrong_logits(logits: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(SeewhyError, match=message):
        fit_temperature(logits, labels)


def test_temperature_scaling_with_a_validation_split() -> None:
    predictions, held_out = drawn(2000, temperature=3.0), drawn(3000, temperature=3.0, seed=1)
    found = temperature_scaling(predictions, held_out)
    expected = replace(
        predictions,
        logits=predictions.logits.double() / fit_temperature(held_out.logits, held_out.labels),
    )
    assert found.fitted_on == "validation"
    assert found.temperature == fit_temperature(held_out.logits, held_out.labels)
    assert (found.before.nll, found.after.nll) == (
        measure_calibration(predictions).nll,
        measure_calibration(expected).nll,
    )
    assert found.after.ece < 0.05 < 0.2 < found.before.ece


def test_temperature_scaling_cross_fits() -> None:
    predictions = drawn(61, classes=3, temperature=3.0)
    first, second = _halves(predictions.labels, seed=7)
    losses = 0.0
    for half, other in ((first, second), (second, first)):
        temperature = fit_temperature(predictions.logits[other], predictions.labels[other])
        rows = log_softmax(predictions.logits[half].double().numpy() / temperature, axis=1)
        losses -= rows[np.arange(len(half)), predictions.labels[half].numpy()].sum()
    found = temperature_scaling(predictions, seed=7)
    assert found.fitted_on == "cross-fitted"
    assert found.after.nll == pytest.approx(losses / 61, abs=1e-12)
    assert found.temperature == fit_temperature(predictions.logits, predictions.labels)
    assert (
        temperature_scaling(predictions, seed=7).after.nll
        == found.after.nll
        != temperature_scaling(predictions, seed=8).after.nll
    )


def test_temperature_scaling_cross_fitted_is_less_optimistic() -> None:
    """The loss at the temperature fitted on the same images is the least that there is."""
    predictions = drawn(40, temperature=3.0)
    fitted = replace(
        predictions,
        logits=predictions.logits.double()
        / fit_temperature(predictions.logits, predictions.labels),
    )
    assert temperature_scaling(predictions).after.nll > measure_calibration(fitted).nll


def test_temperature_scaling_keeps_the_accuracy() -> None:
    found = temperature_scaling(drawn(500, temperature=3.0))
    right = [
        (each.images * each.accuracy.nan_to_num()).sum().item()
        for each in (found.before, found.after)
    ]
    assert right[0] == pytest.approx(right[1])


def test_halves_are_stratified_partitions() -> None:
    labels = torch.tensor([0] * 7 + [1] * 4 + [2] * 1 + [3] * 9)[
        torch.randperm(21, generator=torch.Generator().manual_seed(0))
    ]
    first, second = _halves(labels, seed=0)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(21))
    difference = labels[first].bincount(minlength=4) - labels[second].bincount(minlength=4)
    assert difference.abs().tolist() == [1, 0, 1, 1]
    assert not torch.equal(first, _halves(labels, seed=1)[0])


def test_temperature_scaling_does_not_use_the_global_generator() -> None:
    before = torch.get_rng_state()
    temperature_scaling(drawn(20))
    assert torch.equal(torch.get_rng_state(), before)


def test_temperature_scaling_refuses_one_image_and_other_classes() -> None:
    with pytest.raises(
        SeewhyError,
        match="needs at least 2 images, found 1; predict more images, or pass a",
    ):
        temperature_scaling(drawn(1))
    assert temperature_scaling(drawn(1), drawn(50)).fitted_on == "validation"
    assert temperature_scaling(drawn(2)).fitted_on == "cross-fitted"
    with pytest.raises(
        SeewhyError,
        match=r"found 3 \(class 0, class 1, class 2\) and 5 \(class 0, class 1, class 2, …\)",
    ):
        temperature_scaling(drawn(9), drawn(9, classes=3))
    with pytest.raises(SeewhyError, match="no predictions"):
        temperature_scaling(drawn(9), drawn(0))


# --- coverage


def reachable(predictions: Predictions) -> list[tuple[float, float, float]]:
    """Coverage, accuracy and confidence at every threshold, by comparing with each."""
    points = []
    for threshold in sorted(set(predictions.confidence.tolist()), reverse=True):
        answered = predictions.confidence >= threshold
        right = predictions.correct[answered].double().mean().item()
        points.append((answered.double().mean().item(), right, threshold))
    return points


def test_risk_coverage_points_by_brute_force() -> None:
    predictions = drawn(150, temperature=2.0)
    found = risk_coverage_curve(predictions)
    points = list(
        zip(
            found.coverage.tolist(), found.accuracy.tolist(), found.confidence.tolist(), strict=True
        )
    )
    assert points == [pytest.approx(point, abs=1e-12) for point in reachable(predictions)]
    assert found.coverage.dtype == found.accuracy.dtype == found.confidence.dtype == torch.float64


def test_risk_coverage_curve_has_at_most_200_points() -> None:
    predictions = drawn(1357)
    found = risk_coverage_curve(predictions)
    np.testing.assert_allclose(
        found.coverage, np.ceil(np.arange(1, 201) * 1357 / 200) / 1357, rtol=1e-12
    )
    every = {round(point[0] * 1357): point[1:] for point in reachable(predictions)}
    for share, *rest in zip(
        found.coverage.tolist(), found.accuracy.tolist(), found.confidence.tolist(), strict=True
    ):
        assert tuple(rest) == pytest.approx(every[round(share * 1357)], abs=1e-12)


def test_aurc_is_the_mean_over_orders_of_ties() -> None:
    predictions = sure(
        (0.9, True), (0.9, False), (0.8, True), (0.7, False), (0.7, True), (0.7, True), (0.6, False)
    )
    rows = sorted(
        zip(predictions.confidence.tolist(), predictions.correct.tolist(), strict=True),
        key=lambda row: -row[0],
    )
    areas = []
    for order in permutations(range(7)):
        chosen = [rows[i] for i in order]
        if [row[0] for row in chosen] == [row[0] for row in rows]:
            right = np.cumsum([row[1] for row in chosen])
            areas.append(np.mean(1 - right / np.arange(1, 8)))
    found = risk_coverage_curve(predictions)
    assert len(areas) == 2 * 6
    assert found.aurc == pytest.approx(np.mean(areas), abs=1e-12)
    assert found.coverage.tolist() == pytest.approx([2 / 7, 3 / 7, 6 / 7, 1])
    assert found.accuracy.tolist() == pytest.approx([1 / 2, 2 / 3, 4 / 6, 4 / 7])
    assert found.confidence.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])


def test_risk_coverage_curve_does_not_depend_on_image_order() -> None:
    predictions = drawn(500)
    coarse = replace(predictions, logits=predictions.logits.round())  # many of one confidence
    order = torch.randperm(500, generator=torch.Generator().manual_seed(3))
    shuffled = replace(coarse, logits=coarse.logits[order], labels=coarse.labels[order])
    one, other = risk_coverage_curve(coarse), risk_coverage_curve(shuffled)
    assert len(coarse.confidence.unique()) < 300
    assert one.aurc == pytest.approx(other.aurc, abs=1e-12)
    assert torch.equal(one.accuracy, other.accuracy)
    assert torch.equal(one.coverage, other.coverage)


def test_aurc_of_perfect_and_wrong_predictions() -> None:
    assert risk_coverage_curve(sure((0.9, True), (0.8, True))).aurc == 0
    assert risk_coverage_curve(sure((0.9, False), (0.8, False))).aurc == 1
    single = risk_coverage_curve(sure((0.9, True)))
    assert (single.coverage.tolist(), single.accuracy.tolist()) == ([1], [1])


def test_selective_accuracy_by_counting() -> None:
    """An image at the threshold is kept."""
    predictions = sure((0.9, True), (0.8, True), (0.8, False), (0.75, True), (0.6, False))
    found = selective_accuracy(predictions, 0.8)
    assert (found.images, found.coverage) == (3, 0.6)
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.interval == wilson_interval(2, 3)
    none = selective_accuracy(predictions, 0.95)
    assert (none.images, none.coverage) == (0, 0)
    assert math.isnan(none.accuracy)


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 85, math.nan], ids=str)
def test_selective_accuracy_needs_a_confidence(threshold: float) -> None:
    hint = r"; did you mean 0\.85\?" if threshold == 85 else ""
    with pytest.raises(SeewhyError, match=f"above 0 and below 1, found {threshold}{hint}$"):
        selective_accuracy(sure((0.9, True)), threshold)


def test_coverage_at_accuracy_by_brute_force() -> None:
    predictions = drawn(700, spread=3.0)
    points = reachable(predictions)
    for accuracy in (0.0, 0.8, 0.9, 0.95, 0.99):
        expected = max(
            (share, threshold) for share, right, threshold in points if right >= accuracy
        )
        found = coverage_at_accuracy(predictions, accuracy)
        assert found == pytest.approx(expected, abs=1e-12)
        answered = predictions.confidence >= found[1]
        assert answered.double().mean().item() == pytest.approx(found[0])
        assert predictions.correct[answered].double().mean() >= accuracy


def test_coverage_at_accuracy_at_its_bounds() -> None:
    predictions = sure(*[(0.95, True)] * 9, (0.9, False), (0.6, False))
    assert coverage_at_accuracy(predictions, 0.9) == pytest.approx((10 / 11, 0.9))
    assert coverage_at_accuracy(predictions, 0.9001) == pytest.approx((9 / 11, 0.95))
    assert coverage_at_accuracy(sure((0.9, False), (0.8, True)), 0.6) is None
    assert coverage_at_accuracy(sure((0.9, False), (0.8, True)), 0.5) == pytest.approx((1.0, 0.8))


@pytest.mark.parametrize(
    ("accuracy", "hint"), [(95, "; did you mean 0.95?"), (-0.1, "$"), (math.nan, "$")]
)
def test_coverage_at_accuracy_refuses_percentages(accuracy: float, hint: str) -> None:
    with pytest.raises(
        SeewhyError, match=f"accuracy must be from 0 to 1, found .*{hint.replace('?', '[?]')}"
    ):
        coverage_at_accuracy(drawn(10), accuracy)


def test_calibration_refuses_wrong_values() -> None:
    with pytest.raises(SeewhyError, match="logits of 2 of 2 images are not finite"):
        fit_temperature(torch.full((2, 2), torch.nan), torch.tensor([0, 1]))
    with pytest.raises(SeewhyError, match="bins must be at least 1, found 0"):
        measure_calibration(drawn(5), bins=0)
