"""Published weights from the Hugging Face hub, or from its cache on this machine."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from seewhy.data.huggingface import hub_answers
from seewhy.errors import SeewhyError

T = TypeVar("T")

_LISTED_REPOSITORIES = 6


def from_hub(name: str, load: Callable[[], T]) -> T:
    """Load from the cache of the hub, or else from the hub, if it answers.

    Args:
        name: What is loaded, for messages.
        load: Loads it with `huggingface_hub`.

    Raises:
        SeewhyError: If it is not cached, and the hub does not answer.
    """
    with _offline():
        try:
            return load()
        except (TypeError, SeewhyError):  # of a wrong argument
            raise
        except Exception:  # not cached; the libraries raise many types
            pass
    if not hub_answers():
        cached = cached_models()
        more = ", …" if len(cached) > _LISTED_REPOSITORIES else ""
        listed = ", ".join(cached[:_LISTED_REPOSITORIES]) + more if cached else "no models"
        raise SeewhyError(
            f"{name} is not in the local cache of the hub, and the hub is not reachable; connect "
            f"once, or pass weights=FILE; the cache has {listed}"
        )
    return load()


@contextmanager
def _offline() -> Iterator[None]:
    """Disable all network calls of `huggingface_hub`, and its log."""
    import huggingface_hub.constants

    logger = huggingface_hub.logging
    level, before = logger.get_verbosity(), huggingface_hub.constants.HF_HUB_OFFLINE
    logger.set_verbosity(logging.CRITICAL)
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before
        logger.set_verbosity(level)


def cached_models() -> list[str]:
    """Repositories of models in the local cache of the hub."""
    from huggingface_hub import scan_cache_dir

    try:
        repositories = scan_cache_dir().repos
    except Exception:  # there is no cache, or it cannot be read
        return []
    return sorted(each.repo_id for each in repositories if each.repo_type == "model")
