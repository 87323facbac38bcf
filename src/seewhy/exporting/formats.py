"""The table of file formats: how a program is written to a file, and opened again."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.export import ExportedProgram

from seewhy.errors import SeewhyError
from seewhy.models.onnx_file import SUFFIX, FileModel, import_onnx_package, onnx_classifier

PIXELS = "pixels"  # name of the input
METADATA_FILE = "seewhy.json"  # in the archive of a torch.export program
ONNX_BYTES = 2**31 - 2**24  # protobuf's limit of 2 GiB, less room for the graph


class Format(NamedTuple):
    """A file format of exported models."""

    suffix: str
    runtime: str  # what runs the file
    save: Callable[[ExportedProgram, Path, Mapping[str, str]], None]
    open: Callable[[Path, Mapping[str, str]], FileModel]


def save_onnx(program: ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Write an ONNX file with all weights and the metadata inside."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        import_onnx_package(package)
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > ONNX_BYTES:
        raise SeewhyError(
            f"an ONNX file holds at most 2 GiB, but the weights need {size / 2**30:.1f} GiB; "
            "use the format torch"
        )
    with _quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=[PIXELS],
            output_names=[metadata["output"]],
        )
    assert exported is not None
    model: Any = exported.model
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    model.metadata_props.clear()
    model.metadata_props.update(metadata)
    model.producer_name, model.producer_version = "seewhy", metadata["seewhy"]
    exported.save(path, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch.onnx, which warns of deprecated calls of its own and of missing packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def open_onnx(path: Path, metadata: Mapping[str, str]) -> FileModel:
    """The model in an ONNX file."""
    model = onnx_classifier(path).model
    assert isinstance(model, FileModel)
    return model


def save_program(program: ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a torch.export program; the metadata are the extra file `seewhy.json`."""
    torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(dict(metadata))})


def open_program(path: Path, metadata: Mapping[str, str]) -> FileModel:
    """The model in a file that this process has written; its archive may hold pickles."""
    module = torch.export.load(path).module()
    return FileModel(
        lambda pixels: module(pixels),  # a lambda: the module itself cannot be put in eval mode
        uint8=metadata["input"] == "uint8",
        probabilities=metadata["output"] == "probabilities",
        activation=metadata.get("activation", "softmax"),
    )


FORMATS: dict[str, Format] = {
    "onnx": Format(SUFFIX, "onnxruntime", save_onnx, open_onnx),
    "torch": Format(".pt2", "torch.export", save_program, open_program),
}
