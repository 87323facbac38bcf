"""What a GPU does: `python -m benchmarks.gpu DIRECTORY --seconds 250 --output OUT [--skip FILE]`.

DIRECTORY holds CIFAR-10 as `cifar10/`. A card may be at hand for minutes only, so each measurement
is a line of OUT/results.jsonl as soon as it is made, and the next one starts only if it fits into
the seconds left. `--skip FILE` leaves out the measurements that are in such a file.
`--device cpu --tiny` runs everything in seconds, with small models and few images.
`python -m benchmarks.gpu --save FILE` makes a section of RESULTS.md from results.jsonl.
"""

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import fmean, median, stdev
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.results import Row, keep
from seewhy.attribution.explanation import explain
from seewhy.attribution.scores import trust
from seewhy.data.dataset import Dataset
from seewhy.data.sources import load
from seewhy.models.registry import build_model
from seewhy.reporting.page import report
from seewhy.runs.environment import current_environment
from seewhy.runs.training import fit
from seewhy.train.loop import train
from seewhy.train.plan import TrainingPlan, make_plan
from seewhy.train.recipe import Recipe
from seewhy.train.recipes import RECIPES
from seewhy.train.state import TrainState, load_state_dict, new_state, state_dict

METHODS = ("grad-cam", "grad-cam++", "hires-cam", "layer-cam", "gradients")
CAM_METHODS = METHODS[:4]
PUBLISHED = {"davidnet-24": 6.0, "resnet18-onecycle": 13.0, "resnet18-adam-onecycle": 60.0}
SEEDS = 10  # of each speed record
FAILED = "failed"


@dataclass(frozen=True)
class Bench:
    """Where and on what the measurements are made."""

    device: torch.device
    data: Dataset
    tiny: bool

    def recipe(self, name: str) -> Recipe:
        """A built-in recipe; if tiny, of two steps on a small model."""
        recipe = RECIPES[name]
        if not self.tiny:
            return recipe
        return replace(recipe, model="speednet:width=0.05", epochs=2, batch_size=20, freeze=())

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object]) -> float:
        """How long `call` takes, to the end of its work on the device."""
        self.synchronize()
        start = time.perf_counter()
        call()
        self.synchronize()
        return time.perf_counter() - start


@dataclass(frozen=True)
class Measurement:
    """A measurement: its key in results.jsonl, the seconds it may take, and what makes it."""

    key: str
    seconds: float
    measure: Callable[[Bench], Mapping[str, Any]]


def measurements() -> Iterator[Measurement]:
    """All measurements, the most valuable first."""
    yield Measurement("correctness: 20 steps against the CPU, fp32", 10, steps_against_cpu)
    for method in METHODS:
        yield Measurement(
            f"correctness: {method} against the CPU", 5, lambda bench, m=method: map_error(bench, m)
        )
    yield Measurement("correctness: a resumed run against an undisturbed one", 10, resume_error)
    yield Measurement("correctness: host waits in an epoch", 10, host_waits)
    yield from speed_record("speedrun94", 4, SEEDS)
    for name in PUBLISHED:
        yield Measurement(
            f"published: {name}, seconds per epoch", 20, lambda bench, n=name: epoch_time(bench, n)
        )
    for name in PUBLISHED:
        for precision in ("fp32", "autocast"):
            yield Measurement(
                f"published: {name}, seconds per epoch of a plain loop, {precision}",
                25,
                lambda bench, n=name, p=precision: plain_epoch_time(bench, n, p),
            )
    yield Measurement("explaining: ResNet-18, 256 images of 32x32", 10, explain_small)
    yield Measurement("explaining: ResNet-50, 64 images of 224x224", 15, explain_large)
    yield Measurement("explaining: trust", 20, trust_time)
    yield Measurement("explaining: the whole report", 40, report_time)
    for name, seconds in (("davidnet-24", 60), ("resnet18-onecycle", 120)):
        yield Measurement(
            f"published: {name}, whole run", seconds, lambda bench, n=name: whole_run(bench, n, 0)
        )
    for name, seconds in (("speedrun95", 15), ("speedrun96", 40)):
        yield from speed_record(name, seconds, min(3, SEEDS))


def speed_record(name: str, seconds: float, seeds: int) -> Iterator[Measurement]:
    """The first run of a process, which compiles, and then one run for each seed."""
    yield Measurement(
        f"{name}, cold (with compilation)", 10 * seconds, lambda bench: whole_run(bench, name, 0)
    )
    for seed in range(seeds):
        yield Measurement(
            f"{name}, seed {seed}", seconds, lambda bench, s=seed: whole_run(bench, name, s)
        )


