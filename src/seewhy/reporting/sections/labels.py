"""Labels that may be wrong, and images that occur more than once."""

import torch

from seewhy.diagnosis.diagnosis import MAX_DUPLICATES, MAX_LABEL_ISSUES
from seewhy.diagnosis.duplicates import DuplicatePair
from seewhy.diagnosis.label_issues import LabelIssue
from seewhy.reporting.context import ReportContext
from seewhy.reporting.section import Section, be, count, csv_link, percent, render
from seewhy.reporting.sprites import Sprites

IN_TABLE = 500  # suspects in the file to download


def labels(study: ReportContext, album: Sprites) -> Section:
    """Confident learning's ranking with reasons, and duplicates across the splits."""
    result, diagnosis = study.test, study.diagnosis
    suspects, pairs = study.suspects, diagnosis.duplicates
    finding = (
        f"{count(len(suspects), 'test label')} ({percent(len(suspects) / len(result.labels))}) {be(len(suspects))} in doubt, and "
        f"{_twins(study)}"
    )
    html = render(
        "sections/labels.html",
        suspects=suspects[:MAX_LABEL_ISSUES],
        total=len(suspects),
        pairs=pairs[:MAX_DUPLICATES],
        pairs_total=len(pairs),
        classes=result.classes,
        names={suspect.index: study.name(suspect.index) for suspect in suspects},
        album=album,
        csv=csv_link(
            ["index", "name", "given", "suggested", "probability", "self_confidence", "threshold"],
            [_row(study, suspect) for suspect in suspects[:IN_TABLE]],
        ),
        in_table=min(IN_TABLE, len(suspects)),
    )
    return Section("Labels in doubt", finding, html)


def _twins(study: ReportContext) -> str:
    """How many test images the network may have been trained on, and how good it is without them."""
    right = study.test.correct
    seen = sorted({index for pair in study.diagnosis.duplicates for index in _in_training(pair)})
    if not seen:
        return "no test image was found in another split."
    others = right[torch.isin(torch.arange(len(right)), torch.tensor(seen), invert=True)]
    without = (
        f"; without them {percent(others.float().mean().item(), 2)} are right"
        if len(others)
        else ""
    )
    return f"{count(len(seen), 'test image')} {be(len(seen))} nearly or wholly the same as one in training{without}."


def _in_training(pair: DuplicatePair) -> list[int]:
    """The test image of a pair with an image of another split."""
    places = dict((pair.first, pair.second))
    return [places["test"]] if places.keys() == {"test", "train"} else []


def _row(study: ReportContext, suspect: LabelIssue) -> tuple[object, ...]:
    given, suggested = (
        study.test.classes[place] for place in (suspect.given_label, suspect.suggested_label)
    )
    numbers = (suspect.probability, suspect.self_confidence, suspect.threshold)
    return (
        suspect.index,
        study.name(suspect.index),
        given,
        suggested,
        *(f"{number:.6f}" for number in numbers),
    )
