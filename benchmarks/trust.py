"""Trust scores of every method at every layer, on `shapes`, which has masks of its objects.

`python -m benchmarks.trust lrp lime` measures these methods, by default all, and adds their rows.
A model is trained once and kept below runs/. Perturbation methods are measured on fewer images.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.results import HERE, Row, keep
from seewhy.attribution.explanation import explain
from seewhy.attribution.localization import chance_level, pointing_game, relevance_mass_accuracy
from seewhy.attribution.methods import METHODS
from seewhy.attribution.rollout import ATTENTION_MAPS
from seewhy.attribution.scores import TrustScore, trust
from seewhy.data.dataset import Dataset, Split
from seewhy.data.sources import load
from seewhy.models.classifier import Classifier
from seewhy.runs.run import Run, open_run
from seewhy.runs.training import fit
from seewhy.train.recipe import Recipe

GRADIENT_IMAGES, PERTURBATION_IMAGES = 64, 8
TOLERANCE_PIXELS = 1  # of 32, as the paper's 15 pixels of about 500
LOCALIZATION_IMAGES = 200  # pointing game and relevance mass need no further passes
PERTURBATIONS = {
    "score-cam": "score-cam",
    "ablation-cam": "ablation-cam",
    "rise": "rise:masks=500",
    "occlusion": "occlusion",
    "lime": "lime",
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


def main(methods: Sequence[str] = ()) -> None:
    """Measure the methods, by default all, and keep the rows of each when it is measured."""
    data = load("shapes")
    run = _run(data)
    assert run.result is not None
    assert data.test.masks is not None
    chance = [chance_level(data.test.masks, each) for each in (TOLERANCE_PIXELS, 0)]
    about = [
        Row(
            f"accuracy of {run.recipe.model} on shapes",
            f"{100 * run.result.accuracy:.2f}%",
            f"{run.result.epochs:g} epochs",
        ),
        Row(
            "chance level of pointing and relevance mass",
            ", ".join(f"{each:.2f}" for each in chance),
            "mean share of the object in the image",
        ),
    ]
    how = (
        f"`benchmarks/trust.py`, {GRADIENT_IMAGES} test images, {LOCALIZATION_IMAGES} for pointing "
        f"and relevance mass, {PERTURBATION_IMAGES} for perturbation methods; pointing within "
        f"{TOLERANCE_PIXELS} pixel"
    )
    # cam equals hires-cam where it exists, and a ResNet has no attention
    left_out = {*ATTENTION_MAPS, "le-grad", "cam"}
    for name in methods or [each for each in METHODS if each not in left_out]:
        counts = (GRADIENT_IMAGES, LOCALIZATION_IMAGES)
        if name in PERTURBATIONS:
            counts = (PERTURBATION_IMAGES, PERTURBATION_IMAGES)
        scores = _scores(run, data.test, [PERTURBATIONS.get(name, name)], *counts)
        new = [Row(f"{score.method} at {score.layer}", _measured(score), how) for score in scores]
        names = {row.what for row in (*about, *new)}
        rows = [*new, *(row for row in _saved() if row.what not in names)]
        rows.sort(key=lambda row: row.value, reverse=True)  # by pointing
        keep("trust", "Trust scores, resnet18 on shapes", [*about, *rows])
        print(_table(scores))


def _saved() -> list[Row]:
    file = HERE / "results" / "trust.json"
    if not file.exists():
        return []
    return [Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))["rows"]]


def _run(data: Dataset) -> Run:
    directory = Path("runs/benchmark-shapes")
    if not (directory / "summary.json").exists():
        fit(RECIPE, data, directory)
    return open_run(directory)


def _scores(
    run: Run, test: Split, methods: Sequence[str], count: int, localization_count: int
) -> list[TrustScore]:
    """Trust scores of `count` images; pointing and relevance mass of `localization_count`."""
    batch = test.take(torch.arange(count))
    more = test.take(torch.arange(localization_count))
    classifier = Classifier(run.model, run.classes)
    explanation = explain(classifier, more.images, methods, warn=False)
    assert more.masks is not None
    scores = []
    for each in trust(classifier, batch.images, methods):
        maps = explanation.at(each.layer, each.method)
        pointing = pointing_game(maps, more.masks, TOLERANCE_PIXELS).float().mean().item()
        scores.append(
            replace(
                each,
                pointing=pointing,
                relevance_mass=relevance_mass_accuracy(maps, more.masks).mean().item(),
            )
        )
    return scores


def _measured(score: TrustScore) -> str:
    return (
        f"pointing {score.pointing:.2f}, relevance mass {score.relevance_mass:.2f}, "
        f"gain {score.gain.mean:+.3f}, ROAD {_road(score)}, "
        f"random model {score.sanity.final_similarity:.2f}, mosaics {_mosaic(score)}, "
        f"{'trusted' if score.trusted else 'not trusted'}"
    )


def _road(score: TrustScore) -> str:
    return "–" if score.road is None else f"{score.road.mean:+.3f}"


def _mosaic(score: TrustScore) -> str:
    """Relevance on the right one of four images; a dash without recognized mosaics."""
    return "–" if score.mosaic is None else f"{score.mosaic.relevance_mass.mean:.2f}"


def _table(scores: Sequence[TrustScore]) -> str:
    """The same as Markdown, for the docs."""
    lines = [
        "| method | layer | pointing | relevance mass | gain | ROAD | random model | mosaic "
        "| trusted |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for score in scores:
        numbers = (
            f"{score.pointing:.2f} | {score.relevance_mass:.2f} | {score.gain.mean:+.3f} | "
            f"{_road(score)} | {score.sanity.final_similarity:.2f} | {_mosaic(score)} | "
            f"{'yes' if score.trusted else 'no'}"
        )
        lines.append(f"| `{score.method}` | {score.layer} | {numbers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
