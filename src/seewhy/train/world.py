"""The processes that train one model together, and this one's rank among them."""

import os
from dataclasses import dataclass

from seewhy.errors import SeewhyError


@dataclass(frozen=True)
class World:
    """Rank and number of the processes that train one model."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process shows progress and writes files."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """The images of this process, of `count` images; shards differ by at most one image."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


def world_size() -> int:
    """Number of processes that torchrun started; 1 without torchrun.

    Raises:
        SeewhyError: If WORLD_SIZE is not a positive integer.
    """
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) < 1:
        raise SeewhyError(
            f"WORLD_SIZE must be a whole number of at least 1, found {text!r}; torchrun sets it"
        )
    return int(text)


def is_restart() -> bool:
    """Whether torchrun started the processes anew (--max-restarts), because one has failed."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def is_first_process() -> bool:
    """Whether this process has rank 0 or was not started by torchrun."""
    return world_size() == 1 or os.environ.get("RANK", "0") == "0"
