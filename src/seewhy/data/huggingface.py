"""From tables of the `datasets` library to images and labels: which column is which comes from the features alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from seewhy.data.decode import Encoded
from seewhy.data.raw import LoadRequest, RawDataset, RawSplit, Source, note_unused, split_roles
from seewhy.errors import SeewhyError, did_you_mean


def raw_dataset_from_tables(
    tables: Mapping[str, Any], where: str, request: LoadRequest
) -> RawDataset:
    """Images and labels of the `datasets.Dataset` of each split; an image is named after its stored path, if it has one.

    A single split of any name is the training split. Raises SeewhyError where no image or label column is found, or
    more than one may be meant.
    """
    roles = split_roles(tables, where)
    if "train" not in roles:
        if len(tables) > 1:
            raise SeewhyError(f"{where}: no train split; found {', '.join(sorted(tables))}")
        roles = {"train": next(iter(tables))}
    note_unused(where, set(tables) - set(roles.values()), request.quiet)
    chosen = {role: tables[name] for role, name in roles.items()}
    features = chosen["train"].features
    image = _image_column(features, where)
    label = _label_column(features, where, request.label)
    for role, table in chosen.items():
        if not {image, label} <= table.features.keys():
            raise SeewhyError(
                f"{where}: the {role} split lacks {image!r} or {label!r}; found {', '.join(table.features)}"
            )
    stored = {role: _column(table, label, role, where) for role, table in chosen.items()}
    classes, labels = _classes(features[label], stored)
    splits = {
        role: RawSplit(_reader(table, image, role), labels[role]) for role, table in chosen.items()
    }
    return RawDataset(classes, splits)


@contextmanager
def library_quiet(bars: bool) -> Iterator[None]:
    """Within it the `datasets` library logs errors only, and shows progress bars only where `bars` says so."""
    import datasets
    import huggingface_hub

    loggers = (datasets.logging, huggingface_hub.logging)
    levels = [logger.get_verbosity() for logger in loggers]
    had_bars = not datasets.are_progress_bars_disabled()
    for logger in loggers:
        logger.set_verbosity_error()
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
    """Within it the `datasets` library makes no network call, not even the one that counts how often local files are loaded."""
    import datasets.config
    import huggingface_hub.constants

    places: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def _image_column(features: Mapping[str, Any], where: str) -> str:
    import datasets

    for name, feature in features.items():
        if isinstance(feature, datasets.Image) or (
            isinstance(feature, dict) and feature.keys() == {"bytes", "path"}
        ):
            return name
    raise SeewhyError(
        f"{where}: no image column (an Image feature, or a struct of bytes and path); found {_described(features)}"
    )


def _label_column(features: Mapping[str, Any], where: str, wanted: str | None) -> str:
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
    if wanted is not None:
        if wanted in possible:
            return wanted
        found = ", ".join(possible) or "none"
        raise SeewhyError(
            f"{where}: no label column {wanted!r}{did_you_mean(wanted, possible)}; possible: {found}"
        )
    class_labels = [
        name for name, feature in possible.items() if isinstance(feature, datasets.ClassLabel)
    ]
    if class_labels or len(possible) == 1:
        return (class_labels or list(possible))[0]
    if possible:
        raise SeewhyError(
            f"{where}: more than one column could be the label: {', '.join(possible)}; choose with label=…"
        )
    raise SeewhyError(
        f"{where}: no label column (a ClassLabel, integers or strings); found {_described(features)}"
    )


def _described(features: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} ({getattr(feature, 'dtype', None) or type(feature).__name__})"
        for name, feature in features.items()
    )


def _column(table: Any, label: str, role: str, where: str) -> np.ndarray:  # (N,) int64 or object
    column = table.select_columns([label]).with_format("arrow")[:][label]
    if column.null_count:
        raise SeewhyError(
            f"{where}: {column.null_count:,} of {len(column):,} labels of the {role} split are missing; keep only labeled images"
        )
    values = column.to_pylist()
    return np.array(values, dtype=object if values and isinstance(values[0], str) else np.int64)


def _classes(
    feature: Any, stored: Mapping[str, np.ndarray]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Class names, and each split's labels (N,) int64 as indices into them."""
    names = getattr(feature, "names", None)
    if names:
        return tuple(names), dict(stored)
    if any(
        values.dtype == np.int64 and len(values) and values.min() < 0 for values in stored.values()
    ):
        highest = max(int(values.max(initial=0)) for values in stored.values())
        return tuple(map(str, range(highest + 1))), dict(
            stored
        )  # check_labels will say what is wrong with them
    found = sorted(set().union(*(values.tolist() for values in stored.values())))
    index = {value: i for i, value in enumerate(found)}
    labels = {
        role: np.array([index[value] for value in values.tolist()], dtype=np.int64)
        for role, values in stored.items()
    }
    return tuple(map(str, found)), labels


def _reader(
    table: Any, image: str, role: str
) -> Callable[[Sequence[int]], list[tuple[str, Encoded]]]:
    import datasets

    if isinstance(table.features[image], datasets.Image):
        table = table.cast_column(image, datasets.Image(decode=False))
    table = table.select_columns([image])

    def read(indices: Sequence[int]) -> list[tuple[str, Encoded]]:
        cells = table[indices if isinstance(indices, range) else list(indices)][image]
        return [
            _named(cell, f"{role}-{index:05d}") for index, cell in zip(indices, cells, strict=True)
        ]

    return read


def _named(cell: dict[str, Any] | None, number: str) -> tuple[str, Encoded]:
    if cell is None:
        return number, b""
    path, content = cell["path"], cell["bytes"]
    return path or number, content if content is not None else path or b""


_SECONDS_TO_REACH_THE_HUB = 5.0  # the library itself retries for half a minute before it gives up


def hub(repository: str, config: str = "", revision: str = "") -> Source:
    """The data set `repository` ("owner/name") of the hub, in the given configuration and revision."""
    name = (
        f"hub:{repository}"
        + (f",config={config}" if config else "")
        + (f",revision={revision}" if revision else "")
    )

    def open_(request: LoadRequest) -> RawDataset:
        return raw_dataset_from_tables(
            _tables(repository, config or None, revision or None, request.quiet), name, request
        )

    return Source(name, {"hub": repository, "config": config, "revision": revision}, open_)


def _tables(
    repository: str, config: str | None, revision: str | None, quiet: bool
) -> Any:  # datasets.DatasetDict
    import datasets

    with library_quiet(bars=not quiet):
        if revision is None:  # offline, the library takes whatever revision it has
            try:
                with library_offline():
                    return datasets.load_dataset(repository, config)
            except Exception:  # it is not in the library's cache, whatever the library says to that
                pass
        if not _hub_answers():
            raise SeewhyError(
                f"{repository} is not cached and the hub cannot be reached; connect once, or give a local directory with "
                "Parquet files or class folders instead of the name"
            )
        try:
            return datasets.load_dataset(repository, config, revision=revision)
        except Exception as error:  # each part of the library raises its own
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise SeewhyError(
                f"{repository} cannot be loaded from the hub: {' '.join(lines)[:400]}"
            ) from error


def _hub_answers() -> bool:
    import datasets
    from huggingface_hub import get_session

    try:
        get_session().head(datasets.config.HF_ENDPOINT, timeout=_SECONDS_TO_REACH_THE_HUB)
    except Exception:  # refused, unknown host, too slow, or the user has switched the network off
        return False
    return True
