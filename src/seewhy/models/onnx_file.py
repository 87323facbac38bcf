"""Models in ONNX files written by `seewhy export`, run by onnxruntime (extra `onnx`)."""

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.data.decode import Preprocessing
from seewhy.errors import SeewhyError
from seewhy.files import problem_of_path
from seewhy.models.classifier import Classifier
from seewhy.models.inspection import NoGradientsError
from seewhy.models.outputs import LEAST_ODDS

SUFFIX = ".onnx"
MARK = "seewhy"  # key of the metadata that only files of seewhy have
CALIBRATION = "calibration"  # key of the metadata that only calibrated files have
PIXEL_TYPES = {"tensor(float)": False, "tensor(uint8)": True}  # whether they are uint8
LEAST_PROBABILITY = 1e-37  # about the smallest normal float32; its logarithm is finite


class FileModel(nn.Module):
    """A model without modules or weights of its own, because a program in a file computes it.

    Args:
        run: Maps pixels (N, C, H, W) to scores (N, K) float32, both contiguous on the CPU.
        uint8: Whether `run` takes uint8 pixels; else float32 in [0, 1].
        probabilities: Whether the scores are probabilities; else logits.
        activation: What made the probabilities, "softmax" or "sigmoid".
        calibration: The temperature that the file divides its logits by, and what it was fitted on,
            as plain values; None if it divides by none.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Tensor],
        *,
        uint8: bool = False,
        probabilities: bool = False,
        activation: str = "softmax",
        calibration: Any = None,
    ) -> None:
        super().__init__()
        self.run = run
        self.uint8 = uint8
        self.probabilities = probabilities
        self.activation = activation
        self.calibration = calibration

    def forward(self, pixels: Tensor) -> Tensor:
        """Images (N, C, H, W) float in [0, 1] to logits (N, K)."""
        if pixels.requires_grad and torch.is_grad_enabled():
            raise NoGradientsError(
                "a model in an exported file has no gradients; explain it with rise or occlusion, "
                "or use the run that it was made from"
            )
        pixels = pixels.cpu().float()
        if self.uint8:
            pixels = (pixels * 255).round().to(torch.uint8)
        scores = self.run(pixels.contiguous())
        if not self.probabilities:
            return scores
        if self.activation == "sigmoid":
            return scores.logit(LEAST_ODDS)
        return scores.clamp(min=LEAST_PROBABILITY).log()


def onnx_classifier(path: str | Path) -> Classifier:
    """The classifier in an ONNX file written by `seewhy export`.

    Neither the code of its model nor the run is needed. It computes in float32 on the CPU, with as
    many threads as torch, and has no gradients.

    Args:
        path: The file; needs the extra `onnx`.

    Raises:
        SeewhyError: If the file is missing, damaged, or not written by `seewhy export`, or
            onnxruntime is not installed.
    """
    path = Path(path)
    session = _open_session(path)
    metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if MARK not in metadata:
        raise SeewhyError(
            f"{path} was not written by `seewhy export`, so its classes and its preprocessing are "
            f"unknown; it takes {_described(inputs)}; export a run with `seewhy export RUN`"
        )
    try:
        classes = tuple(map(str, json.loads(metadata["classes"])))
        channels, height, width = map(int, json.loads(metadata["image_shape"]))
        preprocessing = Preprocessing(**json.loads(metadata["preprocessing"]))
        calibration = json.loads(metadata.get(CALIBRATION, "null"))
        tta, probabilities = metadata["tta"], metadata["output"] == "probabilities"
        activation = metadata.get("activation", "softmax")
        thresholds = tuple(map(float, json.loads(metadata.get("thresholds", "[]"))))
    except (KeyError, ValueError, TypeError) as error:
        raise SeewhyError(
            f"{path} has incomplete metadata ({type(error).__name__}: {error}); export it again"
        ) from error
    taken = [(each.type in PIXEL_TYPES, list(each.shape[1:])) for each in inputs]
    dynamic = inputs and not isinstance(inputs[0].shape[0], int)
    if taken != [(True, [channels, height, width])] or not dynamic or len(outputs) != 1:
        raise SeewhyError(
            f"{path} takes {_described(inputs)}, but its metadata says images of "
            f"{channels}x{height}x{width} in batches of any size; export it again"
        )
    names = [outputs[0].name], inputs[0].name

    def run(pixels: Tensor) -> Tensor:
        (scores,) = session.run(names[0], {names[1]: pixels.numpy()})
        return torch.from_numpy(scores)

    model = FileModel(
        run,
        uint8=PIXEL_TYPES[inputs[0].type],
        probabilities=probabilities,
        activation=activation,
        calibration=calibration,
    )
    shape = (channels, height, width)
    return Classifier(
        model.eval(),
        classes,
        shape,
        tta=tta,
        preprocessing=preprocessing,
        name=path.name,
        activation=activation,
        thresholds=thresholds,
        returns="logits",
    )


def import_onnx_package(name: str) -> ModuleType:
    """Import a package of the extra `onnx`. Raises SeewhyError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SeewhyError(
            f"ONNX files need the package {name}: pip install 'seewhy[onnx]' ({error})"
        ) from error


def _open_session(path: Path) -> Any:  # onnxruntime.InferenceSession
    if problem := problem_of_path(path):
        raise SeewhyError(f"{problem}; `seewhy export RUN --output FILE.onnx` writes one")
    runtime: Any = import_onnx_package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; they are raised too
    try:
        return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception per status code, without a base
        reason = " ".join(str(error).split())[:200]
        raise SeewhyError(
            f"{path} is damaged or not an ONNX file ({reason}); restore it, or export it again"
        ) from error


def _described(inputs: Any) -> str:
    """Name, type and shape of each input, as in `images float (N, 3, 224, 224)`."""
    parts = []
    for each in inputs:
        sizes = ", ".join(map(str, each.shape))
        parts.append(f"{each.name} {each.type.removeprefix('tensor(').rstrip(')')} ({sizes})")
    return ", ".join(parts) or "no input"
