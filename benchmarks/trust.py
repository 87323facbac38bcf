"""Every method at every layer against the truth: on `shapes`, where masks say where the object is.

A network is trained once and kept below runs/. Methods that perturb the image or the activation are measured on fewer images.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.results import Row, keep
from seewhy.attribution.explanation import explain
from seewhy.attribution.localization import chance_level, pointing_game, relevance_mass_accuracy
from seewhy.attribution.methods import METHODS
from seewhy.attribution.scores import TrustScore, trust
from seewhy.data.dataset import Dataset, Split
from seewhy.data.sources import load
from seewhy.models.classifier import Classifier
from seewhy.runs.run import Run, open_run
from seewhy.runs.training import fit
from seewhy.train.recipe import Recipe

GRADIENT_IMAGES, PERTURBATION_IMAGES = 64, 8
TOLERANCE_PIXELS = 1  # of 32; the authors of the pointing game allow 15 on photographs of about 500
POINTED = 200  # images for pointing and energy, which need no further passes
PERTURBING = {
    "score-cam": "score-cam",
    "ablation-cam": "ablation-cam",
    "rise": "rise:masks=500",
    "occlusion": "occlusion",
}
RECIPE = Recipe(
    name="shapes",
    model="resnet18",
    epochs=3,
    batch_size=64,
    lr=0.03,
    optimizer="sgd:momentum=0.9,nesterov=true",
    weight_decay=5e-4,
    schedule="one-cycle:pct_start=0.2,anneal=cosine",
    augment=("crop:2", "flip"),
    label_smoothing=0.1,
)


def main() -> None:
    """Measure and keep."""
    data = load("shapes")
    run = _run(data)
    plain = [
        name for name in METHODS if name not in PERTURBING and name != "cam"
    ]  # cam is hires-cam where there is one
    verdicts = [
        *_verdicts(run, data.test, plain, GRADIENT_IMAGES, POINTED),
        *_verdicts(
            run, data.test, list(PERTURBING.values()), PERTURBATION_IMAGES, PERTURBATION_IMAGES
        ),
    ]
    verdicts.sort(key=lambda verdict: -(verdict.pointing or 0))
    how = (
        f"`benchmarks/trust.py`, {GRADIENT_IMAGES} test images, {POINTED} for pointing and inside, {PERTURBATION_IMAGES} for "
        f"methods that perturb; pointing within {TOLERANCE_PIXELS} pixel"
    )
    assert run.result is not None
    assert data.test.masks is not None
    rows = [
        Row(
            f"accuracy of {run.recipe.model} on shapes",
            f"{100 * run.result.accuracy:.2f}%",
            f"{run.result.epochs:g} epochs",
        ),
        Row(
            "chance, in pointing and inside",
            f"{chance_level(data.test.masks, TOLERANCE_PIXELS):.2f}, {chance_level(data.test.masks):.2f}",
            "mean share of the object in the image",
        ),
        *(
            Row(f"{verdict.method} at {verdict.layer}", _measured(verdict), how)
            for verdict in verdicts
        ),
    ]
    keep("trust", "Explanations against the truth, resnet18 on shapes", rows)
    print(_table(verdicts))


def _run(data: Dataset) -> Run:
    directory = Path("runs/benchmark-shapes")
    if not (directory / "summary.json").exists():
        fit(RECIPE, data, directory)
    return open_run(directory)


def _verdicts(
    run: Run, test: Split, methods: Sequence[str], count: int, pointed: int
) -> list[TrustScore]:
    """Gain, ROAD and randomization of `count` images, pointing and energy of `pointed`."""
    some, more = test.take(torch.arange(count)), test.take(torch.arange(pointed))
    classifier = Classifier(run.model, run.classes)
    found = explain(classifier, more.images, methods, warn=False)
    assert more.masks is not None
    verdicts = []
    for each in trust(classifier, some.images, methods):
        maps = found.at(each.layer, each.method)
        pointing = pointing_game(maps, more.masks, TOLERANCE_PIXELS).float().mean().item()
        verdicts.append(
            replace(
                each,
                pointing=pointing,
                relevance_mass=relevance_mass_accuracy(maps, more.masks).mean().item(),
            )
        )
    return verdicts


def _measured(verdict: TrustScore) -> str:
    return (
        f"pointing {verdict.pointing:.2f}, inside {verdict.relevance_mass:.2f}, gain {verdict.gain.mean:+.3f}, ROAD "
        f"{verdict.road.mean:+.3f}, random network {verdict.sanity.final_similarity:.2f}"
    )


def _table(verdicts: Sequence[TrustScore]) -> str:
    """The same as Markdown, for the docs."""
    lines = [
        "| method | layer | pointing | inside | gain | ROAD | random network |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in verdicts:
        numbers = f"{each.pointing:.2f} | {each.relevance_mass:.2f} | {each.gain.mean:+.3f} | {each.road.mean:+.3f}"
        lines.append(
            f"| `{each.method}` | {each.layer} | {numbers} | {each.sanity.final_similarity:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