# Correctness


def steps_against_cpu(bench: Bench) -> dict[str, Any]:
    """The largest difference of a weight after 20 equal steps, relative to the largest weight."""
    recipe = replace(_plain_recipe(bench), augment=(), precision="fp32")
    weights = []
    with _exact_kernels():
        for device in ("cpu", bench.device):
            state, plan = _begin(recipe, bench.data, device)
            list(islice(train(state, plan), 20))
            weights.append(_weights(state.model))
    return {"relative difference": _relative_difference(*weights)}


def map_error(bench: Bench, method: str) -> dict[str, Any]:
    """The largest difference of a map from the CPU's, as a share of its range."""
    torch.manual_seed(0)
    model = build_model(_small_model(bench), 10, bench.data.train).eval()
    images = bench.data.test.images[:8]
    layers = None if method == "gradients" else "auto"
    options = {"warn": False} if layers is None else {"warn": False, "layers": layers}
    with _exact_kernels():
        ours = explain(deepcopy(model).to(bench.device), images, method, **options).maps
        theirs = explain(model, images, method, **options).maps
    errors = [
        float((ours[key].cpu() - maps).abs().max() / (maps.max() - maps.min()).clamp(min=1e-12))
        for key, maps in theirs.items()
    ]
    return {"largest difference": max(errors), "maps": len(errors)}


def resume_error(bench: Bench) -> dict[str, Any]:
    """The largest difference of a weight between a run resumed after 14 steps and another one."""
    recipe = replace(_plain_recipe(bench), augment=("crop:2", "flip"), ema=0.9)
    with _exact_kernels():
        (whole, plan), (part, _), (resumed, _) = (
            _begin(recipe, bench.data, bench.device) for _ in range(3)
        )
        list(islice(train(whole, plan), 20))
        list(islice(train(part, plan), 14))
        load_state_dict(resumed, deepcopy(state_dict(part)))
        list(islice(train(resumed, plan), 6))
    return {
        "relative difference": _relative_difference(_weights(whole.model), _weights(resumed.model))
    }


def host_waits(bench: Bench) -> dict[str, Any]:
    """Whether the host waits for the device in steps 3 to 8 of an epoch: none, or where."""
    state, plan = _begin(_plain_recipe(bench), bench.data, bench.device)
    events = train(state, plan)
    list(islice(events, 2))
    if bench.device.type != "cuda":
        return {"waits": "not measured", "steps": len(list(islice(events, 6)))}
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps = len(list(islice(events, 6)))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"waits": "none", "steps": steps}


# Training


def whole_run(bench: Bench, name: str, seed: int) -> dict[str, Any]:
    """A run from data in memory to the last prediction: its wall time and accuracy."""
    recipe = replace(bench.recipe(name), seed=seed)
    runs = []
    wall = bench.seconds(
        lambda: runs.append(fit(recipe, bench.data, device=str(bench.device), quiet=True))
    )
    result = runs[0].result
    return {
        "wall seconds": wall,
        "training seconds": result.train_seconds,
        "accuracy": result.accuracy,
        "accuracy without test-time augmentation": result.plain_accuracy,
        "test images": result.test_images,
        "epochs": result.epochs,
        "precision": runs[0].environment.precision,
    }


def epoch_time(bench: Bench, name: str) -> dict[str, Any]:
    """Seconds of the third epoch of a published recipe, without evaluation."""
    recipe = bench.recipe(name)
    state, plan = _begin(replace(recipe, eval_every=0, epochs=4), bench.data, bench.device)
    events = train(state, plan)
    list(islice(events, 2 * plan.steps_per_epoch))
    spent = bench.seconds(lambda: list(islice(events, plan.steps_per_epoch)))
    return _speed(spent, plan, plan.precision)


