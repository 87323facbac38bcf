"""The table of models, and building a model from a spec such as `davidnet:dropout=0.1`."""

from collections.abc import Callable

import torch
from torch import nn

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError, describe_value
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


def bind_model(spec: str) -> Callable[[int, Split], nn.Module]:
    """Bind a model with settings: returns a function (num_classes, sample) -> model.

    Args:
        spec: A name of MODELS with its settings, such as "resnet18" or "davidnet:dropout=0.1".

    Raises:
        SeewhyError: For an unknown name or setting.
    """
    make = bind(MODELS, spec, "model", n_supplied=2)

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
        model: nn.Module = make(num_classes, sample)
        return model

    return build


def build_model(spec: str, num_classes: int, sample: Split) -> nn.Module:
    """Build a model that maps images (N, C, H, W), float in [0, 1], to logits (N, num_classes).

    Its weights are drawn from torch's global generator.

    Args:
        spec: A name of MODELS with its settings, such as "resnet18" or "davidnet:dropout=0.1".
        num_classes: Number of classes, at least 2.
        sample: Images from the same distribution as the model's inputs, usually the training split.
            They determine the number of channels, the image size, mean and std, and speednet's
            whitening filters.

    Raises:
        SeewhyError: For an unknown name or setting, and if the model does not accept the images.
    """
    return bind_model(spec)(num_classes, sample)


def untrained_spec(spec: str) -> str:
    """`spec` without published weights, for building a model before loading other weights."""
    return remove_argument(MODELS, spec, "model", n_supplied=2, argument="pretrained")


def blank_sample(channels: int, height: int, width: int) -> Split:
    """All-zero images: a sample for `build_model` if the data is not available."""
    count = 8  # a few, for models that compute a covariance over images
    images = torch.zeros(count, channels, height, width, dtype=torch.uint8, device="cpu")
    labels = torch.zeros(count, dtype=torch.int64, device="cpu")
    return Split(images, labels, names=[f"blank-{i}" for i in range(count)])
