from .check import ExportCheck as ExportCheck
from .exporter import export as export
from .formats import FORMATS as FORMATS
