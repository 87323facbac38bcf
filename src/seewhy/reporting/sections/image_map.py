"""A map of the test images: those that the model finds similar lie close to each other."""

import base64
import math
from typing import Any

import torch
from torch import Tensor

from seewhy.data.thumbnails import to_rgb
from seewhy.diagnosis.feature_space import MappedImages
from seewhy.diagnosis.metadata import Metadata, binned, finite_number
from seewhy.escaping import csv_text
from seewhy.figures.image_map import image_map_figure
from seewhy.reporting.context import ReportContext
from seewhy.reporting.formatting import count_of, percent
from seewhy.reporting.section import Section, figure_html, render
from seewhy.reporting.sprites import Sprites, data_url, image_sheet

COLUMNS = 64  # thumbnails in a row of the sheet
MAX_PICTURES = 3000  # about 500 kB
STEPS = 65_535  # of a position
MAX_VALUES = 20  # of a column of metadata that images are colored by
MAX_COLUMNS = 8  # of metadata


def image_map_section(context: ReportContext, sprites: Sprites) -> Section | None:
    """The map, for the scripts and as a figure; None for a model without features."""
    mapped, agreement = context.diagnosis.mapped, context.neighbor_agreement
    if mapped is None or agreement is None:
        return None
    predictions = context.predictions
    positions, indices = mapped.map.positions, mapped.map.indices
    labels, correct = predictions.labels[indices], predictions.correct[indices]
    figure = image_map_figure(positions, labels, predictions.classes, correct)
    shown = count_of(len(indices), len(predictions.labels), context.images_noun)
    html = render(
        "sections/image_map.html",
        figure=figure_html(figure, "image-map", "Map of images, colored by their true class"),
        shown=shown,
        thumbnails=len(_shown_rows(mapped)),
        images=len(indices),
    )
    finding = (
        f"{percent(agreement, 0)} of an image's nearest neighbors on the map have its class "
        f"({shown})."
    )
    return Section(
        "Map of images", finding, html, _data(context, mapped), figures={"image_map": figure}
    )


def _data(context: ReportContext, mapped: MappedImages) -> dict[str, Any]:
    """The images for the scripts; the type MapOfImages in state.js."""
    predictions, indices = context.predictions, mapped.map.indices
    rows = _shown_rows(mapped)
    thumbnails = to_rgb(mapped.thumbnails[rows])
    kind = torch.uint8 if len(predictions.classes) <= 256 else torch.uint16
    confidence = (100 * predictions.confidence[indices]).round()
    return {
        "positions": _base64((mapped.map.positions * STEPS).round().to(torch.uint16)),
        "labels": _base64(predictions.labels[indices].to(kind)),
        "predicted": _base64(predictions.predicted[indices].to(kind)),
        "bytes": kind.itemsize,
        "confidence": _base64(confidence.to(torch.uint8)),
        "indices": None if len(indices) == len(predictions.labels) else indices.tolist(),
        "every": -(-len(indices) // MAX_PICTURES),
        "sheet": data_url(image_sheet(thumbnails, COLUMNS), lossless=False),
        "height": thumbnails.shape[2],
        "width": thumbnails.shape[3],
        "columns": COLUMNS,
        "cells": [csv_text([name], []).removesuffix("\r\n") for name in predictions.classes],
        "groups": _groups(context.metadata or {}, indices),
    }


def _groups(metadata: Metadata, indices: Tensor) -> list[dict[str, Any]]:
    """The columns of metadata with at most 20 values or ranges of numbers; "" is an unknown one."""
    groups = list[dict[str, Any]]()
    for name, column in metadata.items():
        every = binned(column)
        own = [every[index] for index in indices.tolist()]
        values = sorted(set(own), key=_by_number)
        if 2 <= len(values) <= MAX_VALUES and len(groups) < MAX_COLUMNS:
            codes = torch.tensor([values.index(value) for value in own], dtype=torch.uint8)
            shown = [value or "unknown" for value in values]
            groups.append({"name": name, "values": shown, "codes": _base64(codes)})
    return groups


def _by_number(value: str) -> tuple[float, str]:
    """Sorts numbers and ranges such as "2 to 10" by their first number, texts before them."""
    first = finite_number(value.partition(" to ")[0])
    return -math.inf if first is None else first, value


def _shown_rows(mapped: MappedImages) -> Tensor:
    """The rows of the images that have a thumbnail in the page, evenly spaced."""
    count = len(mapped.thumbnails)
    return torch.arange(0, count, -(-count // MAX_PICTURES))


def _base64(values: Tensor) -> str:
    return base64.b64encode(values.numpy().tobytes()).decode()
