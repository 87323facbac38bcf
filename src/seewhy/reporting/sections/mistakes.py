"""The misclassified images, with what the network looks at in them."""

import base64
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from seewhy.diagnosis.metrics import worst_confusions
from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.saliency import Saliency
from seewhy.figures.style import heat_colors
from seewhy.reporting.context import ReportContext
from seewhy.reporting.section import Section, alternative, be, count, render
from seewhy.reporting.sprites import Sprites, data_url

STEPS = 15  # of heat: the magnitudes of a map are kept in so many
FIRST = 100  # mistakes that have maps of all methods; the others of Grad-CAM and the favored one
COLUMNS = 16  # images in a row of a sheet, or more where it would be too high
HIGHEST = 16_000  # pixels; WebP has at most 16,383
APART = 8  # shades of gray between two steps
LISTED = 1000  # confusions in the table
PROBABLE = 5  # classes whose probabilities are said


@dataclass(frozen=True)
class Card:
    """What is said of a misclassified image."""

    index: int
    name: str  # of its file
    true: str
    predicted: str
    confidence: float
    loss: float
    kind: tuple[int, int]  # true and predicted class
    label: str  # for those who do not see it


def mistakes(study: ReportContext, album: Sprites) -> Section:
    """A gallery of the mistakes, the surest first, and their maps for the page's script."""
    result, diagnosis = study.test, study.diagnosis
    found = diagnosis.saliency
    wrong = ~result.correct
    total = int(wrong.sum())
    finding = f"{total:,} of {count(len(wrong), 'test image')} {be(total)} misclassified"
    finding += (
        f", half of them with a confidence above {result.confidence[wrong].median():.2f}."
        if total
        else "."
    )
    cards = _cards(study)
    kinds: dict[tuple[int, int], list[int]] = {}
    for card in cards:
        kinds.setdefault(card.kind, []).append(card.index)
    html = render(
        "sections/mistakes.html",
        cards=cards,
        kinds=[
            (pair, kinds.get((pair.true, pair.predicted), []))
            for pair in worst_confusions(result, LISTED)
        ],
        total=total,
        classes=result.classes,
        album=album,
        looks=found,
        unexplained=diagnosis.saliency_error,
        whole=0 if found is None else _whole(found),
        first=min(FIRST, len(cards)),
        full=study.full,
    )
    top = result.probabilities[diagnosis.errors].topk(min(PROBABLE, len(result.classes)))
    data = {
        "index": diagnosis.errors.tolist(),
        "names": [card.name for card in cards],
        "kinds": [card.kind for card in cards],
        "loss": [round(card.loss, 3) for card in cards],
        "top": top.indices.tolist(),
        "probabilities": [[round(value, 3) for value in row] for row in top.values.tolist()],
        "classes": result.classes,
        "maps": maps_data(found, len(cards), len(cards) if study.full else FIRST),
        "colors": base64.b64encode(heat_colors(32)).decode(),
        "layer": 1 if found is None else found.maps.layers.index(found.best.layer) + 1,
        "method": "" if found is None else found.best.method,
    }
    return Section("Mistakes", finding, html, data)


def maps_data(found: Saliency | None, images: int, first: int) -> dict[str, Any]:
    """Maps for the page's script, as gray images: a sheet for each method and layer, with the two maps of an image side by side.

    All images have maps of the first methods, up to the favored one, and `first` of them of the others. Images without loss
    are a quarter smaller than deflated bytes. Steps are so far apart that a browser which blurs what it gives back against
    fingerprinting does no harm.
    """
    data: dict[str, Any] = {
        "methods": [],
        "counts": [],
        "layers": [],
        "sizes": [],
        "sheets": [],
        "columns": COLUMNS,
    }
    if found is not None:
        maps, whole = found.maps, _whole(found)
        counts = [
            images if place < whole else min(first, images) for place in range(len(maps.methods))
        ]
        columns = max(COLUMNS, *(-(-images // (HIGHEST // height)) for height, _ in maps.sizes))
        sheets = [
            [_sheet(values[:count, place], columns) for values in maps.values]
            for place, count in enumerate(counts)
        ]
        data = {
            "methods": maps.methods,
            "counts": counts,
            "layers": maps.layers,
            "sizes": maps.sizes,
            "sheets": sheets,
        }
        data["columns"] = columns
    return data | {"steps": STEPS, "apart": APART}


def _whole(found: Saliency) -> int:
    """How many methods all mistakes have maps of."""
    return 1 + found.maps.methods.index(found.best.method)


def _sheet(values: Tensor, columns: int) -> str:  # (M, 2, h, w) int8
    """A data URL of lossless WebP; gray 0 is -STEPS, and APART more each step."""
    steps = ((values.float() * STEPS / 127).round() + STEPS) * APART
    pairs = steps.permute(0, 2, 1, 3).flatten(2)  # (M, h, 2 w)
    padded = F.pad(pairs, (0, 0, 0, 0, 0, -len(pairs) % columns))
    grid = padded.reshape(-1, columns, *padded.shape[1:]).transpose(1, 2).flatten(2).flatten(0, 1)
    return data_url(grid.byte()[..., None].expand(-1, -1, 3), lossless=True) if len(values) else ""


def _cards(study: ReportContext) -> list[Card]:
    return [
        _card(study.test, index, study.name(index)) for index in study.diagnosis.errors.tolist()
    ]


def _card(result: Predictions, index: int, name: str) -> Card:
    true, predicted = int(result.labels[index]), int(result.predicted[index])
    return Card(
        index,
        name,
        result.classes[true],
        result.classes[predicted],
        result.confidence[index].item(),
        result.losses[index].item(),
        (true, predicted),
        alternative(result, index),
    )
