"""Where the trainings of an experiment run."""

from dataclasses import dataclass
from typing import Literal

from seewhy.errors import SeewhyError, lookup


@dataclass(frozen=True)
class FanOut:
    """Where the trainings of an experiment run. Raises SeewhyError for values out of range."""

    jobs: int = 0
    """Trainings at a time; 0 for as many as there are cores, or one on a GPU."""
    backend: Literal["processes", "dask", "ray"] = "processes"
    """Processes of this machine, or a cluster that shares its files: dask (DASK_SCHEDULER_ADDRESS) or ray (RAY_ADDRESS)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""

    def __post_init__(self) -> None:
        if not isinstance(self.jobs, int) or self.jobs < 0:
            raise SeewhyError(f"jobs must be 0 or more, found {self.jobs}")
        lookup(dict.fromkeys(("processes", "dask", "ray")), self.backend, "back end")
        if self.jobs and self.backend != "processes":
            raise SeewhyError(f"jobs are of this machine's processes; {self.backend} runs as many as its workers have room for")
