"""Datasets before decoding: sources, roles of splits, and checks of labels."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seewhy.data.decode import Encoded
from seewhy.data.listing import natural_key
from seewhy.errors import SeewhyError
from seewhy.wording import counted

TEST_FRACTION = 0.2  # fraction held out if there is no test split
DRAWN_TEST = f"train and test ({TEST_FRACTION:.0%} of each class)"  # in descriptions

_NAMES_OF_ROLES = {
    "train": ("train", "training", "trainset"),
    "test": ("test", "testing", "testset", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "valset", "dev"),
}
ROLES = ("train", "test", "validation")
_LISTED_CLASSES = 5  # class names in an error


@dataclass(frozen=True, eq=False)
class RawSplit:
    """The encoded images of one split, and their labels."""

    # indices to (name, encoded image) pairs
    read: Callable[[Sequence[int]], Sequence[tuple[str, Encoded]]]
    labels: np.ndarray  # (N,) int64; or (N, K) bool, of any number of labels
    masks: np.ndarray | None = None  # (N, H, W) bool
    groups: np.ndarray | None = None  # (N,) text, of the column that images are grouped by
    folds: np.ndarray | None = None  # (N,) int64, the fold of each image, from 0

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "RawSplit":
        """The part of the split at `indices` (M,) int64; no image is read."""
        masks = None if self.masks is None else self.masks[indices]
        return RawSplit(
            lambda subset: self.read(indices[np.asarray(subset)].tolist()),
            self.labels[indices],
            masks,
            None if self.groups is None else self.groups[indices],
        )


@dataclass(frozen=True, eq=False)
class RawDataset:
    """An opened source; `splits` has at least one of "train", "test" and "validation"."""

    classes: tuple[str, ...]
    splits: Mapping[str, RawSplit]


@dataclass(frozen=True)
class LoadRequest:
    """Options for opening a source."""

    label: str | None  # label column
    group_by: str | None  # column of groups, if there is one of this name
    scratch: Path  # empty directory, removed after decoding
    quiet: bool


@dataclass(frozen=True, eq=False)
class Source:
    """A dataset that has not been read yet.

    `signature` consists of JSON values. It is the key of the cache: cheap to compute, and different
    whenever the content may differ. `description` tells which folders or files became which split.
    """

    name: str
    signature: object
    open: Callable[[LoadRequest], RawDataset]
    description: str = ""


def raw_split_from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    names: str | Sequence[str],
    masks: np.ndarray | None = None,
) -> RawSplit:
    """A split of `images` (N, H, W) or (N, H, W, C), with names, or NAME-00000 and so on."""

    def name(index: int) -> str:
        return f"{names}-{index:05d}" if isinstance(names, str) else names[index]

    return RawSplit(lambda indices: [(name(i), images[i]) for i in indices], labels, masks)


def class_name(text: str) -> str:
    """The name of a class; é is one character in it, wherever the name was typed."""
    return unicodedata.normalize("NFC", text)


def index_labels(
    stored: Mapping[str, np.ndarray],
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Equal labels as classes, in natural order: 2 before 10.

    Args:
        stored: Numbers or text (N,) by split.

    Returns:
        The names of the classes, and the labels (N,) int64 as indices into them.
    """
    names = {
        value: class_name(str(value))
        for value in set().union(*(values.tolist() for values in stored.values()))
    }
    classes = sorted(set(names.values()), key=natural_key)
    position = {name: i for i, name in enumerate(classes)}
    index = {value: position[name] for value, name in names.items()}
    return tuple(classes), {
        split: np.array([index[value] for value in values.tolist()], dtype=np.int64)
        for split, values in stored.items()
    }


def reject_label_choice(name: str, request: LoadRequest) -> None:
    """Raise SeewhyError if a label column is requested from a source without columns."""
    if request.label is not None:
        raise SeewhyError(
            f"{name} has no label columns to choose from, found label={request.label!r}; "
            "leave label out"
        )


def split_role(split_name: str) -> str | None:
    """The role of a folder or split by its name: train, test, validation, or None."""
    return next(
        (role for role, names in _NAMES_OF_ROLES.items() if split_name.lower() in names), None
    )


