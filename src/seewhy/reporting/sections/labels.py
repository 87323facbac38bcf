"""Labels that may be wrong, and images that occur more than once."""

from seewhy.diagnosing.label_errors import Suspect, label_errors
from seewhy.reporting.album import Album
from seewhy.reporting.diagnosis import PAIRS, SUSPECTS
from seewhy.reporting.section import Section, be, count, csv_link, percent, render
from seewhy.reporting.study import Study

IN_TABLE = 500  # suspects in the file to download


def labels(study: Study, album: Album) -> Section:
    """Confident learning's ranking with reasons, and duplicates across the splits."""
    result, diagnosis = study.test, study.diagnosis
    suspects = label_errors(result)
    pairs = diagnosis.duplicates
    unlike = sum(not pair.same_label for pair in pairs)
    finding = (
        f"{count(len(suspects), 'test label')} ({percent(len(suspects) / len(result.labels))}) {be(len(suspects))} in doubt, "
        f"and {count(len(pairs), 'pair')} of images in two splits {be(len(pairs))} "
        f"the same or nearly so, {unlike:,} of them with unlike labels."
    )
    html = render(
        "sections/labels.html",
        suspects=suspects[:SUSPECTS],
        total=len(suspects),
        pairs=pairs[:PAIRS],
        pairs_total=len(pairs),
        classes=result.classes,
        names={suspect.index: study.name(suspect.index) for suspect in suspects},
        album=album,
        csv=csv_link(
            ["name", "given", "suggested", "probability", "self_confidence", "threshold"],
            [_row(study, suspect) for suspect in suspects[:IN_TABLE]],
        ),
        in_table=min(IN_TABLE, len(suspects)),
    )
    return Section("Labels in doubt", finding, html)


def _row(study: Study, suspect: Suspect) -> tuple[str, ...]:
    given, suggested = (study.test.classes[place] for place in (suspect.given, suspect.suggested))
    numbers = (suspect.probability, suspect.self_confidence, suspect.threshold)
    return study.name(suspect.index), given, suggested, *(f"{number:.6f}" for number in numbers)
