"""A model's summary as a text table: a tree of its modules."""

import io
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from seewhy.models.summary import LayerSummary, ModelSummary, shape_text

GAP = 2  # spaces between columns of the table
NARROWEST = {"layer": 14, "type": 11}  # columns that fold, with their minimum width
LEFT_OUT_FIRST = ("input", "type", "%", "madds")
MEMORY_NOTE = "as in torchinfo: 1 MB is 10^6 bytes; activations count twice, for their gradients"


def format_summary(summary: ModelSummary, width: int = 80) -> str:
    """Format a summary as a text table.

    Modules are a tree; the row of a block counts all layers inside it. `%` is the percentage of the
    parameters. If the table is too wide, types and layer names are folded, then columns are left
    out and listed below it. A model such as resnet18 fits into 80 columns.

    Args:
        summary: The result of `model_summary`.
        width: Maximum characters per line, at least 40.
    """
    columns = summary_columns(summary)
    needed = _narrowest(columns)
    left_out = []
    for header in LEFT_OUT_FIRST:
        if _narrowest(columns) > width:
            left_out.append(header)
            del columns[header]
    output = io.StringIO()
    console = Console(
        file=output,
        width=width,
        color_system=None,
        force_jupyter=False,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
    batch = "" if summary.batch_size == 1 else f", batch size {summary.batch_size}"
    heading = f"{summary.title}, image {shape_text(summary.image_shape)}{batch}"
    console.print(f"{heading}\n", overflow="fold")
    console.print(_table(columns, width))
    console.print("", *_totals(summary), sep="\n")
    console.print(f"\n{MEMORY_NOTE}")
    if left_out:
        console.print(
            f"\nleft out to fit {width} columns: {', '.join(left_out)}; "
            f"{needed} columns show everything"
        )
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines())


def count_text(count: int) -> str:
    """A large count in millions or billions, as in 555.43 M and 17.77 G."""
    return f"{count / 1e9:,.2f} G" if count >= 1e9 else f"{count / 1e6:,.2f} M"


def summary_columns(summary: ModelSummary) -> dict[str, list[str]]:
    """The cells of each column, by header."""
    layers = summary.layers
    return {
        "layer": _tree(layers),
        "type": [f"{layer.type} {shape_text(layer.kernel, '')}".rstrip() for layer in layers],
        "input": [shape_text(layer.input_shape) for layer in layers],
        "output": [shape_text(layer.output_shape) for layer in layers],
        "params": [f"{layer.parameters:,}" if layer.parameters else "-" for layer in layers],
        "%": [_percent(layer.share) if layer.parameters else "-" for layer in layers],
        "madds": [f"{layer.multiply_adds:,}" if layer.multiply_adds else "-" for layer in layers],
    }


def _percent(share: float) -> str:
    """A share in at most four characters."""
    return "100" if share >= 0.9995 else f"{100 * share:.1f}"


def _tree(layers: Sequence[LayerSummary]) -> list[str]:
    """Names of the modules behind the lines of a tree, two characters per level."""
    labels: list[str] = []
    open_levels: set[int] = set()  # depths with a row further below, in the same block
    for layer in reversed(layers):
        depth = layer.depth
        if depth == 0:
            labels.append(layer.name)
            continue
        lines = "".join("│ " if level in open_levels else "  " for level in range(1, depth))
        corner = "├─" if depth in open_levels else "└─"
        labels.append(lines + corner + layer.name.rpartition(".")[2])
        open_levels = {level for level in open_levels if level < depth} | {depth}
    return labels[::-1]


def _widths(columns: Mapping[str, Sequence[str]]) -> dict[str, int]:
    return {header: max(map(len, [header, *cells])) for header, cells in columns.items()}


def _narrowest(columns: Mapping[str, Sequence[str]]) -> int:
    """Width of the table with layer names and types folded to their minimum."""
    widths = _widths(columns)
    folded = (min(width, NARROWEST.get(header, width)) for header, width in widths.items())
    return sum(folded) + GAP * (len(widths) - 1)


def _table(columns: Mapping[str, Sequence[str]], width: int) -> Table:
    """The table; rich folds text beyond `width`, types before layer names."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, GAP - 1, 0, 0))
    widths = _widths(columns)
    excess = sum(widths.values()) + GAP * (len(widths) - 1) - width
    for header in columns:
        if header not in NARROWEST:
            table.add_column(header, justify="right", no_wrap=True)
        elif header == "type":
            room = max(widths[header] - max(excess, 0), NARROWEST[header])
            table.add_column(header, overflow="fold", max_width=room)
        else:
            table.add_column(header, overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _totals(summary: ModelSummary) -> list[str]:
    return [
        f"parameters     {summary.parameters:,}",
        f"  trainable    {summary.trainable:,}",
        f"multiply-adds  {count_text(summary.multiply_adds)}",
        f"memory, MB     {summary.parameters_mb:,.2f} parameters",
        f"               {summary.activations_mb:,.2f} activations",
        f"               {summary.input_mb:,.2f} input",
        f"               {summary.total_mb:,.2f} total",
    ]
