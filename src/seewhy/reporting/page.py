"""The report as one HTML file that works offline."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path

import torch
from matplotlib.figure import Figure

from seewhy.data.csv_table import read_table
from seewhy.diagnosis.diagnosis import MINUTES, slice_examples
from seewhy.diagnosis.metadata import Metadata, read_metadata
from seewhy.diagnosis.predictions import Predictions, diverse_errors
from seewhy.errors import SeewhyError
from seewhy.escaping import json_text
from seewhy.experiments.experiment import Experiment
from seewhy.experiments.figures import experiment_figure
from seewhy.files import check_output_file, make_directory, write_text
from seewhy.models.classifier import ClassifierLike, as_classifier
from seewhy.progress import waiting
from seewhy.reporting.context import ReportContext, is_own_data, make_context
from seewhy.reporting.document import render_document, script_json
from seewhy.reporting.formatting import duration, percent
from seewhy.reporting.images import report_images
from seewhy.reporting.markdown import report_markdown
from seewhy.reporting.multi_label_page import report_multi_label
from seewhy.reporting.report_files import FILE, JSON_FILE, report_directory
from seewhy.reporting.section import Section, render
from seewhy.reporting.sections import SECTIONS
from seewhy.reporting.sections.experiment import recipes_section
from seewhy.reporting.sprites import Sprites
from seewhy.reporting.svg import drawn_svg
from seewhy.reporting.values import report_values
from seewhy.runs.run import Run
from seewhy.wording import counted

MARKDOWN_FILE = "report.md"  # in the directory of a run
BUDGET = 2_500_000  # bytes of the file
FEWEST_ERRORS = 48  # errors shown even above the budget
GALLERY = "errors"  # the section that is shortened to fit the budget


def report(
    classifier: ClassifierLike | Predictions,
    data: object = None,
    path: str | Path | None = None,
    *,
    against: ClassifierLike | None = None,
    split: str | None = None,
    json: str | Path | None = None,
    markdown: str | Path | None = None,
    full: bool = False,
    fresh: bool = False,
    paths: bool = False,
    metadata: str | Path | Metadata | None = None,
    map_train: bool = False,
    quiet: bool = False,
    minutes: float | None = MINUTES,
) -> Path:
    """Write the report of a finished run, or of any model on labeled images, and return its path.

    Diagnosing takes a minute or more. The diagnosis of a run on its own data is saved in the run
    directory, with the figures, so that later reports are fast and do not need the data; with a
    path, nothing is written but the report. A run with any number of labels per image gets the
    report of `report_multi_label`.

    Args:
        classifier: A finished run, a Classifier, or a module whose input is pixels in [0, 1]:
            `Classifier(model, classes, preprocess=normalize)` puts a normalization before the
            model. It is measured in evaluation mode. Or predictions of the test images of `data`,
            as from `read_prediction_table`: then there are no heat maps, attacks and corruptions.
        data: Labeled images: a Dataset, a source for `load` such as the path of a folder, or what
            `as_dataset` takes, such as (images, labels) or a torch DataLoader. Classes are matched
            by name. A run's own data are loaded again by default.
        path: The file to write; by default report.html in the directory of the run.
        against: A run or classifier to compare with on the same test images.
        split: The split to measure: "train", "test", "validation" or "all"; as for `evaluate`.
        json: Another file to write, with the numbers of the report (see `report_values`); by
            default report.json in the directory of the run, if there is no path.
        markdown: Another file to write, with the main results for a pull request; by default
            report.md in the directory of the run, if there is no path.
        full: Show all errors; otherwise as many as fit into 2.5 MB.
        fresh: Diagnose again even if there is a diagnosis.
        paths: Show image paths with their directories.
        metadata: A CSV file with a column of image paths and others of any values, as for
            `read_metadata`; or by column a value for each image of the split. Accuracies of the
            images with each value are a section of the report.
        map_train: Show training images on the map of images too, which needs the data. Both are
            mapped together each time, in at most a quarter of `minutes` more.
        quiet: Show no progress.
        minutes: Time for a new diagnosis, as in `diagnose`.

    Raises:
        SeewhyError: If a run has not finished, the images do not fit the model, the two models
            have different test images or classes, there are no training images to map, or there is
            neither a path nor a run directory that can be written.
    """
    run = classifier if isinstance(classifier, Run) else None
    own = run is not None and is_own_data(run, data, split)
    if run is not None and run.classifier.activation == "sigmoid":
        options = (split, against, metadata, markdown, map_train or None)
        if any(value is not None for value in options):
            raise SeewhyError(
                "split, against, metadata, markdown and map_train are for models that choose one "
                "class per image; leave them out for a run with any number of labels"
            )
        return report_multi_label(run, None if own else data, path, json=json, quiet=quiet)
    if run is None:
        if not isinstance(classifier, Predictions):
            as_classifier(classifier)  # its errors come before those about data and path
        if data is None:
            raise SeewhyError("report needs data, as in report(model, 'photos', 'report.html')")
    # errors come before minutes of work
    for file in (path, json, markdown):
        if file is not None:
            check_output_file(Path(file))
    if isinstance(metadata, str | Path):
        read_table(Path(metadata))
    if path is None:
        if run is not None and not own:
            raise SeewhyError(
                "these images are not those that the run was tested on; add the file to write, as "
                "in report(run, data, 'report.html')"
            )
        directory = report_directory(run)
        path = directory / FILE
    else:
        directory = None  # to keep the results in
    context = make_context(
        classifier,
        data,
        against,
        split=split,
        full=full,
        fresh=fresh,
        quiet=quiet,
        keep=directory is not None,
        minutes=minutes,
        map_train=map_train,
    )
    with waiting("writing the report", quiet):
        if isinstance(metadata, str | Path):
            metadata = read_metadata(metadata, context.diagnosis.names)
        context = replace(context, paths=paths, metadata=metadata)
        page = render_page(context)
        if directory is not None:
            _save_figures(page, directory)
            json = json or directory / JSON_FILE
            markdown = markdown or directory / MARKDOWN_FILE
        make_directory(Path(path).parent)
        write_text(Path(path), page.html)
        if json is not None:
            make_directory(Path(json).parent)
            write_text(Path(json), json_text(report_values(context), indent=1) + "\n")
        if markdown is not None:
            make_directory(Path(markdown).parent)
            write_text(Path(markdown), report_markdown(context, page.sections))
    return Path(path)


def report_experiment(experiment: Experiment, path: str | Path | None = None) -> Path:
    """Write the report of an experiment and return its path.

    It links to the reports of the trials that have one. The figures are saved to figures/ in the
    directory of the experiment.

    Args:
        experiment: From `run_experiment` or `open_experiment`.
        path: The file to write; by default report.html in the directory of the experiment.
    """
    path = experiment.directory / FILE if path is None else Path(path)
    page = render_experiment_page(experiment, path.parent)
    _save_figures(page, experiment.directory)
    make_directory(path.parent)
    write_text(path, page.html)
    return path


@dataclass(frozen=True, eq=False)
class Page:
    """A report in memory."""

    html: str
    figures: Mapping[str, Figure] = field(default_factory=dict)  # of all sections, by file name
    sections: Mapping[str, Section] = field(default_factory=dict)  # by anchor
    bytes_per_error: float = 0.0  # per image of the gallery


def render_page(context: ReportContext) -> Page:
    """The report of a run, within the budget unless the context is `full`.

    Each section is rendered once, except for the gallery of errors, which is rendered again until
    it fits.
    """
    sprites = Sprites(report_images(context))
    sections = {
        key: make_section(context, sprites)
        for key, make_section in SECTIONS.items()
        if key != GALLERY
    }
    shown = len(context.diagnosis.errors)
    page = _with_gallery(context, sections, sprites)
    while (excess := len(page.html.encode()) - BUDGET) > 0 and not context.full:
        if shown <= FEWEST_ERRORS or not page.bytes_per_error:
            break
        shown = max(FEWEST_ERRORS, shown - max(1, round(excess / page.bytes_per_error)))
        page = _with_gallery(limit_errors(context, shown), sections, sprites)
    return page


def render_experiment_page(experiment: Experiment, directory: Path) -> Page:
    """The report of an experiment, to be saved in `directory`: its links are relative to it."""
    section = recipes_section(experiment, links_from=directory)
    recipes = counted(len(experiment.recipes), "recipe")
    seeds = counted(len(experiment.seeds), "seed")
    results = [trial.result for trial in experiment.finished if trial.result is not None]
    html = render_document(
        title=f"{recipes}, {seeds} on {experiment.data.name}",
        headline=(
            f"{len(results)} of {counted(len(experiment.trials), 'trial')} finished, "
            f"total training time {duration(sum(result.train_seconds for result in results))}"
        ),
        sections={"experiment": section},
        source=f"experiment {experiment.directory.resolve().name}.",
    )
    if not experiment.finished:
        return Page(html)
    return Page(html, {"recipes": experiment_figure(experiment), **section.figures})


def limit_errors(context: ReportContext, number: int) -> ReportContext:
    """The context with `number` diverse errors, and the errors that other sections link to."""
    diagnosis, predictions = context.diagnosis, context.predictions
    examples = [slice_examples(weak, predictions) for weak in diagnosis.slices]
    shown = torch.cat([diverse_errors(predictions, number), *examples])
    rows = torch.isin(diagnosis.errors, shown).nonzero().flatten()
    saliency = diagnosis.saliency
    if saliency is not None:
        saliency = replace(saliency, maps=saliency.maps.take(rows))
    nearest = None if diagnosis.nearest is None else diagnosis.nearest.take(rows)
    errors = diagnosis.errors[rows]
    limited = replace(diagnosis, errors=errors, saliency=saliency, nearest=nearest)
    return replace(context, diagnosis=limited)


def _with_gallery(
    context: ReportContext, others: Mapping[str, Section | None], sprites: Sprites
) -> Page:
    """The page with the gallery of errors added to the other, rendered sections."""
    sprites = sprites.copy()
    gallery = SECTIONS[GALLERY](context, sprites) if GALLERY in SECTIONS else None
    rendered = {key: gallery if key == GALLERY else others[key] for key in SECTIONS}
    sections = {key: section for key, section in rendered.items() if section is not None}
    sheets = sprites.sheets()
    layers = (
        0 if context.diagnosis.saliency is None else len(context.diagnosis.saliency.maps.layers)
    )
    html = render_document(
        title=context.title,
        headline=(
            f"{context.accuracy_name} {percent(context.predictions.accuracy, 2)} "
            f"({counted(len(context.predictions.labels), 'image')})"
        ),
        sections=sections,
        source=_source(context),
        sheets=sheets,
        viewer="" if gallery is None else render("viewer.html", layers=layers),
    )
    figures = {
        name: figure for section in sections.values() for name, figure in section.figures.items()
    }
    errors = len(context.diagnosis.errors)
    if gallery is None or not errors:
        return Page(html, figures, sections)
    size = (len(gallery.html) + len(script_json(gallery.data))) / errors
    per_sprite = sum(len(sheet.url) for sheet in sheets) / len(sprites.used)
    return Page(html, figures, sections, size + per_sprite)


def _source(context: ReportContext) -> str:
    """What the page was made from, and how long it took."""
    diagnosis, run = context.diagnosis, context.run
    name = context.title if run is None else f"run {context.source if run.directory else 'memory'}"
    text = f"{name}. The diagnosis took {duration(diagnosis.seconds)}"
    if not diagnosis.limited:
        return f"{text}."
    minutes = f"{max(2 * diagnosis.minutes, ceil(diagnosis.seconds / 30)):g}"  # twice as many
    text += ", so some analyses used fewer images: "
    if run is None:
        return f"{text}minutes={minutes} takes more."
    return f"{text}seewhy report RUN --fresh --report-minutes {minutes} takes more."


def _save_figures(page: Page, directory: Path) -> None:
    if page.figures:
        make_directory(directory / "figures")
    for name, figure in page.figures.items():
        write_text(directory / "figures" / f"{name}.svg", drawn_svg(figure))
