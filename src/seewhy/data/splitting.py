"""Splits that a source lacks: drawn by image or by group, stratified by class.

Images of one group, such as photographs of one scene, are never in two splits: otherwise the test
images are known from training, and the accuracy is too high.
"""

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from seewhy.data.dataset import Split, strata, stratified_folds, stratified_split
from seewhy.data.decode import Encoded, Preprocessing, open_image, to_pixels
from seewhy.data.duplicates import near_duplicates
from seewhy.data.options import DUPLICATES, LoadOptions
from seewhy.data.raw import (
    ROLES,
    TEST_FRACTION,
    RawDataset,
    RawSplit,
    check_label_range,
    check_labels,
    list_classes,
)
from seewhy.errors import SeewhyError
from seewhy.progress import note, progress
from seewhy.wording import counted, have

_SKETCH_SIDE = 32  # of the gray images that are compared
_BLOCK_ROWS = 256  # encoded images in memory
NO_LABEL = "no label"  # name of the stratum of images without one


def assign_splits(
    raw: RawDataset, name: str, options: LoadOptions, quiet: bool = True
) -> tuple[dict[str, RawSplit], tuple[str, ...]]:
    """Hold out the test split if it is missing, and a fraction of train for validation.

    Args:
        raw: The dataset.
        name: Its name in messages.
        options: The fraction for validation, the seed, and how to split and to group.
        quiet: Print nothing.

    Returns:
        Splits by name in the order train, test, validation, and which of them are random. With
        folds, only train, which has the fold of each image: a test folder is left alone.

    Raises:
        SeewhyError: The labels are invalid, or a class has too few images or groups to be split.
    """
    splits, validation = dict(raw.splits), options.validation
    if options.split == "test":
        return _measured_splits(raw, name)
    if "train" not in splits and options.split not in ("random", "group"):
        raise SeewhyError(
            f"{name} has no training images, only {' and '.join(splits)}; add some, as in train/, "
            "divide these images with split='random', or use them to measure a model, as in "
            "`seewhy evaluate`"
        )
    check_labels(raw.classes, {key: split.labels for key, split in splits.items()}, name)
    if options.split == "folder" and "test" not in splits and not options.folds:
        raise SeewhyError(f"{name} has no test split; leave split out, so that one is drawn")
    if options.split in ("random", "group"):
        splits = {"train": _pool(list(splits.values()))}
    elif options.folds:
        splits = {"train": _pool([split for key, split in splits.items() if key != "test"])}
    if validation and "validation" in splits:
        raise SeewhyError(
            f"{name} has its own validation split of {len(splits['validation']):,}; "
            "leave validation at 0"
        )
    groups = None
    if options.split == "group" or options.group_by is not None:
        groups = _find_groups(splits, name, options, quiet)
        _report_groups(groups, name, quiet)
    classes = (*raw.classes, NO_LABEL)
    if options.folds:
        labels = strata(splits["train"].labels)
        folds = _divide(classes, labels, None if groups is None else groups["train"], name, options)
        return {"train": replace(splits["train"], folds=folds)}, ("test",)
    drawn: list[str] = []
    for new, fraction in (("test", TEST_FRACTION), ("validation", validation)):
        if new in splits or not fraction:
            continue
        labels = strata(splits["train"].labels)
        if groups is None:
            _check_counts(classes, labels, name, new, drawn, quiet)
            kept, held_out = stratified_split(labels, fraction, options.seed)
        else:
            kept, held_out = grouped_split(labels, groups["train"], fraction, options.seed)
            _check_groups(classes, labels, held_out, name, new, quiet)
            groups = groups | {"train": groups["train"][kept]}
        splits[new] = splits["train"].take(held_out)
        splits["train"] = splits["train"].take(kept)
        drawn.append(new)
    return {key: splits[key] for key in ROLES if key in splits}, tuple(drawn)


def _measured_splits(raw: RawDataset, name: str) -> tuple[dict[str, RawSplit], tuple[str, ...]]:
    """The splits of a source to measure a model on; without a test split, all images are it."""
    splits = dict(raw.splits)
    drawn: tuple[str, ...] = () if "test" in splits else ("test",)
    if drawn:
        splits = {"test": _pool(list(splits.values()))}
    labels = {key: split.labels for key, split in splits.items()}
    check_label_range(raw.classes, labels, name)
    return {key: splits[key] for key in ROLES if key in splits}, drawn


