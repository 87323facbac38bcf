"""How well each class is recognized, and what is mistaken for what."""

from torch import Tensor

from seewhy.diagnosis.diagnosis import least_confident_examples
from seewhy.diagnosis.metrics import class_scores, worst_confusions
from seewhy.diagnosis.predictions import Predictions, confusion_matrix
from seewhy.figures.classes import class_figure, confusion_figure
from seewhy.reporting.context import ReportContext
from seewhy.reporting.section import Section, count, panel, percent, render
from seewhy.reporting.sprites import Sprites

SHADES = 8  # of a cell of the matrix
MOST = 100  # classes in the matrix and in the table


def classes(study: ReportContext, album: Sprites) -> Section:
    """Accuracy, precision, recall and F1 of each class, and the confusion matrix."""
    result = study.test
    scores = [score for score in class_scores(result) if score.images]
    worst, best = (choose(scores, key=lambda score: score.accuracy) for choose in (min, max))
    finding = (
        f"{best.name} is recognized best, {percent(best.accuracy)} of {count(best.images, 'image')}, and {worst.name} worst, "
        f"{percent(worst.accuracy)} of {worst.images:,}"
        + (
            f", most often mistaken for {worst.confused_with} ({count(worst.confusions, 'time')})."
            if worst.confusions
            else "."
        )
    )
    counts = confusion_matrix(result)
    places = _most_mistaken(counts)
    figures = {
        "classes": class_figure(scores),
        "confusion": confusion_figure(counts, result.classes),
    }
    html = render(
        "sections/classes.html",
        figure=panel(
            figures["classes"],
            "classes",
            f"Accuracy of each class with its 95% interval; {worst.name} is the worst",
        ),
        scores=scores,
        classes=result.classes,
        listed=sorted(scores, key=lambda score: score.accuracy)[:MOST]
        if len(scores) > MOST
        else scores,
        places=places.tolist(),
        matrix=_cells(counts[places][:, places]),
        worst=[
            (result.classes[pair.true], result.classes[pair.predicted], pair)
            for pair in worst_confusions(result, 10)
        ],
        closest=_closest(result)[:MOST],
        album=album,
    )
    return Section("Classes", finding, html, figures=figures)


def _most_mistaken(counts: Tensor) -> Tensor:  # at most (MOST,) int64, ascending
    """The classes that take part in most mistakes, all of them where they are few."""
    wrong = counts.clone().fill_diagonal_(0)
    return (wrong.sum(0) + wrong.sum(1)).argsort(descending=True, stable=True)[:MOST].sort().values


def _cells(counts: Tensor) -> list[list[tuple[int, int]]]:
    """Of each cell the count and its shade, from 0 to SHADES: mistakes by their share of the class's images."""
    shares = (counts / counts.sum(1, keepdim=True).clamp_min(1)).fill_diagonal_(0)
    shades = (SHADES * (shares / shares.max().clamp_min(1e-9)).sqrt()).ceil().long()
    return [
        list(zip(*rows, strict=True)) for rows in zip(counts.tolist(), shades.tolist(), strict=True)
    ]


def _closest(result: Predictions) -> list[tuple[int, str, list[tuple[int, str]]]]:
    """Of each class its place, its name, and the images that were nearly misclassified with their confidence."""
    shown = [
        (int(result.labels[index]), index) for index in least_confident_examples(result).tolist()
    ]
    rows = [
        (
            place,
            name,
            [
                (index, f"{result.confidence[index]:.2f}")
                for label, index in shown
                if label == place
            ],
        )
        for place, name in enumerate(result.classes)
    ]
    return [row for row in rows if row[2]]
