"""Errors: a gallery of the misclassified images with their heat maps."""

import base64
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from seewhy.attribution.scores import TrustScore
from seewhy.diagnosis.metrics import worst_confusions
from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.saliency import Saliency
from seewhy.figures.style import heat_colors
from seewhy.reporting.context import ReportContext
from seewhy.reporting.formatting import layer_labels, map_name, prediction_label
from seewhy.reporting.neighbors import neighbors_data
from seewhy.reporting.section import Section, render
from seewhy.reporting.sprites import Sprites, data_url
from seewhy.wording import be, counted

LEVELS = 15  # magnitudes of a heat map that the page can show
SPACING = 8  # gray values between two levels
FULLY_EXPLAINED = (
    100  # errors with maps of all methods; the others have those of Grad-CAM and the best one
)
COLUMNS = 16  # images in a row of a sheet of maps; more if it would become too tall
TALLEST = 16_000  # pixels of a sheet; WebP allows 16,383
CONFUSIONS = 1000  # in the table
TOP = 5  # most probable classes of an image


@dataclass(frozen=True)
class Card:
    """A misclassified image in the gallery."""

    index: int  # in the test split
    name: str  # of its file
    true: str
    predicted: str
    confidence: float
    loss: float
    confusion: tuple[int, int]  # true and predicted class
    label: str  # text alternative


def errors_section(context: ReportContext, sprites: Sprites) -> Section:
    """The gallery of the errors, the most confident first, and their maps for the scripts."""
    predictions, diagnosis = context.predictions, context.diagnosis
    saliency = diagnosis.saliency
    cards = [_card(predictions, index, context.name(index)) for index in diagnosis.errors.tolist()]
    images: dict[tuple[int, int], list[int]] = {}  # shown errors by confusion
    for card in cards:
        images.setdefault(card.confusion, []).append(card.index)
    html = render(
        "sections/errors.html",
        cards=cards,
        confusions=[
            (pair, images.get((pair.true, pair.predicted), []))
            for pair in worst_confusions(predictions, CONFUSIONS)
        ],
        total=int((~predictions.correct).sum()),
        command="seewhy report RUN --full" if context.run else "seewhy.report(…, full=True)",
        classes=predictions.classes,
        sprites=sprites,
        saliency=saliency,
        layers=[] if saliency is None else list(layer_labels(saliency.maps.layers).items()),
        unexplained=diagnosis.saliency_error,
        shown="" if saliency is None else _map_name(saliency, saliency.shown),
        faithful="" if saliency is None else _map_name(saliency, saliency.best),
        other_methods=_other_methods(context, len(cards)),
        fully_explained=FULLY_EXPLAINED,
    )
    return Section("Errors", _finding(context), html, _data(context, cards))


def _map_name(saliency: Saliency, score: TrustScore) -> str:
    return map_name(score.method, score.layer, saliency.maps.layers)


def _finding(context: ReportContext) -> str:
    predictions = context.predictions
    wrong = ~predictions.correct
    errors = int(wrong.sum())
    text = f"{errors:,} of {counted(len(wrong), context.images_noun)} {be(errors)} misclassified"
    if not errors:
        return f"{text}."
    confidence = predictions.confidence[wrong].quantile(0.5)  # `median` is the lower of two
    return f"{text}, with a {'' if errors == 1 else 'median '}confidence of {confidence:.2f}."


def _card(predictions: Predictions, index: int, name: str) -> Card:
    true, predicted = int(predictions.labels[index]), int(predictions.predicted[index])
    return Card(
        index=index,
        name=name,
        true=predictions.classes[true],
        predicted=predictions.classes[predicted],
        confidence=predictions.confidence[index].item(),
        loss=predictions.losses[index].item(),
        confusion=(true, predicted),
        label=prediction_label(predictions, index),
    )


