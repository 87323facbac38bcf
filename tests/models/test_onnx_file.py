"""ONNX files as classifiers: what is rejected, and that the model's code is not needed."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seewhy.attribution.explanation import explain
from seewhy.errors import SeewhyError
from seewhy.models.inference import compute_logits
from seewhy.models.onnx_file import onnx_classifier

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

METADATA = {
    "seewhy": "0.1.0",
    "classes": '["dark", "bright"]',
    "image_shape": "[1, 4, 4]",
    "preprocessing": '{"crop": 0.5}',
    "tta": "flip",
    "output": "logits",
}


def write_onnx(
    path: Path, metadata: dict[str, str] | None = None, shape: tuple[Any, ...] = ("N", 1, 4, 4)
) -> Path:
    """A model of two classes: minus and plus the mean pixel minus 0.5, made with `onnx` alone."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["mean", "half"], ["centered"]),
        helper.make_node("Unsqueeze", ["centered", "one"], ["column"]),
        helper.make_node("Mul", ["column", "signs"], ["y"]),
    ]
    values = {
        "half": np.array(0.5, np.float32),
        "one": np.array([1]),
        "signs": np.array([[-1, 1]], np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, [shape[0], 2])],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(model, METADATA if metadata is None else metadata)
    onnx.save(model, path)
    return path


def test_opens_a_file(tmp_path: Path) -> None:
    classifier = onnx_classifier(write_onnx(tmp_path / "model.onnx"))
    assert classifier.classes == ("dark", "bright")
    assert classifier.image_shape == (1, 4, 4)
    assert classifier.preprocessing.crop == 0.5
    assert (classifier.tta, classifier.precision) == ("flip", "fp32")
    images = torch.full((3, 1, 4, 4), 51, dtype=torch.uint8)
    images[1] = 204
    expected = torch.tensor([[0.3, -0.3], [-0.3, 0.3], [0.3, -0.3]])
    torch.testing.assert_close(compute_logits(classifier, images), expected)


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_damaged_file(tmp_path: Path, size: int) -> None:
    path = write_onnx(tmp_path / "model.onnx")
    path.write_bytes(b"no model" if size == 0 else path.read_bytes()[:size])
    with pytest.raises(
        SeewhyError, match=r"model.onnx is damaged or not an ONNX file \("
    ) as caught:
        onnx_classifier(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SeewhyError, match=r"no.onnx does not exist; `seewhy export RUN --output"):
        onnx_classifier(tmp_path / "no.onnx")


def test_a_foreign_file(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "model.onnx", {}, ("N", 1, 8, "width"))
    message = r"was not written by `seewhy export`, .*; it takes x float \(N, 1, 8, width\)"
    with pytest.raises(SeewhyError, match=message):
        onnx_classifier(path)


@pytest.mark.parametrize("shape", [("N", 1, 8, 4), (2, 1, 4, 4), ("N", 1, 4, "width")])
def test_metadata_that_do_not_fit_the_inputs(tmp_path: Path, shape: tuple[Any, ...]) -> None:
    path = write_onnx(tmp_path / "model.onnx", shape=shape)
    with pytest.raises(SeewhyError, match=r"takes x float .* but its metadata says .* 1x4x4"):
        onnx_classifier(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", None),
        ("classes", "[1"),
        ("image_shape", "[3, 4]"),
        ("preprocessing", json.dumps({"zoom": 1})),
        ("tta", None),
    ],
)
def test_incomplete_metadata(tmp_path: Path, key: str, value: str | None) -> None:
    metadata = {name: text for name, text in METADATA.items() if name != key}
    if value is not None:
        metadata[key] = value
    with pytest.raises(SeewhyError, match=r"has incomplete metadata .*; export it again"):
        onnx_classifier(write_onnx(tmp_path / "model.onnx", metadata))


def test_a_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_onnx(tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    message = r"ONNX files need the package onnxruntime: pip install 'seewhy\[onnx\]'"
    with pytest.raises(SeewhyError, match=message):
        onnx_classifier(path)


def test_a_file_can_be_explained_without_gradients(tmp_path: Path) -> None:
    classifier = onnx_classifier(write_onnx(tmp_path / "model.onnx"))
    images = torch.full((1, 1, 4, 4), 200, dtype=torch.uint8)
    images[0, 0, 0, 0] = 255  # hiding it lowers the mean most
    explanation = explain(classifier, images, ["occlusion:size=1,stride=1"], warn=False)
    (maps,) = explanation.maps.values()
    assert maps.flatten().argmax() == 0
    for method in ("gradients", "integrated-gradients"):
        with pytest.raises(SeewhyError, match="exported file has no gradients; explain it with ri"):
            explain(classifier, images, [method])
    with pytest.raises(SeewhyError, match="no layer of this model has spatial output"):
        explain(classifier, images, ["grad-cam"])
