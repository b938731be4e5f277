"""Streams of images: batches of one size, order, bounded memory, and how they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest
import torch
from torch import Tensor

from tasktokens.inference import stream as module
from tasktokens.inference.stream import Logits, Read, Stream

SIZES = [(8, 8), (8, 12), (4, 4)]


def read(number: int) -> Read:
    if number % 7 == 3:
        return Read(None, 0, number)
    return Read(torch.full((1, 3, *SIZES[number * number % 3]), number), 64, number)


class Network:
    """Counts the images that it gets at a time."""

    def __init__(self) -> None:
        self.batches = list[tuple[int, ...]]()

    def __call__(self, seen: Sequence[Tensor]) -> Sequence[Logits]:
        assert len({image.shape for image in seen}) == 1
        self.batches.append(tuple(int(image.flatten()[0]) for image in seen))
        return [{"t": image.float().mean()} for image in seen]


def finish(number: int, about: int, logits: Logits | None) -> tuple[int, float | None]:
    return about, None if logits is None else float(logits["t"])


def expected(number: int) -> tuple[int, tuple[int, float | None]]:
    return number, (number, None if number % 7 == 3 else float(number))


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "workers", lambda: request.param)
    return int(request.param)


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_every_item_gets_its_own_result(batch: int, count: int, threads: int) -> None:
    network = Network()
    with closing(Stream(read, network, finish, batch)(range(count))) as results:
        found = list(results)
    assert sorted(found) == [expected(number) for number in range(count)]
    if batch == 1:
        assert found == [expected(number) for number in range(count)]
    assert max(map(len, network.batches), default=0) <= batch
    if count == 50 and batch == 3:
        assert len(network.batches) < 20  # of 43 images in three sizes


def test_reading_stays_a_few_items_ahead(threads: int) -> None:
    begun = list[int]()

    def noted(number: int) -> Read:
        begun.append(number)
        return read(number)

    with closing(Stream(noted, Network(), finish)(range(1000))) as results:
        next(results)
        time.sleep(0.05)
        assert len(begun) < 4 * (threads + 2)
    assert len(begun) < 4 * (threads + 2)


def test_photographs_are_finished_one_at_a_time(threads: int) -> None:
    at_once, lock, most = [0], threading.Lock(), [0]

    def slow(*rest: Any) -> None:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.01)
        with lock:
            at_once[0] -= 1

    for pixels, allowed in ((module.LARGEST, 1), (10 * module.LARGEST, 1), (10, threads)):
        most[0] = 0
        stream = Stream(lambda number, pixels=pixels: Read(torch.zeros(1, 3, 4, 4), pixels), Network(), slow)
        with closing(stream(range(12))) as results:
            assert len(list(results)) == 12
        assert most[0] <= allowed


@pytest.mark.parametrize("where", ["read", "compute", "finish"])
def test_the_first_failure_ends_it_and_what_was_begun_is_ended_first(where: str, threads: int) -> None:
    ended, running = list[int](), [0]

    def fail(name: str, number: int) -> None:
        if name == where and number == 5:
            raise OSError(f"{name} of {number}")

    def reading(number: int) -> Read:
        fail("read", number)
        return Read(torch.full((1, 3, 4, 4), number), 1, number)

    def computing(seen: Sequence[Tensor]) -> Sequence[Logits]:
        fail("compute", int(seen[0].flatten()[0]))
        return [{} for _ in seen]

    def finishing(number: int, about: int, logits: Logits | None) -> int:
        running[0] += 1
        fail("finish", number)
        time.sleep(0.01)
        ended.append(number)
        running[0] -= 1
        return number

    found = list[int]()
    with (
        pytest.raises(OSError, match=f"{where} of 5"),
        closing(Stream(reading, computing, finishing)(range(100))) as results,
    ):
        found.extend(number for number, _ in results)
    assert found == [0, 1, 2, 3, 4][: len(found)]
    assert running[0] == (where == "finish")
    assert len(ended) < 5 + 2 * threads + 4
    assert threading.active_count() < 20


def test_once_stopped_nothing_is_begun_and_what_is_begun_comes_out(threads: int) -> None:
    stopped, begun = [False], list[int]()

    def finishing(number: int, about: int, logits: Logits | None) -> int:
        begun.append(number)
        if number == 4:
            stopped[0] = True
        time.sleep(0.005)
        return number

    with closing(Stream(read, Network(), finishing, 1, lambda: stopped[0])(range(100))) as results:
        found = [number for number, _ in results]
    assert sorted(found) == sorted(begun)
    assert 4 in found
    assert len(found) <= 4 + 2 * threads


def test_a_consumer_that_leaves_ends_the_threads(threads: int) -> None:
    with closing(Stream(read, Network(), finish)(range(100))) as results:
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]
