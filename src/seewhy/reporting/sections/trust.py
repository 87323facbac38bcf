"""How far the maps that the report shows can be believed."""

from seewhy.attribution.scores import TrustScore
from seewhy.diagnosis.saliency import MIN_MAP_SIDE
from seewhy.figures.trust import trust_figure
from seewhy.reporting.context import ReportContext
from seewhy.reporting.section import Section, count, panel, percent, render
from seewhy.reporting.sprites import Sprites


def trust(study: ReportContext, album: Sprites) -> Section:
    """Faithfulness and randomization of every method at every layer."""
    looks = study.diagnosis.saliency
    if looks is None:
        why = render("sections/untrusted.html", unexplained=study.diagnosis.saliency_error)
        return Section("Trust", "0 kinds of maps were measured.", why)
    verdicts = looks.scores
    best, believed = verdicts[0], sum(verdict.trusted for verdict in verdicts)
    finding = (
        f"{believed} of {len(verdicts)} kinds of maps pass both checks; the most faithful is {best.method} at {best.layer}, "
        f"with a gain of {best.gain.mean:+.2f} over chance."
    )
    figures = {"trust": trust_figure(verdicts)}
    html = render(
        "sections/trust.html",
        figure=panel(
            figures["trust"], "trust", "Faithfulness of each method at each layer, over chance"
        ),
        rows=[_row(verdict) for verdict in verdicts],
        best=looks.best,
        fine=MIN_MAP_SIDE,
        masks=best.pointing is not None,
        images=count(looks.images, "test image"),
    )
    return Section("Trust", finding, html, figures=figures)


def _row(verdict: TrustScore) -> tuple[str, ...]:
    low, high = verdict.gain.interval
    seen = (
        ()
        if verdict.pointing is None or verdict.energy is None
        else (percent(verdict.pointing, 0), percent(verdict.energy, 0))
    )
    return (
        verdict.layer,
        verdict.method,
        "yes" if verdict.trusted else "no",
        f"{verdict.gain.mean:+.3f} ({low:+.3f} to {high:+.3f})",
        f"{verdict.road.mean:+.3f}",
        f"{verdict.randomization.final:.2f}",
        *seen,
        percent(verdict.fine, 0),
    )
