"""SECTIONS: what the report says, in order."""

from collections.abc import Callable

from seewhy.reporting.album import Album
from seewhy.reporting.section import Section
from seewhy.reporting.sections.calibration import calibration_section
from seewhy.reporting.sections.classes import classes
from seewhy.reporting.sections.comparison import comparison
from seewhy.reporting.sections.experiment import experiment
from seewhy.reporting.sections.labels import labels
from seewhy.reporting.sections.mistakes import mistakes
from seewhy.reporting.sections.robustness import robustness
from seewhy.reporting.sections.slices import slices
from seewhy.reporting.sections.training import training
from seewhy.reporting.sections.trust import trust
from seewhy.reporting.sections.verdict import verdict
from seewhy.reporting.study import Study

# By the anchor in the page. A section gets the study and the page's images, and is left out where it returns None.
SECTIONS: dict[str, Callable[[Study, Album], Section | None]] = {
    "verdict": verdict,
    "comparison": comparison,
    "mistakes": mistakes,
    "classes": classes,
    "calibration": calibration_section,
    "robustness": robustness,
    "slices": slices,
    "labels": labels,
    "trust": trust,
    "experiment": experiment,
    "training": training,
}
