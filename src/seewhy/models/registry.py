"""The models there are, and how a string such as `davidnet:dropout=0.1` becomes one."""

from collections.abc import Callable

import torch
from torch import nn

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.models.davidnet import davidnet
from seewhy.models.external import timm_model, torchvision_model
from seewhy.models.resnet import resnet18, resnet34
from seewhy.models.speednet import speednet
from seewhy.models.vgg import vgg16, vgg16_bn
from seewhy.notation import bind, remove_argument

MODELS: dict[str, Callable[..., nn.Module]] = {
    "davidnet": davidnet,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "speednet": speednet,
    "timm": timm_model,
    "torchvision": torchvision_model,
    "vgg16": vgg16,
    "vgg16-bn": vgg16_bn,
}


def build_model(text: str, num_classes: int, sample: Split) -> nn.Module:
    """A new model that takes images (N, C, H, W) float in [0, 1] like those of `sample` and returns logits (N, num_classes).

    `text` is the notation `name:key=value`, for one of MODELS: `(num_classes, sample, ...settings) -> nn.Module`. The weights
    come from torch's global generator. Raises SeewhyError for what the user can mend: the name, a setting, the image size.
    """
    make = bind(MODELS, text, "model", n_supplied=2)
    if num_classes < 2:
        raise SeewhyError(
            f"model {text!r}: a classifier needs at least 2 classes, found {num_classes}"
        )
    if sample.images.ndim != 4 or sample.images.dtype != torch.uint8 or len(sample) == 0:
        found = f"{tuple(sample.images.shape)} {sample.images.dtype}".replace("torch.", "")
        raise SeewhyError(
            f"model {text!r}: the sample's images must be (N, C, H, W) uint8 with N of at least 1, found {found}"
        )
    model: nn.Module = make(num_classes, sample)
    return model


def untrained_spec(text: str) -> str:
    """The same network without published weights: what to build where others are loaded into it afterwards."""
    return remove_argument(MODELS, text, "model", n_supplied=2, argument="pretrained")


def blank_sample(channels: int, height: int, width: int) -> Split:
    """All-zero images of a shape: what `build` needs where the weights are loaded afterwards and the data is not at hand."""
    count = 8  # a few, for models that compute a variance or a covariance over images
    images = torch.zeros(count, channels, height, width, dtype=torch.uint8, device="cpu")
    labels = torch.zeros(count, dtype=torch.int64, device="cpu")
    return Split(images, labels, names=[f"blank-{i}" for i in range(count)])
