"""How published weights fit our models: the names of their tensors, and their preprocessing."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from seewhy.data.decode import DEFAULT_PREPROCESSING, Preprocessing
from seewhy.models.efficientnet import STAGES

# of torchvision's weights: resized to 256 with a bilinear filter, center crop of 224
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_PREPROCESSING = Preprocessing(crop=224 / 256, interpolation="bilinear")


@dataclass(frozen=True)
class PretrainedInfo:
    """Properties of the published weights of a model."""

    classes: tuple[str, ...]
    image_size: int  # height and width in pixels
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING
    mean: tuple[float, ...] | None = None  # per channel, of pixels in [0, 1]; None if not known
    std: tuple[float, ...] | None = None
    channels: int = 3
    settings: tuple[str, ...] = ()  # of the model, such as stem=cifar


Tensors = Mapping[str, Tensor]


def _unchanged(model: nn.Module, tensors: Tensors) -> Tensors:
    return tensors


@dataclass(frozen=True)
class Layout:
    """How the tensors of a file spell those of a model, and what they were trained on."""

    name: str  # of the model
    rename: Callable[[str], str] = field(default=str)  # a key of our model, as the file spells it
    stem: str = ""  # first convolution, as the file spells it
    head: str = ""  # last layer, as the file spells it
    image_size: int = 224
    preprocessing: Preprocessing = IMAGENET_PREPROCESSING
    mean: tuple[float, ...] | None = IMAGENET_MEAN
    std: tuple[float, ...] | None = IMAGENET_STD
    settings: tuple[str, ...] = ()  # of the model
    convert: Callable[[nn.Module, Tensors], Tensors] = _unchanged  # to the model's image size


def _vgg(name: str, tensors: Mapping[str, Tensor]) -> Layout:
    return Layout(name, stem="features.0", head="classifier.6")


def _resnet(name: str, tensors: Mapping[str, Tensor]) -> Layout:
    """With a 7x7 stem as published for ImageNet, or with a 3x3 stem for CIFAR-10.

    torchvision calls the shortcut `downsample` and the last layer `fc`.
    """
    first = tensors.get("conv1.weight")
    ours = "linear.weight" in tensors

    def rename(key: str) -> str:
        if ours:
            return key
        return key.replace("linear.", "fc.").replace(".shortcut.", ".downsample.")

    head = "linear" if ours else "fc"
    if first is not None and first.ndim == 4 and first.shape[-1] == 3:
        settings = ("stem=cifar",)
        return Layout(name, rename, "conv1", head, 32, DEFAULT_PREPROCESSING, None, None, settings)
    return Layout(name, rename, "conv1", head, settings=("stem=imagenet",))


def _efficientnet_lite(name: str, tensors: Mapping[str, Tensor]) -> Layout:
    """Blocks in one list, `_bn0` to `_bn2` in the order of the convolutions, `_fc`."""
    first = [sum(stage.blocks for stage in STAGES[:index]) for index in range(len(STAGES))]
    parts = {
        "stem": ("_conv_stem", "_bn0"),
        "last": ("_conv_head", "_bn1"),
        "expand": ("_expand_conv", "_bn0"),
        "depthwise": ("_depthwise_conv", "_bn1"),
        "project": ("_project_conv", "_bn2"),
    }

    def part(match: re.Match[str]) -> str:
        return parts[match[1]][match[2] == "norm"]

    def rename(key: str) -> str:
        key = re.sub(rf"({'|'.join(parts)})\.(conv|norm)", part, key)
        key = re.sub(
            r"stages\.(\d+)\.(\d+)", lambda m: f"_blocks.{first[int(m[1])] + int(m[2])}", key
        )
        return key.replace("linear.", "_fc.")

    ours = "linear.weight" in tensors
    # resized to 256 with a bicubic filter, center crop of 224, pixels in [-1, 1]
    return Layout(
        name,
        str if ours else rename,
        "stem.conv" if ours else "_conv_stem",
        "linear" if ours else "_fc",
        preprocessing=Preprocessing(crop=224 / 256, interpolation="bicubic"),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )


# by name of a model, whose layout may depend on the tensors of the file
LAYOUTS: dict[str, Callable[[str, Mapping[str, Tensor]], Layout]] = {
    "efficientnet-lite0": _efficientnet_lite,
    "resnet18": _resnet,
    "resnet34": _resnet,
    "vgg16": _vgg,
    "vgg16-bn": _vgg,
}