def grouped_split(
    labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a fraction of each class, as far as whole groups allow.

    Groups come in random order, the largest first. Each is held out if that brings the classes,
    as far as they are assigned, closer to their fractions (least squares of the relative
    deviations), as in scikit-learn's StratifiedGroupKFold, and if train keeps images of all of its
    classes.

    Args:
        labels: (N,) int64.
        groups: (N,) int64, the group of each image.
        fraction: In (0, 1).
        seed: The same seed gives the same split.

    Returns:
        Indices of the kept and of the held-out images, each sorted int64.
    """
    generator = np.random.default_rng(seed)
    names, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    shuffled = generator.permutation(len(names))
    totals = np.bincount(labels).astype(float)
    held, assigned = np.zeros_like(totals), np.zeros_like(totals)
    chosen = np.zeros(len(names), dtype=bool)
    for index in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        classes, counts = np.unique(labels[members[index]], return_counts=True)
        assigned[classes] += counts
        wanted, total = fraction * assigned[classes], totals[classes]
        missing = (wanted - held[classes]) / total
        keeps_all_classes = (held[classes] + counts < total).all()
        if keeps_all_classes and ((missing - counts / total) ** 2).sum() < (missing**2).sum():
            held[classes] += counts
            chosen[index] = True
    return np.flatnonzero(~chosen[group]), np.flatnonzero(chosen[group])


def grouped_folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Divide images into folds by whole groups, each class as evenly as these allow.

    Groups come in random order, the largest first. Each goes to the fold that then has the most
    even share of every class (least squares), as in scikit-learn's StratifiedGroupKFold.

    Args:
        labels: (N,) int64.
        groups: (N,) int64, the group of each image.
        folds: Number of folds.
        seed: The same seed gives the same folds.

    Returns:
        (N,) int64, the fold of each image, from 0.
    """
    generator = np.random.default_rng(seed)
    names, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    totals = np.bincount(labels).astype(float)
    counts = np.zeros((len(names), len(totals)))
    np.add.at(counts, (group, labels), 1)
    shares = counts / np.maximum(totals, 1)
    shuffled = generator.permutation(len(names))
    filled, fold_of = np.zeros((folds, len(totals))), np.zeros(len(names), dtype=np.int64)
    for index in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        growth = ((filled + shares[index]) ** 2 - filled**2).sum(1)
        fold_of[index] = growth.argmin()
        filled[fold_of[index]] += shares[index]
    return fold_of[group]


def _divide(
    classes: Sequence[str],
    labels: np.ndarray,
    groups: np.ndarray | None,
    name: str,
    options: LoadOptions,
) -> np.ndarray:
    """The fold of each training image.

    Raises SeewhyError unless each class has images in every fold, or, of groups, in two.
    """
    counts = np.bincount(labels, minlength=len(classes))
    smallest = int(counts[counts > 0].min())
    if groups is None and smallest < options.folds:
        few = list_classes(classes, np.flatnonzero(counts == smallest))
        remedy = f"folds={smallest} is possible; or add images" if smallest > 1 else "add images"
        raise SeewhyError(
            f"{name}: folds={options.folds} needs {counted(options.folds, 'training image')} of "
            f"each class, found {smallest} of {few}; {remedy}"
        )
    if groups is None:
        return stratified_folds(labels, options.folds, options.seed)
    found = len(np.unique(groups))
    if found < options.folds:
        raise SeewhyError(
            f"{name}: folds={options.folds} needs {counted(options.folds, 'group')} of images, "
            f"found {found}; use fewer folds, or group_by other names"
        )
    folds = grouped_folds(labels, groups, options.folds, options.seed)
    for label in np.unique(labels):
        if len(np.unique(folds[labels == label])) < 2:
            raise SeewhyError(
                f"{name}: all images of {classes[label]!r} are in one fold, so no run would "
                "see it; group_by other names, or add images of other groups"
            )
    return folds


def _pool(splits: Sequence[RawSplit]) -> RawSplit:
    """All images as one split."""
    starts = np.cumsum([0, *map(len, splits)])

    def read(indices: Sequence[int]) -> list[tuple[str, Encoded]]:
        rows = np.asarray(indices)
        part = np.searchsorted(starts, rows, side="right") - 1
        result: dict[int, tuple[str, Encoded]] = {}
        for number in np.unique(part).tolist():
            places = np.flatnonzero(part == number)
            found = splits[number].read((rows[places] - starts[number]).tolist())
            result.update(zip(places.tolist(), found, strict=True))
        return [result[place] for place in range(len(rows))]

    masks = [split.masks for split in splits if split.masks is not None]
    groups = [split.groups for split in splits if split.groups is not None]
    return RawSplit(
        read,
        np.concatenate([split.labels for split in splits]),
        np.concatenate(masks) if len(masks) == len(splits) else None,
        np.concatenate(groups) if len(groups) == len(splits) else None,
    )


def _find_groups(
    splits: Mapping[str, RawSplit], name: str, options: LoadOptions, quiet: bool
) -> dict[str, np.ndarray]:
    """The group (N,) int64 of each image, by split: of near-duplicates, a column, or names."""
    lengths = [len(split) for split in splits.values()]
    columns = [split.groups for split in splits.values() if split.groups is not None]
    if options.group_by in (None, DUPLICATES):
        groups = _clusters(_pool(list(splits.values())), name, options, quiet)
    elif len(columns) == len(splits):
        groups = np.unique(np.concatenate(columns), return_inverse=True)[1]
    else:
        groups = _groups_of_names(splits, name, str(options.group_by), quiet)
    return dict(zip(splits, np.split(groups, np.cumsum(lengths)[:-1]), strict=True))


def _groups_of_names(
    splits: Mapping[str, RawSplit], name: str, pattern: str, quiet: bool
) -> np.ndarray:
    """What `pattern` finds in each name: its group, if it has one, or all of the match."""
    keys, unmatched = [], []
    for split in splits.values():
        for start in range(0, len(split), _BLOCK_ROWS):
            for each, _ in split.read(range(start, min(start + _BLOCK_ROWS, len(split)))):
                if found := re.search(pattern, each):
                    keys.append((True, found[1 if found.re.groups else 0] or ""))
                else:
                    keys.append((False, each))
                    unmatched.append(each)
    if len(unmatched) == len(keys):
        raise SeewhyError(
            f"{name}: group_by {pattern!r} is no column and matches no name, such as "
            f"{unmatched[0]!r}; write a regular expression for a part of it, as in '^[^_]+'"
        )
    if unmatched:
        note(
            f"{name}: group_by {pattern!r} matches {len(keys) - len(unmatched):,} of {len(keys):,} "
            f"names; the others, such as {unmatched[0]!r}, are groups of one image",
            quiet,
        )
    index = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([index[key] for key in keys], dtype=np.int64)


def _clusters(split: RawSplit, name: str, options: LoadOptions, quiet: bool) -> np.ndarray:
    """Groups of images that are near-duplicates, directly or by way of others."""
    size = (_SKETCH_SIDE, _SKETCH_SIDE)
    preprocessing = Preprocessing(value_range=options.range)

    def sketch(encoded: Encoded) -> np.ndarray | None:
        try:
            image = open_image(encoded, size, preprocessing, options.max_pixels)
            return to_pixels(image, size, 1, preprocessing).transpose(2, 0, 1)
        except Exception:  # decoding will report or skip it
            return None

    sketches: list[np.ndarray | None] = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        progress(f"comparing {name}", len(split), quiet) as advance,
    ):
        for start in range(0, len(split), _BLOCK_ROWS):
            encoded = split.read(range(start, min(start + _BLOCK_ROWS, len(split))))
            sketches += pool.map(sketch, [image for _, image in encoded])
            advance(len(encoded))
    readable = [index for index, each in enumerate(sketches) if each is not None]
    parent = np.arange(len(split))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = int(parent[index])
        return index

    if readable:
        pixels = torch.from_numpy(np.stack([each for each in sketches if each is not None]))
        test = Split(pixels, torch.zeros(len(readable), dtype=torch.int64), [""] * len(readable))
        for pair in near_duplicates({"test": test}, within=["test"]):
            first, second = root(readable[pair.first[1]]), root(readable[pair.second[1]])
            parent[max(first, second)] = min(first, second)
    return np.array([root(index) for index in range(len(split))], dtype=np.int64)


