"""Weights on disk: safetensors with the classifier in the metadata."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from seewhy.data.decode import Preprocessing
from seewhy.errors import SeewhyError
from seewhy.files import write_atomically
from seewhy.models.classifier import Classifier
from seewhy.models.registry import blank_sample, build_model, untrained_spec

METADATA, CHECKSUM = "seewhy", "seewhy-sha256"  # keys of the safetensors metadata


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
        "model": spec,
        "classes": classifier.classes,
        "image_shape": classifier.image_shape,
        "preprocessing": asdict(classifier.preprocessing),
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
    if not path.is_file():
        raise SeewhyError(
            f"{path} does not exist: no epoch has ended yet, or it was removed; train again"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, OSError) as error:
        raise SeewhyError(
            f"{path} is damaged or not a safetensors file ({error}); restore it, or train again"
        ) from error
    if CHECKSUM in metadata and metadata[CHECKSUM] != _checksum(
        metadata.get(METADATA, ""), tensors
    ):
        raise SeewhyError(
            f"{path} is damaged: its checksum does not match; restore it, or train again"
        )
    try:
        values = json.loads(metadata[METADATA])
        spec, classes = str(values["model"]), tuple(values["classes"])
        channels, height, width = values["image_shape"]
        preprocessing = Preprocessing(**values["preprocessing"])
    except (KeyError, ValueError, TypeError):
        raise SeewhyError(
            f"{path} has no metadata of seewhy; pass the model.safetensors of a run"
        ) from None
    with torch.random.fork_rng(devices=[]):
        model = build_model(
            untrained_spec(spec), len(classes), blank_sample(channels, height, width)
        )
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise SeewhyError(f"{path} does not fit the model {spec!r}: {reason}") from error
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Classifier(model.eval(), classes, (channels, height, width), preprocessing=preprocessing)


def _checksum(description: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the metadata, and of the names, types, shapes and bytes of all tensors."""
    hasher = hashlib.sha256(description.encode())
    for name, tensor in sorted(tensors.items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()
