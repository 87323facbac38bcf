"""Where the trainings of an experiment run."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from seewhy.errors import SeewhyError, Terminated, lookup


@dataclass(frozen=True)
class Parallel:
    """Where the runs of an experiment are trained.

    Raises:
        SeewhyError: If a value is out of range.
    """

    jobs: int = 0
    """Runs at a time (0: one per core, or one on a GPU)."""
    backend: Literal["processes", "dask", "ray"] = "processes"
    """Processes, or a cluster with shared files at DASK_SCHEDULER_ADDRESS or RAY_ADDRESS."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    def __post_init__(self) -> None:
        if not isinstance(self.jobs, int) or self.jobs < 0:
            raise SeewhyError(f"jobs must be 0 or more, found {self.jobs}")
        lookup(dict.fromkeys(("processes", "dask", "ray")), self.backend, "back end")
        if self.jobs and self.backend != "processes":
            raise SeewhyError(
                f"jobs are of this machine's processes; {self.backend} runs as many as its workers have room for"
            )


class WorkerDied(Exception):
    """A process, or a cluster, is no longer there; what it had not finished is not done."""


class Interrupted:
    """What a task returns that was interrupted, and has kept what it had."""


def run_parallel(
    task: Callable[..., Any], each: Sequence[tuple[Any, ...]], shared: Any, backend: str, jobs: int
) -> Iterator[Any]:
    """What `task(*arguments, shared)` returns for each, as soon as it does.

    Ctrl-C or SIGTERM asks the tasks that are running to stop, begins no others, and ends in KeyboardInterrupt when they have; a
    second one does not wait. Raises WorkerDied where a process dies, and SeewhyError where there is no such cluster.
    """
    if not each:
        return
    import joblib  # here, so that the command line starts without it

    with _connected(backend) as (name, unordered), _stoppable() as stopping:
        calls = (
            joblib.delayed(_interruptible)(task, *arguments, shared)
            for arguments in each
            if not stopping.is_set()
        )
        with joblib.parallel_config(
            name, n_jobs=jobs
        ):  # Parallel by itself knows no name of a cluster
            parallel = joblib.Parallel(
                return_as="generator_unordered" if unordered else "list",
                batch_size=1,
                pre_dispatch="n_jobs",
            )
        try:
            for result in parallel(calls):
                if isinstance(result, Interrupted):
                    stopping.set()
                else:
                    yield result
        except BrokenProcessPool as error:
            if not stopping.is_set():  # else it was idle, and ended at once
                raise WorkerDied(
                    "a worker process died, out of memory or killed (fewer --jobs need less)"
                ) from error
        except Exception as error:
            if backend == "processes" or isinstance(error, SeewhyError):
                raise
            raise WorkerDied(
                f"the {backend} cluster failed ({type(error).__name__}: {error})"
            ) from error
        if stopping.is_set():
            raise KeyboardInterrupt


def _interruptible(task: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return task(*arguments)
    except KeyboardInterrupt:
        return Interrupted()


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C and SIGTERM set; worker processes are told, and a second signal does not wait for them."""
    stopping, received = threading.Event(), []

    def stop(number: int, frame: object) -> None:
        received.append(number)
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()
        for process in multiprocessing.active_children():
            with suppress(OSError, TypeError):
                os.kill(process.pid, signal.SIGTERM)  # type: ignore[arg-type]

    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    except KeyboardInterrupt:
        if signal.SIGTERM in received:
            raise Terminated from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _connected(backend: str) -> Iterator[tuple[str, bool]]:
    """Connect a back end; yield its name in joblib, and whether it gives results as they come."""
    if backend == "processes":
        yield "loky", True
        return
    try:
        if backend == "ray":
            from ray.util.joblib import register_ray

            register_ray()
            yield "ray", False
            return
        from distributed import Client
    except ImportError:
        package = "ray" if backend == "ray" else "distributed"
        raise SeewhyError(
            f"--backend {backend} needs the package {package}; `pip install {package}`"
        ) from None
    try:
        client = Client(set_as_default=True)
    except OSError as error:
        where = os.environ.get("DASK_SCHEDULER_ADDRESS", "this machine")
        raise SeewhyError(
            f"no dask scheduler answers at {where} ({error}); start one, or set DASK_SCHEDULER_ADDRESS"
        ) from error
    with client:
        yield "dask", True
