from .context import ReportContext as ReportContext
from .context import make_context as make_context
from .page import report as report
from .page import report_experiment as report_experiment
from .section import Section as Section
from .sections.table import SECTIONS as SECTIONS
