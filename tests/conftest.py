"""Shared fixtures: a tiny dataset, a recipe that learns it in a second, a cache."""

from __future__ import annotations

import gc
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

# Not imported at once: pytest-xdist's controller reads this file and runs no test.
if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from seewhy.data.dataset import Dataset, Split
    from seewhy.experiments.experiment import Experiment, Trial
    from seewhy.train.recipe import Recipe

os.environ.setdefault("MPLBACKEND", "agg")


# What is collected lives as long as the session: the garbage collector need not walk it. Tests make
# many objects and few cycles, so that it looks for them less often than by default.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


# up to minutes a test
LONG = (
    "test_gpu.py",
    "test_docs.py",
    "test_notebooks.py",
    "test_distributed.py",
    "test_resume.py",
    "test_exporter.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest tests: no worker should run one while the others have none left."""
    items.sort(key=lambda item: item.path.name not in LONG)
    mark_sampled(items)


def mark_sampled(items: list[pytest.Item]) -> None:
    """Mark the cases of a sampled test as slow, except the first of each `every` cases."""
    seen: Counter[str] = Counter()
    for item in items:
        sampled = item.get_closest_marker("sampled")
        if sampled is not None:
            test = item.nodeid.partition("[")[0]
            if seen[test] % sampled.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[test] += 1


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All tests of a session share a cache; none uses that of the user."""
    path = tmp_path_factory.getbasetemp() / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEWHY_CACHE", str(path))
        yield path


@pytest.fixture(scope="session", autouse=True)
def no_distributed_tensors() -> Iterator[None]:
    """`torch.testing.assert_close` would import them, which takes a second."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.testing._comparison, "_HAS_DTENSOR", False, raising=False)
        yield


@pytest.fixture
def images_per_batch(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`images_per_batch(count)` fixes the number of images that pass through a model together."""
    from weakref import WeakKeyDictionary

    from seewhy.models import batching

    def fix(count: int) -> None:
        monkeypatch.setattr(batching, "_SMALLEST", count)
        monkeypatch.setattr(batching, "_LARGEST", count)
        monkeypatch.setattr(batching, "_PACES", WeakKeyDictionary())

    return fix


# ignored in what nohup or the background of a script starts, but tests send them
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

HANDLED = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
LASTING = (
    "loky",
    "resource_tracker",
    "forkserver",
)  # joblib's workers and their helpers serve all tests


def has_children() -> bool:
    """Whether there may be a child; one system call, unlike a look at each thread."""
    if not hasattr(os, "waitid"):
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def child_processes() -> dict[int, str]:
    """Process id and command line of each child, where /proc tells; without those that may last."""
    children: dict[int, str] = {}
    if not has_children():
        return children
    for file in glob("/proc/self/task/*/children"):  # noqa: PTH207  # faster, for every test
        pids: list[str] = []
        with suppress(OSError):  # the thread has ended in the meantime
            pids = Path(file).read_text().split()
        for pid in pids:
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it has ended in the meantime
            if command and not any(word in command for word in LASTING):
                children[int(pid)] = command
    return children


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Fail a test that leaves a process or a signal handler behind, and remove either."""
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    before = child_processes()
    yield
    left = {pid: command for pid, command in child_processes().items() if pid not in before}
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    changed = [number for number in HANDLED if signal.getsignal(number) is not handlers[number]]
    for number in changed:
        signal.signal(number, handlers[number])
    assert not left, f"the test left processes behind: {left}"
    assert not changed, f"the test left signal handlers behind: {changed}"


@pytest.fixture(scope="session", autouse=True)
def end_workers() -> Iterator[None]:
    """End joblib's worker processes with the session; they would wait for minutes."""
    yield
    from joblib.externals.loky import reusable_executor

    if reusable_executor._executor is not None:
        reusable_executor._executor.shutdown(wait=True, kill_workers=True)


BLANK_SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1" />'


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved figures are blank: to lay them out and draw them takes longer than a tiny model."""
    from matplotlib.figure import Figure
    from PIL import Image

    def savefig(figure: Figure, target: str | Path | IO[Any], **options: Any) -> None:
        if "png" in (options.get("format"), str(target).rpartition(".")[2]):
            Image.new("RGB", (8, 8)).save(target, "PNG")
        elif isinstance(target, str | Path):
            Path(target).write_text(BLANK_SVG)
        else:
            target.write(BLANK_SVG)

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
    monkeypatch.setattr("seewhy.figures.style.fix_layout", lambda figure: None)
    monkeypatch.setattr("seewhy.runs.training.curves_figure", lambda *arguments: Figure())


def bars(count: int, seed: int) -> Split:
    """Noisy 8x8 RGB images with a bright bar: upright (class 0), level (1) or slanting (2)."""
    import torch

    from seewhy.data.dataset import Split

    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 90, (count, 3, 8, 8), generator=generator)
    for index, label in enumerate(labels.tolist()):
        position = int(torch.randint(1, 7, (), generator=generator))
        if label == 0:
            images[index, :, :, position] += 150
        elif label == 1:
            images[index, :, position, :] += 150
        else:
            images[index, :, range(8), range(8)] += 150
    return Split(
        images.to(torch.uint8), labels, [f"bar-{seed}-{index}.png" for index in range(count)]
    )


@pytest.fixture(scope="session")
def data() -> Dataset:
    """Three classes of bars, 240 for training and 60 for testing."""
    from seewhy.data.dataset import Dataset

    return Dataset(
        "bars", ("upright", "level", "slanting"), bars(240, 0), bars(60, 1), None, "0" * 32
    )


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Learns the bars in a second."""
    from seewhy.train.recipe import Recipe

    return Recipe(
        name="tiny",
        model="speednet:width=0.125",
        epochs=4,
        batch_size=40,
        lr=0.5,
        optimizer="sgd:momentum=0.85,nesterov=true",
        schedule="linear:warmup=0.2",
        augment=("crop:1",),
        precision="fp32",
    )


Seconds_Loss_Accuracy = tuple[
    float, float, float | None
]  # of an epoch; the accuracy where it was evaluated
Histories = Mapping[str, Sequence[Sequence[Seconds_Loss_Accuracy] | str]]


@pytest.fixture(scope="session")
def experiment_of() -> Callable[..., Experiment]:
    """`experiment_of({"adam": [[(1.5, 2.3, 0.4), ...], "not finished"]})`: epochs by recipe.

    A string is the reason why a trial has no result. The accuracy of a trial is that of its last
    epoch; its directory is `directory`/RECIPE/seed-SEED.
    """
    from seewhy.data.dataset import DataOrigin
    from seewhy.experiments.experiment import Experiment, Trial
    from seewhy.runs.result import RunResult
    from seewhy.train.loop import EpochStats
    from seewhy.train.recipe import Recipe

    def trial(
        directory: Path,
        name: str,
        seed: int,
        rows: Sequence[Seconds_Loss_Accuracy] | str,
        selected_on: str,
    ) -> Trial:
        if isinstance(rows, str):
            return Trial(name, seed, directory, unfinished_reason=rows)
        history = tuple(
            EpochStats(
                epoch,
                10 * epoch,
                0.1,
                0.9,
                seconds,
                100.0,
                loss,
                0.5,
                None if accuracy is None else loss + 0.1,
                accuracy,
            )
            for epoch, (seconds, loss, accuracy) in enumerate(rows, 1)
        )
        seconds, loss, accuracy = rows[-1]
        assert accuracy is not None
        epochs = len(rows)
        result = RunResult(
            accuracy,
            accuracy,
            (0.0, 1.0),
            500,
            loss + 0.1,
            0.02 + 0.01 * seed,
            selected_on,
            epochs,
            epochs,
            10 * epochs,
            seconds,
            100.0,
            10,
            4_000_000,
        )
        return Trial(name, seed, directory, history, result, unfinished_reason="")

    def made(
        histories: Histories, directory: Path = Path("experiment"), selected_on: str = "last epoch"
    ) -> Experiment:
        seeds = max(map(len, histories.values()))
        trials = [
            trial(directory / name / f"seed-{seed}", name, seed, rows, selected_on)
            for name, each in histories.items()
            for seed, rows in enumerate(each)
        ]
        recipes = {name: Recipe(lr=0.1, epochs=4) for name in histories}
        data = DataOrigin(
            "digits", "0" * 32, {}, ("0", "1"), (1, 8, 8), {"train": 100, "test": 500}
        )
        return Experiment(directory, data, recipes, tuple(range(seeds)), None, tuple(trials), {})

    return made
