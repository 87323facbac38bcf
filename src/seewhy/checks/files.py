"""The verdicts of checks as files: JSON, a CSV per check, and JUnit XML for CI systems."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from seewhy.checks.result import NOT_JUDGED, Check, DataChecks, Finding
from seewhy.escaping import csv_text, json_text, visible
from seewhy.files import make_directory, write_text

JSON_FILE = "check.json"
_DECIMALS = 6
_LISTED = 100  # findings in a JUnit failure


def check_values(results: DataChecks) -> dict[str, Any]:
    """The verdicts as a value that JSON can represent; the keys are described in docs/data.md."""
    from seewhy import __version__

    return {
        "seewhy": __version__,
        "data": results.data,
        "images": dict(results.images),
        "classes": list(results.classes),
        "model": results.model or None,
        "checks": {name: _check_values(check) for name, check in results.checks.items()},
    }


def write_checks(results: DataChecks, directory: str | Path) -> Path:
    """Write check.json, and NAME.csv with the findings of each check that was judged.

    Args:
        results: From `check`.
        directory: Made if it is missing; files of the same names are replaced, and tables of checks
            that are not judged are removed.

    Returns:
        The directory.
    """
    directory = Path(directory)
    make_directory(directory)
    write_json(results, directory / JSON_FILE)
    for name, check in results.checks.items():
        path = directory / f"{name}.csv"
        if check.verdict == NOT_JUDGED:
            path.unlink(missing_ok=True)
        else:
            header, rows = _table(check)
            write_text(path, csv_text(header, rows), newline="")
    return directory


def write_json(results: DataChecks, path: str | Path) -> None:
    """Write `check_values` to a file."""
    make_directory(Path(path).parent)
    write_text(Path(path), json_text(check_values(results), indent=1) + "\n")


def write_junit(results: DataChecks, path: str | Path, fail_on: Collection[str] = ()) -> None:
    """Write JUnit XML with a test case per check.

    Args:
        results: From `check`.
        path: The file.
        fail_on: Names of checks whose findings are failures. Those of other checks are in the
            output of their test case; a check that is not judged is skipped.
    """
    failed = [name for name in results.found if name in fail_on]
    skipped = [name for name, check in results.checks.items() if check.verdict == NOT_JUDGED]
    suite = ElementTree.Element(
        "testsuite",
        name=visible(f"seewhy check {results.data}"),
        tests=str(len(results.checks)),
        failures=str(len(failed)),
        errors="0",
        skipped=str(len(skipped)),
    )
    for name, check in results.checks.items():
        case = ElementTree.SubElement(suite, "testcase", classname="seewhy.check", name=name)
        sentence = visible(check.sentence)
        if check.verdict == NOT_JUDGED:
            ElementTree.SubElement(case, "skipped", message=sentence)
        elif name in failed:
            lines = [visible(describe(each)) for each in check.findings[:_LISTED]]
            failure = ElementTree.SubElement(case, "failure", message=sentence)
            failure.text = "\n".join(lines)
        else:
            ElementTree.SubElement(case, "system-out").text = sentence
    ElementTree.indent(suite)
    text = ElementTree.tostring(suite, encoding="unicode", xml_declaration=False)
    make_directory(Path(path).parent)
    write_text(Path(path), f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n')


def describe(finding: Finding) -> str:
    """A finding in one line, as `train/ants/a.gif: 1.29 (…)`."""
    subject = " = ".join(image.file for image in finding.images) or finding.subject
    note = f" ({finding.note})" if finding.note else ""
    return f"{subject}: {number(finding.value)}{note}"


def number(value: float | None) -> str:
    """A value for people, with three significant digits; a dash for none."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _check_values(check: Check) -> dict[str, Any]:
    return {
        "verdict": check.verdict,
        "sentence": check.sentence,
        "kind": check.kind,
        "judged": check.judged,
        "found": check.found,
        "measure": check.measure,
        "value": _plain(check.value),
        "threshold": _plain(check.threshold),
        "below": check.below,
        "interval": None if check.interval is None else list(map(_plain, check.interval)),
        "findings": [_finding_values(finding) for finding in check.findings],
    }


def _finding_values(finding: Finding) -> dict[str, Any]:
    values: dict[str, Any] = {"value": _plain(finding.value), "note": finding.note}
    if finding.subject:
        values["subject"] = finding.subject
    if finding.images:
        values["images"] = [
            {"split": each.split, "index": each.index, "file": each.file, "label": each.label}
            for each in finding.images
        ]
    return values


def _table(check: Check) -> tuple[list[str], list[list[object]]]:
    """Header and rows of the findings."""
    columns = ["file", "split", "index", "label"]
    if check.kind not in ("image", "pair"):
        rows = [[each.subject, _plain(each.value), each.note] for each in check.findings]
        return [check.kind, "value", "note"], [list(row) for row in rows]
    header = [*columns, *(f"other_{column}" for column in columns if check.kind == "pair")]
    return [*header, "value", "note"], [
        [
            *(
                cell
                for image in finding.images
                for cell in (image.file, image.split, image.index, image.label)
            ),
            _plain(finding.value),
            finding.note,
        ]
        for finding in check.findings
    ]


def _plain(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), _DECIMALS)
