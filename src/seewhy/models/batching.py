"""Batch sizes of passes through a model: on a CPU, its feature maps should fit in the cache."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from seewhy._torch_compat import uncompiled
from seewhy.models.inspection import device_of, evaluating, is_program, prepare_images, unwrap_model

_SMALLEST, _LARGEST = 8, 256  # images per batch on a CPU, before others are tried
_CACHE_BYTES = 2**25  # batches whose largest feature maps fill a cache of this size are fastest
_GROWTH = 16  # least size of the largest feature map, in images: programs do not show theirs
_GPU_PIXELS, _GPU_LARGEST = 2**22, 1024  # per batch on other devices, which gain from large ones

_LONG = 5.0  # seconds; a longer pass tries other sizes on some of its batches
_TRIALS = 3  # batches per size; the fastest counts, because the processor may be shared
_GAIN = 0.95  # larger sizes are tried while one takes at most this fraction of the last one's time


def batches(
    model: nn.Module, images: Tensor, size: int | None = None, *, measured: bool = False
) -> Iterator[slice]:
    """Cut images into batches; the caller computes one before it asks for the next.

    Args:
        model: The model that computes them, in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1].
        size: Images per batch; by default found for the model.
        measured: Whether a pass of several seconds on a CPU may try other sizes, and later ones use
            the fastest. Rounding depends on the size, so two runs may then differ by it. Otherwise
            the size depends on model and image shape only.

    Yields:
        The rows of a batch.
    """
    start, pace = 0, None
    if size is None:
        size = batch_size(model, images) if len(images) > _SMALLEST else _SMALLEST
        if measured and len(images) > size and device_of(model).type == "cpu":
            pace = _pace_of(model, images)
    while (remaining := len(images) - start) > 0:
        size = min(size if pace is None else pace.next_size(remaining), remaining)
        began = time.perf_counter()
        yield slice(start, start + size)
        if pace is not None:
            pace.record(size, (time.perf_counter() - began) / size)
        start += size


def batch_size(model: nn.Module, images: Tensor) -> int:
    """Number of images of the shape of `images` (N, C, H, W) per batch; the same in every run."""
    if device_of(model).type != "cpu":
        pixels = images.shape[-1] * images.shape[-2]
        return max(_SMALLEST, min(_GPU_PIXELS // pixels, _GPU_LARGEST))
    return _pace_of(model, images).fitting


@dataclass(eq=False)
class _Pace:
    """The batch size that fits in the cache, and the time per image at those that were tried."""

    fitting: int
    fastest: dict[int, float] = field(default_factory=dict)  # seconds, by size
    trials: Counter[int] = field(default_factory=Counter)

    def record(self, size: int, seconds: float) -> None:
        self.fastest[size] = min(seconds, self.fastest.get(size, seconds))
        self.trials[size] += 1

    def next_size(self, remaining: int) -> int:
        """The size of the next batch, given the images left: one to try, or the fastest."""
        best = {size: best for size, best in self.fastest.items() if self.trials[size] >= _TRIALS}
        if self.fitting in best and best[self.fitting] * remaining > _LONG:
            for factor in (2, 0.5):
                last, size = self.fitting, int(self.fitting * factor)
                while size >= 1 and _TRIALS * size <= remaining:
                    if size not in best:
                        return size
                    if best[size] > _GAIN * best[last]:
                        break
                    last, size = size, int(size * factor)
        return min(best, key=best.__getitem__, default=self.fitting)


# by model; then by image shape and number of threads
_PACES: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], _Pace]] = WeakKeyDictionary()


def _pace_of(model: nn.Module, images: Tensor) -> _Pace:
    paces = _PACES.setdefault(model, {})
    key = (*images.shape[1:], torch.get_num_threads())
    if key not in paces:
        fitting = max(1, _CACHE_BYTES // _largest_feature_map(model, images[:1]))
        power = 2 ** (fitting.bit_length() - 1)  # divides evenly over the threads
        paces[key] = _Pace(max(_SMALLEST, min(power, _LARGEST)))
    return paces[key]


def _largest_feature_map(model: nn.Module, image: Tensor) -> int:
    """Most bytes that a module reads and writes for an image (1, C, H, W)."""
    largest = max(1, _GROWTH * 4 * image.numel())

    def observe(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        nonlocal largest
        tensors = [each for each in (*inputs, output) if isinstance(each, Tensor)]
        largest = max(largest, sum(tensor.nbytes for tensor in tensors))

    model = unwrap_model(model)
    modules = [module for module in model.modules() if not is_program(module)]  # they take no hooks
    handles = [module.register_forward_hook(observe) for module in modules]
    try:
        with uncompiled(), evaluating(model), torch.no_grad(), torch.random.fork_rng([]):
            # a clone, because the first layer may work in place
            model(prepare_images(image, model) if image.dtype == torch.uint8 else image.clone())
    except Exception:  # the pass itself will raise it, with an explanation
        pass
    finally:
        for handle in handles:
            handle.remove()
    return largest
