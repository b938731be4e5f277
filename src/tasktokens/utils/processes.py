"""Map a function over jobs in several processes: spawned, without the caller's script, killed with the caller."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.process import BaseProcess
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def process_map(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int | None = None
) -> Generator[Result, None, None]:
    """Yield ``function(job)`` of every job, in the order in which they end. Use it in ``contextlib.closing``.

    Args:
        function, jobs: picklable. What a job wrote before an interrupt is the caller's to clean up.
        workers: processes; by default one per core, fewer for few jobs; 1 works in this process.

    Raises:
        What a job raised. Then, and on an interrupt, the processes are killed: waiting for them can take for ever.
    """
    cores = os.cpu_count() or 1
    if workers is None:
        workers = min(cores, max(len(jobs) // 32, 1))  # starting a process costs as much as some 30 images
    workers = min(max(workers, 1), cores)
    if workers == 1:
        yield from map(function, jobs)
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_worker)
    try:
        with _single_threaded_children(), _signals_deferred():
            futures = [pool.submit(function, job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


_PATIENCE = 5.0  # seconds: of a process that waits for a disk, the kernel ends it later
_to_kill = weakref.WeakSet[BaseProcess]()


def kill(processes: Iterable[BaseProcess]) -> None:
    """End child processes at once, whatever they are doing. torch, which watches its own, is not told."""
    alive = [process for process in processes if process.is_alive()]
    watch = getattr(signal, "SIGCHLD", None)
    before = None
    with contextlib.suppress(ValueError):  # not in the main thread
        before = signal.signal(watch, signal.SIG_DFL) if watch is not None else None
    for process in alive:
        process.kill()
    for process in alive:
        process.join(_PATIENCE)
    if watch is not None and before is not None:
        signal.signal(watch, before)


def kill_at_exit(processes: Iterable[BaseProcess]) -> None:
    """End child processes at the latest with this one: Python waits for those that ignore SIGTERM, and for ever if one
    hangs."""
    _to_kill.update(processes)


@atexit.register  # before what multiprocessing has registered, which does the waiting
def kill_remaining() -> None:
    """End what `kill_at_exit` was given."""
    kill(list(_to_kill))


@contextlib.contextmanager
def _signals_deferred() -> Iterator[None]:
    """Let an interrupt wait: while processes are being started it can lock up Python's pool for ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda code, _: received.append(code))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for code in received[:1]:
            signal.raise_signal(code)


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it should it be killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Start processes with one numeric thread each and without the caller's ``__main__``.

    A spawned process normally runs the caller's script again, which fails for scripts without a ``__main__`` guard and
    for code from standard input; these workers need nothing from it.
    """
    main, names = sys.modules["__main__"], ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    kept: dict[str, object] = {key: vars(main)[key] for key in ("__spec__", "__file__") if key in vars(main)}
    before = {name: os.environ.get(name) for name in names}
    try:
        main.__spec__ = None
        vars(main).pop("__file__", None)
        os.environ.update(dict.fromkeys(names, "1"))
        yield
    finally:
        vars(main).update(kept)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
