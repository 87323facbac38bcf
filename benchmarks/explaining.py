"""Speed against other packages: `python -m benchmarks.explaining [PART ...]`.

All implementations run interleaved in one process, on the same model and images. Weights are
random. With trained weights, Score-CAM and Ablation-CAM are faster, because they skip channels that
are zero.
"""

import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr  # type: ignore[import-untyped]
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.results import HERE, Row, keep
from seewhy.attribution.explanation import explain
from seewhy.attribution.faithfulness import PERCENTILES, road
from seewhy.attribution.imputation import noisy_linear
from seewhy.attribution.maps import resize_maps
from seewhy.attribution.target import forward_pass
from seewhy.data.dataset import Split
from seewhy.errors import lookup
from seewhy.models.classifier import Classifier
from seewhy.models.external import External
from seewhy.models.registry import build_model

Contenders = Mapping[str, Callable[[], object]]

REPEATS = 3
GAMMA = 0.25
GRADIENT = ("grad-cam", "grad-cam++", "hires-cam", "xgrad-cam", "layer-cam")
EIGEN = ("eigen-cam", "eigen-grad-cam")
RANKS = "`benchmarks/explaining.py`, Spearman, mean over the images"
WHY = {  # why their Grad-CAM++ differs from ours
    "pytorch-grad-cam": "maps in [0, 1]; it adds 1e-6 to a denominator of similar size",
    "torchcam": "maps in [0, 1]; it divides a copy, so its alpha remains the squared gradient",
}


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and the images that are explained."""

    name: str
    model: nn.Module
    images: Tensor  # (N, 3, H, H) float32 in [0, 1]
    layers: tuple[str, ...]  # four, from the first to the last stage

    @property
    def size(self) -> int:
        return self.images.shape[-1]


def small(count: int) -> Subject:
    """Our ResNet-18 and images of CIFAR-10's size."""
    return _subject("resnet18", 10, count, 32, "layer{}")


def large(count: int) -> Subject:
    """torchvision's ResNet-50 and images of ImageNet's size."""
    return _subject("torchvision:resnet50", 1000, count, 224, "layer{}")


def gradient() -> list[Row]:
    """Five methods at four layers, subsets that other packages have, and Grad-CAM at one layer."""
    return [
        row
        for subject in (small(64), large(8))
        for row in [*_gradient(subject), *_agreement(subject)]
    ]


def perturbation(count: int = 4) -> list[Row]:
    """Score-CAM and Ablation-CAM at the last layer, in fp32 and bf16, and their correlation."""
    subject, rows = small(count), []
    model, images, last = subject.model, subject.images, subject.layers[-1:]
    for method in ("score-cam", "ablation-cam"):
        contenders: Contenders = {
            "seewhy": partial(ours, subject, [method], last),
            "seewhy in bf16": partial(ours, subject, [method], last, "bf16"),
            "pytorch-grad-cam": partial(peers.grad_cams, model, images, [method], last),
        }
        title = f"{method} at {last[0]}"
        rows += compared(subject, title, contenders)
        fp32, bf16 = (
            ours(subject, [method], last, precision)[last[0], method]
            for precision in ("fp32", "bf16")
        )
        theirs = peers.grad_cams(model, images, [method], last)[last[0], method]
        start = f"{subject.name}, {title}: rank correlation"
        rows.append(Row(f"{start} of bf16 with fp32", ranks(bf16.numpy(), fp32.numpy()), RANKS))
        rows.append(
            Row(
                f"{start} with pytorch-grad-cam",
                ranks(peers.scaled(fp32, subject.size), theirs),
                RANKS,
            )
        )
    return rows


def eigen(count: int = 16) -> list[Row]:
    """Eigen-CAM and Eigen-Grad-CAM at every layer; pytorch-grad-cam centers the channels first."""
    subject = small(count)
    contenders: Contenders = {
        "seewhy": partial(ours, subject, EIGEN, subject.layers),
        "pytorch-grad-cam": partial(
            peers.grad_cams, subject.model, subject.images, EIGEN, subject.layers
        ),
    }
    return compared(subject, f"{' and '.join(EIGEN)} at four layers", contenders)


