"""Published weights in a file, without the package that published them: `vgg16:weights=FILE`.

The layouts are those of torchvision's VGG-16, VGG-16 with BatchNorm, ResNet-18 and ResNet-34, and,
for ResNets, of the common implementations for CIFAR-10 with a 3x3 stem.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.data.decode import DEFAULT_PREPROCESSING, Preprocessing
from seewhy.errors import SeewhyError
from seewhy.models.normalization import Normalize
from seewhy.models.registry import blank_sample, build_model
from seewhy.notation import parse

# of torchvision's weights: resized to 256 with a bilinear filter, center crop of 224
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_PREPROCESSING = Preprocessing(crop=224 / 256, interpolation="bilinear")
_LISTED_KEYS = 3  # of each kind in an error
_CONTAINERS = ("state_dict", "model_state_dict", "model", "net")  # of checkpoints
_PREFIXES = ("module.", "model.")  # of wrapped models


@dataclass(frozen=True)
class _Form:
    """How a file's weights fit a model of MODELS."""

    settings: tuple[str, ...]  # of the model
    rename: Callable[[str], str]  # a key of our model, as the file spells it
    first: str  # the first convolution, in the file
    last: str  # the last linear layer, in the file
    image_size: int
    imagenet: bool  # whether mean, std and preprocessing of ImageNet apply


@dataclass(frozen=True, eq=False)
class PublishedModel:
    """A model with the weights of a file, in evaluation mode, and what they were trained on."""

    model: nn.Module
    num_classes: int
    image_shape: tuple[int, int, int]  # (C, H, W)
    preprocessing: Preprocessing


def weights_path(spec: str) -> Path | None:
    """The file in `NAME:weights=FILE`, or None."""
    written = parse(spec)[2].get("weights")
    return None if written is None else Path(written).expanduser()


