"""Images with any number of labels each: arrays, data of PyTorch, and tables of image files."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seewhy.data.csv_table import PATH_COLUMNS, find_column, read_table
from seewhy.data.dataset import Dataset
from seewhy.data.decode import DEFAULT_PREPROCESSING, Preprocessing, decode_image
from seewhy.data.label_columns import (
    LABELS_COLUMNS,
    flagged_labels,
    list_column,
    listed_labels,
)
from seewhy.data.labeled_images import data_name, file_names, known_classes, read_labeled
from seewhy.errors import SeewhyError, describe_value
from seewhy.wording import counted


@dataclass(frozen=True, eq=False)
class MultiLabelImages:
    """N images, each with any of K labels.

    Args:
        name: Of the data, in a report.
        classes: Names of the K labels.
        images: (N, C, H, W) uint8.
        labels: (N, K) bool, whether an image has a label.
        names: File names or numbers of the N images.
    """

    name: str
    classes: tuple[str, ...]
    images: Tensor
    labels: Tensor
    names: tuple[str, ...]


def as_multi_label(
    data: object, classes: Sequence[str] = (), *, name: str = "", limit: int | None = None
) -> MultiLabelImages:
    """Images with any number of labels each.

    Args:
        data: As for `as_dataset`, with labels (N, K) of 0 and 1, or (K,) of a single image. Of a
            `Dataset`, the test split.
        classes: Names of the K labels, for data that names none; by default numbers.
        name: Name of the data in a report; by default that of its class.
        limit: Largest number of images to read; None for all.

    Raises:
        SeewhyError: As `as_dataset`, and for labels that are not 0 and 1, or not K for each image.
    """
    if isinstance(data, MultiLabelImages):
        return data
    if isinstance(data, Dataset):
        if not data.multi_label:
            raise SeewhyError(
                f"{data.name} has one class per image; several labels need labels (N, K) bool"
            )
        test = data.test
        return MultiLabelImages(data.name, data.classes, test.images, test.labels, (*test.names,))
    images, labels = read_labeled(data, limit, _zeros_and_ones, label_dims=1)
    found = known_classes(data) or tuple(classes) or tuple(map(str, range(labels.shape[1])))
    if len(found) != labels.shape[1]:
        raise SeewhyError(
            f"the data has labels (N, {labels.shape[1]}), but there are "
            f"{counted(len(found), 'name')} of labels: {', '.join(found[:20])}; give one name per "
            "label"
        )
    names = tuple(file_names(data, len(labels)))
    return MultiLabelImages(name or data_name(data), found, images, labels, names)


def read_multi_label_table(
    path: str | Path,
    image_shape: tuple[int, int, int],
    classes: Sequence[str] = (),
    *,
    root: str | Path | None = None,
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
) -> MultiLabelImages:
    """Read a CSV or TSV file of image files, each with any number of labels.

    Args:
        path: A file with a header: a column of image paths (`path`, `file`, …), and a column of 0
            and 1 for each label, or a column `labels` of names separated by `|` or `;`.
        image_shape: (C, H, W) to which images are converted.
        classes: Names of the labels in their order, those of a model; by default all others of the
            columns, or the names in the column, sorted.
        root: Directory that the paths are relative to; by default that of the file.
        preprocessing: How an image file becomes pixels.

    Raises:
        SeewhyError: If a column is missing, a cell is neither 0 nor 1, a name is no label, or an
            image cannot be read.
    """
    path = Path(path)
    table = read_table(path, example="path,cat,dog")
    column = find_column(table, PATH_COLUMNS)
    lists = list_column(table)
    if lists is not None:
        found, labels = listed_labels(table, lists, tuple(classes))
    else:
        found = tuple(classes) or tuple(
            each for index, each in enumerate(table.header) if index != column
        )
        labels = flagged_labels(table, found)
    if not found:
        raise SeewhyError(
            f"{path} has no labels; add a column of 0 and 1 for each label, or a column "
            f"{LABELS_COLUMNS[0]!r} of names, as in cat|dog"
        )
    names = tuple(row[column] for row in table.rows)
    directory = path.parent if root is None else Path(root)
    channels, *size = image_shape

    def decode(name: str) -> Tensor:  # (C, H, W) uint8
        return decode_image(directory / name, (size[0], size[1]), channels, preprocessing)

    with ThreadPoolExecutor() as threads:
        images = torch.stack(list(threads.map(decode, names)))
    return MultiLabelImages(path.stem, found, images, labels, names)


def _zeros_and_ones(value: object) -> Tensor:  # (N, K) or (K,) bool
    try:
        labels = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise SeewhyError(
            f"labels must be 0 or 1 for each label of an image, found {describe_value(value)}"
        ) from error
    if labels.ndim not in (1, 2) or not ((labels == 0) | (labels == 1)).all():
        raise SeewhyError(
            "labels must be 0 or 1 for each label of an image, (N, K), found "
            f"{describe_value(labels)}{_other_values(labels)}"
        )
    return labels.bool()


def _other_values(labels: Tensor) -> str:
    others = labels[(labels != 0) & (labels != 1)]
    return f" with {others[0].item():g}" if others.numel() else ""
