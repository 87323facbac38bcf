"""Weights on disk: safetensors that say in their metadata which network they are of."""

import errno
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from seewhy.errors import SeewhyError
from seewhy.files import write_atomically
from seewhy.models.registry import blank_sample, build_model, untrained_spec


def save_model(
    path: Path, model: nn.Module, name: str, classes: Sequence[str], image_shape: Sequence[int]
) -> None:
    """Write the weights of the network that `name` names in MODELS, for images (C, H, W) of these classes."""
    # copied: safetensors refuses tensors that share memory, as tied weights do
    tensors = {
        key: tensor.detach().to("cpu", copy=True).contiguous()
        for key, tensor in model.state_dict().items()
    }
    about = json.dumps({"model": name, "classes": list(classes), "image_shape": list(image_shape)})

    def write(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, metadata={"seewhy": about})
        except SafetensorError as error:  # it tells of a full disk only in words
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error

    write_atomically(path, write)


def load_model(
    path: str | Path, device: str | torch.device = "cpu"
) -> tuple[nn.Module, dict[str, Any]]:
    """The network in a file of `write_model`, in evaluation mode, and its metadata: model, classes, image_shape."""
    path = Path(path)
    if not path.is_file():
        raise SeewhyError(
            f"{path} does not exist: no epoch has ended yet, or the weights were removed; train again"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise SeewhyError(
            f"{path} is damaged or no safetensors file ({error}); restore it, or train again"
        ) from error
    try:
        about = json.loads(metadata["seewhy"])
        name, classes, shape = about["model"], about["classes"], about["image_shape"]
    except (KeyError, ValueError, TypeError):
        raise SeewhyError(
            f"{path} does not say which network it is of, so it is not of a seewhy run; name one that is"
        ) from None
    with torch.random.fork_rng(devices=[]):
        model = build_model(untrained_spec(name), len(classes), blank_sample(*shape))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise SeewhyError(
            f"{path} does not fit the network {name!r} that it names: {reason}"
        ) from error
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval(), about
