"""Classes: accuracy, precision, recall and F1 of each, and the confusion matrix."""

from torch import Tensor

from seewhy.diagnosis.diagnosis import least_confident_examples
from seewhy.diagnosis.metrics import ClassScore, class_scores, most_confused, worst_confusions
from seewhy.diagnosis.predictions import Predictions, confusion_matrix
from seewhy.diagnosis.thresholds import RankingScores, ranking_scores
from seewhy.figures.classes import class_figure, confusion_figure
from seewhy.figures.thresholds import precision_recall_figure, roc_figure
from seewhy.reporting.context import ReportContext
from seewhy.reporting.formatting import percent
from seewhy.reporting.section import Section, figure_html, render
from seewhy.reporting.sprites import Sprites
from seewhy.wording import be, counted, have

SHADES = 8  # of a cell of the confusion matrix
MOST_CLASSES = 100  # in the confusion matrix and in the table
MOST_CONFUSIONS = 10
UPRIGHT = 2  # characters of a class name that fit above a cell of the matrix
_CURVES = {  # description and caption by name
    "roc": (
        "True-positive rate by false-positive rate",
        "AUROC: how often an image of the class has a higher probability of that class than an "
        "image of another one.",
    ),
    "precision_recall": (
        "Precision by recall",
        "Average precision of random predictions: the share of the class among the images.",
    ),
}


def classes_section(context: ReportContext, sprites: Sprites) -> Section:
    """Accuracy, precision, recall and F1 of each class, and the confusion matrix."""
    predictions = context.predictions
    ranking = ranking_scores(predictions)
    ranked_classes = {row.index: row for row in ranking.classes if not row.undefined}
    rows = [
        (score, ranked_classes.get(index))
        for index, score in enumerate(class_scores(predictions))
        if score.images
    ]
    worst_first = sorted(rows, key=lambda row: row[0].accuracy)
    counts = confusion_matrix(predictions)
    in_matrix = most_confused(counts, MOST_CLASSES)
    figures = {
        "classes": class_figure(predictions),
        "confusion": confusion_figure(predictions),
    }
    curves = {}
    if ranked_classes:
        curves = {
            "roc": roc_figure(predictions),
            "precision_recall": precision_recall_figure(predictions),
        }
    html = render(
        "sections/classes.html",
        figure=figure_html(figures["classes"], "classes", "Accuracy of each class"),
        rows=worst_first[:MOST_CLASSES] if len(rows) > MOST_CLASSES else rows,
        curves=[
            (figure_html(figure, name, _CURVES[name][0]), _CURVES[name][1])
            for name, figure in curves.items()
        ],
        curve_summary=_summarize_curves(ranking),
        total=len(rows),
        classes=predictions.classes,
        in_matrix=in_matrix.tolist(),
        cut=len(in_matrix) == MOST_CLASSES,
        upright=max(len(predictions.classes[index]) for index in in_matrix.tolist()) <= UPRIGHT,
        matrix=_cells(counts[in_matrix][:, in_matrix]),
        confusions=[
            (predictions.classes[pair.true], predictions.classes[pair.predicted], pair)
            for pair in worst_confusions(predictions, MOST_CONFUSIONS)
        ],
        least_confident=_least_confident(predictions)[:MOST_CLASSES],
        sprites=sprites,
    )
    return Section(
        "Classes", _finding([score for score, _ in rows]), html, figures=figures | curves
    )


def _finding(scores: list[ClassScore]) -> str:
    worst, best = (choose(scores, key=lambda score: score.accuracy) for choose in (min, max))
    if best.accuracy == worst.accuracy:
        return f"All classes have the same accuracy: {percent(best.accuracy)}."
    text = (
        f"{best.name} has the highest accuracy ({percent(best.accuracy)} of "
        f"{counted(best.images, 'image')}), {worst.name} the lowest "
        f"({percent(worst.accuracy)} of {worst.images:,})"
    )
    if not worst.confusions:
        return f"{text}."
    return (
        f"{text}; {counted(worst.confusions, 'image')} of {worst.name} {be(worst.confusions)} "
        f"predicted as {worst.confused_with}."
    )


def _summarize_curves(ranking: RankingScores) -> str:
    """What is positive, the areas under the curves, and which classes have none."""
    defined = [row for row in ranking.classes if not row.undefined]
    if not defined:
        return "Undefined, because all images are of one class."
    if len(ranking.classes) == 1:
        (row,) = defined
        return (
            f"Positive class: {row.name}. AUROC {row.auroc:.3f}, average precision "
            f"{row.average_precision:.3f} (of random predictions {row.prevalence:.3f})."
        )
    missing = len(ranking.classes) - len(defined)
    without = f", without {counted(missing, 'class')} that {have(missing)} no images"
    return (
        f"Each class against the rest: mean AUROC {ranking.macro_auroc:.3f}, mean average "
        f"precision {ranking.macro_average_precision:.3f}{without if missing else ''}."
    )


def _cells(counts: Tensor) -> list[list[tuple[int, int]]]:
    """Count and shade of each cell; the shade of an error is its fraction of the row."""
    shares = (counts / counts.sum(1, keepdim=True).clamp_min(1)).fill_diagonal_(0)
    shades = (SHADES * (shares / shares.max().clamp_min(1e-9)).sqrt()).ceil().long()
    return [
        list(zip(*rows, strict=True)) for rows in zip(counts.tolist(), shades.tolist(), strict=True)
    ]


def _least_confident(predictions: Predictions) -> list[tuple[int, str, list[tuple[int, str]]]]:
    """Index and name of each class, with its least confident correct images."""
    images: dict[int, list[tuple[int, str]]] = {}
    for index in least_confident_examples(predictions).tolist():
        confidence = f"{predictions.confidence[index]:.2f}"
        images.setdefault(int(predictions.labels[index]), []).append((index, confidence))
    return [(label, predictions.classes[label], images[label]) for label in sorted(images)]
