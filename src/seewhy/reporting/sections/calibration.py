"""Whether the network is as sure as it is right."""

from seewhy.diagnosis.calibration import Calibration, coverage_at_accuracy, risk_coverage_curve
from seewhy.figures.calibration import reliability_figure, risk_coverage_figure
from seewhy.reporting.context import ReportContext
from seewhy.reporting.section import Section, panel, percent, render
from seewhy.reporting.sprites import Sprites

TARGETS = (0.95, 0.99)  # accuracies that one might ask for


def calibration_section(study: ReportContext, album: Sprites) -> Section:
    """Reliability, its measures before and after temperature scaling, and accuracy against coverage."""
    result = study.test
    before, scaling = study.calibration, study.scaling
    mean = result.confidence.mean().item()
    direction = "over" if mean > result.accuracy else "under"
    finding = (
        f"The network is {percent(mean)} sure on average and {percent(result.accuracy)} right: {direction}confident, "
        f"with an expected calibration error of {percent(before.ece)}."
    )
    after = None if scaling is None else scaling.after
    reached = [(target, coverage_at_accuracy(result, target)) for target in TARGETS]
    figures = {
        "reliability": reliability_figure(before, after),
        "coverage": risk_coverage_figure(risk_coverage_curve(result)),
    }
    html = render(
        "sections/calibration.html",
        panels=[
            (
                panel(figures["reliability"], "reliability", finding),
                "Below the diagonal: surer than right.",
            ),
            (
                panel(
                    figures["coverage"],
                    "coverage",
                    "Accuracy of the images that are answered against their share",
                ),
                "If the network may decline the images that it is least sure of.",
            ),
        ],
        rows=[
            _row(name, measured)
            for name, measured in (("as trained", before), ("with temperature scaling", after))
            if measured
        ],
        scaling=scaling,
        reached=[(target, *found) for target, found in reached if found is not None],
        unreached=[target for target, found in reached if found is None],
    )
    return Section("Calibration", finding, html, figures=figures)


def _row(name: str, measured: Calibration) -> tuple[str, ...]:
    return (
        name,
        percent(measured.ece, 2),
        percent(measured.mce, 1),
        f"{measured.brier:.4f}",
        f"{measured.nll:.4f}",
    )
