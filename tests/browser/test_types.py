"""TypeScript checks the JSDoc types of the report's scripts."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CONFIG = Path(__file__).with_name("tsconfig.json")
ASSETS = Path(__file__).parents[2] / "src" / "seewhy" / "reporting" / "assets"
# script -> the error that TypeScript must find in it
WRONG = {
    'const count = /** @type {number} */ ("three"); count.toFixed()': "TS2352",
    "/** @param {number} side */ function area(side) { return side * side } area('3')": "TS2345",
    "function twice(count) { return 2 * count }": "TS7006",  # no type given
    "document.querySelector('h1').textContent = 'Report'": "TS2531",  # may be null
    "document.bodi.remove()": "TS2339",
    "process.exit()": "TS2591",  # no Node here
}


@pytest.fixture
def check_types(package: Callable[[str], Path]) -> Callable[[Path], tuple[int, str]]:
    """Exit status and output of `tsc -p config`."""
    tsc = package("typescript/bin/tsc")

    def check(config: Path) -> tuple[int, str]:
        command = [shutil.which("node") or "node", str(tsc), "-p", str(config), "--pretty", "false"]
        completed = subprocess.run(
            command, cwd=config.parent, capture_output=True, text=True, check=False
        )
        return completed.returncode, completed.stdout + completed.stderr

    return check


def test_scripts_have_no_type_errors(check_types):
    status, output = check_types(CONFIG)
    assert status == 0, output


def test_type_errors_are_found(check_types, tmp_path):
    for script in ASSETS.glob("*.js"):
        shutil.copy(script, tmp_path)
    for number, text in enumerate(WRONG):
        (tmp_path / f"wrong{number}.js").write_text(text)
    (tmp_path / "tsconfig.json").write_text(
        json.dumps({"extends": str(CONFIG), "include": ["*.js"]})
    )
    status, output = check_types(tmp_path / "tsconfig.json")
    assert status != 0
    for number, code in enumerate(WRONG.values()):
        assert [
            code in line for line in output.splitlines() if line.startswith(f"wrong{number}.js")
        ] == [True], output
    assert len(output.splitlines()) == len(WRONG), output
