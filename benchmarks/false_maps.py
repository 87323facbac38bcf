"""Does `trust` refuse maps that explain nothing? `python -m benchmarks.false_maps IMAGES MODEL`.

IMAGES is anything that `seewhy.load` takes, MODEL a run or published weights, such as
`efficientnet-lite0:weights=FILE`. Maps of methods, and maps that have nothing to do with the
prediction, are measured at the last layer.
"""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.results import Row, keep
from seewhy.attribution.cams import CAMS
from seewhy.attribution.capture import Capture
from seewhy.attribution.layers import resolve_layers
from seewhy.attribution.scores import TrustScore, trust
from seewhy.models.classifier import Classifier, ClassifierLike, pretrained_classifier
from seewhy.runs.prediction import measured_data
from seewhy.runs.run import open_run

METHODS = ("grad-cam", "hires-cam", "xgrad-cam", "layer-cam", "grad-cam++", "gradients")
GRID = 8  # of noise


def blob(capture: Capture) -> Tensor:
    """A Gaussian in the center, where most objects are."""
    count, (height, width) = len(capture.activation), capture.forward.images.shape[2:]
    down, right = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    return torch.exp(-5 * (down**2 + right**2)).expand(count, -1, -1).clone()


def noise(capture: Capture) -> Tensor:
    """Random values."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(len(capture.activation), GRID, GRID, generator=generator)


def edges(capture: Capture) -> Tensor:
    """The edges of the image, which look like an explanation (Adebayo et al. 2018)."""
    luma = capture.forward.images.mean(1)
    maps = torch.zeros_like(luma)
    maps[:, :, 1:] += (luma[:, :, 1:] - luma[:, :, :-1]).abs()
    maps[:, 1:] += (luma[:, 1:] - luma[:, :-1]).abs()
    return maps


def upside_down(capture: Capture) -> Tensor:
    """Grad-CAM upside down."""
    return CAMS["grad-cam"](capture).flip(1)


def negative(capture: Capture) -> Tensor:
    """What Grad-CAM calls evidence against the class."""
    return -CAMS["grad-cam"](capture)


FALSE = (blob, noise, edges, upside_down, negative, "eigen-cam")


def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images")
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=48, help="number of images")
    options = parser.parse_args()
    classifier, data = measured_data(_opened(options.model), options.images)
    chosen = torch.linspace(0, len(data.test) - 1, options.count).round().long()
    test = data.test.take(chosen)
    (layer,) = resolve_layers(classifier, test.images[:1], "auto")[-1:]
    scores = trust(
        classifier,
        test.images,
        [*METHODS, *FALSE],
        layer,
        labels=test.labels,
        steps=8,
        noise_maps=2,
    )
    false = {each if isinstance(each, str) else each.__name__ for each in FALSE}
    rows = [_row(score, score.method in false, len(test)) for score in scores]
    keep(
        f"false-maps-{data.name}",
        f"False explanations, {_title(classifier)} on {data.name}, {layer}",
        rows,
    )
    _print(scores, false)


def _opened(name: str) -> ClassifierLike:
    return pretrained_classifier(name) if ":" in name else open_run(name)


def _title(classifier: Classifier) -> str:
    return classifier.name.partition(":")[0] or "model"


def _row(score: TrustScore, false: bool, count: int) -> Row:
    mosaic = score.mosaic
    relevance = "not measured"
    if mosaic is not None:
        low = mosaic.relevance_mass.interval[0]
        relevance = f"{mosaic.relevance_mass.mean:.2f} (from {low:.2f})"
    verdict = "trusted" if score.trusted else f"refused by {', '.join(score.failed_checks)}"
    return Row(
        f"{score.method}{', false' if false else ''}",
        f"{verdict}; gain {score.gain.mean:+.3f}, random weights "
        f"{score.sanity.final_similarity:.2f}, mosaics {relevance}",
        f"`benchmarks/false_maps.py`, {count} images",
    )


def _print(scores: Sequence[TrustScore], false: set[str]) -> None:
    """Whether each map was judged right."""
    for score in scores:
        expected = score.method not in false
        mark = "right" if score.trusted == expected else "WRONG"
        print(f"{mark}: {score.method} is {'' if score.trusted else 'not '}trusted")


if __name__ == "__main__":
    main()
