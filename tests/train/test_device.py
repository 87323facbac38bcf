import resource
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from contextlib import nullcontext
from seewhy.train.device import _glibc, retain_freed_memory

def faults(times, size=100_000_000):  # more than glibc keeps by itself
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(size, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert _glibc() is not None
def peak():
    return int(open("/proc/self/statm").read().split()[1])

free = faults(4)
with retain_freed_memory(torch.device("cpu")):
    faults(20)  # the first times it must be asked for
    kept, held = faults(20), peak()
left = peak()
# Larger than all memory kept: smaller free blocks may be used again after the kernel took their
# pages back.
print(free, kept, faults(4, 300_000_000), held, left)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is of Linux")
def test_retain_freed_memory_keeps_large_tensors() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    free, kept, after, held, left = map(int, done.stdout.split())
    pages = 100_000_000 // resource.getpagesize()
    assert free > 2 * pages
    assert kept < pages
    assert after > 6 * pages  # each from the kernel, as before
    assert held - left > pages // 2  # what was kept is given back
