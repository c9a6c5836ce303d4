"""Output and input that commands share: progress bars, tables, CSV, parameters of the form name=value."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ctenrich.cli.progress_lines import progress_lines
from ctenrich.cli.text import printable
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

if TYPE_CHECKING:
    from ctenrich.progress import Progress

__all__ = [
    "csv_text",
    "keep_libraries_off_console",
    "parse_parameters",
    "print_csv",
    "print_table",
    "progress_bars",
]


class _Bars:
    """Progress bars on the terminal; notes appear above them."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def start(self, task: str, total: float | None = None) -> None:
        if task in self._tasks:
            self._bars.reset(self._tasks[task], total=total)
        else:
            self._tasks[task] = self._bars.add_task(task, total=total, status="")

    def advance(self, task: str, amount: float = 1) -> None:
        if task in self._tasks:
            self._bars.advance(self._tasks[task], amount)

    def note(self, message: str) -> None:
        self._bars.console.print(printable(message), markup=False, highlight=False, emoji=False)

    def status(self, task: str, text: str) -> None:
        if task in self._tasks:
            self._bars.update(self._tasks[task], status=text)

    def finish(self, task: str) -> None:
        if task not in self._tasks:
            return
        if task != "series":
            self._bars.remove_task(self._tasks.pop(task))


def keep_libraries_off_console() -> None:
    """Keep what native libraries print (decoders, about damaged images) off the console, for the rest of the process.

    Such libraries write to the file descriptors 1 and 2, which child processes inherit too. From now on these lead
    nowhere, and Python's own streams to where they led before. CTENRICH_LIBRARY_MESSAGES=1 leaves them as they are.
    """
    import faulthandler
    import sys

    if os.environ.get("CTENRICH_LIBRARY_MESSAGES", "") not in ("", "0"):
        return
    try:
        streams = {1: sys.stdout, 2: sys.stderr}
        for number, stream in streams.items():
            stream.flush()
            if stream.fileno() != number:
                return  # somebody else has redirected them
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except (AttributeError, OSError, ValueError):
        return  # there is no console
    own = [
        os.fdopen(
            os.dup(number),
            "w",
            buffering=1 if number == 2 or stream.isatty() else -1,
            encoding=stream.encoding,
            errors=stream.errors,
        )
        for number, stream in streams.items()
    ]
    sys.stdout, sys.stderr = own
    for number in streams:
        os.dup2(nowhere, number)
    os.close(nowhere)
    faulthandler.enable(sys.stderr)  # a crash in a library has nothing but its trace to show


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show progress on stderr: bars on a terminal, otherwise a line at the start and one per minute."""
    import sys

    if not sys.stderr.isatty() and not os.environ.get("FORCE_COLOR"):
        with progress_lines() as lines:
            yield lines
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[status]}", markup=False),
    )  # fmt: skip
    with Bars(*columns, console=Console(stderr=True), transient=False) as bars:
        yield _Bars(bars)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on stdout, with numbers aligned to the right; text is shown as it is, without markup or emoji.

    Where the columns would become too narrow to be read, each row is printed as a list of its columns.

    Parameters
    ----------
    title : str
        Line above the table.
    columns : sequence of str
        Names of the columns.
    rows : iterable of sequence
        Values, in the order of the columns.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    material = [tuple(row) for row in rows]
    if material and _needed_width(columns, material) > console.width:
        _print_lists(title, columns, material)
        return
    table = Table(title=Text(printable(title)), title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        number = bool(material) and all(isinstance(row[i], int | float) or row[i] == "" for row in material)
        table.add_column(Text(printable(column)), justify="right" if number else "left", overflow="fold")
    for row in material:
        table.add_row(*(Text(_shown(value)) for value in row))
    console.print(table)


_LEGIBLE = 24
"""Width of a column that holds longer texts, folded, without being hard to read."""


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value))


def _needed_width(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
    """Width of a table in which every column is legible, frame included."""
    longest = [max(len(_shown(row[i])) for row in rows) for i in range(len(columns))]
    return 1 + sum(3 + max(len(name), min(long, _LEGIBLE)) for name, long in zip(columns, longest, strict=True))


def _print_lists(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    import typer

    width = max(len(name) for name in columns)
    typer.echo(printable(title))
    for number, row in enumerate(rows, start=1):
        typer.echo(f"--- {number} of {len(rows)}")
        for name, value in zip(columns, row, strict=True):
            typer.echo(f"{printable(name):<{width}}  {_shown(value)}".rstrip())


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print CSV on stdout, see :func:`csv_text`.

    Parameters
    ----------
    columns : sequence of str
        Header.
    rows : iterable of sequence
        Values, in the order of the columns.
    """
    import sys

    sys.stdout.write(csv_text(columns, rows))


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return CSV; a missing value is an empty cell, and no text is taken for a formula by a spreadsheet.

    Parameters
    ----------
    columns : sequence of str
        Header.
    rows : iterable of sequence
        Values, in the order of the columns.

    Returns
    -------
    str
    """
    import csv
    import io

    from ctenrich.results.csv_cells import csv_cell

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([csv_cell(value) for value in row] for row in (columns, *rows))
    return text.getvalue()


def parse_parameters(pairs: Sequence[str]) -> dict[str, object]:
    """Parse ``["a=1", "b=x"]`` into ``{"a": 1, "b": "x"}``: whole numbers, decimals, true/false, otherwise text.

    Raises
    ------
    UsageError
        BAD_PARAMETER for anything without a ``=`` or with a name that is not an identifier.
    """
    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(Reason.BAD_PARAMETER, f"{pair!r} is not of the form name=value")
        found[name] = _parse_value(value)
    return found


def _parse_value(text: str) -> object:
    from ctenrich.catalog.queries import GivenFloat, GivenInt

    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (GivenInt, GivenFloat):
        try:
            number = kind(text)
        except ValueError:
            continue
        number.text = text
        return number
    return text
