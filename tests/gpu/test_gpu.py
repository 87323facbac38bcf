"""Runs rules.py in a process whose torch has been told that there is a GPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
TORCH = Path(torch.__file__).parent


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pretended.cpp, compiled."""
    compiler = next(
        filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None
    )
    if compiler is None or sys.platform != "linux":
        pytest.skip("pretending a GPU needs Linux and a C++ compiler")
    library = tmp_path_factory.mktemp("gpu") / "pretended.so"
    libraries = [f"-L{TORCH}/lib", f"-Wl,-rpath,{TORCH}/lib", "-lc10", "-ltorch_cpu"]
    compiled = [
        compiler,
        "-std=c++20",
        "-shared",
        "-fPIC",
        f"-I{TORCH}/include",
        str(HERE / "pretended.cpp"),
        *libraries,
    ]
    subprocess.run([*compiled, "-o", str(library)], check=True)
    return library


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real one")
def test_the_rules_of_a_gpu_are_kept(library: Path, tmp_path: Path) -> None:
    """A minute of tests; what fails among them is printed."""
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "PYTHONPATH": str(HERE),
        "OMP_NUM_THREADS": "1",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path / 'inside'}",
        str(HERE / "rules.py"),
    ]
    ran = subprocess.run(
        command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True, timeout=1200
    )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
