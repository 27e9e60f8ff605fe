"""Tables for a terminal of any width, and for a pipe."""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from keras_vit_edu._printing import Console

PIPE_WIDTH = 160  # columns of a table in a file or a pipe
SMALLEST = 8  # columns of text that a cell which folds needs
BORDER = 3  # columns of text between two cells
Cell = str | Text


def wide_console() -> Console:
    """The standard output, with enough width for a table if it is not a terminal."""
    console = Console()
    if not (console.is_terminal or console.is_jupyter):
        console.width = PIPE_WIDTH
    return console


def folding_table(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], width: int, whole: Iterable[str] = ()
) -> Table:
    """A table without truncated cells: long cells fold, between words if possible.

    Args:
        columns: headers of the columns.
        rows: cells of the rows.
        width: width of the terminal, in characters.
        whole: columns that do not fold, such as names that a reader types. In a very narrow terminal they fold too.
    """
    rows, whole = [list(row) for row in rows], set(whole)
    longest = [max((len(str(row[i])) for row in rows), default=0) for i in range(len(columns))]
    wanted = sum(count if name in whole else SMALLEST for name, count in zip(columns, longest, strict=True))
    is_wide_enough = wanted + BORDER * len(columns) + 1 <= width
    table = Table()
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name in whole and is_wide_enough)
    for row in rows:
        table.add_row(*row)
    return table
