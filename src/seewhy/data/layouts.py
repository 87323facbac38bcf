"""Published datasets in the files that they are distributed in, also in archives.

LAYOUTS lists them: CIFAR-10 and 100, MNIST, Fashion-MNIST, KMNIST, EMNIST, SVHN, STL-10. The
folders that torchvision's `download=True` makes around them are found too, and arrays in .npz and
.npy files.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from seewhy.data.array_files import array_groups, read_array_files
from seewhy.data.binary_formats import (
    DIGITS,
    EMNIST_CLASSES,
    FASHION_CLASSES,
    Files,
    read_cifar10_binary,
    read_cifar10_pickles,
    read_cifar100_binary,
    read_cifar100_pickles,
    read_emnist,
    read_idx_digits,
    read_stl10,
    read_svhn,
)
from seewhy.data.file_trees import (
    FileTree,
    NamedFile,
    archive_tree,
    directory_tree,
    is_archive,
    read_file,
)
from seewhy.data.listing import list_folders, listed_file, printable, signature
from seewhy.data.raw import LoadRequest, RawDataset, Source, reject_label_choice
from seewhy.errors import SeewhyError
from seewhy.wording import be

_CIFAR100_LABELS = ("fine_label", "coarse_label")


@dataclass(frozen=True)
class Layout:
    """The files of a published dataset in one folder.

    Args:
        dataset: Its name.
        files: A regular expression for the name of each file.
        read: Reads the files.
        labels: Names of its labels, the default first, if there are several.
        archive: File name of the archive in which the files are published.
        least: Number of files that identify the dataset; more if their names are common words.
    """

    dataset: str
    files: Mapping[str, str]
    read: Callable[[Files, str], RawDataset]
    labels: tuple[str, ...] = ()
    archive: str = ""
    least: int = 1


def _exact(*names: str) -> dict[str, str]:
    return {name: re.escape(name) for name in names}


def _idx_files(prefix: str = "", test: str = "t10k") -> dict[str, str]:
    return {
        f"{role} {kind}": rf"{prefix}{name}[-.]{kind}[-.]idx{ndim}[-.]ubyte(\.gz)?"
        for role, name in (("train", "train"), ("test", test))
        for kind, ndim in (("images", 3), ("labels", 1))
    }


LAYOUTS = (
    Layout(
        "cifar10",
        _exact(*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
        read_cifar10_pickles,
        archive="cifar-10-python.tar.gz",
    ),
    Layout(
        "cifar10",
        _exact(
            *(f"data_batch_{number}.bin" for number in range(1, 6)),
            "test_batch.bin",
            "batches.meta.txt",
        ),
        read_cifar10_binary,
        archive="cifar-10-binary.tar.gz",
    ),
    Layout(
        "cifar100",
        _exact("train", "test", "meta"),
        read_cifar100_pickles,
        _CIFAR100_LABELS,
        archive="cifar-100-python.tar.gz",
        least=2,
    ),
    Layout(
        "cifar100",
        _exact("train.bin", "test.bin", "fine_label_names.txt", "coarse_label_names.txt"),
        read_cifar100_binary,
        _CIFAR100_LABELS,
        archive="cifar-100-binary.tar.gz",
        least=2,
    ),
    # the first three have the same file names, so the folder decides; see _dataset_of_idx
    Layout("mnist", _idx_files(), read_idx_digits(DIGITS)),
    Layout("fashion-mnist", _idx_files(), read_idx_digits(FASHION_CLASSES)),
    Layout("kmnist", _idx_files(), read_idx_digits(DIGITS)),
    *(
        Layout(f"emnist-{variant}", _idx_files(f"emnist-{variant}-", "test"), read_emnist(variant))
        for variant in EMNIST_CLASSES
    ),
    Layout("svhn", _exact("train_32x32.mat", "test_32x32.mat"), read_svhn),
    Layout(
        "stl10",
        _exact("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin"),
        read_stl10,
        archive="stl10_binary.tar.gz",
    ),
)
LAYOUT_NAMES = tuple(dict.fromkeys(layout.dataset for layout in LAYOUTS))
_IDX_NAMES = ("mnist", "fashion-mnist", "kmnist")


@dataclass(frozen=True, eq=False)
class _Found:
    """A dataset in a folder of a tree, or in an archive in it."""

    name: str  # of the dataset, or of the folder or file if that does not tell which one it is
    folder: str  # relative to the root, "" for the root itself
    files: Mapping[str, str]  # paths relative to the root
    read: Callable[[Files, str], RawDataset]
    layout: Layout | None = None  # None for arrays
    known: bool = True  # whether `name` is the dataset of a layout
    archive: bool = False

    @property
    def missing(self) -> list[str]:
        """The files that the layout has and the folder lacks."""
        files = self.layout.files if self.layout is not None and not self.archive else {}
        return [key for key in files if key not in self.files]

    def describe(self) -> str:
        """Name and place, for messages."""
        alone = self.archive or self.layout is None
        where = next(iter(self.files.values())) if alone else self.folder or "."
        return f"{self.name} ({printable(where)})"


def files_source(path: Path, dataset: str = "") -> Source | None:
    """The published dataset, or the arrays, in a directory or a file; nothing is decoded yet.

    Args:
        path: Directory, archive, or .npz file.
        dataset: Name of the dataset to look for; empty for the only one there.

    Returns:
        The source, or None if there is no such dataset.

    Raises:
        SeewhyError: There are several datasets.
    """
    root = path.resolve()
    if is_archive(root):
        return _archive_source(root, dataset)
    if not root.is_dir():
        return _npz_source(root) if root.suffix.lower() == ".npz" and not dataset else None
    tree = directory_tree(root)
    found = _find(tree, dataset)
    if found is None:
        archives = [name for name in tree.names if "/" not in name and is_archive(Path(name))]
        only = len(archives) == 1 and not list_folders(root)
        return _archive_source(root / archives[0], dataset) if only else None
    if tree.image_folders and not dataset:
        raise SeewhyError(
            f"{root} holds {found.describe()} and images in "
            f"{printable(tree.image_folders[0].rstrip('/'))}; pass the directory of one of them"
        )
    if found.archive:
        return _archive_source(root / next(iter(found.files.values())), found.name)
    files = [listed_file(root / name) for name in found.files.values()]
    key = [found.name, signature(root, {"files": files})]
    return Source(found.name, key, partial(_open, tree, found))


def _archive_source(path: Path, dataset: str) -> Source:
    """A dataset in an archive, which is opened only if it is not in the cache."""
    known = {layout.archive: layout.dataset for layout in LAYOUTS if layout.archive}
    name = dataset or known.get(path.name) or path.name.partition(".")[0]

    def open_(request: LoadRequest) -> RawDataset:
        tree = archive_tree(path)
        found = _find(tree, dataset)
        if found is None:
            raise SeewhyError(
                f"{path} holds no {dataset or 'dataset'} in a published layout, and no arrays of "
                "images and labels; extract it and pass the directory"
            )
        return _open(tree, found, request)

    return Source(name, [dataset, signature(path.parent, {"archive": [listed_file(path)]})], open_)


def _npz_source(path: Path) -> Source:
    def read(names: Sequence[str]) -> dict[str, bytes]:
        return {name: read_file(path.parent / name) for name in names}

    tree = FileTree(path.parent, (path.name,), read)
    found = _Found(path.stem, "", {path.name: path.name}, partial(_read_arrays, path))
    key = signature(path.parent, {"files": [listed_file(path)]})
    return Source(path.stem, key, partial(_open, tree, found))


def _open(tree: FileTree, found: _Found, request: LoadRequest) -> RawDataset:
    if found.missing:
        raise SeewhyError(
            f"{tree.path / found.folder}: of {found.name}, {', '.join(found.missing)} "
            f"{be(len(found.missing))} missing; download it again"
        )
    labels = found.layout.labels if found.layout is not None else ()
    if not labels:
        reject_label_choice(found.name, request)
    elif request.label not in (None, *labels):
        raise SeewhyError(
            f"{found.name}: no label column {request.label!r}; possible: {', '.join(labels)}"
        )
    contents = tree.read(list(found.files.values()))
    separator = "/" if tree.path.is_dir() else ":"
    files = {
        key: NamedFile(f"{tree.path}{separator}{name}", contents[name])
        for key, name in found.files.items()
    }
    return found.read(files, request.label or (labels[0] if labels else ""))


def _find(tree: FileTree, dataset: str) -> _Found | None:
    """The dataset called `dataset` in a tree, or the only one. None if there is none.

    Raises SeewhyError if there are several.
    """
    found = _published_in(tree)
    if not tree.image_folders or dataset:
        found += _arrays_in(tree)
    if dataset:
        found = _called(found, dataset)
    found = [each for each in found if not each.missing] or found
    extracted = {each.name for each in found if not each.archive}
    found = [each for each in found if not (each.archive and each.name in extracted)]
    # one dataset in two layouts, such as -py and -bin, is the same data
    first = {each.name: each.layout for each in reversed(found)}
    found = [each for each in found if each.layout is first[each.name]]
    if len(found) > 1:
        raise SeewhyError(_ambiguity(tree.path, found))
    return found[0] if found else None


def _called(found: Sequence[_Found], dataset: str) -> list[_Found]:
    """Those that are `dataset`, or else those that may be it."""
    certain = [each for each in found if each.known and each.name == dataset]
    if certain:
        return certain
    by_name = {layout.dataset: layout for layout in reversed(LAYOUTS)}
    possible = []
    for each in found:
        if each.known:
            continue
        if each.layout is None:
            if re.sub(r"\W", "", each.name) == re.sub(r"\W", "", dataset):
                possible.append(each)
        elif dataset in _IDX_NAMES:
            layout = by_name[dataset]
            possible.append(
                replace(each, name=dataset, read=layout.read, layout=layout, known=True)
            )
    return possible


def _ambiguity(root: Path, found: Sequence[_Found]) -> str:
    listed = ", ".join(each.describe() for each in found[:8]) + " …" * (len(found) > 8)
    known = list(dict.fromkeys(each.name for each in found if each.known))
    example = f"load({known[0]!r}, root=…) or `{known[0]} --root …`" if known else ""
    by_name = f"name one, as in {example}, or " if len(known) > 1 else ""
    return f"{root} holds several datasets: {listed}; {by_name}pass the path of one"


def _published_in(tree: FileTree) -> list[_Found]:
    """The datasets of LAYOUTS, one per folder and dataset, and their archives."""
    by_folder: dict[str, list[str]] = {}
    for name in tree.names:
        folder, _, base = name.rpartition("/")
        by_folder.setdefault(folder, []).append(base)
    found = []
    for layout in LAYOUTS:
        for folder, names in by_folder.items():
            prefix = f"{folder}/" if folder else ""
            files = {
                key: prefix + name
                for key, pattern in layout.files.items()
                if (name := _shortest_match(pattern, names))
            }
            if len(files) >= layout.least and layout.dataset in _IDX_NAMES:
                found += _idx_in(tree, folder, files, layout)
            elif len(files) >= layout.least:
                found.append(_Found(layout.dataset, folder, files, layout.read, layout))
            if layout.archive in names:
                archive = {"archive": prefix + layout.archive}
                found.append(
                    _Found(layout.dataset, folder, archive, layout.read, layout, archive=True)
                )
    return found


def _idx_in(tree: FileTree, folder: str, files: Mapping[str, str], layout: Layout) -> list[_Found]:
    """IDX files as the dataset of `layout` if the folder's name says so, or as an unknown one."""
    dataset = _dataset_of_idx(tree.path, folder)
    if dataset == layout.dataset:
        return [_Found(dataset, folder, files, layout.read, layout)]
    if dataset or layout.dataset != _IDX_NAMES[0]:
        return []
    name = PurePosixPath(folder).name or tree.path.name
    return [_Found(name, folder, files, read_idx_digits(DIGITS), layout, known=False)]


