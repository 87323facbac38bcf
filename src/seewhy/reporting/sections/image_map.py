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
    predictions, splits = context.predictions, context.mapped_splits
    which = "the map" if splits is None else "a map of the test images alone"
    finding = (
        f"{percent(agreement, 0)} of an image's nearest neighbors on {which} have its class "
        f"({_count(context, mapped)})."
    )
    train: MappedImages | None = None
    if splits is not None:
        mapped, train = splits.test, splits.train
    count, thumbnails = _count(context, mapped), mapped.thumbnails
    if splits is not None and train is not None:
        count += f" and {count_of(len(train.thumbnails), splits.train_images, 'training image')}"
        thumbnails = torch.cat([thumbnails, train.thumbnails])
    indices = mapped.map.indices
    figure = image_map_figure(
        mapped.map.positions,
        predictions.labels[indices],
        predictions.classes,
        predictions.correct[indices],
        train_positions=None if train is None else train.map.positions,
        train_labels=None if splits is None else splits.train_labels,
    )
    html = render(
        "sections/image_map.html",
        figure=figure_html(figure, "image-map", "Map of images, colored by their true class"),
        shown=count,
        thumbnails=-(-len(thumbnails) // _every(thumbnails)),
        images=len(thumbnails),
        test=len(indices),
        train=0 if train is None else len(train.thumbnails),
    )
    data = _data(context, mapped, thumbnails)
    return Section("Map of images", finding, html, data, figures={"image_map": figure})


def _count(context: ReportContext, mapped: MappedImages) -> str:
    """`153 test images`, `12 of 153 test images`: those on a map."""
    return count_of(len(mapped.thumbnails), len(context.predictions.labels), context.images_noun)


def _data(context: ReportContext, mapped: MappedImages, thumbnails: Tensor) -> dict[str, Any]:
    """The images for the scripts, training images last; the type MapOfImages in state.js."""
    predictions, indices = context.predictions, mapped.map.indices
    every = _every(thumbnails)
    thumbnails = to_rgb(thumbnails[::every])
    kind = torch.uint8 if len(predictions.classes) <= 256 else torch.uint16
    confidence = (100 * predictions.confidence[indices]).round()
    positions, labels = mapped.map.positions, predictions.labels[indices]
    splits, training = context.mapped_splits, dict[str, Any]()
    if splits is not None:
        positions = torch.cat([positions, splits.train.map.positions])
        labels = torch.cat([labels, splits.train_labels])
        training["train"] = {
            "indices": splits.train.map.indices.tolist(),
            "names": [context.shown_name(name) for name in splits.train_names],
        }
    return {
        "positions": _base64((positions * STEPS).round().to(torch.uint16)),
        "labels": _base64(labels.to(kind)),
        "predicted": _base64(predictions.predicted[indices].to(kind)),
        "bytes": kind.itemsize,
        "confidence": _base64(confidence.to(torch.uint8)),
        "indices": None if len(indices) == len(predictions.labels) else indices.tolist(),
        "every": every,
        "sheet": data_url(image_sheet(thumbnails, COLUMNS), lossless=False),
        "height": thumbnails.shape[2],
        "width": thumbnails.shape[3],
        "columns": COLUMNS,
        "cells": [csv_text([name], []).removesuffix("\r\n") for name in predictions.classes],
        "groups": _groups(context.metadata or {}, indices),
        **training,
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


def _every(thumbnails: Tensor) -> int:
    """The distance of the images that have a thumbnail in the page."""
    return -(-len(thumbnails) // MAX_PICTURES)


def _base64(values: Tensor) -> str:
    return base64.b64encode(values.numpy().tobytes()).decode()
