"""Models of timm and torchvision (extra `zoo`): `timm:resnet50`, `torchvision:vgg16`."""

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from seewhy.data.dataset import Split
from seewhy.data.decode import Preprocessing
from seewhy.errors import SeewhyError, did_you_mean, first_line
from seewhy.models.head import find_head, replace_head
from seewhy.models.hub import from_hub
from seewhy.models.inspection import evaluating
from seewhy.models.normalization import (
    Normalize,
    Wrapper,
    adapt_channels,
    normalize_for,
)
from seewhy.models.outputs import extract_logits
from seewhy.models.published import PretrainedInfo
from seewhy.wording import counted

T = TypeVar("T")

# With published weights, torchvision's model changes ImageNet's normalization to a mean and std of
# 0.5. The flag is not in the state dict, so it would be missing in the same model without them.
_HALF = ("googlenet", "inception_v3")


def timm_model(
    num_classes: int, sample: Split, name: str, pretrained: bool = False, **settings: Any
) -> nn.Module:
    """A timm model by name, with an optional tag (`resnet50.a1_in1k`); any number of channels.

    `settings` are those of timm, such as `img_size=32`. Pretrained weights bring their own mean and
    std. Raises SeewhyError if timm is missing or does not know the name, and if the model cannot
    take the sample's images.
    """
    timm = imported("timm")
    _check_name("timm", name, name.partition(".")[0], timm.list_models())
    channels = sample.images.shape[1]

    def create() -> nn.Module:
        net: nn.Module = timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, in_chans=channels, **settings
        )
        return net

    load = partial(from_hub, f"timm:{name}", create) if pretrained else create
    net = _create("timm", name, load)
    if pretrained:
        config = cast(dict[str, Any], net.pretrained_cfg)
        normalize = Normalize(*adapt_channels(config["mean"], config["std"], channels))
    else:
        normalize = normalize_for(sample)
    return checked(f"timm:{name}", External(net, normalize), sample)


def torchvision_model(
    num_classes: int, sample: Split, name: str, pretrained: bool = False
) -> nn.Module:
    """A torchvision classification model by name, for RGB images.

    Pretrained weights bring their own mean and std; the last layer is new unless `num_classes` is
    that of the weights. Raises SeewhyError if torchvision is missing or does not know the name,
    and if the model cannot take the sample's images.
    """
    models = imported("torchvision").models
    _check_name("torchvision", name, name, models.list_models(module=models))
    channels = sample.images.shape[1]
    if channels != 3:
        raise SeewhyError(
            f"torchvision:{name} needs RGB images, found {counted(channels, 'channel')}; choose a "
            "timm model, which accepts any number"
        )
    if pretrained:
        net = _without_auxiliary(
            _create("torchvision", name, lambda: models.get_model(name, weights="DEFAULT"))
        )
        info = _torchvision_info(name)
        assert info.mean is not None
        assert info.std is not None
        if name in _HALF:
            net.transform_input = False  # type: ignore[assignment]
        normalize = Normalize(info.mean, info.std)
        replace_head(net, num_classes)
    else:
        net = _without_auxiliary(
            _create("torchvision", name, lambda: models.get_model(name, num_classes=num_classes))
        )
        normalize = normalize_for(sample)
    return checked(f"torchvision:{name}", External(net, normalize), sample)


def external_info(package: str, name: str) -> PretrainedInfo:
    """Properties of the published weights of a model of timm or torchvision.

    Raises SeewhyError if the package is missing or does not know the name.
    """
    if not name:
        raise SeewhyError(f"'{package}:' has no model name; add one, as in {package}:resnet50")
    return _timm_info(name) if package == "timm" else _torchvision_info(name)


def external_head(package: str, name: str) -> str:
    """Name of the layer that computes the logits of a model of timm or torchvision."""
    if package == "timm":
        classifier = imported("timm").get_pretrained_cfg(name).classifier
        return str(classifier if isinstance(classifier, str) else classifier[0])
    with torch.device("meta"):
        return find_head(_without_auxiliary(imported("torchvision").models.get_model(name)))


