"""Labeled images of other libraries as a `Dataset`: arrays, and datasets and loaders of PyTorch."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seewhy.data.dataset import Dataset, Split, compute_digest, fingerprint
from seewhy.data.decode import convert_mode
from seewhy.data.raw import check_label_range
from seewhy.errors import SeewhyError, describe_value
from seewhy.wording import counted

IMAGE_KEYS = ("image", "images", "pixel_values", "img")
LABEL_KEYS = ("label", "labels", "fine_label", "target", "targets")
IMAGES, LABELS = 0, 1  # the parts of a pair
CHANNELS = (1, 3, 4)  # of images; another number is a height
_IMAGE_TYPES = (Image.Image, Tensor, np.ndarray)
_DEEP_MODES = {"F": "F"} | dict.fromkeys(("I", "I;16", "I;16B", "I;16L", "I;16N"), "I")  # Pillow's
_MOST_CLASSES = 100_000  # that data may have without naming them


def as_dataset(
    data: object, classes: Sequence[str] = (), *, name: str = "", limit: int | None = None
) -> Dataset:
    """Labeled images as a `Dataset` that can be evaluated and diagnosed; its train split is empty.

    Pixels are stored as uint8. Images must have one size and must not be normalized: the pixels
    that a report shows are those that the model is given.

    Args:
        data: A pair (images, labels) of tensors, arrays or lists, images (N, C, H, W),
            (N, H, W, C) or (N, H, W), uint8 or float in [0, 1], labels (N,) or (N, 1) integers, or
            one-hot (N, K). Or a dict of them. Or an iterable of labeled images, or of batches of
            them, such as a torch `Dataset` or `DataLoader`, or a dataset of Hugging Face: each a
            pair, or a dict with an image and a label; images may be Pillow's. Of longer items, the
            label is the only part after the image that is a whole number. A `Dataset` of seewhy is
            returned as it is.
        classes: Names of the K classes, for data that names none; by default numbers.
        name: Name of the data in a report; by default that of its class.
        limit: Largest number of images to read from an iterable; None for all.

    Raises:
        SeewhyError: If the images or labels have another type or shape, or sizes differ, if values
            are outside [0, 1], a label has no class, or several parts of an item could be it.
    """
    if isinstance(data, Dataset):
        return data
    images, labels = read_labeled(data, limit, _whole, label_dims=0)
    named = known_classes(data) or tuple(classes) or _numbers(labels)
    name = name or data_name(data)
    check_label_range(named, {"test": labels.numpy()}, name)
    test = Split(images, labels, file_names(data, len(labels)))
    content = fingerprint(named, {"test": compute_digest(test)})
    return Dataset(name, named, Split(images[:0], labels[:0], []), test, None, content)


def read_labeled(
    data: object, limit: int | None, to_labels: Callable[[object], Tensor], label_dims: int
) -> tuple[Tensor, Tensor]:
    """All images (N, C, H, W) uint8 and labels (N, …) of labeled images, see `_read_items`."""
    if isinstance(data, Mapping) and not _has_labeled_images(data):
        names = ", ".join(map(str, islice(data, 8)))
        raise SeewhyError(
            f"data is a dict with {names or 'nothing'}; pass one split of it, as in "
            f"data[{next(iter(data), 'test')!r}], or images and labels, as in "
            "{'image': images, 'label': labels}"
        )
    if _is_pair(data) or isinstance(data, Mapping):
        items: object = [data]
    elif isinstance(data, Iterable) or hasattr(data, "__getitem__"):
        items = data
    else:
        raise SeewhyError(
            f"data must be a Dataset, a pair (images, labels), or labeled images such as a torch "
            f"DataLoader, found {describe_value(data)}"
        )
    parts = list(_read_items(items, limit, to_labels, label_dims))
    if not sum(len(labels) for _, labels in parts):
        raise SeewhyError(f"{data_name(data)} has no images")
    return _stacked([part for part, _ in parts]), torch.cat([each for _, each in parts])


def _is_pair(value: object) -> bool:
    """Whether a value is (images, labels), and not two labeled images."""
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and isinstance(value[IMAGES], Tensor | np.ndarray | list)
        and _are_labels(value[LABELS])
    )


def _are_labels(value: object) -> bool:
    """Whether a value is the labels of several images: not an image, and not an item of data."""
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim in (1, 2)
    return isinstance(value, list) and all(np.ndim(each) == 0 for each in value[:1])


def _read_items(
    data: object, limit: int | None, to_labels: Callable[[object], Tensor], label_dims: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images (N, C, H, W) uint8 and the labels (N, …) of each item, which may be a batch.

    `to_labels` converts those of an item; the label of a single image has `label_dims` dimensions.
    """
    count = 0
    for number, item in enumerate(_items(data)):
        image, label = _parts(item, number)
        labels = to_labels(label)
        batch = labels.ndim > label_dims
        pixels, labels = _pixels(image, batch), labels if batch else labels[None]
        if len(pixels) != len(labels):
            raise SeewhyError(
                f"item {number} of the data has {counted(len(pixels), 'image')} and "
                f"{counted(len(labels), 'label')}; each image needs one label, and a batch as many "
                "labels as images"
            )
        if limit is not None:
            pixels, labels = pixels[: limit - count], labels[: limit - count]
        count += len(labels)
        yield pixels, labels
        if count == limit:
            return