def plain_epoch_time(bench: Bench, name: str, precision: str) -> dict[str, Any]:
    """Seconds of the second epoch of a plain loop of the same model and batch size.

    Images are on the device and augmented there by crop and flip; `.item()` in every step, NCHW.
    """
    recipe = bench.recipe(name)
    _, plan = _begin(replace(recipe, eval_every=0), bench.data, bench.device)
    torch.manual_seed(0)
    model = build_model(recipe.model, plan.num_classes, bench.data.train).to(bench.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    images, labels = (tensor.to(bench.device) for tensor in _tensors(bench.data))

    def epoch() -> None:
        for rows in torch.randperm(len(images)).split(plan.batch_size):
            batch = _crop_and_flip(images[rows.to(bench.device)].float().div(255))
            with torch.autocast(bench.device.type, enabled=precision == "autocast"):
                loss = F.cross_entropy(model(batch), labels[rows.to(bench.device)])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()

    epoch()
    return _speed(bench.seconds(epoch), plan, precision)


# Explaining


def explain_small(bench: Bench) -> dict[str, Any]:
    """Four CAMs at four layers of our ResNet-18, and pytorch-grad-cam."""
    return _explain_speed(bench, "resnet18", "layer{}", 4 if bench.tiny else 256, 32)


def explain_large(bench: Bench) -> dict[str, Any]:
    """The same of torchvision's ResNet-50."""
    if bench.tiny or not find_spec("torchvision"):
        return {"seewhy, images/s": "not measured"}
    return _explain_speed(bench, "torchvision:resnet50", "layer{}", 64, 224)


def trust_time(bench: Bench) -> dict[str, Any]:
    """Seconds to measure four CAMs at the automatic layers on 64 images."""
    torch.manual_seed(0)
    model = build_model(_small_model(bench), 10, bench.data.train).to(bench.device).eval()
    count, methods = (4, ["grad-cam"]) if bench.tiny else (64, list(CAM_METHODS))
    images = bench.data.test.images[:count]
    return {
        "seconds": bench.seconds(lambda: trust(model, images, methods)),
        "images": count,
        "methods": len(methods),
    }


def report_time(bench: Bench) -> dict[str, Any]:
    """Seconds from a trained run to its report, diagnosis included."""
    with TemporaryDirectory() as directory:
        run = fit(
            replace(bench.recipe("speedrun94"), seed=0),
            bench.data,
            Path(directory) / "run",
            device=str(bench.device),
            quiet=True,
        )
        path = Path(directory) / "report.html"
        spent = bench.seconds(lambda: report(run, path=path, data=bench.data, quiet=True))
        return {"seconds": spent, "bytes": path.stat().st_size}


# Helpers


def _begin(
    recipe: Recipe, data: Dataset, device: torch.device | str
) -> tuple[TrainState, TrainingPlan]:
    torch.manual_seed(recipe.seed)
    plan = make_plan(recipe, data, torch.device(device))
    return new_state(plan), plan


def _small_model(bench: Bench) -> str:
    return "speednet:width=0.05" if bench.tiny else "resnet18"


def _plain_recipe(bench: Bench) -> Recipe:
    model = "speednet:width=0.05" if bench.tiny else "speednet"
    batch_size = max(2, len(bench.data.train) // 10) if bench.tiny else 500
    return Recipe(
        model=model, epochs=5, batch_size=batch_size, lr=0.05, optimizer="sgd:momentum=0.9"
    )


@contextmanager
def _exact_kernels() -> Iterator[None]:
    """Without TF32, and with deterministic convolutions."""
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().cpu().flatten() for parameter in model.parameters()])


def _relative_difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def _tensors(data: Dataset) -> tuple[Tensor, Tensor]:
    return data.train.images[:].clone(), data.train.labels[:].clone()


def _crop_and_flip(images: Tensor) -> Tensor:  # (N, C, H, W)
    """One crop for the batch, as the simplest loops do, and a flip of each image."""
    height, width = images.shape[2:]
    padded = F.pad(images, [4] * 4)
    top, left = torch.randint(0, 9, (2,)).tolist()
    images = padded[:, :, top : top + height, left : left + width]
    flipped = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(flipped, images.flip(3), images)


def _speed(seconds: float, plan: TrainingPlan, precision: str) -> dict[str, Any]:
    images = plan.steps_per_epoch * plan.batch_size
    return {
        "seconds per epoch": seconds,
        "images/s": images / seconds,
        "batch size": plan.batch_size,
        "precision": precision,
    }


def _explain_speed(
    bench: Bench, name: str, layer: str, count: int, size: int, repeats: int = 3
) -> dict[str, Any]:
    torch.manual_seed(0)
    sample = bench.data.train
    model = build_model(name, 10, sample).to(bench.device).eval()
    images = torch.rand(count, 3, size, size, device=bench.device)
    layers = [layer.format(stage) for stage in (1, 2, 3, 4)]
    contenders: dict[str, Callable[[], object]] = {
        "seewhy": lambda: explain(model, images, CAM_METHODS, layers, warn=False)
    }
    if find_spec("pytorch_grad_cam"):
        contenders["pytorch-grad-cam"] = lambda: peers.grad_cams(model, images, CAM_METHODS, layers)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for contender, call in contenders.items():
            spent = bench.seconds(call)
            if repeat:
                times[contender].append(spent)
    speeds: dict[str, Any] = {
        f"{contender}, images/s": count / median(spent) for contender, spent in times.items()
    }
    return speeds | {"images": count, "size": size}