def split_words(name: str) -> list[str]:
    """The words and numbers in a name, in lower case: xTrain_2 is x, train, 2."""
    return re.findall(r"[a-z]+|[0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())


def role_in_name(name: str) -> str | None:
    """The role that a name is, or that one of its words tells; None if it tells two."""
    roles = set(filter(None, map(split_role, split_words(name))))
    return split_role(name) or (roles.pop() if len(roles) == 1 else None)


def describe_splits(places: Mapping[str, str], unused: Iterable[str]) -> str:
    """Where each split comes from, as one line.

    Args:
        places: Folder, file or stored split by role; without a test split, it is held out.
        unused: Folders or files that are in no split.
    """
    if "test" in places:
        text = ", ".join(f"{role} from {place}" for role, place in places.items())
    else:
        text = f"{DRAWN_TEST} from {places['train']}"
    names = ", ".join(sorted(unused))
    return f"{text}; not used: {names}" if names else text


def assign_roles(split_names: Iterable[str], name: str) -> dict[str, str]:
    """The names of the train, test and validation splits, by role.

    Without a test split, the validation split is used as the test split. Raises SeewhyError if two
    names have the same role.
    """
    roles: dict[str, str] = {}
    for split_name in split_names:
        role = split_role(split_name)
        if role in roles:
            raise SeewhyError(
                f"{name}: both {roles[role]!r} and {split_name!r} could be the {role} split; "
                "rename or remove one"
            )
        if role is not None:
            roles[role] = split_name
    if "validation" in roles and "test" not in roles:
        roles["test"] = roles.pop("validation")
    return roles


def list_classes(classes: Sequence[str], indices: np.ndarray) -> str:
    """The names of some classes, for a message."""
    more = " …" if len(indices) > _LISTED_CLASSES else ""
    return ", ".join(repr(classes[i]) for i in indices[:_LISTED_CLASSES]) + more


def check_label_range(
    classes: tuple[str, ...], labels: Mapping[str, np.ndarray], name: str
) -> None:
    """Raise SeewhyError for classes whose names are not text or not unique, or labels without one.

    A split without images is such an error too.
    """
    for each in classes:
        if not isinstance(each, str):
            raise SeewhyError(
                f"{name}: the names of classes must be text, found {each!r} of type "
                f"{type(each).__name__}; pass {str(each)!r}"
            )
    if len(set(classes)) < len(classes):
        (twice, count), *_ = Counter(classes).most_common(1)
        raise SeewhyError(
            f"{name}: {count} classes are named {twice!r}; give each class a name of its own"
        )
    for split, values in labels.items():
        if not len(values):
            raise SeewhyError(f"{name}: the {split} split has no images; add some")
        if values.ndim == 2:
            if values.shape[1] != len(classes):
                raise SeewhyError(
                    f"{name}: labels (N, {values.shape[1]}) need as many names, found "
                    f"{len(classes)} classes; give one name per label"
                )
            continue
        wrong = values[(values < 0) | (values >= len(classes))]
        if len(wrong):
            unlabeled = (
                "; -1 marks images without a label, so this split cannot be used"
                if (wrong == -1).all()
                else ""
            )
            raise SeewhyError(
                f"{name}: {len(wrong):,} of {counted(len(values), 'label')} of the {split} split "
                f"are out of range 0 to {len(classes) - 1} (found {int(wrong[0])}){unlabeled}; "
                "keep only labeled images"
            )


def check_labels(classes: tuple[str, ...], labels: Mapping[str, np.ndarray], name: str) -> None:
    """Raise SeewhyError for classes and labels that cannot be trained on.

    Reasons are those of `check_label_range`, fewer than two classes in train, and classes missing
    from train. Without a training split, only the first of these is checked.
    """
    check_label_range(classes, labels, name)
    if "train" not in labels:
        return
    trained = _occurring(labels["train"])
    if len(trained) < 2:
        found = f"only the class {classes[trained[0]]!r}" if len(trained) else "no label"
        raise SeewhyError(f"{name}: found {found}; a classifier needs at least two, so add another")
    for split, values in labels.items():
        missing = np.setdiff1d(_occurring(values), trained)
        if len(missing):
            raise SeewhyError(
                f"{name}: the {split} split has classes missing from train: "
                f"{list_classes(classes, missing)}; add or remove them"
            )


def _occurring(labels: np.ndarray) -> np.ndarray:
    """Indices of the classes that have images, or of the labels that images have; sorted."""
    return np.unique(labels) if labels.ndim == 1 else np.flatnonzero(labels.any(0))
