"""Datasets from the Hugging Face hub, and tables of the `datasets` library."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import numpy as np

from seewhy.data.decode import Encoded
from seewhy.data.raw import (
    LoadRequest,
    RawDataset,
    RawSplit,
    Source,
    assign_roles,
    class_name,
    describe_splits,
    index_labels,
)
from seewhy.errors import SeewhyError, did_you_mean
from seewhy.progress import note
from seewhy.wording import counted

_CONNECT_SECONDS = 2.0  # the library itself retries for half a minute


def raw_dataset_from_tables(
    tables: Mapping[str, Any], title: str, request: LoadRequest, folders: Sequence[Path]
) -> RawDataset:
    """Images and labels from tables.

    A single split of any name is the training split. An image is named after its stored path. An
    image that is only a path is read from `folders`, and from nowhere else.

    Args:
        tables: A `datasets.Dataset` by split.
        title: Name of the dataset in error messages.
        request: Load options, with the requested label column.
        folders: Resolved directories of the dataset; relative paths start at the first.

    Returns:
        The dataset, not decoded yet.

    Raises:
        SeewhyError: There is no image column, no label column, or several possible label columns.
        `read` of a split raises it if a path leads out of `folders`.
    """
    roles = assign_roles(tables, title)
    if "train" not in roles:
        if len(tables) > 1:
            raise SeewhyError(
                f"{title}: no train split; found {', '.join(sorted(tables))}; rename the training "
                "split to train"
            )
        roles = {"train": next(iter(tables))}
    unused = set(tables) - set(roles.values())
    if unused or any(role != name for role, name in roles.items()):
        places = {role: f"split {name!r}" for role, name in roles.items()}
        note(f"{title}: {describe_splits(places, unused)}", request.quiet)
    by_role = {role: tables[name] for role, name in roles.items()}
    features = by_role["train"].features
    image = _image_column(features, title)
    label = _label_column(features, title, request.label)
    for role, table in by_role.items():
        if not {image, label} <= table.features.keys():
            raise SeewhyError(
                f"{title}: the {role} split lacks {image!r} or {label!r}; "
                f"found {', '.join(table.features)}; rename its columns as in train"
            )
    with _reading_rows(title, label):
        stored = {role: _read_labels(table, label, role, title) for role, table in by_role.items()}
    classes, labels = _classes(features[label], stored)
    splits = {
        role: RawSplit(
            _reader(table, image, role, title, folders),
            labels[role],
            groups=_read_groups(table, request.group_by, title),
        )
        for role, table in by_role.items()
    }
    return RawDataset(classes, splits)


@contextmanager
def library_quiet(bars: bool) -> Iterator[None]:
    """Make the `datasets` library log nothing, and show progress bars only if `bars`.

    It raises its errors too.
    """
    import datasets
    import huggingface_hub

    loggers = (datasets.logging, huggingface_hub.logging)
    levels = [logger.get_verbosity() for logger in loggers]
    had_bars = not datasets.are_progress_bars_disabled()
    for logger in loggers:
        logger.set_verbosity(logging.CRITICAL)
    if not bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.set_verbosity(level)
        if had_bars:
            datasets.enable_progress_bars()


@contextmanager
def library_offline() -> Iterator[None]:
    """Disable all network calls of the `datasets` library, including download counters."""
    import datasets.config
    import huggingface_hub.constants

    modules: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in modules]
    for module in modules:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _image_column(features: Mapping[str, Any], title: str) -> str:
    import datasets

    for name, feature in features.items():
        if isinstance(feature, datasets.Image) or (
            isinstance(feature, dict) and feature.keys() == {"bytes", "path"}
        ):
            return name
    raise SeewhyError(
        f"{title}: no image column (an Image feature, or a struct of bytes and path); "
        f"found {_format_features(features)}; add one"
    )


def _label_column(features: Mapping[str, Any], title: str, requested: str | None) -> str:
    import datasets

    possible = {
        name: feature
        for name, feature in features.items()
        if isinstance(feature, datasets.ClassLabel)
        or (
            isinstance(feature, datasets.Value)
            and feature.dtype.startswith(("int", "uint", "string", "large_string", "bool"))
        )
    }
    if requested is not None:
        if requested in possible:
            return requested
        raise SeewhyError(
            f"{title}: no label column {requested!r}{did_you_mean(requested, possible)}; "
            f"possible: {', '.join(possible) or 'none'}"
        )
    class_labels = [
        name for name, feature in possible.items() if isinstance(feature, datasets.ClassLabel)
    ]
    if class_labels or len(possible) == 1:
        return (class_labels or list(possible))[0]
    if possible:
        raise SeewhyError(
            f"{title}: more than one column could be the label: {', '.join(possible)}; "
            "choose with label=…"
        )
    raise SeewhyError(
        f"{title}: no label column (a ClassLabel, integers or strings); "
        f"found {_format_features(features)}; add one"
    )


def _format_features(features: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} ({getattr(feature, 'dtype', None) or type(feature).__name__})"
        for name, feature in features.items()
    )


@contextmanager
def _reading_rows(title: str, column: str) -> Iterator[None]:
    """Turn errors in reading a column into a SeewhyError: the library checks no values."""
    try:
        yield
    except SeewhyError:
        raise
    except Exception as error:  # text that is no UTF-8, numbers out of range, damaged pages
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SeewhyError(
            f"{title}: the column {column!r} cannot be read ({reason}); restore the table, or "
            "correct its values"
        ) from error


def _read_labels(
    table: Any, label: str, role: str, title: str
) -> np.ndarray:  # (N,) int64 or object
    column = table.select_columns([label]).with_format("arrow")[:][label]
    if column.null_count:
        raise SeewhyError(
            f"{title}: {column.null_count:,} of {counted(len(column), 'label')} of the {role} "
            "split are missing; keep only labeled images"
        )
    values = column.to_pylist()
    is_int64 = all(not isinstance(value, str) and value < 2**63 for value in values)
    return np.array(values, dtype=np.int64 if is_int64 else object)


def _read_groups(table: Any, column: str | None, title: str) -> np.ndarray | None:
    """The values (N,) of a column as text; None if there is none of this name."""
    if column not in table.features:
        return None
    with _reading_rows(title, str(column)):
        values = table.select_columns([column]).with_format("arrow")[:][column].to_pylist()
    # a row without a group is one of its own
    return np.array([f"{i}" if each is None else f"={each}" for i, each in enumerate(values)])


def _classes(
    feature: Any, stored: Mapping[str, np.ndarray]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Class names, and each split's labels (N,) int64 as indices into them."""
    names = getattr(feature, "names", None)
    if names:
        return tuple(map(class_name, names)), dict(stored)
    if any(
        values.dtype == np.int64 and len(values) and values.min() < 0 for values in stored.values()
    ):
        highest = max(int(values.max(initial=0)) for values in stored.values())
        # check_labels rejects them
        return tuple(map(str, range(highest + 1))), dict(stored)
    return index_labels(stored)


