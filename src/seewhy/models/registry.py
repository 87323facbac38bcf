"""The table of models, and building a model from a spec such as `davidnet:dropout=0.1`."""

import inspect
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError, describe_value
from seewhy.models.davidnet import davidnet
from seewhy.models.efficientnet import efficientnet_lite0
from seewhy.models.external import timm_model, torchvision_model
from seewhy.models.huggingface_model import huggingface_model
from seewhy.models.pretrained import layout_of, split_weights
from seewhy.models.published import LAYOUTS
from seewhy.models.resnet import resnet18, resnet34
from seewhy.models.speednet import speednet
from seewhy.models.vgg import vgg16, vgg16_bn
from seewhy.models.vit import vit
from seewhy.models.weights_file import load_weights, read_state_dict
from seewhy.notation import bind, parse, remove_argument

MODELS: dict[str, Callable[..., nn.Module]] = {
    "davidnet": davidnet,
    "efficientnet-lite0": efficientnet_lite0,
    "hf": huggingface_model,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "speednet": speednet,
    "timm": timm_model,
    "torchvision": torchvision_model,
    "vgg16": vgg16,
    "vgg16-bn": vgg16_bn,
    "vit": vit,
}


def bind_model(spec: str) -> Callable[[int, Split], nn.Module]:
    """Bind a model with settings: returns a function (num_classes, sample) -> model.

    Args:
        spec: A name of MODELS with its settings, such as "resnet18" or "davidnet:dropout=0.1".

    Raises:
        SeewhyError: For an unknown name or setting.
    """
    path = weights_file_of(spec)
    bare = spec if path is None else split_weights(spec)[0]
    make = bind(MODELS, bare, "model", n_supplied=2)

    def build(num_classes: int, sample: Split) -> nn.Module:
        if num_classes < 2:
            raise SeewhyError(
                f"model {spec!r}: a classifier needs at least 2 classes, found {num_classes}"
            )
        if sample.images.ndim != 4 or sample.images.dtype != torch.uint8 or len(sample) == 0:
            raise SeewhyError(
                f"model {spec!r}: the sample's images must be (N, C, H, W) uint8 with N of at "
                f"least 1, found {describe_value(sample.images)}"
            )
        if path is not None:
            return _with_weights(make, bare, path, num_classes, sample)
        model: nn.Module = make(num_classes, sample)
        return model

    return build


def weights_file_of(spec: str) -> Path | None:
    """The file in `NAME:weights=FILE`; None if there is none, or if the model's function reads it.

    Its function reads it if it has a parameter `weights` itself.
    """
    function = MODELS.get(parse(spec)[0])
    if function is not None and "weights" in inspect.signature(function).parameters:
        return None
    return split_weights(spec)[1]


def _with_weights(
    make: Callable[..., nn.Module], spec: str, path: Path, num_classes: int, sample: Split
) -> nn.Module:
    """The model with the weights of a file."""
    tensors = read_state_dict(path)
    # no memory and no time for weights that are replaced, where all of them are
    device = "meta" if parse(spec)[0] in LAYOUTS else torch.get_default_device()
    with torch.device(device):
        model = make(num_classes, sample)
    load_weights(model, tensors, path, layout_of(spec, tensors), sample)
    return model


def build_model(spec: str, num_classes: int, sample: Split) -> nn.Module:
    """Build a model that maps images (N, C, H, W), float in [0, 1], to logits (N, num_classes).

    Its weights are drawn from torch's global generator.

    Args:
        spec: A name of MODELS with its settings, such as "resnet18", "davidnet:dropout=0.1", or
            "vgg16:weights=vgg16.pth" for the weights of a file, which bring their mean and std; a
            head of another number of classes is replaced.
        num_classes: Number of classes, at least 2.
        sample: Images from the same distribution as the model's inputs, usually the training split.
            They determine the number of channels, the image size, mean and std, and speednet's
            whitening filters.

    Raises:
        SeewhyError: For an unknown name or setting, if the model does not accept the images, and if
            the file cannot be read or has the weights of another model.
    """
    return bind_model(spec)(num_classes, sample)


def untrained_spec(spec: str) -> str:
    """`spec` without published weights, for building a model before loading other weights."""
    if weights_file_of(spec) is not None:
        spec, _ = split_weights(spec)
    return remove_argument(MODELS, spec, "model", n_supplied=2, argument="pretrained")


def blank_sample(channels: int, height: int, width: int) -> Split:
    """All-zero images: a sample for `build_model` if the data is not available."""
    count = 8  # a few, for models that compute a covariance over images
    images = torch.zeros(count, channels, height, width, dtype=torch.uint8, device="cpu")
    labels = torch.zeros(count, dtype=torch.int64, device="cpu")
    return Split(images, labels, names=[f"blank-{i}" for i in range(count)])