def relevance(count: int = 4) -> list[Row]:
    """Layer-wise relevance propagation; our time includes the pass that predicts the classes."""
    subject = large(count)
    model, images = subject.model, subject.images
    assert isinstance(model, External)
    classes = forward_pass(model, images).target
    with torch.no_grad():
        inputs, low, high = (
            model.normalize(each)
            for each in (images, torch.zeros_like(images), torch.ones_like(images))
        )
    contenders: Contenders = {
        "seewhy": lambda: explain(model, images, f"lrp:gamma={GAMMA}"),
        "zennit": lambda: peers.zennit(model.net, inputs, (low, high), classes, GAMMA),
    }
    found = explain(model, images, f"lrp:gamma={GAMMA}").at("pixels")
    theirs = peers.zennit(model.net, inputs, (low, high), classes, GAMMA)
    apart = float((found - theirs).abs().max() / theirs.abs().max())
    title = f"layer-wise relevance propagation, gamma {GAMMA}"
    return [
        *compared(subject, title, contenders),
        Row(
            f"{subject.name}, {title}: largest difference from zennit's maps",
            f"{apart:.1e}",
            "of the largest value; it adds 1e-6 to every denominator",
        ),
    ]


def faithfulness(count: int = 2) -> list[Row]:
    """ROAD with five percentages, most and least relevant first; and its imputation alone."""
    subject = large(count)
    model, images, last = subject.model, subject.images, subject.layers[-1]
    signed = explain(model, images, "hires-cam", last).at(last)
    # No two pixels are equal, so that both packages remove pixels in the same order.
    heat = peers.scaled(signed - signed.amin((1, 2), keepdim=True), subject.size)
    maps = torch.from_numpy(heat)
    classes = forward_pass(model, images).target.tolist()
    removed = [maps[0] >= np.percentile(heat[0], 100 - share) for share in PERCENTILES]
    filled = {
        "seewhy": lambda: noisy_linear(
            images[:1].expand(len(removed), -1, -1, -1), torch.stack(removed), noise=0
        ),
        "pytorch-grad-cam": lambda: torch.stack(
            [peers.imputed(images[0], each) for each in removed]
        ),
    }
    apart = float((filled["seewhy"]() - filled["pytorch-grad-cam"]()).abs().max())
    whole = {
        "seewhy": lambda: road(forward_pass(model, images), maps),
        "seewhy in bf16": lambda: road(
            forward_pass(Classifier(model, precision="bf16"), images), maps
        ),
        "pytorch-grad-cam": lambda: peers.road(model, images, heat, classes, PERCENTILES),
    }
    return [
        *compared(subject, f"ROAD with {len(PERCENTILES)} percentages in both orders", whole),
        *compared(
            subject,
            f"ROAD imputation of one image, {len(PERCENTILES)} percentages",
            filled,
            len(removed),
        ),
        Row(
            "ROAD imputation: largest difference from pytorch-grad-cam's",
            f"{apart:.1e}",
            "pixels in [0, 1], without noise",
        ),
    ]


def memory(count: int = 16) -> list[Row]:
    """Peak memory of a process for twenty maps, and for a bare forward and backward pass."""
    rows = []
    for which in PASSES:
        code = f"from benchmarks import explaining; explaining.show_peak({which!r}, {count})"
        command = [sys.executable, "-W", "ignore", "-c", code]
        printed = [
            subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=HERE.parent).stdout
            for _ in range(REPEATS)
        ]
        peaks, befores = zip(*[map(int, each.split()) for each in printed], strict=True)
        peak, before = median(peaks) / 2**20, median(befores) / 2**20
        value = f"{peak:.0f} MiB, {peak - before:.0f} MiB more than before the pass"
        how = (
            f"`benchmarks/explaining.py`, {count} images of 224 x 224, median of {REPEATS} fresh "
            "processes"
        )
        rows.append(Row(f"ResNet-50, peak resident memory: {which}", value, how))
    return rows


