"""From the bytes of a request to a prediction: checked, queued, computed, within its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
        self.worker = Worker(predictor.logits, limits.batch or predictor.batch_size, self.monitor.observe_batch)
        # Few threads do what takes memory: each would keep its own.
        self._headers, self._reading, self._writing = (
            ThreadPoolExecutor(_AT_ONCE, name) for name in ("header", "reading", "writing")
        )
        self._count, self._counting = 0, threading.Lock()

    def check(self, data: bytes) -> Future[None]:
        """`check_header` in a thread of its own, so that a bad upload is refused however long the queue."""
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
        answer: Future[Answer] = Future()
        answer.set_running_or_notify_cancel()  # from here on it ends by itself
        answer.add_done_callback(self._done)
        self._reading.submit(self._read, data, write, deadline, answer)
        return answer

    def close(self) -> None:
        """End all threads; whoever waits gets an error."""
        self.worker.close()
        for threads in (self._headers, self._reading, self._writing):
            threads.shutdown(wait=True)

    def _read(self, data: bytes, write: Callable[[Asked], Answer], deadline: float, answer: Future[Answer]) -> None:
        """Decode an upload and queue it for the model; only small things wait there."""
        with _failing(answer):
            self._check_time(deadline)
            image, notes = read_upload(data, self.limits)
            seen, size, shown = self.predictor.prepare(image), (image.shape[0], image.shape[1]), reduced(image).copy()
            asked = Asked(self.predictor, {}, size, shown, notes)
            self.worker.submit(seen, deadline).add_done_callback(
                lambda logits: self._writing.submit(self._write, logits, asked, write, deadline, answer)
            )

    def _write(
        self,
        logits: Future[Mapping[str, Tensor]],
        asked: Asked,
        write: Callable[[Asked], Answer],
        deadline: float,
        answer: Future[Answer],
    ) -> None:
        """Turn what the network says into an answer."""
        with _failing(answer):
            found = self._said(logits)
            self._check_time(deadline)
            answer.set_result(write(replace(asked, logits=found)))

    def _said(self, logits: Future[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        try:
            return logits.result()
        except TimeoutError as error:
            raise too_slow(self.limits) from error
        except Exception as error:
            console.say(f"serve: the model failed ({type(error).__name__}: {' '.join(str(error).split())[:300]})")
            memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
            why = "the memory is too small for this image" if memory else "the model failed; the server's log says why"
            raise RefusedError(500, why) from error

    def _check_time(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise too_slow(self.limits)

    def _done(self, _: Future[Answer]) -> None:
        with self._counting:
            self._count -= 1
            self.monitor.in_progress.set(self._count)


@contextmanager
def _failing(answer: Future[Answer]) -> Iterator[None]:
    """What goes wrong in the block is the answer."""
    try:
        yield
    except Exception as error:
        answer.set_exception(error)
