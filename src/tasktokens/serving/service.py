"""From the bytes of a request to a prediction: checked, queued, computed, within its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from tasktokens.inference.predictor import Predictor
from tasktokens.serving.limits import Limits, RefusedError, too_slow
from tasktokens.serving.monitoring import Monitor
from tasktokens.serving.uploads import check_header, read_upload
from tasktokens.serving.worker import Worker
from tasktokens.tasks.base import Array
from tasktokens.utils import console
from tasktokens.utils.pictures import reduced

Answer = TypeVar("Answer")

_AT_ONCE = 2
"""Images that are decoded, and predictions that are written, at the same time: each may take hundreds of MB."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What the network says of an upload.

    Attributes:
        predictor: that was asked.
        logits: (1, K, h, w) by task.
        size: (height, width) of the image.
        shown_HW3: the image, at most `tasktokens.utils.pictures.LARGEST` pixels per side.
        notes: for the person who sent it.
    """

    predictor: Predictor
    logits: Mapping[str, Tensor]
    size: tuple[int, int]
    shown_HW3: Array
    notes: tuple[str, ...]


class Service:
    """A model behind a queue, for the API and the page alike.

    Args:
        predictor: the model; nothing else may use it.
        name: of the model, for answers.
        limits: what is accepted.
    """

    def __init__(self, predictor: Predictor, name: str, limits: Limits) -> None:
        self.predictor, self.name, self.limits = predictor, name, limits
        self.monitor = Monitor()
        self.worker = Worker(predictor.logits, limits.batch, self.monitor.observe_batch)
        self._threads = ThreadPoolExecutor(limits.queue, "request")
        self._headers = ThreadPoolExecutor(_AT_ONCE, "header")  # so that a bad upload is refused however long the queue
        self._count, self._counting = 0, threading.Lock()
        self._reading, self._writing = (threading.BoundedSemaphore(_AT_ONCE) for _ in range(2))

    def check(self, data: bytes) -> Future[None]:
        """`check_header` in another thread."""
        return self._headers.submit(check_header, data, self.limits)

    def submit(self, data: bytes, write: Callable[[Asked], Answer]) -> Future[Answer]:
        """Predict for an upload and ``write`` an answer of what the network says, in another thread.

        Raises:
            RefusedError: 503 at once where the queue is full; the future raises what `read_upload` does, 504 after the
                time limit, 500 where the model fails.
        """
        deadline = time.monotonic() + self.limits.seconds
        with self._counting:
            if self._count >= self.limits.queue:
                raise RefusedError(
                    503, f"{self._count} requests are in progress; try again", self.monitor.seconds_for(self._count)
                )
            self._count += 1
            self.monitor.in_progress.set(self._count)
        future = self._threads.submit(self._answer, data, write, deadline)
        future.add_done_callback(self._done)
        return future

    def close(self) -> None:
        """End all threads; whoever waits gets an error."""
        self.worker.close()
        for threads in (self._threads, self._headers):
            threads.shutdown(wait=True, cancel_futures=True)

    def _answer(self, data: bytes, write: Callable[[Asked], Answer], deadline: float) -> Answer:
        with self._turn(self._reading, deadline):
            upload = read_upload(data, self.limits)
            image = upload.image_HW3
            seen, size, shown = self.predictor.prepare(image), (image.shape[0], image.shape[1]), reduced(image).copy()
        notes = upload.notes
        del upload, image, data  # only small things wait in the queue
        asked = Asked(self.predictor, self._logits(seen, deadline), size, shown, notes)
        with self._turn(self._writing, deadline):
            return write(asked)

    def _logits(self, seen_13hw: Tensor, deadline: float) -> Mapping[str, Tensor]:
        try:
            return self.worker.submit(seen_13hw, deadline).result(max(0.0, deadline - time.monotonic()))
        except TimeoutError as error:
            raise too_slow(self.limits) from error
        except Exception as error:
            console.say(f"serve: the model failed ({type(error).__name__}: {' '.join(str(error).split())[:300]})")
            memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
            why = "the memory is too small for this image" if memory else "the model failed; the server's log says why"
            raise RefusedError(500, why) from error

    @contextmanager
    def _turn(self, turns: threading.BoundedSemaphore, deadline: float) -> Iterator[None]:
        if not turns.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise too_slow(self.limits)
        try:
            yield
        finally:
            turns.release()

    def _done(self, _: Future[Answer]) -> None:
        with self._counting:
            self._count -= 1
            self.monitor.in_progress.set(self._count)
