"""A progress bar on standard error that costs nothing where none is wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Step = Callable[[], None]


@contextlib.contextmanager
def bar(total: int, shown: bool, title: str = "rendering rooms") -> Iterator[Step]:
    """Give a function to be called after each of ``total`` images."""
    if not shown:
        yield lambda: None
        return
    from rich.console import Console  # takes longer to import than a few images to render
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
        task = progress.add_task(title, total=total, rate="")

        def step() -> None:
            speed = progress.tasks[0].speed
            progress.update(task, advance=1, rate=f"{speed:.1f} images/s" if speed else "")

        yield step