def _data(context: ReportContext, cards: list[Card]) -> dict[str, Any]:
    """Data for the scripts, one entry per card; the type ErrorsData in state.js."""
    predictions, errors = context.predictions, context.diagnosis.errors
    saliency = context.diagnosis.saliency
    top = predictions.probabilities[errors].topk(min(TOP, len(predictions.classes)))
    layers = {} if saliency is None else layer_labels(saliency.maps.layers)
    return {
        "index": errors.tolist(),
        "names": [card.name for card in cards],
        "confusions": [card.confusion for card in cards],
        "loss": [round(card.loss, 3) for card in cards],
        "top": top.indices.tolist(),
        "probabilities": [[round(value, 3) for value in row] for row in top.values.tolist()],
        "classes": predictions.classes,
        "layers": list(layers.values()),
        "maps": maps_data(saliency, len(cards), len(cards) if context.full else FULLY_EXPLAINED),
        "neighbors": neighbors_data(context.diagnosis.nearest),
        "colors": base64.b64encode(heat_colors(32)).decode(),
        "true": [
            round(value, 3)
            for value in predictions.probabilities[errors, predictions.labels[errors]].tolist()
        ],
        "layer": 1 if saliency is None else _layer_number(saliency, saliency.shown),
        "method": "" if saliency is None else saliency.shown.method,
        "faithful_layer": 1 if saliency is None else _layer_number(saliency, saliency.best),
        "faithful_method": "" if saliency is None else saliency.best.method,
    }


def _layer_number(saliency: Saliency, score: TrustScore) -> int:
    """Number of a score's layer, from 1; the last one for a method that needs none."""
    layers = saliency.maps.layers
    return layers.index(score.layer) + 1 if score.layer in layers else max(1, len(layers))


def maps_data(saliency: Saliency | None, images: int, fully_explained: int) -> dict[str, Any]:
    """Heat maps for the scripts: a gray sheet for each method and layer; the type MapsData.

    The two maps of an image, for the predicted and the true class, are side by side. All images
    have maps of the methods up to the best one and the one that is shown first; the first
    `fully_explained` images also have those of the other methods. Lossless WebP is a quarter
    smaller than deflated bytes. Levels are several gray values apart, so that they survive the
    noise that some browsers add against fingerprinting.
    """
    data: dict[str, Any] = {
        "methods": [],
        "needs_layer": [],
        "counts": [],
        "sizes": [],
        "sheets": [],
        "columns": COLUMNS,
        "levels": LEVELS,
        "spacing": SPACING,
    }
    if saliency is None:
        return data
    maps, shared = saliency.maps, _shared_methods(saliency)
    counts = [
        images if method < shared else min(fully_explained, images)
        for method in range(len(maps.methods))
    ]
    by_method = [maps.of(method) for method in maps.methods]
    heights = {values.shape[2] for values in maps.values}
    columns = max(COLUMNS, *(-(-images // (TALLEST // height)) for height in heights))
    sheets = [
        [_sheet(values[:number], columns) for values in at_layers]
        for at_layers, number in zip(by_method, counts, strict=True)
    ]
    return data | {
        "methods": maps.methods,
        "needs_layer": [maps.needs_layer(method) for method in maps.methods],
        "counts": counts,
        "sizes": [[values.shape[2:] for values in at_layers] for at_layers in by_method],
        "sheets": sheets,
        "columns": columns,
    }


def _shared_methods(saliency: Saliency) -> int:
    """Number of methods with maps of all errors."""
    methods = saliency.maps.methods
    return 1 + max(methods.index(score.method) for score in (saliency.best, saliency.shown))


def _other_methods(context: ReportContext, cards: int) -> tuple[str, ...]:
    """Methods with maps of only the most confident errors."""
    saliency = context.diagnosis.saliency
    if saliency is None or context.full or cards <= FULLY_EXPLAINED:
        return ()
    return saliency.maps.methods[_shared_methods(saliency) :]


def _sheet(values: Tensor, columns: int) -> str:  # (M, 2, h, w) int8
    """A data URL of lossless WebP; gray 0 is level -LEVELS, and each level adds SPACING."""
    if not len(values):
        return ""
    levels = ((values.float() * LEVELS / 127).round() + LEVELS) * SPACING
    pairs = levels.permute(0, 2, 1, 3).flatten(2)  # (M, h, 2 w)
    padded = F.pad(pairs, (0, 0, 0, 0, 0, -len(pairs) % columns))
    grid = padded.reshape(-1, columns, *padded.shape[1:]).transpose(1, 2).flatten(2).flatten(0, 1)
    return data_url(grid.byte()[..., None].expand(-1, -1, 3), lossless=True)