PARTS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "gradient": ("Explaining: gradient methods", gradient),
    "perturbation": ("Explaining: Score-CAM and Ablation-CAM", perturbation),
    "eigen": ("Explaining: principal components", eigen),
    "relevance": ("Explaining: relevance propagation", relevance),
    "road": ("Explaining: ROAD", faithfulness),
    "memory": ("Explaining: memory", memory),
}


def _gradient(subject: Subject) -> list[Row]:
    """The rows of one model. torchcam and captum return maps in layer resolution, as `explain`."""
    model, images, layers = subject.model, subject.images, subject.layers
    classes = forward_pass(model, images).target
    last, four, two = layers[-1:], list(peers.TORCHCAM), list(peers.CAPTUM)
    contests: dict[str, Contenders] = {
        "five methods at four layers": {
            "seewhy": lambda: ours(subject, GRADIENT, layers),
            "pytorch-grad-cam, one call per method and layer": lambda: peers.grad_cams(
                model, images, GRADIENT, layers
            ),
            "a bare forward and backward pass, for comparison": lambda: bare_pass(subject),
        },
        f"Grad-CAM at {last[0]}": {
            "seewhy": lambda: ours(subject, ["grad-cam"], last),
            "pytorch-grad-cam": lambda: peers.grad_cams(model, images, ["grad-cam"], last),
        },
        "four methods at four layers": {
            "seewhy": lambda: explain(model, images, four, layers),
            "torchcam, one forward pass per method": lambda: peers.torchcam(model, images, layers),
            "torchcam, one forward pass for all methods": lambda: peers.torchcam_at_once(
                model, images, layers
            ),
        },
        "Grad-CAM and HiResCAM at four layers": {
            "seewhy": lambda: explain(model, images, two, layers),
            "captum": lambda: peers.captum(model, images, layers, classes),
        },
    }
    return [
        row
        for title, contenders in contests.items()
        for row in compared(subject, title, contenders)
    ]


def _agreement(subject: Subject) -> list[Row]:
    """Difference between the other packages' maps and ours, in [0, 1] and in image resolution."""
    model, images, layers = subject.model, subject.images, subject.layers
    ours_maps = explain(model, images, GRADIENT, layers).maps
    if blank := [key for key, maps in ours_maps.items() if not (maps > 0).any()]:
        raise RuntimeError(
            f"{subject.name} has nothing to compare: {blank[0]} is not positive anywhere"
        )
    native = {
        "torchcam": peers.torchcam(model, images, layers),
        "captum": peers.captum(model, images, layers, forward_pass(model, images).target),
    }
    theirs = {
        "pytorch-grad-cam": peers.grad_cams(model, images, GRADIENT, layers),
        **{
            name: {key: peers.scaled(each, subject.size) for key, each in maps.items()}
            for name, maps in native.items()
        },
    }
    rows = []
    for name, maps in theirs.items():
        apart = {
            key: float(np.abs(peers.scaled(ours_maps[key], subject.size) - each).max())
            for key, each in maps.items()
        }
        plus = [
            f"{value:.1e} at {place}"
            for (place, method), value in apart.items()
            if method == "grad-cam++"
        ]
        most = max(value for (_, method), value in apart.items() if method != "grad-cam++")
        title = f"{subject.name}, largest difference from {name}'s maps"
        rows.append(Row(f"{title}, methods with the same formula", f"{most:.1e}", "maps in [0, 1]"))
        rows += [Row(f"{title}, Grad-CAM++", ", ".join(plus), WHY[name])] if plus else []
    return rows


def ours(
    subject: Subject, methods: Sequence[str], layers: Sequence[str], precision: str = "fp32"
) -> Mapping[tuple[str, str], Tensor]:
    """Our maps; they are also resized to the images, because pytorch-grad-cam does so."""
    classifier = Classifier(subject.model, precision=precision)
    maps = explain(classifier, subject.images, methods, layers).maps
    for each in maps.values():
        resize_maps(each, (subject.size, subject.size))
    return maps


