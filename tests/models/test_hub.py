"""Published weights from the cache of the hub, with and without a network connection."""

import huggingface_hub.constants
import pytest

from seewhy.errors import SeewhyError
from seewhy.models import hub
from seewhy.models.hub import from_hub


class Repository:
    """Files that are cached or not; records whether each attempt could use the network."""

    def __init__(self, cached: bool) -> None:
        self.cached, self.offline = cached, list[bool]()

    def load(self) -> str:
        self.offline.append(huggingface_hub.constants.HF_HUB_OFFLINE)
        if self.offline[-1] and not self.cached:
            raise OSError("offline")
        return "weights"


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def test_cached_weights_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "hub_answers", lambda: pytest.fail("the network was used"))
    repository = Repository(cached=True)
    assert from_hub("timm:resnet18", repository.load) == "weights"
    assert repository.offline == [True]
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


def test_weights_are_loaded_from_the_hub_if_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "hub_answers", lambda: True)
    repository = Repository(cached=False)
    assert from_hub("timm:resnet18", repository.load) == "weights"
    assert repository.offline == [True, False]


@pytest.mark.parametrize(
    ("cached", "listed"),
    [
        ([], "no models"),
        (["b/two", "a/one"], "a/one, b/two"),
        ([f"a/{n}" for n in range(7)], "a/5, …"),
    ],
    ids=["none", "two", "many"],
)
def test_without_a_network_the_error_lists_the_cache(
    monkeypatch: pytest.MonkeyPatch, cached: list[str], listed: str
) -> None:
    class Entry:
        repo_type = "model"

        def __init__(self, name: str) -> None:
            self.repo_id = name

    class Cache:
        repos = tuple(map(Entry, cached))

    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", Cache)
    message = rf"hf:a/b is not in the local cache .* is not reachable; .* the cache has .*{listed}$"
    with pytest.raises(SeewhyError, match=message):
        from_hub("hf:a/b", Repository(cached=False).load)


def test_a_wrong_argument_is_not_looked_for_on_the_hub() -> None:
    def load() -> None:
        raise TypeError("unexpected keyword argument 'img_sze'")

    with pytest.raises(TypeError, match="img_sze"):
        from_hub("timm:resnet18", load)
