"""`seewhy export`, and the use of its files on the command line."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from seewhy.cli import main
from seewhy.data.dataset import Dataset
from seewhy.models.registry import MODELS

pytest.importorskip("onnxruntime")
Capture = pytest.CaptureFixture[str]
ErrorOf = Callable[..., str]
pytestmark = [pytest.mark.slow, pytest.mark.train]


@pytest.fixture(scope="module")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported") / "model.onnx"


@pytest.fixture
def exported(trained: Path, exported_once: Path, capsys: Capture) -> Path:
    """`model.onnx` in the working directory, from the shared run."""
    if not exported_once.exists():
        assert main.main(["export", "run", "--output", str(exported_once)]) == 0
        out = capsys.readouterr().out
        assert "60 test images of bars, fp32 on the CPU" in out
        assert re.search(r"same predicted class +60 of 60", out)
        assert re.search(r"largest difference of probabilities +\d\.\de-0[5-9]", out)
        assert re.search(r"speed of onnxruntime +[\d,]+ images/s", out)
        assert re.search(r"speed of torch +[\d,]+ images/s", out)
        assert out.endswith(f"written to: {exported_once}\n")
    return Path(shutil.copy(exported_once, "model.onnx"))


def test_a_file_works_without_the_code_of_its_model(
    trained: Path,
    exported: Path,
    data: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    Image.fromarray(data.test.images[1].permute(1, 2, 0).numpy()).save("level.png")
    expected = []
    for model in ("run", "model.onnx"):
        if model == "model.onnx":
            monkeypatch.delitem(MODELS, "speednet")
            shutil.rmtree("run")
        assert main.main(["evaluate", model, "--data", "bars", "--json"]) == 0
        accuracy = json.loads(capsys.readouterr().out)
        assert main.main(["predict", model, "level.png", "--format", "jsonl"]) == 0
        ((first, *_),) = [each["top"] for each in [json.loads(capsys.readouterr().out)]]
        assert first["name"] == "level"
        expected.append((accuracy, pytest.approx(first["probability"], abs=1e-4)))
    assert expected[0][0] == expected[1][0]
    assert expected[0][1].expected == expected[1][1]


def test_a_file_runs_in_a_process_without_torch(exported: Path, data: Dataset) -> None:
    Image.fromarray(data.test.images[1].permute(1, 2, 0).numpy()).save("level.png")
    code = """
import json, sys
import numpy as np, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession("model.onnx")
pixels = np.asarray(Image.open("level.png"), np.float32).transpose(2, 0, 1)[None] / 255
(logits,) = session.run(None, {"pixels": pixels})
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
print(classes[logits.argmax()], "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "level False\n"


def test_the_file_is_in_the_run_directory_by_default(trained: Path, capsys: Capture) -> None:
    assert main.main(["export", "run", "--format", "torch", "--uint8", "--probabilities"]) == 0
    out = capsys.readouterr().out
    assert "speed of torch.export" in out
    assert out.endswith("written to: run/model.pt2\n")
    assert (trained / "model.pt2").is_file()


def test_errors_are_one_line(exported: Path, error_of: ErrorOf) -> None:
    Path("bad.onnx").write_text("nothing")
    Image.new("RGB", (8, 8)).save("x.png")
    for arguments, message in (
        (["export", "run", "--format", "tensorrt"], "unknown format 'tensorrt'; possible: onnx, t"),
        (
            ["export", "run", "--output", "x.pt2"],
            "a file of format onnx ends in .onnx, found x.pt2",
        ),
        (["export", "model.onnx"], "the model comes from an exported file"),
        (
            ["evaluate", "model.onnx"],
            "model.onnx does not say which data it was trained on; add them, as in --data cifar10",
        ),
        (["predict", "bad.onnx", "x.png"], "bad.onnx is damaged or not an ONNX file"),
        (["predict", "no.onnx", "x.png"], "no.onnx does not exist"),
    ):
        assert message in error_of(*arguments)


def test_a_missing_extra_is_one_line(
    trained: Path, error_of: ErrorOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    message = error_of("export", "run")
    assert "ONNX files need the package onnxscript: pip install 'seewhy[onnx]'" in message
    assert not (trained / "model.onnx").exists()
