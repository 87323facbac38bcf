"""Tasks on the processes of this machine or on a cluster, which an interruption ends in good order."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any

import joblib

from seewhy.errors import SeewhyError


class WorkerDied(Exception):
    """A process, or a cluster, is no longer there; what it had not finished is not done."""


class Interrupted:
    """What a task returns that was interrupted, and has kept what it had."""


def fanned_out(task: Callable[..., Any], each: Sequence[tuple[Any, ...]], shared: Any, backend: str, jobs: int) -> Iterator[Any]:
    """What `task(*arguments, shared)` returns for each, as soon as it does.

    Ctrl-C or SIGTERM asks the tasks that are running to stop, begins no others, and ends in KeyboardInterrupt when they have; a
    second one does not wait. Raises WorkerDied where a process dies, and SeewhyError where there is no such cluster.
    """
    if not each:
        return
    with _connected(backend) as (name, unordered), _stoppable() as stopping:
        calls = (joblib.delayed(_interruptible)(task, *arguments, shared) for arguments in each if not stopping.is_set())
        with joblib.parallel_config(name, n_jobs=jobs):  # Parallel by itself knows no name of a cluster
            parallel = joblib.Parallel(
                return_as="generator_unordered" if unordered else "list", batch_size=1, pre_dispatch="n_jobs"
            )
        try:
            for result in parallel(calls):
                if isinstance(result, Interrupted):
                    stopping.set()
                else:
                    yield result
        except BrokenProcessPool as error:
            if not stopping.is_set():  # else it was idle, and ended at once
                raise WorkerDied("a worker process died, out of memory or killed (fewer --jobs need less)") from error
        except Exception as error:
            if backend == "processes" or isinstance(error, SeewhyError):
                raise
            raise WorkerDied(f"the {backend} cluster failed ({type(error).__name__}: {error})") from error
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
    stopping = threading.Event()

    def stop(number: int, frame: object) -> None:
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
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _connected(backend: str) -> Iterator[tuple[str, bool]]:
    """joblib's name of a back end, once it is connected, and whether it gives results as they come."""
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
        raise SeewhyError(f"--backend {backend} needs the package {package}; `pip install {package}`") from None
    try:
        client = Client(set_as_default=True)
    except OSError as error:
        where = os.environ.get("DASK_SCHEDULER_ADDRESS", "this machine")
        raise SeewhyError(f"no dask scheduler answers at {where} ({error}); start one, or set DASK_SCHEDULER_ADDRESS") from error
    with client:
        yield "dask", True
