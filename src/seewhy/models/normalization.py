"""Normalization inside the model, so that its input is pixels in [0, 1]."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.data.dataset import Split
from seewhy.data.statistics import channel_statistics


class Normalize(nn.Module):
    """Normalize every channel: `(pixels - mean) / std`.

    Mean and std are buffers (1, C, 1, 1), saved and moved with the model. State dicts without these
    buffers load too.

    Args:
        mean: Mean of each of the C channels, of pixels in [0, 1].
        std: Standard deviation of each channel; a channel with 0 is only centered.
    """

    mean: Tensor  # (1, C, 1, 1) float32
    std: Tensor  # (1, C, 1, 1) float32

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer(
            "std",
            torch.tensor([value or 1.0 for value in std], dtype=torch.float32).view(1, -1, 1, 1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (N, C, H, W) float in [0, 1] to pixels of about zero mean and unit variance."""
        return (pixels - self.mean) / self.std

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, buffer in self.named_buffers():
            # torch passes a copy, so the caller's dictionary is not changed
            state_dict.setdefault(prefix + name, buffer)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Wrapper(nn.Module):
    """A model around another one, whose layers have the names that they have in that one."""

    wrapped_child = "net"  # see `layer_path`

    def __getattr__(self, name: str) -> Any:
        return self._inside()[name] if name in self._inside() else super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._inside():  # a new head, for example
            setattr(self.__dict__["_modules"][self.wrapped_child], name, value)
        else:
            super().__setattr__(name, value)

    def _inside(self) -> dict[str, nn.Module | None]:
        """The modules of the wrapped model whose names are not taken here."""
        children = self.__dict__.get("_modules", {})
        wrapped = children.get(self.wrapped_child)
        inside = {} if wrapped is None else wrapped.__dict__["_modules"]
        return {name: module for name, module in inside.items() if name not in children}


class Preprocessed(Wrapper):
    """A model whose arguments are made from pixels by functions outside of it.

    Both are differentiable, so that gradients reach the pixels.

    Args:
        model: The model.
        preprocess: Maps pixels (N, C, H, W) float in [0, 1] to the images that `model` takes, such
            as torchvision's `Normalize`; None if it takes pixels.
        inputs: Maps these images to the arguments of `model`: a dict of keyword arguments, a tuple
            of positional ones, or a single one; None if the images are the only one.
    """

    wrapped_child = "_model"  # a name that no layer of the model has

    def __init__(
        self,
        model: nn.Module,
        preprocess: Callable[[Tensor], Tensor] | None,
        inputs: Callable[[Tensor], Any] | None = None,
    ) -> None:
        super().__init__()
        for function in (preprocess, inputs):
            if isinstance(function, nn.Module):
                function.train(model.training)  # else the model would seem to be in both modes
        self._preprocess = preprocess
        self._inputs = inputs
        self._model = model
        self.training = model.training

    def forward(self, pixels: Tensor) -> Any:
        """Pixels (N, C, H, W) float in [0, 1] to the output of the model."""
        images = pixels if self._preprocess is None else self._preprocess(pixels)
        arguments = images if self._inputs is None else self._inputs(images)
        if isinstance(arguments, Mapping):
            return self._model(**arguments)
        return self._model(*arguments) if isinstance(arguments, tuple) else self._model(arguments)


def normalize_for(sample: Split) -> Normalize:
    """Normalize with the channel statistics of `sample`.

    At most 50,000 of its images are read, and fewer of images larger than 32x32.
    """
    # compute statistics even if the model is being built on "meta"
    with torch.device(sample.images.device):
        pixels = max(32 * 32, math.prod(sample.images.shape[2:]))
        statistics = channel_statistics(sample, max_images=max(1, 50_000 * 32 * 32 // pixels))
    return Normalize(statistics.mean.tolist(), statistics.std.tolist())


def adapt_channels(
    mean: Sequence[float], std: Sequence[float], channels: int
) -> tuple[list[float], list[float]]:
    """Mean and std for another number of channels: averaged for one, otherwise repeated."""
    if channels == 1:
        return [sum(mean) / len(mean)], [sum(std) / len(std)]
    indices = [index % len(mean) for index in range(channels)]
    return [mean[index] for index in indices], [std[index] for index in indices]
