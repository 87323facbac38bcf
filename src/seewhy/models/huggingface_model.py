"""Image classifiers of transformers (extra `zoo`): `hf:OWNER/NAME`, or a local directory."""

import base64
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seewhy.data.dataset import Split
from seewhy.data.decode import Preprocessing
from seewhy.errors import SeewhyError, first_line
from seewhy.models.external import External, checked, imported
from seewhy.models.head import replace_head
from seewhy.models.hub import from_hub
from seewhy.models.normalization import Normalize, adapt_channels
from seewhy.models.published import PretrainedInfo
from seewhy.wording import counted

_BICUBIC = 3  # of Pillow's filters, as in an image processor
_NAMES_IN_CONFIG = ("id2label", "label2id", "num_labels")


def huggingface_model(
    num_classes: int, sample: Split, name: str, pretrained: bool = True, config: str = ""
) -> nn.Module:
    """An image classifier of transformers by OWNER/NAME on the hub, or by its directory.

    Weights, mean and std are as published. Gray images are shown in all three channels. `config` is
    that of a run, which needs no hub. Raises SeewhyError if transformers is missing, if the model
    is not found, and if it cannot take the sample's images.
    """
    transformers = imported("transformers")
    channels = sample.images.shape[1]
    if channels not in (1, 3):
        raise SeewhyError(
            f"hf:{name} needs RGB or gray images, found {counted(channels, 'channel')}"
        )
    made: Any = transformers.AutoModelForImageClassification
    mean, std = [0.0] * 3, [1.0] * 3
    if pretrained and not config:
        net = _load(name, lambda: made.from_pretrained(name, dtype=torch.float32))
        published = huggingface_info(name)
        mean, std = list(published.mean or mean), list(published.std or std)
    else:
        settings = _unpack(config, name) if config else _load_config(name)
        settings.num_labels = num_classes
        net = made.from_config(settings)
    in_channels = getattr(net.config, "num_channels", 3)
    model = External(net.train(), Normalize(*adapt_channels(mean, std, in_channels)))
    checked(f"hf:{name}", model, sample)
    if net.config.num_labels != num_classes:
        replace_head(model, num_classes, sample.images)
        net.config.num_labels = num_classes
    return model


def huggingface_info(name: str) -> PretrainedInfo:
    """Classes, image size, preprocessing, mean and std of `hf:NAME`."""
    transformers = imported("transformers")
    config = _load_config(name)
    processor: Any = _load(name, lambda: transformers.AutoImageProcessor.from_pretrained(name))
    size, crop_size = _side(processor.size), _side(getattr(processor, "crop_size", None))
    crops = crop_size is not None and getattr(processor, "do_center_crop", False)
    side = (crop_size if crops else size) or int(getattr(config, "image_size", 224))
    crop: float = getattr(processor, "crop_pct", None) or 1.0
    if crops and size:
        crop = side / size
    normalizes = getattr(processor, "do_normalize", True)
    resample = int(getattr(processor, "resample", _BICUBIC) or _BICUBIC)
    return PretrainedInfo(
        tuple(str(config.id2label[index]) for index in range(config.num_labels)),
        side,
        Preprocessing(min(1.0, crop), "bicubic" if resample == _BICUBIC else "bilinear"),
        tuple(processor.image_mean) if normalizes else (0.0,) * 3,
        tuple(processor.image_std) if normalizes else (1.0,) * 3,
    )


def spec_with_config(spec: str, model: nn.Module) -> str:
    """The spec with the configuration of a model of transformers, to build it without the hub."""
    config = getattr(getattr(model, "net", None), "config", None)
    if not spec.startswith("hf:") or config is None:
        return spec
    values = {k: v for k, v in config.to_dict().items() if k not in _NAMES_IN_CONFIG}
    packed = base64.urlsafe_b64encode(zlib.compress(json.dumps(values).encode())).decode()
    return f"{spec},config={packed}"


def _unpack(packed: str, name: str) -> Any:
    transformers = imported("transformers")
    try:
        values = json.loads(zlib.decompress(base64.urlsafe_b64decode(packed)))
        return transformers.AutoConfig.for_model(**values)
    except Exception as error:
        raise SeewhyError(
            f"the configuration of hf:{name} in the run cannot be read "
            f"({str(error).partition(chr(10))[0][:200]}); install the transformers that trained it"
        ) from error


def _load_config(name: str) -> Any:
    transformers = imported("transformers")
    return _load(name, lambda: transformers.AutoConfig.from_pretrained(name))


def _load(name: str, load: Any) -> Any:
    """Load from a directory or from the hub; no code of a repository is run."""
    if Path(name).is_dir():
        try:
            with _without_bars():
                return load()
        except Exception as error:
            raise _error(name, error) from error
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise SeewhyError(f"hf:{name} needs OWNER/NAME of the hub, or a directory that exists")
    try:
        with _without_bars():
            return from_hub(f"hf:{name}", load)
    except SeewhyError:
        raise
    except Exception as error:
        raise _error(name, error) from error


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without the progress bars and warnings of transformers."""
    log: Any = imported("transformers").utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _error(name: str, error: Exception) -> SeewhyError:
    return SeewhyError(
        f"hf:{name} cannot be loaded as an image classifier: {first_line(error)[:300]}; choose a "
        "model of AutoModelForImageClassification"
    )


def _side(size: Any) -> int | None:
    """Height in pixels of a size in an image processor's form."""
    if size is None or isinstance(size, int):
        return size
    values = dict(size)
    found = values.get("height") or values.get("shortest_edge")
    return None if found is None else int(found)
