"""Time of `import seewhy` and `seewhy --help` in new processes."""

import subprocess
import sys
import time
from statistics import median

from benchmarks.results import Row, keep

RUNS = 15


def seconds(*arguments: str) -> list[float]:
    """Wall times of RUNS new Python processes, after one to warm the file cache."""
    times = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return times[1:]


def main() -> None:
    """Measure and save."""
    rows = []
    for what, arguments in (
        ("`python -c pass`, for comparison", ("-c", "pass")),
        ("`python -c 'import seewhy'`", ("-c", "import seewhy")),
        ("`seewhy --help`", ("-m", "seewhy", "--help")),
    ):
        times = seconds(*arguments)
        rows.append(
            Row(
                what,
                f"{median(times):.3f} s",
                f"`benchmarks/startup.py`, median of {RUNS}, maximum {max(times):.3f} s",
            )
        )
    keep("startup", "Starting up", rows)


if __name__ == "__main__":
    main()
