"""`load`: datasets by name or path; SOURCES, the table of names."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from seewhy.data.build import build_entry
from seewhy.data.cache import open_or_build
from seewhy.data.corrections import apply_label_files, label_files
from seewhy.data.csv_table import is_table
from seewhy.data.dataset import DataOrigin, Dataset, Split, strata, stratified_sample
from seewhy.data.digits import digits_source
from seewhy.data.folders import directory_source
from seewhy.data.huggingface import hub_source
from seewhy.data.layouts import LAYOUT_NAMES, files_source
from seewhy.data.memory import check_dataset, fits, memory_source
from seewhy.data.options import LoadOptions, check_integer, one_line
from seewhy.data.pixel_range import check_range
from seewhy.data.raw import DRAWN_TEST, LoadRequest, Source
from seewhy.data.shapes import shapes_source
from seewhy.data.table_files import table_source
from seewhy.errors import SeewhyError, did_you_mean
from seewhy.notation import bind
from seewhy.progress import note
from seewhy.wording import counted


def load(
    name: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    validation: float = 0.0,
    limit: int | None = None,
    seed: int = 0,
    skip_bad_images: bool = False,
    label: str | None = None,
    max_pixels: int | None = None,
    channels: int | None = None,
    range: tuple[float, float] | str | None = None,  # noqa: A002
    margin: int = 0,
    resize: str = "crop",
    interpolation: str = "bicubic",
    split: str | None = None,
    group_by: str | None = None,
    path_column: str | None = None,
    label_pattern: str | None = None,
    folds: int = 0,
    fold: int | None = None,
    labels: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    quiet: bool = False,
) -> Dataset:
    """Load a dataset by name, or from a directory, an archive, or a CSV file.

    The images are decoded once, into a cache in `~/.cache/seewhy` (or in `SEEWHY_CACHE`), and
    memory-mapped afterwards.

    Args:
        name: An entry of SOURCES with its settings, such as "shapes:seed=3", or the path of a
            directory, an archive, an .npz file, or a CSV file of paths and labels.
        root: Directory or archive with the published files of the dataset `name`, such as the
            `root` of torchvision's datasets; by default it comes from the Hugging Face hub. Or the
            directory that the paths in a CSV file are relative to, by default that of the file.
        image_size: Side in pixels of the square that images are resized and center-cropped to. With
            None, images of equal size keep it; images of different sizes get their median shorter
            side, at most 224.
        validation: Fraction of train to hold out for validation, in [0, 1).
        limit: Maximum number of training images, sampled from each class in proportion.
        seed: Seed of this sample, and of splits that the source does not have.
        skip_bad_images: Skip unreadable images, and list them in `Dataset.skipped`.
        label: Name of the label column, if the source has several.
        max_pixels: Largest number of pixels of an image that is decoded; None for 150 million.
        channels: 1 for gray, 3 for RGB; None chooses from the images.
        range: The values that become black and white, for images with more than 8 bits: (low,
            high), "dtype" for the range of their type (0 to 1 for floats), or "dataset" or None for
            that of the training images, as measured and rounded up to whole bits.
        margin: Rows and columns by which training images are larger than the others, such as 32
            for images of 224 that are cropped at random from 256. The others are the center crop
            of an image resized to the larger size.
        resize: "crop" keeps the center of an image that is not square; "letterbox" keeps all of it,
            with gray beside it.
        interpolation: Filter that resizes images, "bicubic" or "bilinear"; best that of the
            published weights of a model (see `choose_recipe`).
        split: "folder" for the splits of the source; "random" to draw them anew from all images;
            "group" to draw them so that no group of images is in two splits; "test" to measure a
            model: without a test split, all images are it, and none is for training. None keeps
            the splits of the source, and draws those that are missing.
        group_by: Name of a column; or a regular expression, whose match in an image's name, or
            first group of it, is the group of the image; or "duplicates", which groups
            near-duplicates, the default of split="group".
        path_column: Name of the column of image paths in a CSV file, if it has several.
        label_pattern: Regular expression on file names, whose group `label` is the class, such as
            "(?P<label>[a-z]+)_", for images without class folders.
        folds: Number of folds for cross-validation, at least 2: `fit` then predicts every training
            image by a model that was not trained on its fold. The training and validation images
            are divided, and a test split of the source is left alone; with split="random" or
            "group" all images are.
        fold: Of these, the one that is the test split, from 1; the others are for training. None
            for cross-validation.
        labels: CSV file of corrected labels and dropped images, as for `correct_labels`, such as
            `labels.csv` of a report; or several files, applied one after the other.
        quiet: Print nothing on stderr.

    Returns:
        The dataset, images (N, C, H, W) uint8, labels (N,) int64; or (N, K) bool if images have any
        number of labels.

    Raises:
        SeewhyError: The name is unknown, an argument is out of range, or the data cannot be
            trained on.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise SeewhyError(
            f"name must be a dataset or the path of a directory, found {one_line(name)}"
        )
    if root is not None and not isinstance(root, (str, os.PathLike)):
        raise SeewhyError(f"root must be a path, found {one_line(root)}")
    options = LoadOptions(
        image_size,
        validation,
        seed,
        skip_bad_images,
        label,
        max_pixels,
        channels,
        check_range(range),
        margin,
        resize,
        interpolation,
        split,
        path_column,
        label_pattern,
        group_by,
        folds,
    )
    limit = None if limit is None else check_integer("limit", limit, minimum=1)
    corrections = label_files(labels)
    load_args = {
        "name": str(name) if root is not None and not is_table(name) else source_name(name),
        **({} if root is None else {"root": _absolute(root)}),
        **options.to_json(),
    }
    dataset = _load_source(find_source(name, root, options), options, quiet)
    if limit is not None and limit < len(dataset.train):
        dataset = _limit_training_images(dataset, limit, options.seed)
        load_args["limit"] = limit
    dataset = replace(dataset, load_args=load_args)
    if fold is not None:
        dataset = take_fold(dataset, fold)
    return apply_label_files(dataset, corrections, quiet)


