"""Tables of data, whose words are broken only where the terminal is too narrow for them."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from seewhy.escaping import visible

GAP = 3  # between columns: a divider, which is a space, and the padding on both sides of it
NARROW_GAP = 2  # where the whole table does not fit otherwise


class DataTable(Table):
    """A table whose cells are data; rich itself narrows the widest column, also inside words."""

    def __init__(self) -> None:
        super().__init__(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(
            *(visible(cell) if isinstance(cell, str) else cell for cell in cells), **options
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        measured = [
            [Measurement.get(console, options, cell) for cell in _cells(column)]
            for column in self.columns
        ]
        widths = [max(cell.maximum for cell in column) for column in measured]
        words = [max(cell.minimum for cell in column) for column in measured]
        gaps = len(widths) - 1
        if sum(widths) + GAP * gaps > options.max_width:
            self.padding = (0, NARROW_GAP - 1, 0, 0)
            room = options.max_width - NARROW_GAP * gaps
            widths = self._narrowed(widths, words, room, console)  # by lines of whole words
            widths = self._narrowed(widths, [1] * len(widths), room, console)
            for column, width in zip(self.columns, widths, strict=True):
                column.width = width
        yield from super().__rich_console__(console, options)

    def _narrowed(
        self, widths: list[int], least: list[int], room: int, console: Console
    ) -> list[int]:
        """Reduce the largest widths, none below its least one, until their sum fits the room."""
        widths = list(widths)
        while sum(widths) > room:
            reducible = [index for index, width in enumerate(widths) if width > least[index]]
            if not reducible:
                break
            widest = max(reducible, key=lambda index: widths[index])
            limit = widths[widest] - 1
            lines = [
                cell_len(line.plain.rstrip())
                for cell in _cells(self.columns[widest])
                if isinstance(cell, str)
                for line in Text(cell).wrap(console, limit, overflow="fold")
            ]
            widths[widest] = max(least[widest], min(limit, max(lines)))
        return widths


def _cells(column: Column) -> list[RenderableType]:
    return [column.header, *column.cells]