def _report_groups(groups: Mapping[str, np.ndarray], name: str, quiet: bool) -> None:
    """How the images are grouped, and whether groups are in several of the given splits."""
    _, sizes = np.unique(np.concatenate(list(groups.values())), return_counts=True)
    alone = "" if sizes.max() > 1 else ", so the split is as by image"
    note(
        f"{name}: {counted(sizes.sum(), 'image')} in {counted(len(sizes), 'group')}, the largest "
        f"of {sizes.max():,}{alone}",
        quiet,
    )
    others = [values for role, values in groups.items() if role != "train"]
    if others:
        shared = np.intersect1d(groups["train"], np.concatenate(others))
        if len(shared):
            note(
                f"{name}: {counted(len(shared), 'group')} {have(len(shared))} images in train and "
                "in another split, so the accuracy may be too high; split='group' splits anew",
                quiet,
            )


def _check_counts(
    classes: Sequence[str], labels: np.ndarray, name: str, new: str, drawn: list[str], quiet: bool
) -> None:
    """Check that a class has two images to divide; `drawn` splits have taken some before."""
    counts = np.bincount(labels, minlength=len(classes))
    single = np.flatnonzero(counts == 1)
    names = list_classes(classes, single)
    if counts.max() < 2 and drawn:
        raise SeewhyError(
            f"{name}: after the {drawn[-1]} split, {names} have one image each, so none is left "
            f"for the {new} split; leave {new} out, or add images"
        )
    if counts.max() < 2:
        raise SeewhyError(
            f"{name}: the {new} split needs a class with at least two images, found one in "
            f"{names}; add images"
        )
    if len(single):
        have = f"after the {drawn[-1]} split have only one left" if drawn else "have only one"
        note(f"{name}: the {new} split has no images of {names}, which {have}", quiet)


def _check_groups(
    classes: Sequence[str],
    labels: np.ndarray,
    held_out: np.ndarray,
    name: str,
    new: str,
    quiet: bool,
) -> None:
    missing = np.setdiff1d(labels, labels[held_out])
    if len(held_out) == 0:
        raise SeewhyError(
            f"{name}: the {new} split needs a class with at least two groups of images, and no "
            "group that is most of it; group_by other names, or leave it out"
        )
    if len(missing):
        note(
            f"{name}: the {new} split has no images of "
            f"{list_classes(classes, missing)}, whose groups are too few or too large",
            quiet,
        )
