"""Shards on a Ray cluster, or on workers that Ray starts on this machine.

Ray Data hands out the numbers of shards and starts workers anew that have died. What is done does not depend on it: a
worker takes a shard as every process does, and what Ray has not done when it ends is done by the process that asked.
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tasktokens.errors import ConfigError
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.shards.plan import Plan, WorkFolder
from tasktokens.inference.shards.worker import ShardWorker, own_device
from tasktokens.utils import console

OBJECTS_MB = 100
"""What Ray keeps of memory for objects on this machine; here they are the numbers of shards."""


class RayWorker:
    """What runs in a process of Ray; the network is loaded once."""

    def __init__(self, run: str, out: str, plan: dict[str, Any], views: Any, batch_size: int, cpu: bool) -> None:
        predictor = Predictor(run, "cpu" if cpu else own_device(), views, batch_size)
        self.worker = ShardWorker(predictor, WorkFolder(Path(out)), Plan(**plan))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Work on shards; how many were done here."""
        return {"done": np.array([self.worker.do(int(shard)) for shard in batch["id"]])}


def run_on_ray(worker: ShardWorker, run: Path, quiet: bool) -> None:
    """Let Ray work on all shards that are not done.

    Uses the cluster that ``RAY_ADDRESS`` names, else one process per core, or per GPU, of this machine.
    """
    ray = import_ray()
    started = not ray.is_initialized()
    if started:
        _start(ray, quiet)
    try:
        _map(ray, worker, run)
    except Exception as error:
        # Whatever has happened to Ray and its workers, the shards are not lost: this process does what is left, and if
        # a file is at fault, it says so in its own words.
        console.say(f"Ray has ended early ({_last_line(error)}); this process does what is left")
    finally:
        if started:
            ray.shutdown()


def import_ray() -> Any:
    """The package. Raises `ConfigError` where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it reports to its makers
    os.environ.setdefault("RAY_worker_niceness", "0")  # else its workers hardly get a turn beside other work
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray: pip install 'tasktokens[ray]'") from error
    return ray


def _start(ray: Any, quiet: bool) -> None:
    """Join the cluster, or start one on this machine without a dashboard."""
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=not quiet)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ray.init(
        num_cpus=cores + 1,  # one for handing out
        include_dashboard=False,
        object_store_memory=OBJECTS_MB * 2**20,
        log_to_driver=not quiet,
        logging_level="error",
    )


def _map(ray: Any, worker: ShardWorker, run: Path) -> None:
    gpu = worker.predictor.device.type == "cuda"
    resources = ray.cluster_resources()
    processes = max(1, int(resources.get("GPU", 0)) if gpu else int(resources.get("CPU", 2)) - 1)
    left = sorted(set(range(worker.plan.shards)) - worker.work.done())
    if not left:
        return
    ray.data.DataContext.get_current().enable_progress_bars = False
    for name in ("ray.data", "ray._private"):  # what is done is said by `report`
        logging.getLogger(name).setLevel(logging.ERROR)
    shards = ray.data.from_items([{"id": shard} for shard in left], override_num_blocks=len(left))
    mapped = shards.map_batches(
        RayWorker,
        fn_constructor_args=(
            str(run.absolute()), str(worker.work.out.absolute()), asdict(worker.plan),
            worker.predictor.views, worker.predictor.batch_size, not gpu,
        ),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(processes, len(left))),
        num_gpus=1 if gpu else 0,
        num_cpus=1,
    )  # fmt: skip
    for _ in mapped.iter_batches(batch_size=None):
        pass


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1][:200] if str(error).strip() else type(error).__name__