def _shortest_match(pattern: str, names: Sequence[str]) -> str:
    """The file for a pattern; an extracted file is preferred to the same with .gz."""
    expression = re.compile(pattern)
    return min(filter(expression.fullmatch, names), key=len, default="")


def _dataset_of_idx(root: Path, folder: str) -> str:
    """Which of the datasets with the same file names this is, by the names of its folders."""
    for part in reversed((root / folder).parts[-2:]):
        name = part.lower()
        if "fashion" in name:
            return "fashion-mnist"
        if "kmnist" in name or "kuzushiji" in name:
            return "kmnist"
        if "mnist" in name:
            return "mnist"
    return ""


def _arrays_in(tree: FileTree) -> list[_Found]:
    """The datasets in .npz and .npy files, by folder."""
    by_folder: dict[str, list[str]] = {}
    for name in tree.names:
        by_folder.setdefault(name.rpartition("/")[0], []).append(name)
    return [
        _Found(
            group or PurePosixPath(folder).name or tree.path.name,
            folder,
            {name: name for name in files},
            partial(_read_arrays, tree.path),
            known=False,
        )
        for folder, names in by_folder.items()
        for group, files in array_groups(names).items()
    ]


def _read_arrays(root: Path, files: Files, label: str) -> RawDataset:
    return read_array_files(list(files.values()), str(root))