def published_model(
    spec: str,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> PublishedModel:
    """A model with the weights of a file.

    Args:
        spec: `NAME:weights=FILE`, NAME one of vgg16, vgg16-bn, resnet18, and resnet34.
        image_size: Height and width of the images; 224 by default, or 32 for a 3x3 stem.
        mean: Mean of each channel that the weights were trained with, of pixels in [0, 1];
            ImageNet's by default.
        std: Standard deviation of each channel.

    Raises:
        SeewhyError: For another model, a file that is not a state dict, and weights of another
            layout, with the missing and the unexpected keys.
    """
    name, positional, keywords = parse(spec)
    path = Path(keywords.pop("weights")).expanduser()
    if name not in _FORMS:
        raise SeewhyError(
            f"{name} has no published weights in a file; possible: {', '.join(sorted(_FORMS))}"
        )
    tensors = read_state_dict(path)
    form = _FORMS[name](tensors)
    num_classes, channels = _sizes(tensors, form)
    size = image_size or form.image_size
    settings = [*positional, *(f"{key}={value}" for key, value in keywords.items())]
    full = ",".join([*settings, *form.settings])
    with torch.device("meta"):  # no memory and no time for weights that are replaced
        model = build_model(
            f"{name}:{full}" if full else name, num_classes, blank_sample(channels, size, size)
        )
    model.normalize = _normalize(form, tensors, channels, mean, std)
    published = {form.rename(key): key for key in _weights_of(model)}
    _check_layout(path, name, model, published, tensors)
    found = {
        key: _as_float32(tensors.get(file_key, torch.tensor(0)))
        for file_key, key in published.items()
    }
    model.load_state_dict({**found, **model.normalize.state_dict(prefix="normalize.")}, assign=True)
    return PublishedModel(
        model.eval(),
        num_classes,
        (channels, size, size),
        IMAGENET_PREPROCESSING if form.imagenet else DEFAULT_PREPROCESSING,
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of `torch.save` or safetensors; nothing in it is run.

    The state dict of a checkpoint is found in its usual places; prefixes of wrappers are removed.

    Raises:
        SeewhyError: If the file is missing, damaged, or holds anything else than tensors.
    """
    if not path.is_file():
        raise SeewhyError(f"{path} does not exist; download the weights there, or pass their path")
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and safetensors raise many types
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise SeewhyError(
            f"{path} cannot be read as weights ({reason[:200]}); pass a state dict saved by "
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


def _vgg(tensors: Mapping[str, Tensor]) -> _Form:
    return _Form((), str, "features.0.weight", "classifier.6.weight", 224, imagenet=True)


def _resnet(tensors: Mapping[str, Tensor]) -> _Form:
    """With a 7x7 stem as published for ImageNet, or with a 3x3 stem for CIFAR-10.

    torchvision calls the shortcut `downsample` and the last layer `fc`.
    """
    first = tensors.get("conv1.weight")
    small = first is not None and first.ndim == 4 and first.shape[-1] == 3
    ours = "linear.weight" in tensors

    def rename(key: str) -> str:
        if ours:
            return key
        return key.replace("linear.", "fc.").replace(".shortcut.", ".downsample.")

    last = "linear.weight" if ours else "fc.weight"
    if small:
        return _Form(("stem=cifar",), rename, "conv1.weight", last, 32, imagenet=False)
    return _Form(("stem=imagenet",), rename, "conv1.weight", last, 224, imagenet=True)


_FORMS: dict[str, Callable[[Mapping[str, Tensor]], _Form]] = {
    "resnet18": _resnet,
    "resnet34": _resnet,
    "vgg16": _vgg,
    "vgg16-bn": _vgg,
}


def _sizes(tensors: Mapping[str, Tensor], form: _Form) -> tuple[int, int]:
    """Number of classes and channels; ImageNet's for a foreign layout, which is refused later."""
    last, first = tensors.get(form.last), tensors.get(form.first)
    num_classes = len(last) if last is not None and last.ndim == 2 and len(last) > 1 else 1000
    channels = first.shape[1] if first is not None and first.ndim == 4 else 3
    return num_classes, channels if channels in (1, 3) else 3


def _normalize(
    form: _Form,
    tensors: Mapping[str, Tensor],
    channels: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Normalize:
    """The given mean and std, those in the file, or ImageNet's."""
    if mean is None and std is None and {"normalize.mean", "normalize.std"} <= tensors.keys():
        mean, std = (tensors[f"normalize.{name}"].flatten().tolist() for name in ("mean", "std"))
    elif mean is None and std is None and form.imagenet and channels == 3:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    if mean is None or std is None:
        raise SeewhyError(
            "these weights need the mean and std of their training images: pass both, as in "
            "--mean 0.4914 0.4822 0.4465 --std 0.247 0.2435 0.2616"
        )
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise SeewhyError(
                f"{name} must be {channels} numbers, one per channel, found {len(values)}"
            )
    if not min(std) > 0:
        raise SeewhyError(f"std must be above 0, found {min(std):g}")
    return Normalize(mean, std)


def _weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {
        key: value for key, value in model.state_dict().items() if not key.startswith("normalize.")
    }


def _check_layout(
    path: Path,
    name: str,
    model: nn.Module,
    published: Mapping[str, str],
    tensors: Mapping[str, Tensor],
) -> None:
    """Raise SeewhyError with the missing and unexpected keys, and tensors of another shape."""
    weights = _weights_of(model)
    # counters of batches, which old files lack
    optional = {key for key in published if key.endswith("num_batches_tracked")}
    problems = []
    missing = [key for key in published if key not in tensors and key not in optional]
    unexpected = [
        key for key in tensors if key not in published and not key.startswith("normalize.")
    ]
    shapes = [
        f"{key} {tuple(tensors[key].shape)} instead of {tuple(weights[own].shape)}"
        for key, own in published.items()
        if key in tensors and tensors[key].shape != weights[own].shape
    ]
    for kind, keys in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of another shape", shapes),
    ):
        if keys:
            more = f", … ({len(keys)} in all)" if len(keys) > _LISTED_KEYS else ""
            problems.append(f"{kind}: {', '.join(keys[:_LISTED_KEYS])}{more}")
    if problems:
        raise SeewhyError(
            f"{path} does not have the published layout of {name}: {'; '.join(problems)}; pass "
            "weights of this model, or name their model"
        )


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float().contiguous() if tensor.is_floating_point() else tensor.contiguous()
