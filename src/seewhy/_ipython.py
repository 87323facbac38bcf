"""Values that show themselves in a notebook: formatters registered where IPython runs."""

import sys

# Types as IPython names them: their modules are imported only if such a value exists.
SHOWN_TYPES = (
    ("seewhy.attribution.explanation", "Explanation"),
    ("seewhy.checks.result", "DataChecks"),
    ("seewhy.data.dataset", "Dataset"),
    ("seewhy.data.statistics", "Description"),
    ("seewhy.diagnosis.predictions", "Predictions"),
    ("seewhy.experiments.experiment", "Experiment"),
    ("seewhy.exporting.check", "ExportCheck"),
    ("seewhy.models.summary", "ModelSummary"),
    ("seewhy.runs.run", "Run"),
    ("seewhy.train.lr_finder", "LRRangeTest"),
    ("seewhy.train.recipe", "Recipe"),
)


def register_formatters() -> None:
    """Let IPython show the values of SHOWN_TYPES as HTML, and figures as PNG, if it is running."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    if shell is None:
        return
    formatters = shell.display_formatter.formatters
    for module, name in SHOWN_TYPES:
        formatters["text/html"].for_type_by_name(module, name, _html)
    # matplotlib registers its own only once pyplot is imported
    formatters["image/png"].for_type_by_name("matplotlib.figure", "Figure", _png)


def _html(value: object) -> str:
    from seewhy.reporting.notebook import to_html

    return to_html(value)


def _png(figure: object) -> bytes:
    from matplotlib.figure import Figure

    from seewhy.figures.style import figure_png

    assert isinstance(figure, Figure)
    return figure_png(figure)
