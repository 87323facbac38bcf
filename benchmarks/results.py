"""The results of a benchmark: saved as JSON with their environment, and shown in RESULTS.md."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from seewhy.runs.environment import current_environment

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One measurement: its name, its value with unit and spread, and how it was measured."""

    what: str
    value: str
    how: str


def keep(
    name: str,
    title: str,
    rows: Sequence[Any],
    device: str = "cpu",
    note: str = "",
    columns: Sequence[str] = ("what", "measured", "how"),
) -> None:
    """Save rows as results/NAME.json and write RESULTS.md again.

    A row is a Row, or any dataclass with one field per column.
    """
    environment = asdict(current_environment(torch.device(device), ""))
    content: dict[str, Any] = {
        "title": title,
        "date": date.today().isoformat(),
        "note": note,
        "where": environment,
        "columns": list(columns),
        "rows": [asdict(row) for row in rows],
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{name}.json").write_text(
        json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (HERE / "RESULTS.md").write_text(rendered(), encoding="utf-8")
    for row in content["rows"]:
        print("; ".join(row.values()))


def rendered() -> str:
    """RESULTS.md, from everything in results/."""
    sections = [
        _section(json.loads(path.read_text(encoding="utf-8")))
        for path in sorted((HERE / "results").glob("*.json"))
    ]
    return (
        "# Results\n\n"
        "Written by `python -m benchmarks`; every row names the script that measured it.\n\n"
        + "\n".join(sections)
    )


def _section(content: dict[str, Any]) -> str:
    where = content["where"]
    hardware = where["accelerator"] or f"{where['cores']} cores of {where['processor']}"
    software = f"torch {where['packages']['torch']}, Python {where['python']}"
    lines = [
        f"## {content['title']}",
        "",
        *([content["note"], ""] if content["note"] else []),
        f"{hardware}, {software}, {content['date']}.",
        "",
        *(
            f"| {' | '.join(cells)} |"
            for cells in [content["columns"], ["---"] * len(content["columns"])]
        ),
        *(f"| {' | '.join(row.values())} |" for row in content["rows"]),
        "",
    ]
    return "\n".join(lines)
