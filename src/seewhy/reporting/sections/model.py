"""The model: its layers, and the data, of a report without a run."""

from dataclasses import replace
from weakref import WeakKeyDictionary

from markupsafe import Markup
from torch import nn

from seewhy.errors import SeewhyError
from seewhy.figures.model import model_figure
from seewhy.models.classifier import Classifier
from seewhy.models.graph import ModelGraph, model_graph
from seewhy.reporting.context import ReportContext
from seewhy.reporting.section import Section, figure_html, render
from seewhy.reporting.sprites import Sprites
from seewhy.wording import counted

_GRAPHS: WeakKeyDictionary[nn.Module, ModelGraph] = WeakKeyDictionary()  # a trace takes a second


def model_section(context: ReportContext, sprites: Sprites) -> Section | None:
    """The model and its data; None for runs (see training_section) and predictions alone."""
    classifier, data = context.classifier, context.data
    if context.run is not None or classifier is None:
        return None
    parameters = sum(parameter.numel() for parameter in classifier.model.parameters())
    images = [counted(number, f"{split} image") for split, number in data.images.items()]
    finding = f"{classifier.name} has {counted(parameters, 'parameter')}."
    if not parameters:
        finding = f"{classifier.name} computes {counted(len(classifier.classes), 'class')}."
    facts = [
        ("data", f"{data.name}: {', '.join(images)}, {'x'.join(map(str, data.image_shape))}"),
        ("data fingerprint", data.fingerprint),
        ("classes", f"{len(classifier.classes):,}"),
        ("precision", classifier.precision),
        ("test-time augmentation", classifier.tta),
    ]
    drawing = model_drawing(replace(classifier, image_shape=data.image_shape), classifier.name)
    return Section("Model", finding, render("sections/model.html", facts=facts, drawing=drawing))


def model_drawing(classifier: Classifier, title: str) -> str:
    """The model as a figure, or why there is none; empty if the size of its images is unknown."""
    model, shape = classifier.model, classifier.image_shape
    if shape is None:
        return ""
    try:
        if model not in _GRAPHS:
            _GRAPHS[model] = model_graph(model, shape)
    except SeewhyError as error:
        return str(error)
    drawing = figure_html(
        model_figure(replace(_GRAPHS[model], title=title)),
        "model",
        f"Layers of {title}, with their costs",
    )
    attributes = 'class="model scroll" tabindex="0" role="region" aria-label="drawing of the model"'
    return Markup(f"<div {attributes}>{{}}</div>").format(drawing)
