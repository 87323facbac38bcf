import pytest
import torch

from seewhy.diagnosis.predictions import Predictions
from seewhy.reporting.formatting import (
    duration,
    layer_labels,
    map_name,
    p_value,
    percent,
    percent_interval,
    prediction_label,
    round_up,
    signed_points,
)


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [(0.90949, 1, "90.9%"), (1, 1, "100.0%"), (0.005, 0, "0%"), (float("nan"), 1, "–")],
)
def test_percent(share: float, digits: int, text: str) -> None:
    assert percent(share, digits) == text


def test_percent_interval_has_one_percent_sign() -> None:
    assert percent_interval((0.9026, 0.9141)) == "90.3–91.4%"
    assert percent_interval((0, 1), 0) == "0–100%"


def test_signed_points_has_a_sign() -> None:
    assert [signed_points(value) for value in (0.0126, -0.0126, 0)] == ["+1.3", "−1.3", "+0.0"]
    assert signed_points(0.00137, 2) == "+0.14"


def test_p_value_has_a_lower_limit() -> None:
    texts = [p_value(p) for p in (0.56321, 0.0001, 0.00009, 0, 1)]
    assert texts == ["p = 0.56", "p = 0.0001", "p < 0.0001", "p < 0.0001", "p = 1"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (3.42, "3.4 s"),
        (9.96, "10 s"),
        (42.3, "42 s"),
        (119.4, "119 s"),
        (119.6, "2 min"),
        (1695, "28 min"),
        (3599, "1 h"),
        (4320, "1 h 12 min"),
        (1e7, "2,777 h 47 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("threshold", "text"),
    [
        (0.411, "0.411"),
        (0.4111, "0.412"),
        (0.99986, "0.9999"),
        (0.999999, "0.999999"),
        (1.0, "1.000"),
        (0.0, "0.000"),
    ],
)
def test_round_up_stays_below_one(threshold: float, text: str) -> None:
    assert round_up(threshold) == text
    assert float(text) >= threshold


def test_prediction_label_names_both_classes() -> None:
    logits = torch.log(torch.tensor([[0.125, 0.875], [0.5, 0.25]]))
    predictions = Predictions(logits, torch.tensor([0, 0]), ("<cat>", "dog"))
    assert prediction_label(predictions, 0) == "true <cat>, predicted dog (0.88)"
    assert prediction_label(predictions, 1) == "true <cat>, predicted <cat> (0.67)"


@pytest.mark.parametrize(
    ("layers", "labels"),
    [
        ([], []),
        (["a"], ["last (a)"]),
        (["a", "b"], ["early (a)", "late (b)"]),
        (["a", "b", "c"], ["early (a)", "middle (b)", "late (c)"]),
        (["a", "b", "c", "d"], ["early (a)", "middle 1 (b)", "middle 2 (c)", "late (d)"]),
    ],
)
def test_layer_labels_name_the_depth(layers: list[str], labels: list[str]) -> None:
    assert layer_labels(layers) == dict(zip(layers, labels, strict=True))


def test_map_name_names_method_and_layer() -> None:
    assert map_name("grad-cam", "c.1 (x)", ["a", "b", "c.1 (x)"]) == (
        "grad-cam at the late layer (c.1 (x))"
    )
    assert map_name("le-grad", "pixels", ["a", "b"]) == "le-grad (whole model)"