def source_name(name: str | os.PathLike[str]) -> str:
    """The name in `Dataset.load_args`: an entry of SOURCES as it is, a path in full."""
    is_source = isinstance(name, str) and name.partition(":")[0].strip() in SOURCES
    return str(name) if is_source else _absolute(name)


def _absolute(path: str | os.PathLike[str]) -> str:
    return str(Path(path).expanduser().resolve())


def reload_data(origin: DataOrigin, data: Dataset | None = None) -> Dataset:
    """Load the dataset of a run again.

    Args:
        origin: The identity of the dataset.
        data: The dataset itself, if it is in memory; it is checked and returned.

    Returns:
        The dataset with the fingerprint of `origin`.

    Raises:
        SeewhyError: The data was made in memory and `data` is None, or its content has changed.
    """
    if data is None:
        if not origin.load_args:
            raise SeewhyError(
                f"{origin.name} was made in memory, so it cannot be loaded again; pass the dataset"
            )
        data = load(**origin.load_args)
    data = check_dataset(data)
    if data.fingerprint != origin.fingerprint:
        raise SeewhyError(
            f"{data.name} is not the data of the run: its fingerprint is {data.fingerprint}, not "
            f"{origin.fingerprint}; restore the data, or train again"
        )
    return data


def _load_source(source: Source | Dataset, options: LoadOptions, quiet: bool) -> Dataset:
    memory = source if isinstance(source, Dataset) else None
    if isinstance(source, Dataset):
        dataset = check_dataset(source)
        if fits(dataset, options):
            return dataset
        source = memory_source(dataset)
    _note_splits(source, options, quiet)
    in_every_entry = ("seed", "skip_bad_images")  # they change the entry only where they have to
    values = {key: value for key, value in options.to_json().items() if key not in in_every_entry}
    key = {"source": source.signature, **values}

    def build(directory: Path) -> bool:
        scratch = directory / "scratch"
        scratch.mkdir()
        raw = source.open(LoadRequest(options.label, options.group_by, scratch, quiet))
        seed_used = build_entry(raw, source.name, options, directory, quiet)
        shutil.rmtree(scratch)
        return seed_used

    header, splits = open_or_build(source.name, key, options.seed, build, quiet)
    if header.skipped and not options.skip_bad_images:
        raise SeewhyError(
            f"{source.name}: {counted(len(header.skipped), 'image')} cannot be read, the first is "
            f"{header.skipped[0]}; remove them, or skip them with skip_bad_images=True"
        )
    value_range = header.value_range or (memory.value_range if memory else None)
    if isinstance(value_range, tuple) and options.range is None and not memory:
        note(
            f"{source.name}: images with more than 8 bits: values from {value_range[0]:g} to "
            f"{value_range[1]:g} become black to white, the range of the training images (range "
            "sets another)",
            quiet,
        )
    if header.left_out:
        note(
            f"{source.name}: its {header.left_out:,} test images stay out of the folds; `seewhy "
            "evaluate` measures the model on them at the end (split='random' divides all images)",
            quiet,
        )
    train = splits["train"] if "train" in splits else _no_images(splits["test"], options.margin)
    return Dataset(
        name=source.name,
        classes=header.classes,
        train=train,
        test=splits["test"] if not header.folds else train.center_crop(options.margin),
        validation=splits.get("validation"),
        fingerprint=header.fingerprint,
        skipped=header.skipped,
        value_range=value_range,
        held_out=header.held_out,
        margin=options.margin,
        resize=options.resize,
        interpolation=options.interpolation,
        folds=torch.tensor(header.folds) if header.folds else None,
    )


