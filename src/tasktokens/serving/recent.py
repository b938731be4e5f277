"""The last predictions of the page, at the pixels that it shows, in memory of a fixed size."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from tasktokens.serving.answers import keep
from tasktokens.serving.service import Asked
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.utils.pictures import nearest_pixels


class Seen(NamedTuple):
    """One task.

    Attributes:
        task: the task.
        value_CHW: its values at the shown pixels.
        confidence_HW: their confidence in [0, 1].
    """

    task: Task
    value_CHW: Array
    confidence_HW: Array


class Picked(NamedTuple):
    """One pixel of one task.

    Attributes:
        name: of the task.
        text: its value with its unit, or the name of its class.
        confidence: in [0, 1].
    """

    name: str
    text: str
    confidence: float


class Gathered(NamedTuple):
    """What the page keeps of a prediction.

    Attributes:
        image_HW3: as it is shown.
        size: (height, width) of the image that was sent.
        tasks: by name.
        notes: for the person who sent it.
    """

    image_HW3: Array
    size: tuple[int, int]
    tasks: Mapping[str, Seen]
    notes: tuple[str, ...]

    def at(self, across: float, down: float) -> tuple[int, int, list[Picked]]:
        """The shown pixel at these shares of width and height, 0 to 1: its x and y in the image that was sent, and
        every task's value there."""
        rows, columns = nearest_pixels(*self.size)
        row, column = (
            min(int(share * count), count - 1) for share, count in ((down, len(rows)), (across, len(columns)))
        )
        picked = [
            Picked(name, seen.task.value_text(seen.value_CHW[:, row, column]), float(seen.confidence_HW[row, column]))
            for name, seen in self.tasks.items()
        ]
        return int(columns[column]), int(rows[row, 0]), picked

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.image_HW3.nbytes + sum(
            seen.value_CHW.nbytes + seen.confidence_HW.nbytes for seen in self.tasks.values()
        )


def gather(asked: Asked) -> Gathered:
    """What the page needs of what the network says."""
    tasks = {}
    for name, task in asked.predictor.tasks.items():
        kept = keep(asked, name)
        tasks[name] = Seen(task, kept.value_CHW, kept.confidence_HW)
    return Gathered(asked.shown_HW3, asked.size, tasks, asked.notes)


class Recent:
    """Predictions by a key that cannot be guessed; the oldest are forgotten.

    Args:
        most: bytes.
        seconds: after which one is forgotten in any case.
    """

    def __init__(self, most: int = 256 * 2**20, seconds: float = 1800) -> None:
        self._most, self._seconds = most, seconds
        self._kept: OrderedDict[str, tuple[float, Gathered]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, gathered: Gathered) -> str:
        """Keep one; its key."""
        key = secrets.token_urlsafe(12)
        with self._lock:
            self._kept[key] = (time.monotonic(), gathered)
            self._forget()
        return key

    def get(self, key: str) -> Gathered | None:
        """One that is still there."""
        with self._lock:
            self._forget()
            found = self._kept.get(key)
        return None if found is None else found[1]

    def _forget(self) -> None:
        total = sum(gathered.nbytes for _, gathered in self._kept.values())
        while len(self._kept) > 1 and total > self._most:
            total -= self._kept.popitem(last=False)[1][1].nbytes
        late = time.monotonic() - self._seconds
        for key in [key for key, (since, _) in self._kept.items() if since < late]:
            del self._kept[key]
