"""Weights in a file, for any model: `vgg16:weights=FILE`, `timm:resnet50,weights=FILE`."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from seewhy.data.dataset import Split
from seewhy.data.image_formats import UnusableImage, open_known_format
from seewhy.errors import SeewhyError
from seewhy.files import problem_of_path
from seewhy.models.head import find_head, find_heads, new_layer, num_outputs
from seewhy.models.normalization import Normalize, adapt_channels, normalize_for
from seewhy.models.published import Layout
from seewhy.wording import counted

_SNIFFED = 1024  # bytes of a file that is not one of weights
_LISTED_KEYS = 3  # of each kind in an error
_CONTAINERS = ("state_dict", "model_state_dict", "model", "net")  # of checkpoints
_PREFIXES = ("module.", "model.")  # of wrapped models
_NORMALIZE = "normalize."  # prefix of mean and std
_NOTES: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


@dataclass
class _Comparison:
    """How the tensors of a file fit those of a model."""

    found: dict[str, Tensor] = field(default_factory=dict)  # by the model's keys
    missing: list[str] = field(default_factory=list)  # the model's keys
    reshaped: list[str] = field(default_factory=list)  # the model's keys, of another shape
    new_head: dict[str, None] = field(default_factory=dict)  # names of layers
    unexpected: list[str] = field(default_factory=list)  # the file's keys
    left_over: list[str] = field(default_factory=list)  # the file's keys, of parts we do not have


def load_weights(
    model: nn.Module, tensors: Mapping[str, Tensor], path: Path, layout: Layout, sample: Split
) -> None:
    """Load the weights of a file into a new model, in place.

    A head of another number of classes, or without weights in the file, stays new. Filters for RGB
    are summed for gray images. Mean and std become those of the weights. `loading_note` says what
    was replaced or left over.

    Args:
        model: A new model; if its tensors are on "meta", they are created.
        tensors: The file's, from `read_state_dict`.
        path: The file, for messages.
        layout: How the file spells the model's tensors.
        sample: Images of the shape that the model takes.

    Raises:
        SeewhyError: If the file has another layout, with the first tensors that do not fit.
    """
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(_NORMALIZE)}
    on_meta = any(value.is_meta for value in own.values())
    tensors = layout.convert(model, tensors)
    keys = _spelling(own, tensors, layout)
    compared = _compare(own, keys, tensors)
    if compared.missing or compared.reshaped:
        _allow_new_heads(compared, model, keys, tensors, sample.images)
    _check_layout(path, compared, own, keys, tensors, layout)
    kept = {k: v for k, v in own.items() if k not in compared.found}
    for name in compared.new_head:
        head = model.get_submodule(name)
        if any(parameter.is_meta for parameter in head.parameters()):
            new = new_layer(head, num_outputs(head), "cpu")
            model.set_submodule(name, new)
            kept.update({f"{name}.{k}": v for k, v in new.state_dict().items()})
    counters = {k: torch.zeros_like(v, device="cpu") for k, v in kept.items() if v.is_meta}
    normalize, remark = _normalize(model, tensors, layout, sample)
    statistics = {f"{_NORMALIZE}{k}": v for k, v in normalize.items()}
    values = {**kept, **counters, **compared.found, **statistics}
    model.load_state_dict(values, assign=on_meta)  # assigning would separate tied weights
    _NOTES[model] = _note(path, model, compared, keys, tensors, remark)


def loading_note(model: nn.Module) -> str:
    """What `load_weights` replaced or left over, in one line; empty if nothing."""
    return _NOTES.get(model, "")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of `torch.save` or safetensors; nothing in it is run.

    The state dict of a checkpoint is found in its usual places; prefixes of wrappers are removed.

    Raises:
        SeewhyError: If the file is missing, damaged, or holds anything else than tensors.
    """
    if problem := problem_of_path(path):
        remedy = "pass" if path.exists() else "download the weights there, or pass"
        raise SeewhyError(f"{problem}; {remedy} the path of a file of weights")
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and safetensors raise many types
        raise SeewhyError(
            f"{path} holds no weights: it {_content_of(path)}; pass a state dict saved by "
            "torch.save, or a .safetensors file"
        ) from error
    content = _state_dict(content)
    if not isinstance(content, Mapping) or not content:
        raise SeewhyError(
            f"{path} holds {type(content).__name__} instead of a state dict; save "
            "model.state_dict()"
        )
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if len(tensors) < len(content) or not all(isinstance(key, str) for key in tensors):
        raise SeewhyError(f"{path} holds more than tensors by name; save model.state_dict()")
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _content_of(path: Path) -> str:
    """What a file that is not one of weights is, in words that follow "it"."""
    start = path.read_bytes()[:_SNIFFED]
    if not start:
        return "is empty"
    with suppress(UnusableImage, OSError), path.open("rb") as file:
        return f"is a {open_known_format(file).format} image"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, which `git lfs pull` replaces by the file"
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        return "is a web page"
    if start.startswith((b"PK", b"\x80")):
        return "is damaged, or holds objects other than tensors"
    with suppress(UnicodeDecodeError):
        start[: _SNIFFED - 4].decode()
        return "is a text file"
    return "is damaged, or has another format"


def _state_dict(content: Any) -> Any:
    """The state dict in a checkpoint, or `content` itself."""
    for key in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return _state_dict(content[key])
    return content


def read_class_names(path: Path) -> tuple[str, ...]:
    """The lines of a text file, without empty ones.

    Raises:
        SeewhyError: If the file is missing, empty, or not UTF-8.
    """
    if problem := problem_of_path(path):
        raise SeewhyError(f"{problem}; pass a text file with a class name per line")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SeewhyError(
            f"{path} cannot be read as class names ({error}); pass a text file with one per line"
        ) from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise SeewhyError(f"{path} has no class names; write one per line")
    return names