def bare_pass(subject: Subject) -> None:
    """Forward, and backward to every weight."""
    subject.model.zero_grad(set_to_none=True)
    subject.model(subject.images).amax(1).sum().backward()
    subject.model.zero_grad(set_to_none=True)


PASSES: dict[str, Callable[[Subject], object]] = {
    "a bare forward and backward pass": bare_pass,
    "five methods at four layers": lambda subject: ours(subject, GRADIENT, subject.layers),
}


def show_peak(which: str, count: int) -> None:
    """Print resident bytes at the peak of one of PASSES and before it; in a new Linux process."""
    peers.bring()
    subject = large(count)
    before = _resident("VmRSS")
    PASSES[which](subject)
    print(_resident("VmHWM"), before)


def _resident(field: str) -> int:
    """Resident bytes of this process; `getrusage` would start from the peak of its parent."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def compared(
    subject: Subject, title: str, contenders: Contenders, count: int | None = None
) -> list[Row]:
    """A row per contender. Each is called once to warm up and then REPEATS times, interleaved.

    The rows of others have the speedup of `seewhy` and its variants: median and range of ratios.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(REPEATS + 1):
        for name, call in contenders.items():
            began = time.perf_counter()
            call()
            if repeat:
                times[name].append(time.perf_counter() - began)
    size, images = subject.size, len(subject.images)
    how = (
        f"`benchmarks/explaining.py`, {images} images of {size} x {size}, median of {REPEATS} "
        "interleaved repeats"
    )
    rows = []
    for name, spent in times.items():
        value = f"{(count or images) / median(spent):.3g} images/s"
        for mine in (
            []
            if name.startswith("seewhy")
            else [each for each in times if each.startswith("seewhy")]
        ):
            ratios = [theirs / ours for ours, theirs in zip(times[mine], spent, strict=True)]
            bounds = f"{min(ratios):.2f}–{max(ratios):.2f}"
            value += f"; {mine} is {median(ratios):.2f}x as fast ({bounds})"
        rows.append(Row(f"{subject.name}, {title}: {name}", value, how))
    return rows


def ranks(maps: np.ndarray, others: np.ndarray) -> str:
    """Spearman's correlation between the maps of each pair, mean and minimum."""
    correlations = [
        float(spearmanr(one.ravel(), other.ravel()).statistic)
        for one, other in zip(maps, others, strict=True)
    ]
    mean = sum(correlations) / len(correlations)
    return f"{mean:.3f}, minimum {min(correlations):.3f}"


def _subject(name: str, classes: int, count: int, size: int, layer: str) -> Subject:
    """A model with random weights, and BatchNorm statistics of the images."""
    torch.manual_seed(0)
    coarse = F.interpolate(torch.rand(count, 3, 8, 8), (size, size), mode="bicubic")
    pixels = (255 * (coarse + 0.05 * torch.randn(coarse.shape)).clamp(0, 1)).to(torch.uint8)
    split = Split(pixels, torch.arange(count) % classes, [str(index) for index in range(count)])
    model, images = build_model(name, classes, split), pixels.float().div(255)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images[:8])
    return Subject(name, model.eval(), images, tuple(layer.format(stage) for stage in (1, 2, 3, 4)))


def main(argv: Sequence[str] = ()) -> None:
    """Measure and save all PARTS, or the named ones."""
    chosen = {name: lookup(PARTS, name, "part") for name in argv or PARTS}
    note = f"Compared with {peers.bring()}. Weights are random; precision is fp32 unless noted."
    warnings.filterwarnings("ignore", category=UserWarning)  # about empty maps of random weights
    for name, (title, measure) in chosen.items():
        keep(f"explaining-{name}", title, measure(), note=note)


if __name__ == "__main__":
    main(sys.argv[1:])
