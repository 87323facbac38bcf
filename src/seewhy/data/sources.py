"""From a name or a path to a data set: `load`, and the table of sources that it looks names up in."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from seewhy.data.build import Wish, build_entry
from seewhy.data.cache import open_or_build
from seewhy.data.dataset import Dataset, Split, digest_of, fingerprint
from seewhy.data.decode import Encoded
from seewhy.data.folders import directory
from seewhy.data.hub import hub
from seewhy.data.raw import Raw, Request, Rows, Source, check_labels, no_label_choice, rows_of_arrays
from seewhy.data.shapes import shapes
from seewhy.errors import SeewhyError, did_you_mean
from seewhy.notation import bind


def load(
    name: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    validation: float = 0.0,
    seed: int = 0,
    skip_bad_images: bool = False,
    label: str | None = None,
    quiet: bool = False,
) -> Dataset:
    """The data set that `name` names in SOURCES, or that lies in this directory: decoded once, memory-mapped ever after.

    `image_size` is the side of the square that images are resized and cropped to; None keeps the size that they share,
    else takes their median shorter side. `validation` is the share of train to hold out, `seed` draws the splits that
    the source lacks, `label` chooses a column. `skip_bad_images` leaves out what cannot be read and lists it in
    `Dataset.skipped`. Raises SeewhyError for an unknown name, values out of range, and data that cannot be trained on.
    """
    named = isinstance(name, str) and name.partition(":")[0].strip() in SOURCES
    arguments = {
        "name": str(name) if named else str(Path(name).expanduser().resolve()),
        "image_size": image_size,
        "validation": validation,
        "seed": seed,
        "skip_bad_images": skip_bad_images,
        "label": label,
    }
    return replace(_load(name, image_size, validation, seed, skip_bad_images, label, quiet), loaded_with=arguments)


def _load(
    name: str | os.PathLike[str],
    image_size: int | None,
    validation: float,
    seed: int,
    skip_bad_images: bool,
    label: str | None,
    quiet: bool,
) -> Dataset:
    if image_size is not None and image_size < 1:
        raise SeewhyError(f"image_size must be at least 1, found {image_size}")
    if not 0 <= validation < 1:
        raise SeewhyError(f"validation must be at least 0 and below 1, found {validation}")
    if seed < 0:
        raise SeewhyError(f"seed must be at least 0, found {seed}")
    source = find(name)
    if isinstance(source, Dataset):
        dataset = _checked(source)
        if not validation and label is None and (image_size is None or dataset.image_shape[1:] == (image_size, image_size)):
            return dataset
        source = _from_memory(dataset)
    key = {"source": source.signature, "image_size": image_size, "validation": float(validation), "label": label}
    wish = Wish(image_size, float(validation), seed, skip_bad_images)

    def build(into: Path) -> bool:
        scratch = into / "scratch"
        scratch.mkdir()
        drawn = build_entry(source.open(Request(label, scratch, quiet)), source.name, wish, into, quiet)
        shutil.rmtree(scratch)
        return drawn

    header, splits = open_or_build(source.name, key, seed, build, quiet)
    if header.skipped and not skip_bad_images:
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


def find(name: str | os.PathLike[str]) -> Source | Dataset:
    """What `name` stands for, not read yet. Raises SeewhyError for what is neither in SOURCES nor a directory."""
    if not isinstance(name, str):
        return directory(Path(name).expanduser())
    base = name.partition(":")[0].strip()
    if base in SOURCES:
        found = bind(SOURCES, name, "data set", given=0)()
        if not isinstance(found, (Source, Dataset)):
            raise SeewhyError(f"data set {name!r}: its function must return a Dataset or a Source, found {type(found).__name__}")
        return found
    path = Path(name).expanduser()
    if name and (path.exists() or name.startswith((".", "~")) or "/" in name or os.sep in name):
        return directory(path)
    raise SeewhyError(
        f"unknown data set {name!r}{did_you_mean(base, SOURCES)}; possible: {', '.join(sorted(SOURCES))}, "
        "a directory's path, or hub:owner/name"
    )


def digits() -> Source:
    """1,797 handwritten digits of 8x8 grey pixels, shipped with scikit-learn (Alpaydin & Kaynak 1998)."""

    def open_(request: Request) -> Raw:
        from sklearn.datasets import load_digits

        no_label_choice("digits", request)
        bunch = load_digits()
        images = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # (N, 8, 8), stored as 0 to 16
        return Raw(tuple("0123456789"), {"train": rows_of_arrays(images, bunch.target.astype(np.int64), "digit")})

    return Source("digits", "digits", open_)


def _on_the_hub(name: str, repository: str, config: str = "") -> Callable[[], Source]:
    def source() -> Source:
        return replace(hub(repository, config), name=name)

    return source


def _checked(dataset: Dataset) -> Dataset:
    """A data set made in memory, with its fingerprint where its maker gave none. Raises SeewhyError if it is not sound."""
    for split in _splits(dataset).values():
        if split.images.ndim != 4 or split.images.dtype.is_floating_point or split.images.element_size() != 1:
            found = f"{tuple(split.images.shape)} {split.images.dtype}"
            raise SeewhyError(f"{dataset.name}: images must be (N, C, H, W) uint8, found {found}")
        if not len(split.images) == len(split.labels) == len(split.names):
            counts = f"{len(split.images):,}, {len(split.labels):,} and {len(split.names):,}"
            raise SeewhyError(f"{dataset.name}: a split must have as many labels and names as images, found {counts}")
    check_labels(dataset.classes, {name: split.labels.numpy() for name, split in _splits(dataset).items()}, dataset.name)
    if dataset.fingerprint:
        return dataset
    digests = {name: digest_of(split) for name, split in _splits(dataset).items()}
    return replace(dataset, fingerprint=fingerprint(dataset.classes, digests))


def _from_memory(dataset: Dataset) -> Source:
    """So that a data set made in memory can be resized and split like any other."""

    def open_(request: Request) -> Raw:
        no_label_choice(dataset.name, request)
        return Raw(dataset.classes, {name: _rows_of_split(split) for name, split in _splits(dataset).items()})

    return Source(dataset.name, {"memory": dataset.fingerprint}, open_)


def _splits(dataset: Dataset) -> dict[str, Split]:
    found = {"train": dataset.train, "test": dataset.test, "validation": dataset.validation}
    return {name: split for name, split in found.items() if split is not None}


def _rows_of_split(split: Split) -> Rows:
    def read(indices: Sequence[int]) -> list[tuple[str, Encoded]]:
        return [(split.names[i], split.images[i].permute(1, 2, 0).numpy()) for i in indices]

    return Rows(read, split.labels.numpy(), None if split.masks is None else split.masks.numpy())


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
