"""One thread owns the model; images of one working size that wait at the same time go through it together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

Logits = Mapping[str, Tensor]


@dataclass(eq=False)
class _Job:
    seen_13hw: Tensor
    deadline: float
    answer: Future[Logits] = field(default_factory=Future)


class Worker:
    """A queue before a model.

    Args:
        ask: images (1, 3, h, w) of one size -> the logits of each, in their order.
        batch: images that go through the model together.
        observe: is called with the number of images and the seconds of every batch.

    Attributes:
        waiting: images that are not asked yet.

    Examples:
        >>> import torch
        >>> worker = Worker(lambda images: [{"brightness": image.float().mean()} for image in images], batch=4)
        >>> worker.submit(torch.full((1, 3, 2, 2), 7), deadline=time.monotonic() + 9).result()["brightness"].item()
        7.0
        >>> worker.close()
    """

    def __init__(
        self,
        ask: Callable[[Sequence[Tensor]], Sequence[Logits]],
        batch: int = 1,
        observe: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self._ask, self._batch, self._observe = ask, batch, observe
        self.waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether images are answered."""
        return self._thread.is_alive() and not self._closed

    def submit(self, seen_13hw: Tensor, deadline: float) -> Future[Logits]:
        """Queue an image that was prepared; after ``deadline`` (of `time.monotonic`) it is not asked any more.

        The future raises `TimeoutError` then, and what the model raised where that failed.
        """
        job = _Job(seen_13hw, deadline)
        with self._changed:
            if self._closed:
                job.answer.set_exception(RuntimeError("the server is closing"))
            else:
                self.waiting.append(job)
                self._changed.notify()
        return job.answer

    def close(self) -> None:
        """End the thread after the batch in hand; whoever waits gets a `RuntimeError`."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        for job in self.waiting:
            job.answer.set_exception(RuntimeError("the server is closing"))

    def _run(self) -> None:
        while batch := self._next():
            started = time.monotonic()
            self._answer(batch)
            self._observe(len(batch), time.monotonic() - started)

    def _next(self) -> list[_Job]:
        """The image that has waited longest and others of its size; none when closed."""
        with self._changed:
            while True:
                self._drop_late()
                if self._closed:
                    return []
                if self.waiting:
                    break
                self._changed.wait()
            size = self.waiting[0].seen_13hw.shape
            batch = [job for job in self.waiting if job.seen_13hw.shape == size][: self._batch]
            self.waiting = deque(job for job in self.waiting if job not in batch)
            return batch

    def _drop_late(self) -> None:
        now = time.monotonic()
        for job in [job for job in self.waiting if job.deadline < now]:
            self.waiting.remove(job)
            job.answer.set_exception(TimeoutError())

    def _answer(self, batch: Sequence[_Job]) -> None:
        """Answer all jobs; where the model fails for several, each is tried alone: one may be too much for the memory,
        or at fault."""
        try:
            answers = self._ask([job.seen_13hw for job in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            for job in batch:
                self._answer([job])
            return
        for job, answer in zip(batch, answers, strict=True):
            job.answer.set_result(answer)
