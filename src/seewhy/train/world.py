"""The place of this process among those that train one network together."""

import os
from dataclasses import dataclass

from seewhy.errors import SeewhyError


@dataclass(frozen=True)
class World:
    """This process among all that train together; alone, it is the first of one."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that shows and writes."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """This process's share of `count` images: all shares differ by one image at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


def world_size() -> int:
    """How many processes torchrun's environment speaks of; 1 without one. Raises SeewhyError where it gives no number."""
    said = os.environ.get("WORLD_SIZE", "1")
    if not said.isdecimal() or int(said) < 1:
        raise SeewhyError(
            f"WORLD_SIZE must be a whole number of at least 1, found {said!r}; torchrun sets it"
        )
    return int(said)


def is_first_process() -> bool:
    """Whether torchrun gave this process rank 0, or did not start it at all; known before any data is loaded."""
    return world_size() == 1 or os.environ.get("RANK", "0") == "0"
