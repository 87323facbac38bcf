"""The sections of the report, one module each, and their table."""

from collections.abc import Callable

from seewhy.reporting.context import ReportContext
from seewhy.reporting.section import Section
from seewhy.reporting.sections.calibration import calibration_section
from seewhy.reporting.sections.classes import classes_section
from seewhy.reporting.sections.comparison import comparison_section
from seewhy.reporting.sections.errors import errors_section
from seewhy.reporting.sections.experiment import experiment_section
from seewhy.reporting.sections.image_map import image_map_section
from seewhy.reporting.sections.label_issues import label_issues_section
from seewhy.reporting.sections.model import model_section
from seewhy.reporting.sections.overview import overview_section
from seewhy.reporting.sections.robustness import robustness_section
from seewhy.reporting.sections.slices import slices_section
from seewhy.reporting.sections.subgroups import subgroups_section
from seewhy.reporting.sections.training import training_section
from seewhy.reporting.sections.trust import trust_section
from seewhy.reporting.sprites import Sprites

# By anchor, in the order of the page. A section that returns None is left out.
SECTIONS: dict[str, Callable[[ReportContext, Sprites], Section | None]] = {
    "overview": overview_section,
    "comparison": comparison_section,
    "errors": errors_section,
    "classes": classes_section,
    "calibration": calibration_section,
    "robustness": robustness_section,
    "slices": slices_section,
    "image-map": image_map_section,
    "subgroups": subgroups_section,
    "label-issues": label_issues_section,
    "trust": trust_section,
    "experiment": experiment_section,
    "training": training_section,
    "model": model_section,
}