# The command


def run(bench: Bench, directory: Path, seconds: float, skip: frozenset[str]) -> int:
    """Make the measurements that fit into `seconds`, and write results.jsonl; returns their number.

    A measurement that fails is a line with the error, and the next one follows.
    """
    end = time.perf_counter() + seconds
    directory.mkdir(parents=True, exist_ok=True)
    environment = current_environment(bench.device, "")
    common = {
        "hardware": environment.hardware,
        "torch": environment.packages["torch"],
        "cuda": torch.version.cuda,
        "seewhy": environment.packages["seewhy"],
        "data": f"{bench.data.name} {bench.data.fingerprint[:8]}",
        "training images": len(bench.data.train),
    }
    made = 0
    for measurement in measurements():
        expected = 0.5 if bench.tiny else measurement.seconds
        if measurement.key in skip or time.perf_counter() + expected > end:
            continue
        start = time.perf_counter()
        try:
            values = dict(measurement.measure(bench))
        except Exception as error:  # a card is too rare to lose the other measurements
            values = {FAILED: f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        line = {"key": measurement.key, **values, "took": time.perf_counter() - start, **common}
        with (directory / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps({"key": measurement.key, **values}), flush=True)
        made += 1
    return made


def read_results(path: Path) -> list[dict[str, Any]]:
    """The lines of a results.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def rows_of(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows for RESULTS.md; the seeds of a speed record become one row with mean and deviation."""
    rows, seeds = [], {}
    for result in results:
        name, is_seed, _ = result["key"].partition(", seed ")
        if is_seed and FAILED not in result:
            seeds.setdefault(name, []).append(result)
        else:
            values = {key: value for key, value in result.items() if key not in _COMMON}
            rows.append(Row(result["key"], "; ".join(map(_shown, values.items())), _how(result)))
    for name, runs in seeds.items():
        for value in ("wall seconds", "accuracy", "accuracy without test-time augmentation"):
            each = [run[value] for run in runs]
            spread = f" ± {stdev(each):.4g}" if len(each) > 1 else ""
            how = f"{_how(runs[0])}, {len(each)} seeds"
            rows.append(Row(f"{name}: {value}", f"{fmean(each):.4g}{spread}", how))
    return rows


_COMMON = frozenset(
    ("key", "took", "hardware", "torch", "cuda", "seewhy", "data", "training images")
)


def _shown(item: tuple[str, Any]) -> str:
    name, value = item
    return (
        f"{name} {value:.4g}"
        if isinstance(value, float) and math.isfinite(value)
        else (f"{name} {value}")
    )


def _how(result: Mapping[str, Any]) -> str:
    return f"`benchmarks/gpu.py`, {result['hardware']}, torch {result['torch']}, {result['data']}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or save measurements to RESULTS.md; returns 1 if nothing was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", nargs="?", type=Path, help="holds cifar10/")
    parser.add_argument("--seconds", type=float, default=250.0)
    parser.add_argument("--output", type=Path, default=Path("gpu-results"))
    parser.add_argument("--skip", type=Path, help="a results.jsonl whose measurements are kept")
    parser.add_argument("--save", type=Path, help="write this results.jsonl to RESULTS.md")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models and few images")
    options = parser.parse_args(arguments)
    if options.save is not None:
        rows = rows_of(read_results(options.save))
        keep("gpu", "On a GPU", rows, note="Accuracies are on the data named in each row.")
        return 0
    if options.directory is None:
        parser.error("DIRECTORY is missing")
    start = time.perf_counter()
    warnings.filterwarnings("ignore", category=UserWarning)
    small = {"limit": 100, "image_size": 8} if options.tiny else {}
    data = load(options.directory / "cifar10", **small)
    bench = Bench(torch.device(options.device), data, options.tiny)
    known = read_results(options.skip) if options.skip is not None else []
    skip = frozenset(result["key"] for result in known if FAILED not in result)
    left = options.seconds - (time.perf_counter() - start)
    return 0 if run(bench, options.output, left, skip) else 1


if __name__ == "__main__":
    raise SystemExit(main())