def _spelling(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], layout: Layout
) -> dict[str, str]:
    """The file's key for each of the model's: as published, or as in a file of a run."""
    spellings = [
        {key: rename(key.removeprefix(prefix)) for key in own}
        for rename in (layout.rename, str)  # as published, if neither fits
        for prefix in ("", "net.")
    ]
    return max(spellings, key=lambda keys: sum(key in tensors for key in keys.values()))


def _compare(
    own: Mapping[str, Tensor], keys: Mapping[str, str], tensors: Mapping[str, Tensor]
) -> _Comparison:
    result = _Comparison()
    first = next((key for key, tensor in own.items() if tensor.ndim == 4), "")
    for key, file_key in keys.items():
        if file_key in tensors:
            tensor = tensors[file_key]
            if key == first:
                tensor = _fit_channels(tensor, own[key].shape[1])
            if tensor.shape == own[key].shape:
                result.found[key] = tensor.to(own[key].dtype).contiguous()
            else:
                result.reshaped.append(key)
        elif own[key].is_floating_point():  # others are counters and indices, made with the model
            result.missing.append(key)
    known = set(keys.values())
    parts = {key.partition(".")[0] for key in known}
    for key in tensors:
        if key not in known and not key.startswith(_NORMALIZE):
            ours = key.partition(".")[0] in parts
            (result.unexpected if ours else result.left_over).append(key)
    return result


def _fit_channels(filters: Tensor, channels: int) -> Tensor:
    """Filters (O, C, k, k) for gray images: those for RGB summed, which sees three equal channels.

    Those for gray images are repeated for RGB, and divided by 3.
    """
    if filters.ndim == 4 and (filters.shape[1], channels) == (3, 1):
        return filters.sum(1, keepdim=True)
    if filters.ndim == 4 and (filters.shape[1], channels) == (1, 3):
        return filters.repeat(1, 3, 1, 1) / 3
    return filters


def _allow_new_heads(
    compared: _Comparison,
    model: nn.Module,
    keys: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    images: Tensor,
) -> None:
    """Take the tensors of a head for another number of classes from those that do not fit."""
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    heads = [find_head(model)] if on_meta else find_heads(model, images)
    unfit = {*compared.missing, *compared.reshaped}
    for name in heads:
        own = model.get_submodule(name).state_dict()
        head = {f"{name}.{key}": value for key, value in own.items()}
        same_inputs = all(
            keys[key] not in tensors or tensors[keys[key]].shape[1:] == value.shape[1:]
            for key, value in head.items()
        )
        if unfit.issuperset(head) and same_inputs:
            compared.new_head[name] = None
            compared.missing = [key for key in compared.missing if key not in head]
            compared.reshaped = [key for key in compared.reshaped if key not in head]


def _check_layout(
    path: Path,
    compared: _Comparison,
    own: Mapping[str, Tensor],
    keys: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    layout: Layout,
) -> None:
    """Raise SeewhyError with the missing and unexpected keys, and tensors of another shape."""
    shapes = [
        f"{keys[key]} {tuple(tensors[keys[key]].shape)} instead of {tuple(own[key].shape)}"
        for key in compared.reshaped
    ]
    missing = [keys[key] for key in compared.missing]
    if not missing and not shapes and not compared.unexpected:
        return
    problems = [
        f"{kind}: {_first(names)}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", [*compared.unexpected, *compared.left_over]),
            ("of another shape", shapes),
        )
        if names
    ]
    settings = f", or set {layout.settings[0]}" if layout.settings and shapes else ""
    raise SeewhyError(
        f"{path} does not have the published layout of {layout.name}: {'; '.join(problems)}; pass "
        f"weights of this model, or name their model{settings}"
    )


def _normalize(
    model: nn.Module, tensors: Mapping[str, Tensor], layout: Layout, sample: Split
) -> tuple[dict[str, Tensor], str]:
    """The tensors of the model's Normalize, and a remark if they are not those of the weights."""
    if not isinstance(getattr(model, "normalize", None), Normalize):
        return {}, ""
    mean, std = weights_statistics(tensors, layout)
    if mean is None or std is None:
        remark = "mean and std are those of the data, because the file has none"
        return normalize_for(sample).state_dict(), remark
    return Normalize(*adapt_channels(mean, std, sample.images.shape[1])).state_dict(), ""


def weights_statistics(
    tensors: Mapping[str, Tensor], layout: Layout
) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    """Mean and std of the weights: those in the file, or as published; None if not known."""
    if {f"{_NORMALIZE}mean", f"{_NORMALIZE}std"} <= tensors.keys():
        mean, std = (tensors[f"{_NORMALIZE}{name}"].flatten().tolist() for name in ("mean", "std"))
        return mean, std
    return layout.mean, layout.std


def _note(
    path: Path,
    model: nn.Module,
    compared: _Comparison,
    keys: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    remark: str,
) -> str:
    remarks = []
    for name in compared.new_head:
        weight = tensors.get(keys[f"{name}.weight"])
        there = "no head" if weight is None else f"a head for {counted(len(weight), 'class')}"
        outputs = num_outputs(model.get_submodule(name))
        remarks.append(f"{there}; the one for {counted(outputs, 'class')} is new")
    if compared.left_over:
        remarks.append(f"left over: {_first(compared.left_over)}")
    if remark:
        remarks.append(remark)
    return f"{path.name}: {'; '.join(remarks)}" if remarks else ""


def _first(names: Sequence[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > _LISTED_KEYS else ""
    return f"{', '.join(names[:_LISTED_KEYS])}{more}"
