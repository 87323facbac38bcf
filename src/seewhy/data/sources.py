"""From a name or a path to a data set: `load`, and the table of sources that it looks names up in."""

import os
import shutil
from collections.abc import Callable, Sequence, Sized
from dataclasses import asdict, replace
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seewhy.data.build import LoadOptions, build_entry
from seewhy.data.cache import open_or_build
from seewhy.data.dataset import (
    DataOrigin,
    Dataset,
    Split,
    digest_of,
    fingerprint,
    stratified_sample,
)
from seewhy.data.decode import Encoded
from seewhy.data.folders import directory
from seewhy.data.huggingface import hub
from seewhy.data.raw import (
    LoadRequest,
    RawDataset,
    RawSplit,
    Source,
    check_labels,
    no_label_choice,
    raw_split_from_arrays,
)
from seewhy.data.shapes import shapes
from seewhy.errors import SeewhyError, did_you_mean
from seewhy.notation import bind


def load(
    name: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    validation: float = 0.0,
    limit: int | None = None,
    seed: int = 0,
    skip_bad_images: bool = False,
    label: str | None = None,
    quiet: bool = False,
) -> Dataset:
    """The data set that `name` names in SOURCES, or that lies in this directory: decoded once, memory-mapped ever after.

    `image_size` is the side of the square that images are resized and cropped to; None keeps the size that they share,
    else takes their median shorter side. `validation` is the share of train to hold out, `limit` keeps only so many training
    images, of every class alike; `seed` draws these, and the splits that the source lacks. `label` chooses a column.
    `skip_bad_images` leaves out what cannot be read and lists it in `Dataset.skipped`. Raises SeewhyError for an unknown name,
    values out of range, and data that cannot be trained on.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise SeewhyError(
            f"a data set is loaded by its name or a directory's path, found {_shown(name)}"
        )
    if label is not None and not isinstance(label, str):
        raise SeewhyError(f"label must be the name of a column, found {_shown(label)}")
    wish = LoadOptions(
        image_size=None if image_size is None else _whole("image_size", image_size, least=1),
        validation=_share("validation", validation),
        seed=_whole("seed", seed, least=0),
        skip_bad_images=bool(skip_bad_images),
        label=label,
    )
    named = isinstance(name, str) and name.partition(":")[0].strip() in SOURCES
    again = {"name": str(name) if named else str(Path(name).expanduser().resolve()), **asdict(wish)}
    most = None if limit is None else _whole("limit", limit, least=1)
    dataset = _load(find(name), wish, quiet)
    if most is not None and most < len(dataset.train):
        dataset, again = _limited(dataset, most, wish.seed), again | {"limit": most}
    return replace(dataset, load_args=again)


def reload_data(origin: DataOrigin, data: Dataset | None = None) -> Dataset:
    """The data set that `origin` describes: `data` if it is that one, else loaded again.

    Raises SeewhyError where the data was made in memory and is not given, and where its content has changed.
    """
    if data is None:
        if not origin.load_args:
            raise SeewhyError(
                f"{origin.name} was made in memory, so it cannot be loaded again; pass the data set"
            )
        data = load(**origin.load_args)
    data = check_dataset(data)
    if data.fingerprint != origin.fingerprint:
        raise SeewhyError(
            f"{data.name} is not the data that was trained on: its fingerprint is {data.fingerprint}, "
            f"not {origin.fingerprint}; restore the data, or train again"
        )
    return data


def _load(source: Source | Dataset, wish: LoadOptions, quiet: bool) -> Dataset:
    if isinstance(source, Dataset):
        dataset = check_dataset(source)
        as_it_is = wish.image_size is None or dataset.image_shape[1:] == (
            wish.image_size,
            wish.image_size,
        )
        if as_it_is and not wish.validation and wish.label is None:
            return dataset
        source = _from_memory(dataset)
    key = {
        "source": source.signature,
        "image_size": wish.image_size,
        "validation": wish.validation,
        "label": wish.label,
    }

    def build(into: Path) -> bool:
        scratch = into / "scratch"
        scratch.mkdir()
        drawn = build_entry(
            source.open(LoadRequest(wish.label, scratch, quiet)), source.name, wish, into, quiet
        )
        shutil.rmtree(scratch)
        return drawn

    header, splits = open_or_build(source.name, key, wish.seed, build, quiet)
    if header.skipped and not wish.skip_bad_images:
        raise SeewhyError(
            f"{source.name}: {len(header.skipped):,} images cannot be read, the first is {header.skipped[0]}; "
            "remove them, or leave them out with skip_bad_images"
        )
    return Dataset(
        name=source.name,
        classes=header.classes,
        train=splits["train"],
        test=splits["test"],
        validation=splits.get("validation"),
        fingerprint=header.fingerprint,
        skipped=header.skipped,
    )


def _limited(dataset: Dataset, limit: int, seed: int) -> Dataset:
    """The data set with only so many training images, copied into memory."""
    if limit < len(dataset.classes):
        raise SeewhyError(
            f"{dataset.name} has {len(dataset.classes)} classes, so limit must be at least that, found {limit}"
        )
    train = dataset.train.take(
        torch.from_numpy(stratified_sample(dataset.train.labels.numpy(), limit, seed))
    )
    return check_dataset(replace(dataset, train=train, fingerprint=""))


def _whole(argument: str, value: object, least: int) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise SeewhyError(f"{argument} must be a whole number, found {_shown(value)}")
    if value < least:
        raise SeewhyError(f"{argument} must be at least {least}, found {value}")
    return int(value)


def _share(argument: str, value: object) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise SeewhyError(f"{argument} must be a number, found {_shown(value)}")
    share = float(value)
    if not 0 <= share < 1:
        raise SeewhyError(f"{argument} must be at least 0 and below 1, found {share}")
    return share


def _shown(value: object) -> str:
    """Its value and its type on one line."""
    return f"{' '.join(repr(value).split()):.60} of type {type(value).__name__}"


def find(name: str | os.PathLike[str]) -> Source | Dataset:
    """What `name` stands for, not read yet. Raises SeewhyError for what is neither in SOURCES nor a directory."""
    if not isinstance(name, str):
        return directory(Path(name).expanduser())
    base = name.partition(":")[0].strip()
    if base in SOURCES:
        found = bind(SOURCES, name, "data set", n_supplied=0)()
        if not isinstance(found, (Source, Dataset)):
            raise SeewhyError(
                f"data set {name!r}: its function must return a Dataset or a Source, found {type(found).__name__}"
            )
        return found
    path = Path(name).expanduser()
    if name and (path.exists() or name.startswith((".", "~")) or "/" in name or os.sep in name):
        return directory(path)
    raise SeewhyError(
        f"unknown data set {name!r}{did_you_mean(base, SOURCES)}; possible: {', '.join(sorted(SOURCES))}, "
        "a directory's path, or hub:owner/name"
    )


def digits() -> Source:
    """1,797 handwritten digits of 8x8 gray pixels, shipped with scikit-learn (Alpaydin & Kaynak 1998)."""

    def open_(request: LoadRequest) -> RawDataset:
        from sklearn.datasets import load_digits

        no_label_choice("digits", request)
        bunch = load_digits()
        images = np.round(bunch.images * (255 / 16)).astype(
            np.uint8
        )  # (N, 8, 8), stored as 0 to 16
        return RawDataset(
            tuple("0123456789"),
            {"train": raw_split_from_arrays(images, bunch.target.astype(np.int64), "digit")},
        )

    return Source("digits", "digits", open_)


def _on_the_hub(name: str, repository: str, config: str = "") -> Callable[[], Source]:
    def source() -> Source:
        return replace(hub(repository, config), name=name)

    return source


def check_dataset(dataset: Dataset) -> Dataset:
    """A data set made by hand, with its fingerprint where its maker gave none; no pixel is read where there is one.

    Raises SeewhyError where its splits are not what `Split` says, do not match, or cannot be trained on.
    """
    for name, split in dataset.splits.items():
        wrong = _wrong_with(split, dataset.image_shape if name != "train" else None)
        if wrong:
            raise SeewhyError(f"{dataset.name}: the {name} split's {wrong}")
    labels = {name: split.labels.cpu().numpy() for name, split in dataset.splits.items()}
    check_labels(dataset.classes, labels, dataset.name)
    if dataset.fingerprint:
        return dataset
    digests = {name: digest_of(split) for name, split in dataset.splits.items()}
    return replace(dataset, fingerprint=fingerprint(dataset.classes, digests))


def _wrong_with(split: Split, image_shape: tuple[int, ...] | None) -> str | None:
    """What is wrong with the tensors of a split, whose images should have this shape (C, H, W), or None."""
    images, labels, names, masks = split.images, split.labels, split.names, split.masks
    if not _is(images, torch.uint8, 4) or 0 in images.shape[1:]:
        return f"images must be (N, C, H, W) uint8, found {_kind(images)}"
    if not _is(labels, torch.int64, 1):
        return f"labels must be (N,) int64, found {_kind(labels)}"
    if not isinstance(names, Sized):
        return f"names must be a list of N names, found {_kind(names)}"
    if not len(images) == len(labels) == len(names):
        return f"labels and names must be as many as its images, found {len(images):,}, {len(labels):,} and {len(names):,}"
    if masks is not None and not (
        _is(masks, torch.bool, 3) and masks.shape == (len(images), *images.shape[2:])
    ):
        return f"masks must be (N, H, W) bool, here {(len(images), *images.shape[2:])}, found {_kind(masks)}"
    if image_shape is not None and images.shape[1:] != image_shape:
        shapes = ["x".join(map(str, shape)) for shape in (images.shape[1:], image_shape)]
        return f"images are {shapes[0]} but those of train are {shapes[1]}; resize them to one size"
    return None


def _is(value: object, dtype: torch.dtype, dimensions: int) -> bool:
    return isinstance(value, Tensor) and value.dtype == dtype and value.ndim == dimensions


def _kind(value: object) -> str:
    return (
        f"{tuple(value.shape)} {value.dtype}"
        if isinstance(value, Tensor)
        else f"a {type(value).__name__}"
    )


def _from_memory(dataset: Dataset) -> Source:
    """So that a data set made in memory can be resized and split like any other."""

    def open_(request: LoadRequest) -> RawDataset:
        no_label_choice(dataset.name, request)
        return RawDataset(
            dataset.classes, {name: _rows_of_split(split) for name, split in dataset.splits.items()}
        )

    return Source(dataset.name, {"memory": dataset.fingerprint}, open_)


def _rows_of_split(split: Split) -> RawSplit:
    def read(indices: Sequence[int]) -> list[tuple[str, Encoded]]:
        return [(split.names[i], split.images[i].permute(1, 2, 0).numpy()) for i in indices]

    return RawSplit(
        read, split.labels.numpy(), None if split.masks is None else split.masks.numpy()
    )


SOURCES: dict[str, Callable[..., Source | Dataset]] = {
    "cifar10": _on_the_hub("cifar10", "uoft-cs/cifar10"),
    "cifar100": _on_the_hub("cifar100", "uoft-cs/cifar100"),
    "digits": digits,
    "fashion-mnist": _on_the_hub("fashion-mnist", "zalando-datasets/fashion_mnist"),
    "hub": hub,
    "mnist": _on_the_hub("mnist", "ylecun/mnist"),
    "shapes": shapes,
    "svhn": _on_the_hub("svhn", "ufldl-stanford/svhn", "cropped_digits"),
}
