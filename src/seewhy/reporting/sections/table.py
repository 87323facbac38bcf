"""SECTIONS: what the report says, in order."""

from collections.abc import Callable

from seewhy.reporting.context import ReportContext
from seewhy.reporting.section import Section
from seewhy.reporting.sections.calibration import calibration_section
from seewhy.reporting.sections.classes import classes
from seewhy.reporting.sections.comparison import comparison
from seewhy.reporting.sections.experiment import experiment
from seewhy.reporting.sections.labels import labels
from seewhy.reporting.sections.mistakes import mistakes
from seewhy.reporting.sections.overview import overview_section
from seewhy.reporting.sections.robustness import robustness
from seewhy.reporting.sections.slices import slices
from seewhy.reporting.sections.training import training
from seewhy.reporting.sections.trust import trust
from seewhy.reporting.sprites import Sprites

# By the anchor in the page. A section gets the study and the page's images, and is left out where it returns None.
SECTIONS: dict[str, Callable[[ReportContext, Sprites], Section | None]] = {
    "verdict": overview_section,
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
