import base64
import csv
import io

import pytest
import torch
from jinja2 import UndefinedError
from markupsafe import Markup
from matplotlib.figure import Figure

from seewhy.diagnosis.predictions import Predictions
from seewhy.reporting.section import (
    alternative,
    at_least,
    be,
    between,
    count,
    csv_link,
    panel,
    percent,
    render,
)


def test_numbers() -> None:
    assert percent(0.90949) == "90.9%"
    assert percent(1) == "100.0%"
    assert percent(0.005, 0) == "0%"
    assert percent(0.12345, 2) == "12.35%" or percent(0.12345, 2) == "12.34%"
    assert percent(float("nan")) == "–"
    assert between((0.9026, 0.9141)) == "90.3 to 91.4%"
    assert between((0, 1), 0) == "0 to 100%"
    assert [count(number, "mistake") for number in (0, 1, 1200)] == [
        "0 mistakes",
        "1 mistake",
        "1,200 mistakes",
    ]
    assert count(2, "class", "classes") == "2 classes"
    assert [be(number) for number in (0, 1, 2)] == ["are", "is", "are"]


def test_an_image_in_words() -> None:
    logits = torch.log(torch.tensor([[0.125, 0.875], [0.5, 0.25]]))
    result = Predictions(logits, torch.tensor([0, 0]), ("<cat>", "dog"))
    assert alternative(result, 0) == "true <cat>, predicted dog 0.88"
    assert alternative(result, 1) == "true <cat>, predicted <cat> 0.67"


def test_a_table_comes_back_from_its_link() -> None:
    rows = [(1, 'a "b", c', "ä\n<"), (2, "", "$")]
    link = csv_link(["number", "text", "other"], rows)
    head, _, content = link.partition(",")
    assert head == "data:text/csv;charset=utf-8;base64"
    found = list(csv.reader(io.StringIO(base64.b64decode(content).decode(), newline="")))
    assert found == [["number", "text", "other"], ["1", 'a "b", c', "ä\n<"], ["2", "", "$"]]


def test_values_are_escaped_and_none_may_be_missing() -> None:
    html = render("sections/untrusted.html", unexplained="<script>alert(1)</script> & more")
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html
    with pytest.raises(UndefinedError, match="unexplained"):
        render("sections/untrusted.html")


def test_a_panel_is_markup_of_its_own() -> None:
    made = panel(Figure(figsize=(1, 1)), "empty", 'says "<nothing>"')
    assert isinstance(made, Markup)
    assert made.startswith("<svg ")
    assert 'aria-label="says &quot;&lt;nothing&gt;&quot;"' in made


@pytest.mark.parametrize(
    ("threshold", "said"),
    [
        (0.411, "0.411"),
        (0.4111, "0.412"),
        (0.99986, "0.9999"),
        (0.999999, "0.999999"),
        (1.0, "1.000"),
        (0.0, "0.000"),
    ],
)
def test_a_threshold_is_rounded_up_but_not_to_one(threshold: float, said: str) -> None:
    assert at_least(threshold) == said
    assert float(said) >= threshold
