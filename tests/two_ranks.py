"""What the tests of several ranks do on each of them, in one launch: joining costs seconds.

`main`: the configurations lie in a folder, into which goes what was found, as ``found.RANK.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from tasktokens.config import load_config
from tasktokens.errors import DataError, TaskTokensError
from tasktokens.inference import evaluate as evaluating
from tasktokens.inference import filler
from tasktokens.inference.discover import discover
from tasktokens.inference.evaluate import evaluate
from tasktokens.inference.predict import predict
from tasktokens.tasks import depth, normals, regression, vectors
from tasktokens.training import trainer as training
from tasktokens.training.checkpoint import complete_checkpoints
from tasktokens.training.trainer import train
from tasktokens.utils.distributed import all_gather, raise_on_all_ranks

Patch = Callable[[Any, str, Any], None]


@contextmanager
def double_without_batch_statistics() -> Iterator[None]:
    """Sums of parts differ by rounding in double precision alone; batch norm uses its running statistics."""
    eager = torch.nn.Module.train
    with patched() as patch:
        patch(torch.Tensor, "float", torch.Tensor.double)
        patch(torch.nn.modules.batchnorm._BatchNorm, "train", lambda self, mode=True: eager(self, False))
        torch.set_default_dtype(torch.float64)
        try:
            forget_constants()
            yield
        finally:
            torch.set_default_dtype(torch.float32)
            forget_constants()


def forget_constants() -> None:
    """Bin centres and the like are kept in the precision in which they were first asked for."""
    for module in (depth, normals, regression, vectors):
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


@contextmanager
def patched() -> Iterator[Patch]:
    """Attributes that are put back at the end, as those of pytest's monkeypatch."""
    before: list[tuple[Any, str, Any]] = []

    def patch(thing: Any, name: str, value: Any) -> None:
        before.append((thing, name, getattr(thing, name)))
        setattr(thing, name, value)

    try:
        yield patch
    finally:
        for thing, name, value in reversed(before):
            setattr(thing, name, value)


def digest(network: torch.nn.Module) -> str:
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        found.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def signalled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; on rank 1 it is sent SIGTERM first."""

    def watched(*arguments: Any, **settings: Any) -> Any:
        if os.environ["RANK"] == "1":
            signal.raise_signal(signal.SIGTERM)
        return function(*arguments, **settings)

    return watched


def outcome(function: Callable[..., Any], *arguments: Any, **settings: Any) -> str:
    """How it ended."""
    try:
        function(*arguments, **settings)
    except SystemExit as stop:
        return f"exit {stop.code}"
    except TaskTokensError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def fail_on_rank_1(accelerator: Accelerator) -> None:
    with raise_on_all_ranks(accelerator):
        if accelerator.process_index == 1:
            raise DataError("a file is missing there")


def methods(folder: Path) -> None:
    """Train as each configuration of the folder says."""
    with double_without_batch_statistics():
        for path in sorted(folder.glob("*.yaml")):
            train(load_config(path), quiet=True)
    Accelerator(cpu=True).end_training()
    sys.exit(0)


def main(folder: Path) -> None:
    found: dict[str, Any] = {}
    with double_without_batch_statistics():
        for name in ("double", "double-parts", "double-mtpsl", "double-jtr"):
            train(load_config(folder / f"{name}.yaml"), quiet=True)
        train(load_config(folder / "once.yaml"), init_from=folder / "double", quiet=True)

    accelerator = Accelerator(cpu=True)
    main_process = accelerator.is_main_process
    found["failing"] = outcome(fail_on_rank_1, accelerator)

    finish = training.Trainer.finish
    with patched() as patch:

        def noting(self: training.Trainer) -> None:
            found["digests"] = [*found.get("digests", []), digest(self.network)]
            finish(self)

        patch(training.Trainer, "finish", noting)
        for name in ("online", "online-workers"):
            train(load_config(folder / f"{name}.yaml"), quiet=True)
        again = load_config(folder / "online-again.yaml")
        if main_process:
            shutil.copytree(folder / "online", again.run.dir)
            (again.run.dir / "config.yaml").write_text((folder / "online-again.yaml").read_text())
            for path in complete_checkpoints(again.run.dir / "checkpoints")[-1:]:
                shutil.rmtree(path)
            shutil.rmtree(again.run.dir / "model")
        accelerator.wait_for_everyone()
        train(again, resume=True, quiet=True)

    run = folder / "online"
    found["train"] = evaluate(run, "train", write=False)
    found["test"] = evaluate(run, "test", write=False)
    found["folder"] = outcome(train, load_config(folder / "online.yaml"), quiet=True)
    found["sampler"] = outcome(train, load_config(folder / "too-many-parts.yaml"), quiet=True)
    with patched() as patch:
        patch(evaluating, "decode_at", signalled(evaluating.decode_at))
        found["evaluation stopped"] = outcome(evaluate, run, "train", write=False)
    with patched() as patch:
        patch(filler, "copy_image", signalled(filler.copy_image))
        found["discovery stopped"] = outcome(discover, run, folder / "discovered", quiet=True)
    found["written"] = sorted(path.name for path in (folder / "discovered").iterdir() if path.is_file())
    accelerator.wait_for_everyone()
    if main_process:  # as if fewer had been done: the last line of each journal is lost
        for path in sorted((folder / "discovered").glob("discovering*.jsonl")):
            path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    accelerator.wait_for_everyone()
    discover(run, folder / "discovered", quiet=True)
    predict(run, [Path(load_config(folder / "online.yaml").data.root) / "images"], folder / "predicted", quiet=True)  # type: ignore[union-attr,arg-type]
    found["ranks"] = all_gather(accelerator, accelerator.process_index)
    (folder / f"found.{accelerator.process_index}.json").write_text(json.dumps(found))
    accelerator.end_training()
    sys.exit(0)
