"""What explains the errors of a run, ranked by their number, and what to do next."""

from dataclasses import dataclass

from seewhy.diagnosis.metrics import ClassScore, class_scores, worst_confusions
from seewhy.reporting.context import ReportContext
from seewhy.reporting.formatting import percent
from seewhy.wording import be, counted

WEAK = 0.5  # accuracy below which most of a report's statistics describe the model's weakness
ACCURATE = 0.85  # accuracy from which a label that the model contradicts is worth a look
MANY_ISSUES = 0.1  # fraction of suspected labels, above which most are errors of the model
FEWEST_ERRORS = 2  # of a class or a confusion that is a finding


@dataclass(frozen=True)
class Finding:
    """A group of errors with something in common."""

    key: str  # of the section with the details
    title: str  # of that section
    errors: int  # that it explains
    text: str  # one or two sentences
    next_step: str  # what to do, as a sentence


def ranked_findings(context: ReportContext) -> list[Finding]:
    """The findings about the errors, those that explain most of them first.

    A class or a slice explains the errors that it has beyond the error rate of the other images.
    Suspected label errors explain those errors in which the model predicts the suggested label.
    """
    found = [_class(context), _confusion(context), _slice(context), _labels(context)]
    present = [finding for finding in found if finding is not None]
    return sorted(present, key=lambda finding: -finding.errors)


def weakness_note(context: ReportContext, subject: str, limit: float = WEAK) -> str:
    """A sentence for what means little below an accuracy of `limit`; empty above it."""
    accuracy = context.predictions.accuracy
    if accuracy >= limit:
        return ""
    return f"At an accuracy of {percent(accuracy)}, {subject} mean little: improve the model first."


def _class(context: ReportContext) -> Finding | None:
    """The class with most errors beyond the error rate of the other classes."""
    scores = [score for score in class_scores(context.predictions) if score.images]
    total, errors = sum(score.images for score in scores), _errors(context)

    def excess(score: ClassScore) -> float:
        own, others = _class_errors(score), total - score.images
        return own - score.images * (errors - own) / others if others else 0.0

    if len(scores) < 2:
        return None
    worst = max(scores, key=excess)
    own = _class_errors(worst)
    rest = (errors - own) / (total - worst.images)
    if own < FEWEST_ERRORS or worst.interval[1] >= 1 - rest:  # not significantly worse
        return None
    text = (
        f"{worst.images - own} of {counted(worst.images, 'image')} of {worst.name} "
        f"{be(worst.images - own)} classified correctly, {_share(own, errors)}."
    )
    action = f"Look at the errors of {worst.name}, and add training images of it"
    if worst.confusions:
        text += f" {worst.confusions} of these errors {be(worst.confusions)} predicted as "
        text += f"{worst.confused_with}."
        action += f"; check that it and {worst.confused_with} are labeled consistently"
    return Finding("classes", "Classes", round(excess(worst)), text, f"{action}.")


def _confusion(context: ReportContext) -> Finding | None:
    pairs = worst_confusions(context.predictions)
    if not pairs or pairs[0].images < FEWEST_ERRORS:
        return None
    images = pairs[0].images
    most = [pair for pair in pairs if pair.images == images]  # equally frequent
    classes = context.predictions.classes
    names = [f"{classes[pair.true]} predicted as {classes[pair.predicted]}" for pair in most]
    share = _share(images, _errors(context))
    action = "Compare the classes of each pair in the gallery, and add images that tell them apart."
    if len(most) == 1:
        text = f"The most frequent confusion is {names[0]}: {share}."
        true, predicted = classes[most[0].true], classes[most[0].predicted]
        action = f"Compare both classes in the gallery, and add images that tell {true} from "
        action += f"{predicted}."
    elif len(most) == 2:
        text = f"The most frequent confusions are {names[0]} and {names[1]}: each {share}."
    else:
        text = f"{len(most)} confusions are equally frequent, such as {names[0]}: each {share}."
    return Finding("errors", "Errors", images, text, action)


def _slice(context: ReportContext) -> Finding | None:
    """The weak slice with most errors beyond the error rate of the other images."""
    slices = context.diagnosis.slices
    if not slices or not _errors(context):
        return None
    worst = max(slices, key=lambda weak: weak.images * (weak.rest_accuracy - weak.accuracy))
    wrong = int((~context.predictions.correct[worst.members]).sum())
    text = (
        f"The slice “{worst.description}” ({counted(worst.images, 'image')}) has an accuracy of "
        f"{percent(worst.accuracy)}, {_share(wrong, _errors(context))}."
    )
    action = "Add training images like these, or an augmentation that makes them."
    excess = round(worst.images * (worst.rest_accuracy - worst.accuracy))
    note = weakness_note(context, "slices")
    return Finding("slices", "Weak slices", 0 if note else excess, f"{text} {note}".strip(), action)


def _labels(context: ReportContext) -> Finding | None:
    issues, predictions = context.label_issues, context.predictions
    if not issues:
        return None
    explained = sum(
        int(predictions.predicted[each.index]) == each.suggested_label for each in issues
    )
    labels = "the label is" if len(issues) == 1 else "the labels are"
    predictions_text = "is a correct prediction" if explained == 1 else "are correct predictions"
    text = (
        f"{counted(len(issues), 'suspected label error')}; if {labels} wrong, "
        f"{counted(explained, 'error')} of the model {predictions_text}."
    )
    note = label_note(context)
    action = "Check the most suspicious labels, and correct those that are wrong."
    errors = 0 if note else explained
    return Finding("label-issues", "Label issues", errors, f"{text} {note}".strip(), action)


def unusual_note(context: ReportContext) -> str:
    """The images that are unlike all others, in a sentence; empty if there are none."""
    images = [each.index for each in context.diagnosis.unusual if each.distinct]
    if not images:
        return ""
    label = context.predictions.classes[context.predictions.labels[images[0]]]
    first = f"{context.name(images[0])} (labeled {label})"
    if len(images) == 1:
        return f"{first} is unlike all other images."
    return f"{len(images)} images are unlike all others, such as {first}."


def label_note(context: ReportContext) -> str:
    """Why suspected label errors mean little; empty if they do not."""
    note = weakness_note(context, "suspected label errors", ACCURATE)
    share = len(context.label_issues) / len(context.predictions.labels)
    if note or share <= MANY_ISSUES:
        return note
    return "That many are mostly errors of the model: improve the model first."


def _errors(context: ReportContext) -> int:
    return int((~context.predictions.correct).sum())


def _class_errors(score: ClassScore) -> int:
    return round(score.images * (1 - score.accuracy))


def _share(errors: int, total: int) -> str:
    return f"{counted(errors, 'error')}, {percent(errors / total, 0)} of all {total:,}"
