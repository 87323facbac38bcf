"""A data set before decoding: what a source hands over, who plays which split, and whether the labels make sense."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seewhy.data.dataset import stratified_split
from seewhy.data.decode import Encoded
from seewhy.errors import SeewhyError
from seewhy.progress import note

TEST_FRACTION = 0.2  # held out of a data set that comes without a test split

_ROLES = {
    "train": ("train", "training", "trainset"),
    "test": ("test", "testing", "testset"),
    "validation": ("validation", "valid", "val", "valset"),
}


@dataclass(frozen=True, eq=False)
class RawSplit:
    """The images of one split, still encoded, and their labels."""

    read: Callable[
        [Sequence[int]], Sequence[tuple[str, Encoded]]
    ]  # name and image of the rows at these indices
    labels: np.ndarray  # (N,) int64
    masks: np.ndarray | None = None  # (N, H, W) bool

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "RawSplit":
        """The rows at `indices` (M,) int64; nothing is read."""
        masks = None if self.masks is None else self.masks[indices]
        return RawSplit(
            lambda chosen: self.read(indices[np.asarray(chosen)].tolist()),
            self.labels[indices],
            masks,
        )


@dataclass(frozen=True, eq=False)
class RawDataset:
    """What opening a source gives: `splits` has "train" and perhaps "test" and "validation"."""

    classes: tuple[str, ...]
    splits: Mapping[str, RawSplit]


@dataclass(frozen=True)
class LoadRequest:
    """What opening a source may need to know."""

    label: str | None  # the label column that the user chose
    scratch: Path  # an empty directory that is removed afterwards
    quiet: bool


@dataclass(frozen=True, eq=False)
class Source:
    """A data set that is known but not read yet.

    `signature` is made of JSON values, is cheap to get, and differs where the content may differ: the cache relies on it.
    """

    name: str
    signature: object
    open: Callable[[LoadRequest], RawDataset]


def raw_split_from_arrays(
    images: np.ndarray, labels: np.ndarray, prefix: str, masks: np.ndarray | None = None
) -> RawSplit:
    """Rows over `images` (N, H, W) or (N, H, W, C) uint8, named prefix-00000 and so on."""
    return RawSplit(
        lambda indices: [(f"{prefix}-{i:05d}", images[i]) for i in indices], labels, masks
    )


def no_label_choice(name: str, request: LoadRequest) -> None:
    """Raises SeewhyError where a label column was chosen of a source that has no columns."""
    if request.label is not None:
        raise SeewhyError(
            f"{name} has no label columns to choose from, found label={request.label!r}; leave label out"
        )


def note_unused(where: str, names: Iterable[str], quiet: bool) -> None:
    """Tell which folders or splits play no part, so that nobody trains on less than they think."""
    unused = sorted(names)
    if unused:
        note(f"{where}: not used: {', '.join(unused)}", quiet)


def split_role(name: str) -> str | None:
    """train, test or validation for the name of a folder or a split; None for any other name."""
    return next((role for role, words in _ROLES.items() if name.lower() in words), None)


def split_roles(names: Iterable[str], where: str) -> dict[str, str]:
    """Which of the splits called `names` is train, test and validation; a lone validation split is the test split.

    Raises SeewhyError where two names claim one role.
    """
    roles: dict[str, str] = {}
    for name in names:
        role = split_role(name)
        if role in roles:
            raise SeewhyError(
                f"{where}: both {roles[role]!r} and {name!r} could be the {role} split; rename or remove one"
            )
        if role is not None:
            roles[role] = name
    if "validation" in roles and "test" not in roles:
        roles["test"] = roles.pop("validation")
    return roles


def assign_splits(
    raw: RawDataset, where: str, validation: float, seed: int
) -> tuple[dict[str, RawSplit], bool]:
    """Splits train, test and perhaps validation, and whether chance (the seed) had a part in them.

    Raises SeewhyError for labels that cannot be trained on, and where a split is asked of a class with one image.
    """
    splits = dict(raw.splits)
    check_labels(raw.classes, {name: rows.labels for name, rows in splits.items()}, where)
    if validation and "validation" in splits:
        raise SeewhyError(
            f"{where} has its own validation split of {len(splits['validation']):,}; leave validation at 0"
        )
    drawn = False
    for name, fraction in (("test", TEST_FRACTION), ("validation", validation)):
        if name in splits or not fraction:
            continue
        labels = splits["train"].labels
        alone = np.flatnonzero(np.bincount(labels, minlength=len(raw.classes)) == 1)
        if len(alone):
            named = ", ".join(repr(raw.classes[i]) for i in alone[:5])
            raise SeewhyError(
                f"{where}: no {name} split can be drawn, because class {named} has a single image; add images or remove the class"
            )
        kept, held_out = stratified_split(labels, fraction, seed)
        splits[name] = splits["train"].take(held_out)
        splits["train"] = splits["train"].take(kept)
        drawn = True
    return {name: splits[name] for name in ("train", "test", "validation") if name in splits}, drawn


def check_labels(classes: tuple[str, ...], labels: Mapping[str, np.ndarray], where: str) -> None:
    """Raises SeewhyError for an empty split, labels out of range, fewer than two classes, test classes that train lacks."""
    for split, values in labels.items():
        if not len(values):
            raise SeewhyError(f"{where}: the {split} split has no images")
        wrong = values[(values < 0) | (values >= len(classes))]
        if len(wrong):
            meaning = (
                "; -1 marks images without a label, so this split cannot be used as it is"
                if (wrong == -1).all()
                else ""
            )
            raise SeewhyError(
                f"{where}: {len(wrong):,} of {len(values):,} labels of the {split} split are out of range "
                f"0 to {len(classes) - 1} (found {int(wrong[0])}){meaning}; keep only labeled images"
            )
    trained = np.unique(labels["train"])
    if len(trained) < 2:
        raise SeewhyError(
            f"{where}: found only the class {classes[trained[0]]!r}; a classifier needs at least two"
        )
    for split, values in labels.items():
        lacking = np.setdiff1d(values, trained)
        if len(lacking):
            named = ", ".join(repr(classes[i]) for i in lacking[:5]) + (
                " …" if len(lacking) > 5 else ""
            )
            raise SeewhyError(
                f"{where}: the {split} split has classes that train lacks: {named}; add or remove them"
            )