def _items(data: object) -> Iterator[Any]:
    """The items of an iterable, or of a torch Dataset, which has only a length and an index."""
    if isinstance(data, Iterable) or not hasattr(data, "__len__"):
        return iter(data)  # type: ignore[call-overload, no-any-return]
    length = len(data)
    return (data[index] for index in range(length))  # type: ignore[index]


def _has_labeled_images(item: Mapping[Any, Any]) -> bool:
    return all(any(key in item for key in keys) for keys in (IMAGE_KEYS, LABEL_KEYS))


def _parts(item: object, number: int) -> tuple[Any, Any]:
    """Image and label of an item: a pair or more, or a mapping with one key of each."""
    if isinstance(item, Mapping):
        image = next((item[key] for key in IMAGE_KEYS if key in item), None)
        label = next((item[key] for key in LABEL_KEYS if key in item), None)
        if image is not None and label is not None:
            return image, label
        found = f"a dict with {', '.join(map(str, islice(item, 8)))}"
    elif isinstance(item, tuple | list) and len(item) >= 2:
        return item[IMAGES], _label_among(item[LABELS:], number)
    else:
        found = describe_value(item)
    raise SeewhyError(
        f"item {number} of the data must be a pair (image, label), or a dict with image and label, "
        f"found {found}"
    )


def _label_among(parts: Sequence[object], number: int) -> object:
    """The label among the parts of an item after its image."""
    if len(parts) == 1:
        return parts[0]
    whole = [part for part in parts if _are_whole(part)]
    if len(whole) == 1:
        return whole[0]
    listed = ", ".join(map(describe_value, parts))
    raise SeewhyError(
        f"item {number} of the data has after its image {listed}, of which {len(whole) or 'none'} "
        "could be the label; pass pairs, as in [(image, label) for image, index, label in data]"
    )


def _are_whole(value: object) -> bool:
    """Whether a value is a whole number, or several, such as a label or an index."""
    if isinstance(value, list | tuple):
        return all(map(_are_whole, value))
    dtype = value.dtype if isinstance(value, Tensor) else np.asarray(value).dtype
    return str(dtype).removeprefix("torch.").startswith(("int", "uint"))


def _pixels(value: object, batch: bool) -> Tensor:  # (N, C, H, W) uint8
    """Pixels of an image, or of a batch of images."""
    if isinstance(value, Image.Image):
        value = np.array(_converted(value))
    if isinstance(value, list | tuple) and isinstance(next(iter(value), None), _IMAGE_TYPES):
        return _stacked([_pixels(each, batch=False) for each in value])
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value.copy())
    if not isinstance(value, Tensor) or value.ndim not in (2, 3, 4):
        raise SeewhyError(
            "images must be tensors or arrays (N, C, H, W), or Pillow images, found "
            f"{describe_value(value)}"
        )
    value = value.detach().cpu()
    return _bytes(_channels_first(value, batch)).contiguous()


def _converted(image: Image.Image) -> Image.Image:
    """The image as gray or RGB, with transparent parts on white, as in a file that is decoded."""
    if image.mode in _DEEP_MODES:
        return image.convert(_DEEP_MODES[image.mode])
    return convert_mode(image, channels=1 if image.mode in ("1", "L", "LA") else 3)


def _channels_first(value: Tensor, batch: bool) -> Tensor:  # (N, C, H, W)
    """An image or a batch of images, each (H, W), (C, H, W) or (H, W, C), as a batch."""
    if not batch and value.ndim < 4:
        value = value[None]
    if value.ndim == 3:
        return value[:, None]
    if value.shape[1] not in CHANNELS and value.shape[-1] in CHANNELS:
        return value.movedim(-1, 1)
    return value


