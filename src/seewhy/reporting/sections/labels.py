"""Labels that may be wrong, and images that occur more than once."""

from seewhy.diagnosing.label_errors import label_errors
from seewhy.reporting.album import Album
from seewhy.reporting.diagnosis import PAIRS, SUSPECTS
from seewhy.reporting.section import Section, be, count, csv_link, percent, render
from seewhy.reporting.study import Study


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
            ["index", "name", "given", "suggested", "probability", "self_confidence", "reason"],
            [
                (
                    each.index,
                    study.name(each.index),
                    result.classes[each.given],
                    result.classes[each.suggested],
                    f"{each.probability:.6f}",
                    f"{each.self_confidence:.6f}",
                    each.reason,
                )
                for each in suspects
            ],
        ),
    )
    return Section("Labels in doubt", finding, html)