def _reader(
    table: Any, image: str, role: str, title: str, folders: Sequence[Path]
) -> Callable[[Sequence[int]], list[tuple[str, Encoded]]]:
    import datasets

    if isinstance(table.features[image], datasets.Image):
        table = table.cast_column(image, datasets.Image(decode=False))
    table = table.select_columns([image])

    def read(indices: Sequence[int]) -> list[tuple[str, Encoded]]:
        with _reading_rows(title, image):
            cells = table[indices if isinstance(indices, range) else list(indices)][image]
        return [
            _name_and_image(cell, f"{role}-{index:05d}", title, folders)
            for index, cell in zip(indices, cells, strict=True)
        ]

    return read


def _name_and_image(
    cell: dict[str, Any] | None, default_name: str, title: str, folders: Sequence[Path]
) -> tuple[str, Encoded]:
    if cell is None:
        return default_name, b""
    path, content = cell["path"], cell["bytes"]
    if content is None and path:
        return path, _path_inside(path, default_name, title, folders)
    return path or default_name, content or b""


def _path_inside(path: str, row: str, title: str, folders: Sequence[Path]) -> Path:
    """A stored path as a file in one of `folders`, with links resolved.

    Raises SeewhyError for any other: the author of the table chose the path, but it is read on the
    machine and with the rights of the user who loads the table.
    """
    resolved = (folders[0] / path.replace("\0", "")).resolve()
    if not any(resolved.is_relative_to(folder) for folder in folders):
        raise SeewhyError(
            f"{title}: the image {row} is the file {path!r} outside {folders[0]}, which is not "
            "read; store the content of the images in the table, or move them into the directory"
        )
    return resolved


def hub_source(repository: str, config: str = "", revision: str = "") -> Source:
    """The dataset `repository` ("owner/name") of the hub, in a configuration and a revision."""
    name = (
        f"hub:{repository}"
        + (f",config={config}" if config else "")
        + (f",revision={revision}" if revision else "")
    )

    def open_(request: LoadRequest) -> RawDataset:
        tables = _tables(repository, config or None, revision or None, request.quiet)
        return raw_dataset_from_tables(tables, name, request, _folders_of(repository))

    return Source(name, {"hub": repository, "config": config, "revision": revision}, open_)


def _folders_of(repository: str) -> tuple[Path, ...]:
    """Where the library keeps the files of `repository`, and the archives that it extracted."""
    import datasets.config
    import huggingface_hub.constants

    folder = "--".join(["datasets", *repository.split("/")])
    folders = (
        Path(huggingface_hub.constants.HF_HUB_CACHE, folder),
        Path(datasets.config.DOWNLOADED_DATASETS_PATH),
    )
    return tuple(each.expanduser().resolve() for each in folders)


def _tables(
    repository: str, config: str | None, revision: str | None, quiet: bool
) -> Any:  # datasets.DatasetDict
    import datasets

    with library_quiet(bars=not quiet):
        if revision is None:  # the library's cache may have any revision
            try:
                with library_offline():
                    return datasets.load_dataset(repository, config)
            except Exception:  # it is not in the library's cache
                pass
        if not hub_answers():
            raise SeewhyError(
                f"{repository} is not cached, and the hub is not reachable; connect once, or pass "
                "a directory of Parquet files, class folders, or the published files"
            )
        try:
            return datasets.load_dataset(repository, config, revision=revision)
        except Exception as error:  # the library raises many types
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise SeewhyError(
                f"{repository} cannot be loaded from the hub: {' '.join(lines)[:400]}"
            ) from error


def hub_answers() -> bool:
    """Whether the hub answers within `_CONNECT_SECONDS`."""
    from huggingface_hub import constants, get_session

    answers: Queue[bool] = Queue()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=_CONNECT_SECONDS)
        except Exception:  # refused, unknown host, or offline mode
            answers.put(False)
        else:
            answers.put(True)

    # in a thread: resolving the name and the library's retries have no limit of their own
    Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=_CONNECT_SECONDS)
    except Empty:
        return False
