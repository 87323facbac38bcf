"""Explanation quality: faithfulness and sanity check of every method at every layer."""

from seewhy.attribution.mosaics import MosaicScore
from seewhy.attribution.scores import TrustScore
from seewhy.attribution.statuses import PIXELS
from seewhy.diagnosis.saliency import MIN_MAP_SIDE
from seewhy.figures.trust import WHOLE_MODEL, trust_figure
from seewhy.reporting.context import ReportContext
from seewhy.reporting.formatting import count_of, layer_labels, map_name, percent
from seewhy.reporting.section import Section, figure_html, render
from seewhy.reporting.sprites import Sprites
from seewhy.wording import counted

HEADERS = (
    "layer",
    "method",
    "passes",
    "#gain (95% CI)",
    "#random weights",
    "#mosaics (95% CI)",
    "#non-empty",
)
ROAD_HEADERS = ("#ROAD",)  # the columns that are there if they were measured
MASK_HEADERS = ("#pointing game", "#relevance inside the object")
TITLE = "Explanation quality"


def trust_section(context: ReportContext, sprites: Sprites) -> Section | None:
    """Faithfulness and parameter randomization of every method at every layer.

    None for predictions alone.
    """
    if context.classifier is None:
        return None
    saliency = context.diagnosis.saliency
    if saliency is None:
        html = render("sections/trust.html", unexplained=context.diagnosis.saliency_error)
        return Section(TITLE, "No heat maps: the model cannot be explained.", html)
    scores = saliency.scores
    labels = {PIXELS: WHOLE_MODEL} | layer_labels(saliency.maps.layers)
    first, best, passed = scores[0], saliency.best, sum(score.trusted for score in scores)
    images = count_of(saliency.images, context.diagnosis.measured_images, context.images_noun)
    checks = "all checks" if first.mosaic else "two of three checks; for mosaics they were too few"
    # those that pass come first; another one may have a higher gain
    subject = {0: "The most faithful", 1: "It"}.get(passed, "The most faithful of them")
    finding = (
        f"{passed} of {counted(len(scores), 'combination')} of method and layer "
        f"{'passes' if passed == 1 else 'pass'} {checks} ({images}). "
        f"{subject} is {map_name(first.method, first.layer, saliency.maps.layers)}, "
        f"with a gain of {first.gain.mean:+.2f} over random maps."
    )
    with_road, has_masks = first.road is not None, first.pointing is not None
    figures = {"trust": trust_figure(scores)}
    html = render(
        "sections/trust.html",
        unexplained="",
        figure=figure_html(figures["trust"], "trust", "Faithfulness of each method and layer"),
        headers=[
            *HEADERS,
            *(ROAD_HEADERS if with_road else ()),
            *(MASK_HEADERS if has_masks else ()),
        ],
        rows=[_row(score, labels) for score in scores],
        passed=best.trusted,
        map_name=map_name(best.method, best.layer, saliency.maps.layers),
        smallest_side=MIN_MAP_SIDE,
        images=images,
        with_road=with_road,
    )
    return Section(TITLE, finding, html, figures=figures)


def _row(score: TrustScore, labels: dict[str, str]) -> tuple[str, ...]:
    low, high = score.gain.interval
    row = [
        labels[score.layer],
        score.method,
        "yes" if score.trusted else f"no: {', '.join(score.failed_checks)}",
        f"{score.gain.mean:+.2f} ({low:+.2f} to {high:+.2f})",
        f"{score.sanity.final_similarity:.2f}",
        _mosaic_text(score.mosaic),
        percent(score.non_empty, 0),
    ]
    if score.road is not None:
        row.append(f"{score.road.mean:+.2f}")
    if score.pointing is not None and score.relevance_mass is not None:
        row += [percent(score.pointing, 0), percent(score.relevance_mass, 0)]
    return tuple(row)


def _mosaic_text(mosaic: MosaicScore | None) -> str:
    if mosaic is None:
        return "–"
    low, high = mosaic.relevance_mass.interval
    mean = percent(mosaic.relevance_mass.mean, 0)
    return f"{mean} ({percent(low, 0)} to {percent(high, 0)})"
