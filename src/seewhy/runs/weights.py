"""Weights on disk: safetensors with the classifier in the metadata."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from seewhy.data.decode import Preprocessing
from seewhy.errors import SeewhyError
from seewhy.files import write_atomically
from seewhy.models.classifier import Classifier
from seewhy.models.huggingface_model import spec_with_config
from seewhy.models.registry import MODELS, blank_sample, build_model, untrained_spec
from seewhy.notation import parse
from seewhy.serialization import from_plain, reading

METADATA, CHECKSUM = "seewhy", "seewhy-sha256"  # keys of the safetensors metadata
LONGEST_SIDE = 8192  # pixels of the images of a model


def save_classifier(path: Path, classifier: Classifier, spec: str) -> None:
    """Write the weights of a classifier; `spec` builds its model with MODELS.

    Precision and test-time augmentation are not saved; they are part of the run.
    """
    # copied: safetensors rejects tensors that share memory, such as tied weights
    tensors = {
        key: tensor.detach().to("cpu", copy=True).contiguous()
        for key, tensor in classifier.model.state_dict().items()
    }
    values = {
        "model": spec_with_config(spec, classifier.model),
        "classes": classifier.classes,
        "image_shape": classifier.image_shape,
        "preprocessing": asdict(classifier.preprocessing),
        **({} if classifier.activation == "softmax" else {"activation": classifier.activation}),
    }
    description = json.dumps(values)
    metadata = {METADATA: description, CHECKSUM: _checksum(description, tensors)}

    content = save(tensors, metadata)  # not save_file, whose files only their owner may read
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def load_classifier(path: str | Path, device: str | torch.device = "cpu") -> Classifier:
    """Read a file written by `save_classifier`; the model is in evaluation mode on `device`.

    Raises:
        SeewhyError: If the file is missing, damaged or from another program, or its weights do not
        fit its model.
    """
    path = Path(path)
    if not path.exists():
        raise SeewhyError(
            f"{path} does not exist: no epoch has ended yet, or it was removed; train again"
        )
    with (
        reading(path, "it is no whole safetensors file; restore it, or train again"),
        safe_open(path, framework="pt") as file,
    ):
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    if METADATA not in metadata:
        raise SeewhyError(f"{path} has no metadata of seewhy; pass the model.safetensors of a run")
    if CHECKSUM in metadata and metadata[CHECKSUM] != _checksum(metadata[METADATA], tensors):
        raise SeewhyError(
            f"{path} is damaged: its checksum does not match; restore it, or train again"
        )
    advice = "pass the model.safetensors of a run, or train again"
    with reading(path, advice):
        described = from_plain(_Description, json.loads(metadata[METADATA]))
    check_model_is_known(described.model)
    with reading(path, advice):
        model = _build(described, tensors)
        model.load_state_dict(tensors)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Classifier(
        model.eval(),
        described.classes,
        described.image_shape,
        preprocessing=described.preprocessing,
        activation=described.activation,
        returns="logits",
    )


@dataclass(frozen=True)
class _Description:
    """The metadata: how to build the model, and what it takes."""

    model: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]  # (C, H, W)
    preprocessing: Preprocessing
    activation: str = "softmax"


def _build(described: _Description, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The model, whose weights have the shapes of `tensors`.

    Raises SeewhyError if they do not fit, before memory is taken for a model of any size.
    """
    channels, *sides = described.image_shape
    if channels not in (1, 3) or not all(1 <= side <= LONGEST_SIDE for side in sides):
        raise SeewhyError(f"images cannot be {'x'.join(map(str, described.image_shape))}")
    spec, classes = untrained_spec(described.model), len(described.classes)
    sample = blank_sample(channels, *sides)
    with torch.random.fork_rng(devices=[]):
        with suppress(NotImplementedError, RuntimeError), torch.device("meta"):
            _check_fit(build_model(spec, classes, sample), described.model, tensors)
        model = build_model(spec, classes, sample)
    _check_fit(model, described.model, tensors)
    return model


def _check_fit(model: nn.Module, spec: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise SeewhyError unless the model's tensors have the names and shapes of `tensors`."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    differing = [
        f"{name} {found.get(name, 'missing')} instead of {expected.get(name, 'none')}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    if differing:
        raise SeewhyError(f"its weights do not fit the model {spec!r}: {differing[0]}")


def check_model_is_known(spec: str) -> None:
    """Raise SeewhyError if the model of a run is not in MODELS, as one of the user's own."""
    name = parse(spec)[0]
    if name not in MODELS:
        module, _, function = name.rpartition(".")
        known = module and all(part.isidentifier() for part in name.split("."))
        path = f"{module}:{function}" if known else "package.module:function"
        raise SeewhyError(
            f"the code of the run's model {name!r} is not part of seewhy; name it with --model "
            f"{path} (in Python open_run(directory, model=…))"
        )


def _checksum(description: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the metadata, and of the names, types, shapes and bytes of all tensors."""
    hasher = hashlib.sha256(description.encode())
    for name, tensor in sorted(tensors.items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()
