"""Images through a network: read ahead, computed in batches of one size, finished in other threads, handed on in order.

Reading, decoding logits and writing files take threads and no processes: decoders, zlib, NumPy and torch release
Python's lock while they work, and nothing has to be sent anywhere.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")
Computed = TypeVar("Computed")
Logits = Mapping[str, Tensor]

LARGEST = 16_000_000
"""Pixels that are decoded and written at a time: a photograph alone, or many small images side by side."""


class Stopped(Exception):
    """Raised while an item is finished: the work was told to end, and what there is of the item counts for nothing."""


class Read(NamedTuple):
    """What is kept of an item that was read.

    Attributes:
        seen_13hw: what the network gets to see; None: it is not asked.
        pixels: of the image, whose predictions fill memory.
        about: whatever is needed to finish it.
    """

    seen_13hw: Tensor | None
    pixels: int = 0
    about: Any = None


def workers() -> int:
    """Threads that read and finish images: one per core that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


class Stream(Generic[Item, Computed, Result]):
    """Items that become results. Memory does not grow with their number.

    Args:
        read: called in threads, some items ahead.
        compute: what the network says of several images, which it gets in batches of one size.
        finish: called in threads with an item, what was read of it and what was computed; None where it was not
            asked.
        batch: how many images of a size are computed at once. To fill batches of several sizes, up to four times as
            many are read ahead, and results come in the order of the batches.
        stopped: once it says True nothing more is begun; what is being finished still comes out.
    """

    def __init__(
        self,
        read: Callable[[Item], Read],
        compute: Callable[[Sequence[Tensor]], Sequence[Computed]],
        finish: Callable[[Item, Any, Computed | None], Result],
        batch: int = 1,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.read, self.compute, self.finish = read, compute, finish
        self.batch, self.stopped = batch, stopped
        self.workers, self.room = workers(), _Room(LARGEST)

    def __call__(self, items: Iterable[Item]) -> Generator[tuple[Item, Result], None, None]:
        """Items and results, in order; use it in ``contextlib.closing``.

        Raises what reading, computing or finishing raised; nothing is begun then, and what has begun is ended first.
        """
        pool = ThreadPoolExecutor(self.workers, "images")
        finishing: deque[tuple[Item, Future[tuple[Result] | None]]] = deque()
        try:
            for group in self._groups(pool, items):
                for (item, read), logits in zip(group, self._logits(group), strict=True):
                    finishing.append((item, pool.submit(self._finish, item, read, logits)))
                while finishing and (finishing[0][1].done() or len(finishing) > self.workers + self.batch):
                    yield from _finished(*finishing.popleft())
            while finishing:
                yield from _finished(*finishing.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _groups(self, pool: ThreadPoolExecutor, items: Iterable[Item]) -> Iterator[Sequence[tuple[Item, Read]]]:
        """Items whose images the network sees at one size, up to ``batch`` of them."""
        left, ahead = iter(items), self.workers + self.batch
        reading: deque[tuple[Item, Future[Read]]] = deque()
        waiting: list[tuple[Item, Read]] = []
        while not self.stopped():
            reading.extend((item, pool.submit(self.read, item)) for item in islice(left, ahead - len(reading)))
            same = _like_the_first(waiting)
            if reading and len(same) < self.batch and len(waiting) < 4 * self.batch:
                item, future = reading.popleft()
                waiting.append((item, future.result()))
            elif waiting:
                chosen = same[: self.batch]
                yield [waiting[place] for place in chosen]
                waiting = [one for place, one in enumerate(waiting) if place not in chosen]
            else:
                return

    def _logits(self, group: Sequence[tuple[Item, Read]]) -> Sequence[Computed | None]:
        seen = [read.seen_13hw for _, read in group if read.seen_13hw is not None]
        return self.compute(seen) if seen else [None] * len(group)

    def _finish(self, item: Item, read: Read, logits: Computed | None) -> tuple[Result] | None:
        if self.stopped():
            return None
        with self.room.taken(read.pixels), suppress(Stopped):
            return (self.finish(item, read.about, logits),)
        return None


def _finished(item: Item, future: Future[tuple[Result] | None]) -> Iterator[tuple[Item, Result]]:
    """The item with its result, once it is there; nothing for one that was not begun any more."""
    for result in future.result() or ():
        yield item, result


def _like_the_first(waiting: Sequence[tuple[Item, Read]]) -> list[int]:
    """Places of what has the size of the first, or like it needs no network."""
    sizes = [None if read.seen_13hw is None else read.seen_13hw.shape for _, read in waiting]
    return [place for place, size in enumerate(sizes) if size == sizes[0]]


class _Room:
    """So many pixels are in work at a time; more than that alone."""

    def __init__(self, most: int) -> None:
        self.most = self.free = most
        self.changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        pixels = min(pixels, self.most)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.free += pixels
                self.changed.notify_all()
