"""Progress on standard error that costs nothing where none is wanted."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")
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


def track(
    items: Iterable[Item], doing: str, shown: bool, total: int | None = None, every: float = 15.0
) -> Iterator[Item]:
    """The items, with progress on standard error: a bar on a terminal, elsewhere a line every 15 seconds.

    ``total``: how many they are, where they have no length.
    """
    total = len(items) if total is None and isinstance(items, Sized) else total
    if not shown or not total:
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as bar_of

    console = Console(stderr=True)
    if console.is_terminal:
        yield from bar_of(items, description=doing, console=console, total=total)
        return
    started = said = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - said >= every or number == total:
            said, speed = now, number / max(now - started, 1e-9)
            left = int((total - number) / speed)
            text = f"{doing} {number}/{total} | {speed:.1f} images/s | ETA {left // 60}:{left % 60:02d}"
            print(text, file=sys.stderr, flush=True)
