"""Trials in parallel: in processes of this machine, or on a Dask cluster."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args

from seewhy.errors import SeewhyError, lookup
from seewhy.interruption import INTERRUPTIONS, handling_interruptions

Backend = Literal["processes", "dask"]


@dataclass(frozen=True)
class Parallel:
    """Where trials run, and how many in parallel.

    Raises:
        SeewhyError: If a value is out of range.
    """

    jobs: int = 0
    """Number of trials in parallel (0: one per core, or one on a GPU)."""
    backend: Backend = "processes"
    """Local processes, or the Dask cluster at DASK_SCHEDULER_ADDRESS; it needs shared files."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    def __post_init__(self) -> None:
        if not isinstance(self.jobs, int) or self.jobs < 0:
            raise SeewhyError(f"jobs must be 0 or more, found {self.jobs}")
        lookup(dict.fromkeys(get_args(Backend)), self.backend, "backend")
        if self.jobs and self.backend != "processes":
            raise SeewhyError(
                f"jobs is the number of processes of this machine, found jobs={self.jobs} with "
                f"backend={self.backend}; leave jobs out, the cluster has its own workers"
            )


class WorkerDied(Exception):
    """A worker process or a cluster ended before its tasks did."""


class _Interrupted:
    """The result of an interrupted task."""


def number_of_jobs(parallel: Parallel, tasks: int) -> int:
    """Number of processes to start for `tasks`; -1 on a cluster, which has its own workers."""
    if parallel.backend != "processes":
        return -1
    import joblib

    from seewhy.train.device import find_device

    cores = joblib.cpu_count() if find_device(parallel.device).type == "cpu" else 1
    return max(1, min(tasks, parallel.jobs or cores))


def run_parallel(
    task: Callable[..., Any],
    argument_lists: Sequence[tuple[Any, ...]],
    shared: Any,
    backend: Backend,
    jobs: int,
) -> Iterator[Any]:
    """Run tasks in parallel.

    Ctrl-C, SIGTERM or SIGHUP interrupts the running tasks, waits for them, and ends in
    KeyboardInterrupt. The same one again does not wait.

    Args:
        task: Called as `task(*arguments, shared)`.
        argument_lists: The arguments of each task.
        shared: The last argument of every task.
        backend: "processes" or "dask".
        jobs: Number of processes; see `number_of_jobs`.

    Yields:
        The result of each task when it is done, in any order.

    Raises:
        WorkerDied: A process died, or the cluster failed.
        SeewhyError: The cluster cannot be reached.
        KeyboardInterrupt: After Ctrl-C or SIGTERM.
    """
    if not argument_lists:
        return
    from concurrent.futures.process import BrokenProcessPool

    import joblib

    with _connected(backend) as joblib_backend, _stoppable() as stopping:
        calls = (
            joblib.delayed(_catch_interrupt)(task, *arguments, shared)
            for arguments in argument_lists
            if not stopping.is_set()
        )
        # parallel_config, because Parallel(backend=…) does not know the names of clusters
        with joblib.parallel_config(joblib_backend, n_jobs=jobs):
            parallel = joblib.Parallel(
                return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs"
            )
        try:
            for result in parallel(calls):
                if isinstance(result, _Interrupted):
                    stopping.set()
                else:
                    yield result
        except BrokenProcessPool as error:
            if not stopping.is_set():  # else an idle process, which SIGTERM ends at once
                raise WorkerDied(
                    "a worker process died (out of memory, or killed); use fewer --jobs"
                ) from error
        except Exception as error:
            if backend == "processes" or isinstance(error, SeewhyError):
                raise
            raise WorkerDied(
                f"the {backend} cluster failed ({type(error).__name__}: {error}); restart it"
            ) from error
        if stopping.is_set():
            raise KeyboardInterrupt


def _catch_interrupt(task: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return task(*arguments)
    except KeyboardInterrupt:
        return _Interrupted()


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Yield an event that signals set; they are passed on to the worker processes as SIGTERM.

    The same signal again raises KeyboardInterrupt at once. In the end, KeyboardInterrupt becomes
    the exception of the first signal.
    """
    import multiprocessing

    stopping = threading.Event()
    received: list[int] = []

    def stop(number: int) -> None:
        if number in received:
            raise INTERRUPTIONS[received[0]]
        received.append(number)
        stopping.set()
        for process in multiprocessing.active_children():
            with suppress(OSError, TypeError):
                os.kill(process.pid, signal.SIGTERM)  # type: ignore[arg-type]

    try:
        with handling_interruptions(stop):
            yield stopping
    except KeyboardInterrupt:
        if received:
            raise INTERRUPTIONS[received[0]] from None
        raise


@contextmanager
def _connected(backend: Backend) -> Iterator[str]:
    """Connect to the cluster, if `backend` is one, and yield joblib's name of the backend."""
    if backend == "processes":
        yield "loky"
        return
    try:
        from distributed import Client
    except ImportError:
        raise SeewhyError(
            "--backend dask needs the package distributed; `pip install distributed`"
        ) from None
    try:
        client = Client(set_as_default=True)
    except OSError as error:
        address = os.environ.get("DASK_SCHEDULER_ADDRESS", "this machine")
        raise SeewhyError(
            f"no Dask scheduler responds at {address} ({error}); start one, or set "
            "DASK_SCHEDULER_ADDRESS"
        ) from error
    with client:
        yield "dask"
