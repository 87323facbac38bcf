"""Measuring the faithfulness of attribution methods, and tuning one, on test images of a run."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch

from seewhy.attribution.explanation import resolve_methods
from seewhy.attribution.layers import resolve_layers
from seewhy.attribution.scores import (
    RANDOM_MAPS,
    STEPS,
    TimeLimitWarning,
    TrustScore,
    passes_of_trust,
    trust,
)
from seewhy.attribution.target import Target, prepare
from seewhy.attribution.tuning import MethodTuning, tune_method
from seewhy.data.dataset import Split
from seewhy.data.sources import reload_data
from seewhy.errors import SeewhyError
from seewhy.progress import clock, note, progress, waiting
from seewhy.runs.explain_files import layer_choice
from seewhy.runs.run import Run

MANY_PASSES = 20_000  # of images: minutes for photographs on a CPU


def trust_of_run(
    run: Run,
    methods: Sequence[str],
    layers: Sequence[str],
    target: Target,
    count: int,
    quiet: bool = False,
    seconds: float = math.inf,
) -> tuple[TrustScore, ...]:
    """`trust` on random test images of a run, the same every time.

    Args:
        run: A run with data that can be loaded again; masks of the data are used.
        methods: As in `trust`.
        layers: Names of layers, or ("auto",).
        target: What to explain, see `explain`.
        count: Number of images, at least 2.
        quiet: Show no progress.
        seconds: Time to take, see `trust`.

    Returns:
        A score for each method at each layer, as `trust` returns them.

    Raises:
        SeewhyError: If `count` is too small, a name is unknown, or the data of the run has changed.
    """
    if count < 2:
        raise SeewhyError(f"trust needs at least 2 images for its intervals, found {count}")
    sample = _test_sample(run, count)
    inputs = prepare(replace(run.classifier, precision="fp32"), sample.images[:1])
    bound = resolve_methods(methods, inputs, layer_choice(layers))
    names: list[str] = []
    if any(method.explains == "layer" for method in bound):
        names = resolve_layers(run.model, sample.images, layer_choice(layers))
    maps = sum(len(names) if method.explains == "layer" else 1 for method in bound)
    passes = len(sample.images) * passes_of_trust(maps, len(names) or 1, STEPS, RANDOM_MAPS)
    if passes > MANY_PASSES:
        limit = _limit_text(seconds)
        note(f"{passes:,} forward passes{limit}; fewer --images or --layers take less time", quiet)
    with (
        warnings.catch_warnings(record=True) as caught,
        progress("measuring", maps, quiet) as advance,
    ):
        warnings.simplefilter("always")
        scores = trust(
            replace(run.classifier, precision="fp32"),
            sample.images,
            [method.text for method in bound],
            names or "auto",
            target,
            labels=sample.labels,
            masks=sample.masks,
            progress=advance,
            seconds=seconds,
        )
    for warning in caught:
        note(_warning_text(warning.message), quiet=False)
    return scores


def _warning_text(warning: Warning | str) -> str:
    if isinstance(warning, TimeLimitWarning):
        return (
            f"{warning.measured} of {warning.maps} maps were measured in the time, those of the "
            f"last layers; to measure all, --seconds {warning.seconds:.0f}, or fewer --images or "
            "--layers"
        )
    return f"left out: {warning}"


def _limit_text(seconds: float) -> str:
    return "" if math.isinf(seconds) else f", for at most {clock(seconds)}"


def tune_on_run(
    run: Run,
    method: str,
    layers: Sequence[str],
    target: Target,
    count: int,
    seconds: float,
    quiet: bool = False,
) -> MethodTuning:
    """`tune_method` on random test images of a run, those of `trust_of_run`.

    Args:
        run: A run with data that can be loaded again.
        method: Name of an attribution method, with settings that stay.
        layers: Names of layers, or ("auto",).
        target: What to explain, see `explain`.
        count: Number of images, half of them for the choice.
        seconds: Time to take.
        quiet: Show no progress.

    Raises:
        SeewhyError: As `tune_method`, and if the data of the run has changed.
    """
    sample = _test_sample(run, count)
    with waiting(f"measuring settings of {method}{_limit_text(seconds)}", quiet):
        return tune_method(
            replace(run.classifier, precision="fp32"),
            sample.images,
            method,
            layer_choice(layers),
            target,
            labels=sample.labels,
            seconds=seconds,
        )


def _test_sample(run: Run, count: int) -> Split:
    """Random test images, the same every time."""
    test = reload_data(run.data_origin).test
    indices = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:count]
    return test.take(indices.sort().values)
