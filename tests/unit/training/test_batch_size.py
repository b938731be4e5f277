"""Batches that fit: chosen by measuring, kept by a resumed run; and what is said where memory does not suffice."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import psutil
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

import processes
from conftest import run_cli
from tasktokens.config import Config, load_config, to_yaml
from tasktokens.datasets.open import open_data
from tasktokens.errors import ConfigError, OutOfMemoryError, RunExistsError, TrainingError
from tasktokens.methods import Supervised
from tasktokens.training import batch_size as memory
from tasktokens.training import step_memory, trainer
from tasktokens.training.batch_size import LinearCost, largest_batch, largest_fitting
from tasktokens.training.step_memory import CpuPeak, is_out_of_memory
from tasktokens.training.trainer import train

MakeConfig = Callable[..., Config]
SHORT = {"method": {"name": "mtl", "steps": 2}, "data.check": False, "data.labels": "full"}
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, pipes and limits as Linux has them")
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
ALLOCATOR += "allocate 4096 bytes. Error code 12 (Cannot allocate memory)"


@pytest.fixture(scope="session")
def make_config(make_config_of_two: MakeConfig) -> MakeConfig:
    """Two tasks will do."""
    return make_config_of_two


# -- the search --------------------------------------------------------------------------------------------------------
@given(st.integers(0, 50), st.integers(1, 9), st.integers(1, 400), st.integers(1, 300), st.sampled_from([8, 10**6]))
def test_the_largest_batch_is_found_by_few_trials(rest: int, image: int, budget: int, most: int, tried: int) -> None:
    tries: list[int] = []

    def peak(images: int) -> int | None:
        tries.append(images)
        cost = rest + image * images
        return cost if cost <= budget + 20 else None

    found, cost = largest_fitting(peak, budget, most, tried)
    best = max(0, min(most, (budget - rest) // image))
    assert found <= best
    assert found >= best - max(1, best // 8)
    assert cost == (rest + image * found if found else 0)
    assert max(tries) <= max(2, min(most, tried))
    assert len(tries) <= 20


def test_costs_that_bend_are_approached_from_both_sides() -> None:
    """As where the device chooses another algorithm for larger batches."""

    def bent(images: int) -> int:
        return 10 * images if images < 20 else 25 * images

    found, cost = largest_fitting(bent, 400, 10**6, 10**6)
    assert bent(found + 1 + found // 8) > 400 >= bent(found) == cost
    assert largest_fitting(lambda images: None, 400, 9, 9) == (0, 0)
    assert largest_fitting(lambda images: 5 if images == 1 else None, 400, 9, 9) == (1, 5)


def test_a_line_goes_by_the_two_largest_batches() -> None:
    line = LinearCost({1: 50, 2: 100, 4: 120})
    assert (line.image, line(4), line(10), line.fitting(200)) == (10, 120, 180, 12)


def serve(questions: Path, answers: Path) -> None:
    """What the process that measures does, with pipes for its standard streams."""
    sys.stdin, sys.stdout = questions.open(), answers.open("w")
    step_memory._serve()


class Forked:
    """In place of `subprocess.Popen`: a fork of a process that has imported all that measuring takes."""

    def __init__(self, process: processes.Process, pipes: tuple[Path, Path], errors: IO[str]) -> None:
        self.process, self.errors = process, errors
        self.stdin, self.stdout = pipes[0].open("w"), pipes[1].open()
        self.kill = process.kill

    def wait(self) -> int:
        code = self.process.wait()
        self.errors.write(self.process.errors)
        return code

    def communicate(self) -> None:
        self.stdin.close()
        self.stdout.close()


@pytest.fixture
def forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measure in a fork; the test of ``auto`` starts a genuine process."""
    pipes = (tmp_path / "questions", tmp_path / "answers")
    for pipe in pipes:
        os.mkfifo(pipe)
    with contextlib.ExitStack() as stack:

        def start(command: list[str], *, stderr: IO[str], **_: object) -> Forked:
            process = stack.enter_context(processes.started(before=partial(serve, *pipes)))
            return Forked(process, pipes, stderr)

        monkeypatch.setattr(step_memory, "subprocess", SimpleNamespace(Popen=start, PIPE=None))
        yield


