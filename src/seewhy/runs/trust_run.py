"""Measuring the faithfulness of attribution methods on the test images of a run."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch

from seewhy.attribution.layers import resolve_layers
from seewhy.attribution.methods import bind_methods
from seewhy.attribution.scores import TrustScore, trust
from seewhy.attribution.target import Target
from seewhy.data.sources import reload_data
from seewhy.errors import SeewhyError
from seewhy.progress import note, progress
from seewhy.runs.explain_files import layer_choice
from seewhy.runs.run import Run


def trust_of_run(
    run: Run,
    methods: Sequence[str],
    layers: Sequence[str],
    target: Target,
    count: int,
    quiet: bool = False,
) -> tuple[TrustScore, ...]:
    """`trust` on random test images of a run, the same every time.

    Args:
        run: A run with data that can be loaded again; masks of the data are used.
        methods: Names of attribution methods, with settings.
        layers: Names of layers, or ("auto",).
        target: What to explain, see `explain`.
        count: Number of images, at least 2.
        quiet: Show no progress.

    Returns:
        A score for each method at each layer, as `trust` returns them.

    Raises:
        SeewhyError: If `count` is too small, a name is unknown, or the data of the run has changed.
    """
    if count < 2:
        raise SeewhyError(f"trust needs at least 2 images for its intervals, found {count}")
    bound = bind_methods(methods)
    test = reload_data(run.data_origin).test
    indices = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:count]
    sample = test.take(indices.sort().values)
    names: list[str] = []
    if any(method.explains == "layer" for method in bound):
        names = resolve_layers(run.model, sample.images, layer_choice(layers))
    maps = sum(len(names) if method.explains == "layer" else 1 for method in bound)
    with (
        warnings.catch_warnings(record=True) as left_out,
        progress("measuring", maps, quiet) as advance,
    ):
        warnings.simplefilter("always")
        scores = trust(
            replace(run.classifier, precision="fp32"),
            sample.images,
            methods,
            names or "auto",
            target,
            labels=sample.labels,
            masks=sample.masks,
            progress=advance,
        )
    for warning in left_out:
        note(f"left out: {warning.message}", quiet=False)
    return scores