def external_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Published tensors as timm converts them for its model, such as position embeddings.

    Unchanged for a model without such a conversion, or if the file is of another model.
    """
    net = model.get_submodule("net")
    convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return tensors
    plain = {k.removeprefix("net."): v for k, v in tensors.items() if not k.startswith("normalize")}
    try:
        converted: dict[str, Tensor] = convert(plain, net)
    except Exception:  # any, since the tensors may be those of another model
        return tensors
    return {**{k: v for k, v in tensors.items() if k.startswith("normalize")}, **converted}


def _timm_info(name: str) -> PretrainedInfo:
    timm = imported("timm")
    _check_name("timm", name, name.partition(".")[0], timm.list_models())
    config: Any = _create(
        "timm", name, lambda: timm.get_pretrained_cfg(name, allow_unregistered=False)
    )
    if config.num_classes == 1000:
        imagenet = timm.data.ImageNetInfo()
        classes = tuple(imagenet.index_to_description(index) for index in range(1000))
    else:
        classes = tuple(map(str, range(config.num_classes)))
    preprocessing = Preprocessing(config.crop_pct, _interpolation(config.interpolation))
    return PretrainedInfo(
        classes, config.input_size[-1], preprocessing, tuple(config.mean), tuple(config.std)
    )


def _torchvision_info(name: str) -> PretrainedInfo:
    models = imported("torchvision").models
    _check_name("torchvision", name, name, models.list_models(module=models))
    weights = models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    image_size, resized = preset.crop_size[0], preset.resize_size[0]
    half = name in _HALF
    return PretrainedInfo(
        tuple(weights.meta["categories"]),
        image_size,
        Preprocessing(min(1.0, image_size / resized), _interpolation(preset.interpolation.value)),
        (0.5,) * 3 if half else tuple(preset.mean),
        (0.5,) * 3 if half else tuple(preset.std),
    )


def _interpolation(name: str) -> str:
    """The filter that the weights were published with; bicubic for one that is not supported."""
    return name if name == "bilinear" else "bicubic"


class External(Wrapper):
    """A model of another package; images (N, C, H, W) float in [0, 1] to logits (N, K)."""

    def __init__(self, net: nn.Module, normalize: Normalize) -> None:
        super().__init__()
        self.normalize = normalize
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        output = self.net(self.normalize(pixels))
        return output if isinstance(output, Tensor) else extract_logits(output)


def imported(name: str) -> ModuleType:
    """A package of the extra `zoo`; raises SeewhyError if it is missing or broken."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name in ("timm", "torchvision", "transformers"):
            raise SeewhyError(
                f"{name} models need the package {error.name}: pip install 'seewhy[zoo]'"
            ) from None
        raise SeewhyError(
            f"{name} is installed but cannot be imported: {first_line(error)}"
        ) from error
    except Exception as error:  # any exception, if compiled for another torch
        raise SeewhyError(
            f"{name} is installed but cannot be imported: {first_line(error)}; "
            f"install timm and torchvision builds that match torch {torch.__version__}"
        ) from error


def _check_name(package: str, name: str, listed: str, known: Sequence[str]) -> None:
    if listed not in known:
        suggestion = did_you_mean(listed, dict.fromkeys(known))
        raise SeewhyError(
            f"unknown {package} model {name!r}{suggestion}; {package} lists {len(known)} of them"
        )


def _create(package: str, name: str, make: Callable[[], T]) -> T:
    try:
        with warnings.catch_warnings():
            # torchvision's advice is about an argument that cannot be set here
            warnings.simplefilter("ignore", FutureWarning)
            return make()
    except SeewhyError:
        raise
    except Exception as error:
        raise SeewhyError(f"{package} cannot create {name!r}: {first_line(error)}") from error


def _without_auxiliary(net: nn.Module) -> nn.Module:
    """Remove the auxiliary classifiers of GoogLeNet and Inception, which need an extra loss."""
    if hasattr(net, "aux_logits"):
        net.aux_logits = False  # type: ignore[assignment]
    for name in ("aux1", "aux2", "AuxLogits"):
        if hasattr(net, name):
            setattr(net, name, None)
    return net


def checked(spec: str, model: External, sample: Split) -> nn.Module:
    """`model`, after a forward pass with one image of the sample's shape."""
    channels, height, width = sample.images.shape[1:]
    image = torch.zeros(1, channels, height, width, device=model.normalize.mean.device)
    try:
        with evaluating(model), torch.no_grad():
            model(image)
    except Exception as error:
        raise SeewhyError(
            f"{spec} cannot take images of {height}x{width} pixels: {first_line(error)}; "
            "resize the images, or choose a model for any size, such as resnet18"
        ) from error
    return model
