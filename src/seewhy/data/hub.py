"""Data sets of the Hugging Face hub, through the `datasets` library; no network where a copy is already here."""

from typing import Any

from seewhy.data.columns import library_offline, library_quiet, raw_of_tables
from seewhy.data.raw import Raw, Request, Source
from seewhy.errors import SeewhyError

_SECONDS_TO_REACH_THE_HUB = 5.0  # the library itself retries for half a minute before it gives up


def hub(repository: str, config: str = "", revision: str = "") -> Source:
    """The data set `repository` ("owner/name") of the hub, in the given configuration and revision."""
    name = f"hub:{repository}" + (f",config={config}" if config else "") + (f",revision={revision}" if revision else "")

    def open_(request: Request) -> Raw:
        return raw_of_tables(_tables(repository, config or None, revision or None, request.quiet), name, request)

    return Source(name, {"hub": repository, "config": config, "revision": revision}, open_)


def _tables(repository: str, config: str | None, revision: str | None, quiet: bool) -> Any:  # datasets.DatasetDict
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
            raise SeewhyError(f"{repository} cannot be loaded from the hub: {' '.join(lines)[:400]}") from error


def _hub_answers() -> bool:
    import datasets
    from huggingface_hub import get_session

    try:
        get_session().head(datasets.config.HF_ENDPOINT, timeout=_SECONDS_TO_REACH_THE_HUB)
    except Exception:  # refused, unknown host, too slow, or the user has switched the network off
        return False
    return True