def _bytes(value: Tensor) -> Tensor:
    """Pixels as uint8."""
    if value.dtype == torch.uint8:
        return value
    low, high = (float(each) for each in value.aminmax()) if value.numel() else (0.0, 0.0)
    if value.is_floating_point() and low >= 0 and high <= 1:
        return (value.float() * 255).round().to(torch.uint8)
    if not math.isfinite(low + high):
        remedy = "pixels must be finite, so leave out or mend the images that are not"
    elif low >= 0 and 1 < high <= 255:
        remedy = "if they are from 0 to 255, convert them to uint8"
    elif not value.is_floating_point():
        remedy = "scale them to 0 to 255 and convert them to uint8"
    else:
        remedy = (
            "if they are normalized, leave the normalization out of the data's transform, and give "
            "it to the model: Classifier(model, preprocess=Normalize(mean, std))"
        )
    raise SeewhyError(
        f"images must be uint8, or float in [0, 1], found {describe_value(value)} with values from "
        f"{low:.3g} to {high:.3g}; {remedy}"
    )


def _whole(value: object) -> Tensor:  # (N,) int64, or a single one ()
    """Labels as integers; (N, 1) and one-hot (N, K) are those of N images."""
    try:
        labels = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise SeewhyError(
            f"labels must be whole numbers, one per image, found {_shown(value)}; number the "
            "classes, as in labels = [classes.index(name) for name in names]"
        ) from error
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and _is_one_hot(labels):
        labels = labels.float().argmax(1)
    if labels.ndim > 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise SeewhyError(
            f"labels must be whole numbers, one per image, found {describe_value(labels)}; convert "
            "them to int64, or measure several labels per image with "
            "seewhy.runs.evaluate_multi_label"
        )
    return labels.to(torch.int64)


def _is_one_hot(labels: Tensor) -> bool:
    """Whether each row (N, K) is zero but for a single one."""
    return bool(((labels == 0) | (labels == 1)).all() and (labels != 0).sum(1).eq(1).all())


def _shown(value: object) -> str:
    """A label that is no number, for a message."""
    first = value[0] if isinstance(value, list | tuple | np.ndarray) and len(value) else value
    return repr(str(first)[:60]) if isinstance(first, str) else describe_value(value)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Batches of images as one tensor; a single batch is not copied."""
    shapes = {tuple(part.shape[1:]) for part in parts if len(part)}
    if len(shapes) > 1:
        first, second = ("x".join(map(str, shape)) for shape in sorted(shapes)[:2])
        gray = len({shape[1:] for shape in shapes}) == 1
        what, remedy = ("channels", "convert") if gray else ("size", "resize")
        raise SeewhyError(
            f"images differ in {what}: {first} and {second}; {remedy} them in the data's transform"
        )
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _layers(data: object) -> Iterator[Any]:
    """The data itself, and what it wraps: the dataset of a loader, of a subset, and so on."""
    while data is not None:
        yield data
        data = getattr(data, "dataset", None)


def known_classes(data: object) -> tuple[str, ...]:
    """Names of the classes that the data knows; empty if none."""
    for each in _layers(data):
        names = getattr(each, "classes", None)
        if names is None:  # of Hugging Face
            features = getattr(each, "features", None)
            known = features if isinstance(features, Mapping) else {}
            names = next((getattr(known[k], "names", None) for k in LABEL_KEYS if k in known), None)
        if isinstance(names, list | tuple) and names:
            return tuple(map(str, names))
    return ()


def _numbers(labels: Tensor) -> tuple[str, ...]:
    """The numbers from 0 to the largest label (N,), as the names of the classes."""
    highest = int(labels.max())
    if highest >= _MOST_CLASSES:
        raise SeewhyError(
            f"labels must be class indices from 0, found {highest:,}; number the classes, and pass "
            "their names"
        )
    return tuple(map(str, range(1 + highest)))


def file_names(data: object, count: int) -> list[str]:
    """File names where the data knows them in the order in which it was read, else numbers."""
    sampler = getattr(data, "sampler", None)
    ordered = sampler is None or isinstance(sampler, torch.utils.data.SequentialSampler)
    indices: Sequence[int] | None = None
    for each in _layers(data) if ordered else ():
        if isinstance(each, torch.utils.data.Subset):
            inner = [int(index) for index in each.indices]
            indices = inner if indices is None else [inner[index] for index in indices]
        samples = getattr(each, "samples", None)
        if isinstance(samples, list) and all(_is_file(sample) for sample in samples[:1]):
            rows = range(len(samples)) if indices is None else indices
            if len(rows) >= count:
                return [str(samples[row][0]) for row in rows[:count]]
    return [str(index) for index in range(count)]


def _is_file(sample: object) -> bool:
    return isinstance(sample, tuple) and len(sample) > 1 and isinstance(sample[0], str | Path)


def data_name(data: object) -> str:
    """The name of the data, from its root directory or its class."""
    *_, inner = _layers(data)
    root = getattr(inner, "root", None)
    if isinstance(root, str | Path) and Path(root).name:
        return Path(root).name
    return "arrays" if _is_pair(data) else type(inner).__name__
