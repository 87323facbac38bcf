"""Which folders of a directory are splits, and which are classes.

Recognized are SPLIT/CLASS, CLASS/SPLIT and CLASS, also inside other folders, as in
archive/seg_train/seg_train/CLASS. What could be either is refused.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seewhy.data.listing import IMAGE_SUFFIXES, is_folder, is_ignored, list_folders, printable
from seewhy.data.raw import (
    ROLES,
    assign_roles,
    class_name,
    describe_splits,
    role_in_name,
    split_role,
)
from seewhy.errors import SeewhyError

Classes = Mapping[str, Path]  # the folder of each class, by its name


@dataclass(frozen=True)
class FolderLayout:
    """The folders of each class in each split."""

    classes: Mapping[str, Classes]  # by role: train, test and validation
    description: str  # which folders became what


def find_layout(root: Path) -> FolderLayout:
    """The layout of the class folders in `root`.

    Raises SeewhyError if there are several interpretations, or images outside the class folders.
    """
    top = _inner_folder(root, role=None)
    folders = _used_folders(top)
    splits = _split_folders(top, folders)
    if splits:
        return _layout_of_splits(root, top, splits)
    if layout := _splits_within_classes(root, top, folders):
        return layout
    inside = "" if top == root else _relative(root, top)
    description = describe_splits({"train": f"{inside}CLASS/"}, ())
    return FolderLayout({"train": _class_folders(top)}, description)


def _lacks_training(folders: Sequence[Path]) -> bool:
    """Whether the folders are those of splits, but none is for training."""
    by_role = _by_role(folders)
    others = [folder for folder in folders if role_in_name(folder.name) is None]
    trees = [folder for found in by_role.values() for folder in found if _may_be_split(folder)]
    return "train" not in by_role and not others and bool(trees)


def _layout_of_splits(root: Path, top: Path, splits: Mapping[str, Path]) -> FolderLayout:
    """SPLIT/CLASS."""
    roles = assign_roles(splits, str(top))
    trees: dict[str, Path] = {}
    classes: dict[str, Classes] = {}
    for role in ROLES:
        if role in roles:
            folder = splits[roles[role]]
            trees[role] = _inner_folder(folder, roles[role], classes.get("train", ()))
            classes[role] = _class_folders(trees[role])
    unused = set(_used_folders(top)) - set(splits.values())
    description = describe_splits(
        {role: _relative(root, tree) for role, tree in trees.items()},
        [_relative(root, folder) for folder in unused],
    )
    return FolderLayout(classes, description)


def _splits_within_classes(root: Path, top: Path, folders: Sequence[Path]) -> FolderLayout | None:
    """CLASS/SPLIT, if every class has a folder for training and one for testing or validation."""
    inside: dict[Path, Mapping[str, Path]] = {}
    for folder in folders:
        by_role = {} if _has_images(folder) else _by_role(_used_folders(folder))
        if "train" in by_role and len(by_role) > 1:
            inside[folder] = {role: _only(role, found, top) for role, found in by_role.items()}
    if not inside:
        return None
    without = [folder for folder in folders if folder not in inside]
    if without:
        one = _relative(root, next(iter(inside)))
        raise SeewhyError(
            f"{root}: {one} has folders for training and testing, but "
            f"{_relative(root, without[0])} has not; give each class the same folders"
        )
    classes: dict[str, dict[str, Path]] = {}
    for folder, splits in inside.items():
        for role, split in assign_roles(splits, str(folder)).items():
            classes.setdefault(role, {})[_class_name(folder)] = splits[split]
    used = {path for by_class in classes.values() for path in by_class.values()}
    unused = [path for folder in folders for path in _used_folders(folder) if path not in used]
    places = {
        role: f"CLASS/{printable(next(iter(classes[role].values())).name)}/"
        for role in ROLES
        if role in classes
    }
    return FolderLayout(
        classes, describe_splits(places, [_relative(root, path) for path in unused])
    )


def _split_folders(top: Path, folders: Sequence[Path]) -> Mapping[str, Path]:
    """The folders that are splits, by role; empty if the folders are classes.

    A folder is a split if its name is that of a split, or has it as a word, and it has folders in
    it. Raises SeewhyError if that leaves a doubt.
    """
    by_role = _by_role(folders)
    trees = {role: list(filter(_may_be_split, found)) for role, found in by_role.items()}
    others = [folder for folder in folders if role_in_name(folder.name) is None]
    if "train" not in by_role:
        if not _lacks_training(folders):
            return {}
        return {role: _only(role, found, top) for role, found in trees.items() if found}
    if not trees["train"]:
        exact = {role for role in map(split_role, (folder.name for folder in folders)) if role}
        if len(by_role) > 1 and (not others or len(exact) > 1):
            raise SeewhyError(
                f"{top}: {_names(found[0] for found in by_role.values())} hold images but no "
                "class folders; move each image into the folder of its class, as in train/CLASS/"
            )
        return {}
    named = any(split_role(folder.name) for folder in trees["train"])
    tested = any(trees[role] for role in trees if role != "train")
    alike = [each for each in others if len(_used_folders(_inner_folder(each, role=None))) > 1]
    if (alike and not (named and tested)) or (others and not (named or tested)):
        raise SeewhyError(
            f"{top}: {_names(trees['train'])} could be the training split, or a class like "
            f"{_names(others[:3])}; move other folders away if it is the split, or move its images "
            "out of their folders if it is a class"
        )
    # a folder that only resembles a split, and has no classes, is not one: test1 with images
    splits = {
        role: [each for each in found if each in trees[role] or split_role(each.name)]
        for role, found in by_role.items()
    }
    return {role: _only(role, found, top) for role, found in splits.items() if found}


def _by_role(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """The folders of each role: those with its exact name, or else those with it as a word."""
    exact: dict[str, list[Path]] = {}
    by_word: dict[str, list[Path]] = {}
    for folder in folders:
        if role := split_role(folder.name):
            exact.setdefault(role, []).append(folder)
        elif role := role_in_name(folder.name):
            by_word.setdefault(role, []).append(folder)
    return by_word | exact


def _only(role: str, found: Sequence[Path], top: Path) -> Path:
    if len(found) > 1:
        raise SeewhyError(
            f"{top}: both {found[0].name!r} and {found[1].name!r} could be the {role} split; "
            "rename or remove one"
        )
    return found[0]


def _may_be_split(folder: Path) -> bool:
    """Whether the folder has class folders; images beside them are then an error."""
    return bool(_used_folders(folder)) and (
        split_role(folder.name) is not None or not _has_images(folder)
    )


def _inner_folder(folder: Path, role: str | None, known: Collection[str] = ()) -> Path:
    """The folder of the class folders: `folder`, or the only one in it, and so on.

    One folder with others in it is not a class: there would be only one. In a test split it is,
    if it is one of the `known` classes.
    """
    while not _has_images(folder) and len(inside := _used_folders(folder)) == 1:
        (only,) = inside
        of_other_split = role_in_name(only.name) not in (None, role)
        if of_other_split or not _is_tree(only) or _class_name(only) in known:
            break
        folder = only
    return folder


def _class_folders(tree: Path) -> Classes:
    """The folder of each class in `tree`, in natural order, without empty ones."""
    stray = [name for name in _files(tree) if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if stray:
        raise SeewhyError(
            f"{tree}: images outside the class folders: {len(stray):,} (the first is "
            f"{printable(min(stray))}); move each into the folder of its class"
        )
    classes: dict[str, Path] = {}
    for folder in _used_folders(tree):
        name = _class_name(folder)
        if name in classes:
            raise SeewhyError(
                f"{tree}: two folders are named {name!r}, in two forms of Unicode; move the images "
                "of one into the other"
            )
        classes[name] = folder
    return classes


def _class_name(folder: Path) -> str:
    """The name of the class; macOS and Linux write é in different forms of Unicode."""
    return class_name(printable(folder.name))


def _used_folders(folder: Path) -> list[Path]:
    """The folders in `folder` with a file in or below them, in natural order."""
    return [path for path in list_folders(folder) if _has_files(path)]


def _is_tree(folder: Path) -> bool:
    """Whether the folder has no images of its own but folders with files."""
    return not _has_images(folder) and bool(_used_folders(folder))


def _has_files(folder: Path) -> bool:
    visited = set()
    for path, subfolders, names in os.walk(folder, followlinks=True):
        subfolders[:] = [name for name in subfolders if not is_ignored(name)]
        if any(not is_ignored(name) for name in names):
            return True
        real = os.path.realpath(path)
        if real in visited:  # a link to a parent
            subfolders.clear()
        visited.add(real)
    return False


def _has_images(folder: Path) -> bool:
    return any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in _files(folder))


def _files(folder: Path) -> list[str]:
    """The names of the files in a folder, without hidden and system files."""
    with os.scandir(folder) as entries:
        return [each.name for each in entries if not (is_ignored(each.name) or is_folder(each))]


def _relative(root: Path, folder: Path) -> str:
    return "." if folder == root else f"{printable(folder.relative_to(root).as_posix())}/"


def _names(folders: Iterable[Path]) -> str:
    return ", ".join(printable(folder.name) for folder in folders)
