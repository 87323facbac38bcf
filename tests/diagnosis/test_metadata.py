"""Subgroups by metadata: matching of names, groups, and their tests."""

import math
from pathlib import Path

import pytest
import torch
from scipy.stats import fisher_exact

from seewhy.diagnosis.metadata import read_metadata, subgroups, unmatched
from seewhy.diagnosis.predictions import Predictions
from seewhy.errors import SeewhyError

NAMES = ("ant/1.png", "ant/2.png", "bee/1.png", "bee/3.png")


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def predictions_of(correct: list[bool]) -> Predictions:
    labels = torch.zeros(len(correct), dtype=torch.int64)
    wrong = ~torch.tensor(correct)
    logits = torch.stack([1.0 - 2 * wrong.float(), torch.zeros(len(correct))], 1)
    return Predictions(logits, labels, ("ant", "bee"))


@pytest.mark.parametrize(
    "paths",
    [
        ["ant/1.png", "ant/2.png", "bee/1.png", "bee/3.png"],
        ["data/ant/1.png", "data/ant/2.png", "data/bee/1.png", "data/bee/3.png"],
        ["data\\ant\\1.png", "data\\ant\\2.png", "data\\bee\\1.png", "data\\bee\\3.png"],
    ],
)
def test_metadata_match_names_by_the_ends_of_paths(paths: list[str], tmp_path: Path) -> None:
    rows = "".join(f"{path};{index}\n" for index, path in enumerate(paths))
    found = read_metadata(written(tmp_path / "m.csv", f"file;camera\n{rows}"), NAMES)
    assert found == {"camera": ("0", "1", "2", "3")}


def test_metadata_match_bare_file_names_only_where_they_are_unique(tmp_path: Path) -> None:
    table = written(tmp_path / "m.csv", "camera,filename,age\nA,1.png,3\nB,2.png,\nC,3.png,5\n")
    found = read_metadata(table, NAMES)
    assert found == {"camera": ("", "B", "", "C"), "age": ("", "", "", "5")}
    assert unmatched(found) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\n1.png\n", "has only the column file; add columns"),
        ("camera,age\nA,1\n", "no column named path or file; the first line is 'camera, age'"),
        ("file,camera\n9.png,A\n", "none of its 1 path is one of the 4 images, such as '9.png'"),
        ("file,x\nant/1.png,A\nant/1.png,B\n", "'ant/1.png' is in lines 2 and 3; keep one"),
        ("file,x\nant/1.png\n", "line 2 has 1 cell, but the header has 2"),
    ],
)
def test_metadata_say_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SeewhyError, match=message) as caught:
        read_metadata(written(tmp_path / "m.csv", text), NAMES)
    assert "\n" not in str(caught.value)


def test_subgroups_are_tested_against_all_other_images() -> None:
    """Three tests; the smallest p-value is tripled, the next one doubled (Holm 1979)."""
    correct = [False] * 8 + [True] * 22 + [True] * 30 + [False] * 3 + [True] * 27
    values = ["night"] * 30 + ["day"] * 30 + ["dusk"] * 30
    found = {
        group.description: group for group in subgroups(predictions_of(correct), {"t": values})
    }
    assert list(found) == ["t: night", "t: dusk", "t: day"]  # by excess errors
    night, dusk = found["t: night"], found["t: dusk"]
    assert night.accuracy == pytest.approx(22 / 30)
    assert night.rest_accuracy == pytest.approx(57 / 60)
    assert night.members.tolist() == list(range(30))
    expected = fisher_exact([[8, 22], [3, 57]], alternative="greater").pvalue
    assert night.p_value == pytest.approx(3 * expected)
    expected = fisher_exact([[3, 27], [8, 52]], alternative="greater").pvalue
    assert dusk.p_value == pytest.approx(min(1.0, 2 * expected))


def test_pairs_of_values_are_shown_where_both_together_are_weak() -> None:
    """Errors only at night with camera B: each alone is right three times in four or more."""
    camera = (["A"] * 40 + ["B"] * 40) * 2
    time = ["day"] * 80 + ["night"] * 80
    correct = [not (c == "B" and t == "night") for c, t in zip(camera, time, strict=True)]
    found = subgroups(predictions_of(correct), {"camera": camera, "time": time})
    assert [group.description for group in found if "," in group.description] == [
        "camera: B, time: night"
    ]
    assert found[0].description == "camera: B, time: night"
    assert (found[0].images, found[0].accuracy, found[0].rest_accuracy) == (40, 0, 1)


def test_numbers_are_divided_into_four_groups_and_identifiers_into_none() -> None:
    count = 80
    ages = [str(20 + index / 2) for index in range(count)]
    metadata = {
        "age": ages,
        "id": [f"patient {index}" for index in range(count)],
        "site": ["Bern"] * count,
        "year": [str(2020 + index % 3) for index in range(count)],
        "flag": ["yes"] * 30 + [""] * 50,
    }
    correct = [index >= 20 for index in range(count)]
    found = {each.description: each for each in subgroups(predictions_of(correct), metadata)}
    singles = [name for name in found if "," not in name]
    quarters = [f"age: {a} to {b}" for a, b in [(20, "below 29.875"), ("49.625", "59.5")]]
    assert set(quarters) < set(singles)
    assert [name.partition(":")[0] for name in sorted(singles)] == [
        *["age"] * 4,
        "flag",
        *["year"] * 3,
    ]
    assert found[quarters[0]].accuracy == 0
    assert {found[name].images for name in singles if name.startswith("age")} == {20}
    assert found["flag: yes"].images == 30


def test_subgroups_need_a_value_for_each_image() -> None:
    with pytest.raises(SeewhyError, match="a value for each of the 2 images, found 1"):
        subgroups(predictions_of([True, False]), {"camera": ["A"]})
    assert subgroups(predictions_of([True, False]), {"camera": ["A", "A"]}) == ()
    (first, _) = subgroups(predictions_of([True, False]), {"camera": ["A", "B"]})
    assert math.isclose(first.accuracy, 0)
