"""Many images into one folder: what `predict` and `discover` share. Ranks share the images, a journal notes those that
are done, a signal ends it after the images that are being finished, and the same call resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from accelerate import Accelerator
from torch import Tensor

from tasktokens.inference.journal import Journal
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.stream import Read, Stream
from tasktokens.utils.distributed import signals
from tasktokens.utils.progress import track
from tasktokens.utils.signals import StopSignal


class Worker(Protocol):
    """Reads and writes one image, in several threads."""

    predictor: Predictor

    def read(self, id: str) -> Read:
        """What the network gets of an image."""

    def ask(self, seen_13hw: Sequence[Tensor]) -> Sequence[Any]:
        """What the network says of images of one size."""

    def write(self, id: str, about: Any, asked: Any) -> Any:
        """Write its files; what the journal notes of it, None for an image that is not done."""


@runtime_checkable
class Interruptible(Protocol):
    """A worker whose items may take minutes: meanwhile it asks ``stopped``, and then raises `stream.Stopped`."""

    stopped: Callable[[], bool]


@dataclass(frozen=True)
class Progress:
    """How far this rank came.

    Attributes:
        before: images that were done before, by any rank.
        count: images of this rank's share that have been gone through.
        share: how many it has.
        stop: whether a signal said to end.
    """

    before: frozenset[str]
    count: int
    share: int
    stop: StopSignal


@contextmanager
def gone_through(
    accelerator: Accelerator, journal: Journal, ids: Iterable[str], worker: Worker, quiet: bool
) -> Iterator[Progress]:
    """Work through this rank's share of the images that are not done; signals are caught until the block ends."""
    rank, ranks = accelerator.process_index, accelerator.num_processes
    done = journal.done()
    share = [id for id in ids if id not in done][rank::ranks]
    accelerator.wait_for_everyone()  # all have read the journal before anyone writes to it
    count = 0
    with signals(ranks) as stop:
        if isinstance(worker, Interruptible):
            worker.stopped = stop.is_received
        stream = Stream(worker.read, worker.ask, worker.write, worker.predictor.batch_size, stop.is_received)
        # Closed before the block, which may remove the journal.
        with journal.appending(rank) as appender, closing(stream(share)) as finished:
            shown = not quiet and accelerator.is_main_process
            for id, facts in track(finished, journal.name, shown, len(share)):
                if facts is not None:
                    appender.note(id, facts)
                count += 1
        yield Progress(frozenset(done), count, len(share), stop)
