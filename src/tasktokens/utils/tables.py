"""Tables that fit a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def tables_that_fit(
    columns: Sequence[tuple[str, Sequence[str]]], console: Console, title: str | None = None
) -> Iterator[Table]:
    """All columns, in as few tables as the console's width allows; the first column is repeated in each."""

    def table_of(chosen: Sequence[tuple[str, Sequence[str]]]) -> Table:
        table = Table(title=title if chosen[1:2] == rest[:1] else None)
        for name, _ in chosen:
            table.add_column(name, overflow="fold")
        for row in zip(*(cells for _, cells in chosen), strict=True):
            table.add_row(*row)
        return table

    first, *rest = columns
    begin = 0
    while begin < len(rest):
        end = begin + 1  # one column at least, however long its cells are
        while end < len(rest):
            wider = table_of([first, *rest[begin : end + 1]])
            if Measurement.get(console, console.options.update(max_width=10**6), wider).maximum > console.width:
                break
            end += 1
        yield table_of([first, *rest[begin:end]])
        begin = end
