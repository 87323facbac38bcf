"""Time of the first and the second load of a dataset; the second must not import `datasets`."""

import os
import subprocess
import sys
import tempfile
from statistics import median

from benchmarks.results import Row, keep

RUNS = 7
CODE = """
import sys, time, torch, seewhy
from seewhy.data import load
began = time.perf_counter()
data = load(sys.argv[1], quiet=True)
print(time.perf_counter() - began, len(data.train) + len(data.test), "datasets" in sys.modules)
"""


def main(path: str) -> None:
    """Measure and save; `path` is the first argument of `seewhy.load`."""
    with tempfile.TemporaryDirectory() as cache:
        runs = [_load(path, cache) for _ in range(RUNS + 1)]
    (first, images, _), later = runs[0], runs[1:]
    again = [seconds for seconds, _, _ in later]
    how = f"`benchmarks/loading.py`, {images:,} images, a fresh process with torch imported"
    rows = [
        Row("first load of CIFAR-10, with decoding", f"{first:.1f} s", how),
        Row(
            "second load",
            f"{1000 * median(again):.0f} ms",
            f"{how}, median of {RUNS}, maximum {1000 * max(again):.0f} ms",
        ),
    ]
    assert not any(imported for _, _, imported in later), (
        "a load from the cache must not import datasets"
    )
    keep(
        "loading",
        "Loading data",
        rows,
        note="The images are a JPEG copy of CIFAR-10 in Parquet files.",
    )


def _load(path: str, cache: str) -> tuple[float, int, bool]:
    environment = os.environ | {"SEEWHY_CACHE": cache}
    command = [sys.executable, "-c", CODE, path]
    printed = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout.split()
    return float(printed[0]), int(printed[1]), printed[2] == "True"


if __name__ == "__main__":
    main(sys.argv[1])
