"""Where the time and the memory of training go."""

from __future__ import annotations

import time

import psutil
import torch


class Clock:
    """Where the time goes: waiting for data, images per second; means since the last `read`."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._wait = self._busy = 0.0
        self._images = self._steps = 0
        self.seconds_per_step = 0.0

    def loaded(self) -> None:
        """A batch has arrived."""
        now = time.monotonic()
        self._wait, self._last = self._wait + now - self._last, now

    def skip(self) -> None:
        """Do not count the time since the last step, such as that of saving."""
        self._last = time.monotonic()

    def stepped(self, images: int) -> None:
        """A step on ``images`` images has been taken."""
        now = time.monotonic()
        self._busy, self._last = self._busy + now - self._last, now
        self._images, self._steps = self._images + images, self._steps + 1

    def read(self) -> dict[str, float]:
        """Images per second and the share of time spent waiting for data."""
        total = self._wait + self._busy
        self.seconds_per_step = total / self._steps
        values = {"images_per_second": self._images / total, "data_wait": self._wait / total}
        self._wait = self._busy = 0.0
        self._images = self._steps = 0
        return values


def memory_mb(device: torch.device) -> float:
    """Peak memory of a GPU, or resident memory of this process, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return float(psutil.Process().memory_info().rss) / 2**20
