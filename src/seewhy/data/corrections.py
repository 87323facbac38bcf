"""Corrected labels: a CSV file of images that get another label, or are dropped."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from seewhy.data.csv_table import LABEL_COLUMNS, PATH_COLUMNS, CsvTable, find_column, read_table
from seewhy.data.dataset import Dataset, Split, check_one_label
from seewhy.data.memory import check_dataset
from seewhy.data.options import one_line
from seewhy.errors import SeewhyError, did_you_mean
from seewhy.escaping import csv_cell, visible
from seewhy.files import problem_of_path
from seewhy.progress import note
from seewhy.wording import counted

NEW_LABEL = "new_label"
COLUMNS = ("file", "split", "index", "label", NEW_LABEL)
_Place = tuple[str, int]  # the split of an image, and its index in it


def correct_labels(dataset: Dataset, path: str | os.PathLike[str]) -> Dataset:
    """Change labels and drop images as a CSV file says, such as `labels.csv` of a report.

    Args:
        dataset: The images, loaded with the same arguments as for the report.
        path: CSV or TSV file with a header and the columns `label`, the class of an image so far,
            and `new_label`, its new class, or nothing if it is dropped. An image is that with
            `index` (from 0) in `split`, if its name ends in `file`; without these two columns, or
            if images were dropped since, it is the only one whose name ends in `file`. Other
            columns are ignored.

    Returns:
        The dataset with the same classes, and another fingerprint.

    Raises:
        SeewhyError: The file cannot be read; one of its rows is about no image, several images, an
            image with another label, or an unknown class; or the rest cannot be trained on.
    """
    check_one_label(dataset, "correcting labels")
    table = read_table(Path(path), example=",".join(COLUMNS))
    images = _Images(dataset)
    changes = _changes(table, images, _class_by_text(dataset))
    stored = {**images.splits, "train": dataset.train}  # with its margin
    kept = {name: torch.ones(len(split), dtype=torch.bool) for name, split in stored.items()}
    labels = {name: split.labels.clone() for name, split in stored.items()}
    for (name, index), label in changes.items():
        if label is None:
            kept[name][index] = False
        else:
            labels[name][index] = label
    for name, mask in kept.items():
        if len(mask) and not mask.any():
            raise SeewhyError(f"{path} drops all images of the {name} split; keep some")
    parts = {
        name: _taken(replace(split, labels=labels[name]), kept[name])
        for name, split in stored.items()
    }
    train = parts["train"]
    folds = None if dataset.folds is None else dataset.folds[kept["train"]]
    test = parts["test"] if folds is None else train.center_crop(dataset.margin)
    return check_dataset(
        replace(
            dataset,
            train=train,
            test=test,
            validation=parts.get("validation"),
            folds=folds,
            fingerprint="",
        )
    )


def apply_label_files(dataset: Dataset, files: Sequence[str], quiet: bool) -> Dataset:
    """The dataset after `correct_labels` of each file, which it names in its `load_args`."""
    corrected = dataset
    for file in files:
        table = read_table(Path(file), example=",".join(COLUMNS))
        column = _new_label_column(table)
        dropped = sum(not cells[column] for cells in table.rows)
        changed = len(table.rows) - dropped
        corrected = correct_labels(corrected, file)
        note(f"{dataset.name}: labels changed {changed:,}, images dropped {dropped:,}", quiet)
    labels = {"labels": list(files)} if files else {}
    return replace(corrected, load_args={**dataset.load_args, **labels})


class _Images:
    """The images of a dataset, by split and index and by the ends of their names."""

    def __init__(self, dataset: Dataset) -> None:
        # the images of a cross-validation are in one split, of which test is a view
        splits = {"train": dataset.train} if dataset.folds is not None else dataset.splits
        self.data = dataset.name
        self.splits: Mapping[str, Split] = splits

    @cached_property
    def by_file_name(self) -> Mapping[str, list[_Place]]:
        places: dict[str, list[_Place]] = defaultdict(list)
        for split, part in self.splits.items():
            for index, name in enumerate(part.names):
                places[_parts(name)[-1]].append((split, index))
        return places

    def find(self, file: str, split: str, index: str) -> _Place:
        """The place of an image. Raises SeewhyError if there is none, or several."""
        place = self._at(split, index) if split and index else None
        if place is not None and (not file or _same_end(self._name(place), file)):
            return place
        if not file:
            raise SeewhyError("there is neither a file nor split and index; add either")
        named = [
            each
            for each in self.by_file_name.get(_parts(file)[-1], ())
            if _same_end(self._name(each), file)
        ]
        exact = [each for each in named if _parts(self._name(each)) == _parts(file)]
        found = exact if len(exact) == 1 else named
        if len(found) == 1:
            return found[0]
        if found:
            raise SeewhyError(
                f"{counted(len(found), 'image')} of {self.data} are named {file!r}; add their "
                "folders, or the columns split and index of the data as it is loaded here"
            )
        if place is not None:
            raise SeewhyError(
                f"image {index} of the {split} split is {visible(self._name(place))!r}, and no "
                f"image is named {file!r}; load the data that the file was made for"
            )
        first = next(name for part in self.splits.values() for name in part.names)
        raise SeewhyError(
            f"{self.data} has no image named {file!r}; write names as in the data, such as "
            f"{visible(first)!r}"
        )

    def _at(self, split: str, index: str) -> _Place | None:
        """The place, if there is such a split and index."""
        number = int(index) if index.isdecimal() else -1
        inside = split in self.splits and 0 <= number < len(self.splits[split])
        return (split, number) if inside else None

    def _name(self, place: _Place) -> str:
        split, index = place
        return str(self.splits[split].names[index])


def _changes(
    table: CsvTable, images: _Images, class_by_text: Mapping[str, int]
) -> dict[_Place, int | None]:
    """The new label of each image in the table; None for those that are dropped."""
    given, new = find_column(table, LABEL_COLUMNS), _new_label_column(table)
    files = [index for index, name in enumerate(table.header) if name.lower() in PATH_COLUMNS]
    columns = [
        files[0] if files else None,
        *(table.header.index(name) if name in table.header else None for name in COLUMNS[1:3]),
    ]
    changes: dict[_Place, int | None] = {}
    line_of: dict[_Place, int] = {}
    for cells, line in zip(table.rows, table.lines, strict=True):
        file, split, index = ("" if column is None else cells[column] for column in columns)
        try:
            place = images.find(file, split, index)
            if place in line_of:
                raise SeewhyError(f"line {line_of[place]} is about the same image; keep one")
            _check_given(images, place, cells[given], class_by_text)
            changes[place] = _class_of(cells[new], class_by_text) if cells[new] else None
        except SeewhyError as error:
            raise SeewhyError(f"{table.path}, line {line}: {error}") from error
        line_of[place] = line
    return changes


def _new_label_column(table: CsvTable) -> int:
    if NEW_LABEL in table.header:
        return table.header.index(NEW_LABEL)
    raise SeewhyError(
        f"{table.path} has no column {NEW_LABEL}, only {', '.join(table.header)}; add it: the new "
        "class of each image, or nothing to drop the image"
    )


def _check_given(
    images: _Images, place: _Place, text: str, class_by_text: Mapping[str, int]
) -> None:
    """Raise SeewhyError unless an image has the label that the table says."""
    split, index = place
    label = int(images.splits[split].labels[index])
    if class_by_text.get(text) != label:
        found = next(name for name, number in class_by_text.items() if number == label)
        raise SeewhyError(
            f"image {index} of the {split} split is labeled {found!r}, not {text!r}; "
            "load the data that the file was made for, or remove the line"
        )


def _class_of(text: str, class_by_text: Mapping[str, int]) -> int:
    if text not in class_by_text:
        possible = ", ".join(list(class_by_text)[:10])
        raise SeewhyError(
            f"unknown class {text!r}{did_you_mean(text, class_by_text)}; possible: {possible}"
            f"{', …' if len(class_by_text) > 10 else ''}, or nothing to drop the image"
        )
    return class_by_text[text]


def _class_by_text(dataset: Dataset) -> dict[str, int]:
    """The classes by their names, and by what a CSV file has instead of a name that would act."""
    texts = {name.strip(): index for index, name in enumerate(dataset.classes)}
    for index, name in enumerate(dataset.classes):
        texts.setdefault(_cell(name), index)
    return texts


def _cell(name: str) -> str:
    """A name as `read_table` reads it in a file that `csv_text` wrote."""
    return str(csv_cell(name)).strip()


def _same_end(name: str, file: str) -> bool:
    """Whether one of two paths ends with the other."""
    parts, others = _parts(name), _parts(file)
    shared = min(len(parts), len(others))
    return parts[-shared:] == others[-shared:]


def _parts(path: str) -> Sequence[str]:
    """The folders and the file of a path, as in a CSV file, without . and an empty start."""
    parts = _cell(str(path)).replace("\\", "/").split("/")
    return [part for part in parts if part not in ("", ".")] or [""]


def _taken(split: Split, kept: torch.Tensor) -> Split:
    """The kept images; a split of which nothing is dropped is not copied."""
    return split if bool(kept.all()) else split.take(kept.nonzero()[:, 0])


def label_files(labels: object) -> list[str]:
    """The argument `labels` of `load` as absolute paths. Raises SeewhyError for other values."""
    if labels is None:
        return []
    several = [labels] if isinstance(labels, str | os.PathLike) else labels
    if not isinstance(several, list | tuple) or not all(
        isinstance(path, str | os.PathLike) for path in several
    ):
        raise SeewhyError(f"labels must be the path of a CSV file, found {one_line(labels)}")
    paths = [Path(path).expanduser().resolve() for path in several]
    for path in paths:
        if problem := problem_of_path(path):
            raise SeewhyError(f"the file of labels {problem}; restore it, or leave it out")
    return list(map(str, paths))
