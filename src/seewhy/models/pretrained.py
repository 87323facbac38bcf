"""Published weights of a spec: `timm:resnet50`, `vgg16:weights=FILE`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from seewhy.errors import SeewhyError
from seewhy.models.external import external_head, external_info, external_tensors
from seewhy.models.huggingface_model import huggingface_info
from seewhy.models.published import LAYOUTS, Layout, PretrainedInfo
from seewhy.models.weights_file import read_state_dict, weights_statistics
from seewhy.notation import parse, take_argument

PACKAGES = ("timm", "torchvision")  # whose weights may be in a file


def pretrained_info(spec: str) -> PretrainedInfo | None:
    """Classes, image size, preprocessing, mean and std of the published weights of a model.

    None for a model without published weights. Classes without names are numbered.

    Args:
        spec: `timm:NAME`, `torchvision:NAME`, `hf:OWNER/NAME`, or any model with `weights=FILE`.

    Raises:
        SeewhyError: If the package is missing or does not know the name, and if the file cannot be
            read or the layout of its model is not known.
    """
    name, path = split_weights(spec)
    package = parse(name)[0]
    if package == "hf" and model_name(name):
        return huggingface_info(model_name(name))
    if path is None:
        return external_info(package, model_name(name)) if package in PACKAGES else None
    if package not in (*LAYOUTS, *PACKAGES):
        raise SeewhyError(
            f"{package} has no published weights in a file; possible: {', '.join(sorted(LAYOUTS))}"
        )
    tensors = read_state_dict(path)
    layout = layout_of(name, tensors)
    mean, std = weights_statistics(tensors, layout)
    num_classes, channels = _sizes(tensors, layout)
    info = PretrainedInfo(
        tuple(map(str, range(num_classes))),
        layout.image_size,
        layout.preprocessing,
        None if mean is None else tuple(mean),
        None if std is None else tuple(std),
        channels,
        layout.settings,
    )
    if package in PACKAGES:
        published = external_info(package, model_name(name)).classes
        return replace(info, classes=published) if len(published) == num_classes else info
    return info


def layout_of(spec: str, tensors: Mapping[str, Tensor]) -> Layout:
    """How a file with these tensors spells those of the model `spec`, given without weights=."""
    package = parse(spec)[0]
    if package in LAYOUTS:
        return LAYOUTS[package](package, tensors)
    if package not in PACKAGES:
        return Layout(spec, mean=None, std=None)
    info = external_info(package, model_name(spec))
    return Layout(
        spec,
        head=external_head(package, model_name(spec)),
        image_size=info.image_size,
        preprocessing=info.preprocessing,
        mean=info.mean,
        std=info.std,
        convert=external_tensors,
    )


def split_weights(spec: str) -> tuple[str, Path | None]:
    """`NAME:weights=FILE` without its file, and the file; None if there is none."""
    rest, written = take_argument(spec, "weights")
    return rest, None if written is None else Path(written).expanduser()


def model_name(spec: str) -> str:
    """NAME in `timm:NAME`; empty if there is none."""
    _, positional, keywords = parse(spec)
    return positional[0] if positional else keywords.get("name", "")


def _sizes(tensors: Mapping[str, Tensor], layout: Layout) -> tuple[int, int]:
    """Number of classes and channels; ImageNet's for a foreign layout, which is refused later."""
    last, first = tensors.get(f"{layout.head}.weight"), tensors.get(f"{layout.stem}.weight")
    num_classes = len(last) if last is not None and last.ndim >= 2 and len(last) > 1 else 1000
    channels = first.shape[1] if first is not None and first.ndim == 4 else 3
    return num_classes, channels if channels in (1, 3) else 3
