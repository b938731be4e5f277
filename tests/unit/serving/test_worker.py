"""The queue before a model: order, batches, lateness, the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tasktokens.serving.worker import Worker


def later() -> float:
    return time.monotonic() + 20


def image(number: int, side: int = 2) -> Tensor:
    return torch.full((1, 3, side, side), number, dtype=torch.float32)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=20), st.integers(1, 5))
def test_everybody_gets_the_own_answer_in_batches_of_one_size(sides: list[int], batch: int) -> None:
    sizes, start = [], threading.Event()

    def ask(images: Sequence[Tensor]) -> Sequence[Mapping[str, Tensor]]:
        assert start.wait(20)
        sizes.append((len(images), {each.shape for each in images}))
        return [{"mean": each.mean()} for each in images]

    worker = Worker(ask, batch)
    futures = [worker.submit(image(number, side), later()) for number, side in enumerate(sides)]
    start.set()
    assert [future.result(20)["mean"].item() for future in futures] == list(range(len(sides)))
    worker.close()
    assert all(count <= batch and len(shapes) == 1 for count, shapes in sizes)
    assert sum(count for count, _ in sizes) == len(sides)


def test_who_has_waited_longest_is_next() -> None:
    asked, start = [], threading.Event()

    def ask(images: Sequence[Tensor]) -> Sequence[Mapping[str, Tensor]]:
        assert start.wait(20)
        asked.append([int(each.mean()) for each in images])
        return [{} for _ in images]

    worker = Worker(ask, 2)
    futures = [worker.submit(image(0), later())]
    while worker.waiting:
        time.sleep(0.001)
    futures += [
        worker.submit(image(number, side), later()) for number, side in ((1, 3), (2, 2), (3, 3), (4, 3), (5, 2))
    ]
    start.set()
    for future in futures:
        future.result(20)
    worker.close()
    assert asked == [[0], [1, 3], [2, 5], [4]]


def test_late_ones_are_not_asked_any_more_and_the_end_is_told() -> None:
    asked, start, entered = [], threading.Event(), threading.Event()

    def ask(images: Sequence[Tensor]) -> Sequence[Mapping[str, Tensor]]:
        entered.set()
        assert start.wait(20)
        asked.append(len(images))
        return [{} for _ in images]

    worker = Worker(ask, 4)
    first = worker.submit(image(0), later())
    assert entered.wait(20)
    late = worker.submit(image(1), time.monotonic() - 1)
    start.set()
    first.result(20)
    with pytest.raises(TimeoutError):
        late.result(20)
    worker.close()
    assert asked == [1]
    assert not worker.is_alive
    with pytest.raises(RuntimeError, match="closing"):
        worker.submit(image(2), later()).result(20)


def test_a_failure_meets_those_alone_that_fail() -> None:
    def ask(images: Sequence[Tensor]) -> Sequence[Mapping[str, Tensor]]:
        if any(each.mean() == 1 for each in images):
            raise MemoryError
        return [{"mean": each.mean()} for each in images]

    worker = Worker(ask, 4)
    futures = [worker.submit(image(number), later()) for number in range(4)]
    for number, future in enumerate(futures):
        if number == 1:
            with pytest.raises(MemoryError):
                future.result(20)
        else:
            assert future.result(20)["mean"] == number
    worker.close()