def _note_splits(source: Source, options: LoadOptions, quiet: bool) -> None:
    """What became which split."""
    if source.description:
        divided = source.description
        if options.folds or options.split == "test":
            instead = f"{options.folds} folds" if options.folds else "all images"
            divided = divided.replace(DRAWN_TEST, instead)
        note(f"{source.name}: {divided}", quiet)


def _no_images(like: Split, margin: int) -> Split:
    """An empty training split, whose images would be larger than those of another by a margin."""
    channels, height, width = like.images.shape[1:]
    images = torch.empty(0, channels, height + margin, width + margin, dtype=torch.uint8)
    return Split(images, like.labels[:0], [])


def take_fold(dataset: Dataset, fold: int) -> Dataset:
    """One fold (from 1) as the test split, and the others for training, copied into memory.

    Raises SeewhyError if there is no such fold.
    """
    folds = dataset.folds
    if folds is None or not 1 <= fold <= dataset.num_folds:
        raise SeewhyError(
            f"{dataset.name} has no fold {fold}; folds are numbered from 1 to folds, as in "
            "load(…, folds=5, fold=1)"
        )
    held_out, kept = ((folds == fold - 1).nonzero()[:, 0], (folds != fold - 1).nonzero()[:, 0])
    part = replace(
        dataset,
        train=dataset.train.take(kept),
        test=dataset.test.take(held_out),
        folds=None,
        fingerprint="",
        load_args=dataset.load_args and {**dataset.load_args, "fold": fold},
    )
    return check_dataset(part)


def _limit_training_images(dataset: Dataset, limit: int, seed: int) -> Dataset:
    """The dataset with `limit` training images, of each class in each fold, copied into memory."""
    labels = strata(dataset.train.labels.numpy())
    least, what = len(dataset.classes), "the number of classes"
    if dataset.folds is not None:
        labels = labels * dataset.num_folds + dataset.folds.numpy()
        least, what = len(set(labels.tolist())), "the number of classes in all folds"
    if limit < least:
        raise SeewhyError(
            f"limit must be at least {what} of {dataset.name}, {least}, found {limit}"
        )
    indices = torch.from_numpy(stratified_sample(labels, limit, seed))
    limited = replace(dataset, train=dataset.train.take(indices), fingerprint="")
    if dataset.folds is not None:
        test = limited.train.center_crop(dataset.margin)
        limited = replace(limited, test=test, folds=dataset.folds[indices])
    return check_dataset(limited)