# -- auto --------------------------------------------------------------------------------------------------------------
def test_auto_is_measured_written_down_and_kept(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Six training images fit into the memory of any machine that runs the tests."""
    config = make_config(folder_root, tmp_path / "run", **SHORT | {"optim.batch_size": "auto"})
    run = train(config)
    assert re.search(r"auto is 6, all training images: a step takes about \d+ MB of [\d.]+ GB", capsys.readouterr().err)
    assert load_config(run / "config.yaml").optim.batch_size == 6
    monkeypatch.setattr(memory, "largest_batch", None)  # measured once
    before = (run / "config.yaml").read_bytes()
    train(config, resume=True, quiet=True)
    assert (run / "config.yaml").read_bytes() == before
    with pytest.raises(RunExistsError, match="not empty"):
        train(config, quiet=True)


@linux
@pytest.mark.usefixtures("forked")
def test_a_budget_gives_the_number_of_images_that_fill_it(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(folder_root, tmp_path / "run", **SHORT | {"optim.batch_size": "auto", "model.width": 64})
    with CpuPeak(config) as peak:
        two, six = peak(config, 2), peak(config, 6)
        assert two is not None
        assert six is not None
        assert six - two > 2**20  # an image costs something

        def on_the_line(config: Config, images: int) -> int:
            """What was measured, without the noise of another measurement: it depends on what ran before."""
            return two + (six - two) * (images - 2) // 4

        monkeypatch.setattr(memory, "peaks", lambda *_: contextlib.nullcontext(on_the_line))
        monkeypatch.setattr(memory, "free_memory", lambda device: int(2 * two + 1.2 * (six - two)))  # half: 4 images
        assert largest_batch(config, open_data(config), Accelerator(cpu=True), quiet=True) == 4
        monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
        with pytest.raises(OutOfMemoryError, match="not one image fits"):
            largest_batch(config, open_data(config), Accelerator(cpu=True), quiet=True)


@linux
@pytest.mark.usefixtures("forked")
def test_what_else_goes_wrong_while_measuring_is_said(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "none", tmp_path / "run")
    with CpuPeak(config) as peak, pytest.raises(TrainingError, match=r"could not be measured.*none"):
        peak(config, 2)


@pytest.mark.parametrize("value", [0, -1, 1.5, "many", True, None])
def test_a_batch_size_is_a_number_or_auto(value: object, make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'optim\.batch_size'.*a whole number from 1 on, or auto"):
        make_config(tmp_path, tmp_path, **{"optim.batch_size": value})
    with pytest.raises(ConfigError, match="not measured yet"):
        _ = make_config(tmp_path, tmp_path, **{"optim.batch_size": "auto"}).optim.images


# -- out of memory -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(ALLOCATOR), MemoryError(), OSError(12, "Cannot allocate memory"),
        RuntimeError("not enough memory: you tried to allocate 99 bytes."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)  # fmt: skip
def test_errors_of_memory_are_known(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shape mismatch"), ValueError("not enough memory"), OSError(28, "No space left on device"),
     RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED.")],
)  # fmt: skip
def test_other_errors_are_not(error: Exception) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.slow
@linux
@pytest.mark.usefixtures("forked")
def test_out_of_memory_is_one_sentence_with_what_was_measured(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(ALLOCATOR)

    monkeypatch.setattr(Supervised, "terms", fail)
    (tmp_path / "c.yaml").write_text(
        to_yaml(make_config(folder_root, tmp_path / "run", **SHORT | {"data.size": [64, 96], "optim.batch_size": 6}))
    )
    code, _, err = run_cli(capsys, "train", "--config", tmp_path / "c.yaml", "-q")
    assert code == 2, err
    assert err.count("\n") == 1
    assert err.startswith("error: out of memory for another 4096 bytes: steps on 6 images take about ")
    parts = (r"and [\d.]+ GB are free \(measured\)", r"batch_size=3 \(about \d+ MB\)", r"data\.size=\[32,64\] \(about")
    for part in parts:
        assert re.search(part, err), (part, err)
    assert err.count("(about") == 3
    whole = float(re.search(r"take about (\d+) MB", err)[1])  # type: ignore[index]
    assert all(float(less) < whole for less in re.findall(r"\(about (\d+) MB\)", err))


def limit_memory() -> None:
    """Let this process take 40 MB more than it has when its first stage begins."""
    import resource

    run_stage = trainer.Trainer.run_stage

    def limited(self: Any, *arguments: Any) -> None:
        limit = psutil.Process().memory_info().vms + 40 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        run_stage(self, *arguments)

    trainer.Trainer.run_stage = limited  # type: ignore[method-assign]


@pytest.mark.slow
@linux
def test_a_limit_of_memory_ends_a_run_by_a_sentence(folder_root: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    changes = SHORT | {"data.size": [512, 640], "optim.batch_size": 6, "model.width": 64}
    (tmp_path / "c.yaml").write_text(to_yaml(make_config(folder_root, tmp_path / "run", **changes)))
    done = processes.run("train", "--config", tmp_path / "c.yaml", "-q", before=limit_memory)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: out of memory")
