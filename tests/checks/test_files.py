"""Verdicts as JSON, CSV and JUnit XML."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from seewhy.checks.files import check_values, describe, number, write_checks, write_junit
from seewhy.checks.result import Check, DataChecks, Finding, ImageName

ODD = "=1+1\x1b[31m<&.png"  # hostile in a spreadsheet, a terminal and XML


@pytest.fixture
def results() -> DataChecks:
    one, other = ImageName("train", 3, ODD, "ant"), ImageName("test", 5, "b.png", "bee")
    return DataChecks(
        "photos",
        {"train": 8, "test": 6},
        ("ant", "bee"),
        "",
        {
            "dark": Check("brightness", judged=14, value=0.125, threshold=0.32, below=True,
                          findings=(Finding(0.125, (one,)),), sentence="1 image."),
            "near-duplicates": Check("difference", kind="pair", judged=14, value=float("nan"),
                                     findings=(Finding(0.5, (one, other), note="mirrored"),),
                                     sentence="1 pair."),
            "drift": Check("AUROC", kind="split", judged=1, value=0.5, threshold=0.6,
                           interval=(0.4, 0.6), sentence="No drift."),
            "outliers": Check("", sentence="no model"),
        },
    )  # fmt: skip


def test_files_of_checks(results: DataChecks, tmp_path: Path) -> None:
    directory = tmp_path / "new" / "checks"
    directory.mkdir(parents=True)
    (directory / "outliers.csv").write_text("of an earlier check with a model")
    assert write_checks(results, directory) == directory
    names = ["check.json", "dark.csv", "drift.csv", "near-duplicates.csv"]
    assert sorted(path.name for path in directory.iterdir()) == names
    with (directory / "dark.csv").open(newline="") as file:
        header, row = csv.reader(file)
    assert header == ["file", "split", "index", "label", "value", "note"]
    assert row == [r"'=1+1\x1b[31m<&.png", "train", "3", "ant", "0.125", ""]
    pair = (directory / "near-duplicates.csv").read_text().splitlines()
    assert pair[0] == (
        "file,split,index,label,other_file,other_split,other_index,other_label,value,note"
    )
    assert pair[1].endswith("b.png,test,5,bee,0.5,mirrored")
    assert (directory / "drift.csv").read_text().splitlines() == ["split,value,note"]
    stored = json.loads((directory / "check.json").read_text())
    assert stored == json.loads(json.dumps(check_values(results)))
    assert stored["checks"]["dark"]["findings"][0]["images"][0]["file"] == ODD
    assert stored["checks"]["drift"]["interval"] == [0.4, 0.6]
    assert stored["checks"]["near-duplicates"]["value"] is None
    assert stored["model"] is None


def test_junit_has_a_failure_only_for_chosen_checks(results: DataChecks, tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    write_junit(results, path, ["dark", "drift"])
    suite = ElementTree.parse(path).getroot()
    assert {key: suite.get(key) for key in ("tests", "failures", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "skipped": "1",
    }
    cases = {case.get("name"): case for case in suite}
    failure = cases["dark"].find("failure")
    assert failure is not None
    assert failure.get("message") == "1 image."
    assert failure.text == r"=1+1\x1b[31m<&.png: 0.125"
    skipped = cases["outliers"].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "no model"
    assert cases["near-duplicates"].findtext("system-out") == "1 pair."
    write_junit(results, path)
    assert ElementTree.parse(path).getroot().get("failures") == "0"


def test_findings_and_numbers_for_people() -> None:
    assert describe(Finding(30.0, subject="ant", note="8 images")) == "ant: 30 (8 images)"
    assert [number(each) for each in (None, 0.000123, 12345.6, 1)] == [
        "–",
        "0.000123",
        "12,346",
        "1",
    ]