def find_source(
    name: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    options: LoadOptions | None = None,
) -> Source | Dataset:
    """The source of a dataset by its name in SOURCES or its path; nothing is read yet.

    With `root`, it is the dataset `name` in the files there. Raises SeewhyError if there is none.
    """
    options = options or LoadOptions()
    if is_table(name):
        table = Path(name).expanduser()
        if not table.exists():
            raise SeewhyError(f"{table} does not exist; pass a CSV file of image paths and labels")
        return table_source(table, options, None if root is None else Path(root).expanduser())
    if options.path_column is not None:
        raise SeewhyError(f"path_column is for CSV files, found {os.fspath(name)!r}; leave it out")
    if root is not None:
        return _source_in(root, name)
    if not isinstance(name, str):
        return directory_source(Path(name).expanduser(), options.label_pattern)
    base = name.partition(":")[0].strip()
    if base in SOURCES and options.label_pattern is not None:
        raise SeewhyError(f"label_pattern is for directories, found {name!r}; leave it out")
    if base in SOURCES:
        source = bind(SOURCES, name, "dataset", n_supplied=0)()
        if not isinstance(source, (Source, Dataset)):
            raise SeewhyError(
                f"dataset {name!r}: its function must return a Dataset or a Source, "
                f"found {type(source).__name__}"
            )
        return source
    path = Path(name).expanduser()
    if name and (path.exists() or name.startswith((".", "~")) or "/" in name or os.sep in name):
        return directory_source(path, options.label_pattern)
    if base in LAYOUT_NAMES:
        raise SeewhyError(
            f"{base} is read from its published files: pass their directory, as in "
            f"load({base!r}, root='data')"
        )
    raise SeewhyError(
        f"unknown dataset {name!r}{did_you_mean(base, SOURCES)}; "
        f"possible: {', '.join(sorted(SOURCES))}, a directory's path, or hub:owner/name"
    )


def _source_in(root: str | os.PathLike[str], name: str | os.PathLike[str]) -> Source:
    """The dataset `name` in the published files below `root`."""
    if name not in LAYOUT_NAMES:
        raise SeewhyError(
            f"root is for the files of a published dataset, found {os.fspath(name)!r}"
            f"{did_you_mean(os.fspath(name), LAYOUT_NAMES)}; possible: {', '.join(LAYOUT_NAMES)}; "
            "for other data, pass the directory itself"
        )
    path = Path(root).expanduser()
    if not path.exists():
        raise SeewhyError(f"root {path} does not exist; pass the directory with {name}'s files")
    source = files_source(path, os.fspath(name))
    if source is None:
        raise SeewhyError(
            f"{name} is not in {path}; pass as root the directory or the archive of its published "
            "files"
        )
    return source


def _named_hub_source(name: str, repository: str, config: str = "") -> Callable[[], Source]:
    def source() -> Source:
        return replace(hub_source(repository, config), name=name)

    source.__doc__ = f"`{repository}` of the Hugging Face hub."
    return source


SOURCES: dict[str, Callable[..., Source | Dataset]] = {
    "cifar10": _named_hub_source("cifar10", "uoft-cs/cifar10"),
    "cifar100": _named_hub_source("cifar100", "uoft-cs/cifar100"),
    "digits": digits_source,
    "fashion-mnist": _named_hub_source("fashion-mnist", "zalando-datasets/fashion_mnist"),
    "hub": hub_source,
    "mnist": _named_hub_source("mnist", "ylecun/mnist"),
    "shapes": shapes_source,
    "svhn": _named_hub_source("svhn", "ufldl-stanford/svhn", "cropped_digits"),
}
