"""What learning from discovered labels costs: CPU seconds of a step, and of discovering, on noise as large as NYUD.

    python benchmarks/discovery_cost.py --out benchmarks/results/discovery_cost.json

Three steps are measured in turn, so that other work on the machine slows all alike: ``supervised`` (the first stage),
``once`` (the second, from a store), ``live`` (the second with its teacher in the step). ``load`` is what a training
sample costs without and with three discovered labels beside its image; ``discover`` one image with the default views.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speed import TASKS, random_batch
from tasktokens.config import Augmentation, ModelSettings, OptimSettings
from tasktokens.data.sample import Sample
from tasktokens.data.soft_labels import SoftLabels
from tasktokens.data.transforms import augment, no_padding
from tasktokens.discovery.pseudo_labels import forward_views
from tasktokens.discovery.store import Provenance, Store, StoreWriter
from tasktokens.methods import Htt, HttMethod, StepOptions
from tasktokens.methods.htt_settings import ONCE_VIEWS
from tasktokens.models.files import ModelInfo
from tasktokens.reporting.provenance import describe
from tasktokens.tasks import Task, build_task
from tasktokens.training.nan_guard import FiniteGuard
from tasktokens.training.optim import make_optimizer
from tasktokens.training.step import Step
from tasktokens.training.step_memory import OneProcess

MEASURED = "CPU seconds of one thread, medians of steps that take turns"


def main() -> None:
    """Measure and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, nargs=2, default=[96, 128])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = (args.size[0], args.size[1])
    tasks = {name: build_task(name, spec).widened((1.0, 1.5)) for name, spec in TASKS.items()}
    doing = {what: step_of(what, tasks, args.backbone, size, args.images) for what in ("supervised", "once", "live")}
    doing |= {f"load {what}": loading(tasks, size, soft) for what, soft in (("images", False), ("and labels", True))}
    doing["discover"] = discovering(tasks, args.backbone, size)
    seconds: dict[str, list[float]] = {what: [] for what in doing}
    for _ in range(args.rounds + 1):
        for what, do in doing.items():
            begin = time.process_time()
            do()
            seconds[what].append(time.process_time() - begin)
    found = {what: statistics.median(each[1:]) for what, each in seconds.items()}
    whole = f"{size[0]}x{size[1]}"
    rows: list[dict[str, Any]] = [
        {"what": what, "backbone": args.backbone, "size": whole, "batch": 1 if "load" in what or what == "discover"
         else args.images, "cpu_seconds": round(value, 5),
         "ratio_to_supervised_step": round(value / found["supervised"], 4)}
        for what, value in found.items()
    ]  # fmt: skip
    for row in rows:
        print(row)
    if args.out:
        args.out.write_text(
            json.dumps(describe("one thread", [0], measured=MEASURED) | {"rows": rows}, indent=1) + "\n"
        )


def step_of(
    what: str, tasks: dict[str, Task], backbone: str, size: tuple[int, int], images: int
) -> Callable[[], object]:
    """A step of training on a batch in which each image has one label."""
    torch.manual_seed(0)
    network = ModelInfo("htt", ModelSettings(backbone=backbone, pretrained=False), tasks, size).build()
    teacher = copy.deepcopy(network).eval().requires_grad_(False) if what == "live" else None
    batch = random_batch(tasks, images, size)
    if what == "once":
        head = (size[0] // 4, size[1] // 4)
        soft = {
            name: SoftLabels(labels.absent, torch.randn(len(labels.absent), tasks[name].num_tokens, *head).half())
            for name, labels in batch.labels.items()
        }
        batch = replace(batch, discovered=soft)
    method = Htt(tasks, HttMethod(teacher="live" if what == "live" else "once"))
    optimizer = make_optimizer(network, OptimSettings())
    guard = FiniteGuard(optimizer, torch.device("cpu"), network=network)
    step = Step(method, OneProcess(torch.device("cpu")), network, optimizer, guard, 10.0)
    options = StepOptions(500, teacher is not None, 0.3, 2, discovered=what == "once")
    return lambda: step([method.prepare(batch, torch.Generator().manual_seed(0), options)], teacher)


def loading(tasks: dict[str, Task], size: tuple[int, int], soft: bool) -> Callable[[], object]:
    """A sample of a decoded image, cropped, zoomed and mirrored, with the discovered labels of all tasks or without."""
    folder, head = Path(tempfile.mkdtemp()), (size[0] // 4, size[1] // 4)
    provenance = Provenance("", {}, {}, True, size, head, "")
    for name, task in tasks.items():
        StoreWriter(folder, provenance, tasks).write("one", name, torch.randn(task.num_tokens, *head))
    store, rng = Store(folder, tasks, head, ()), np.random.default_rng(0)
    image = torch.randint(256, (3, size[0] * 3 // 2, size[1] * 3 // 2), dtype=torch.uint8)
    plain = Sample("one", image, no_padding((image.shape[1], image.shape[2])), {})

    def do() -> object:
        found = {name: label for name in tasks if soft and (label := store.find("one", name)) is not None}
        sample = augment(replace(plain, discovered=found), tasks, size, Augmentation(), rng)
        return {name: label.at(tasks[name], head) for name, label in sample.discovered.items()}

    return do


def discovering(tasks: dict[str, Task], backbone: str, size: tuple[int, int]) -> Callable[[], object]:
    """What the teacher says of one whole image, by the default views."""
    network = ModelInfo("htt", ModelSettings(backbone=backbone, pretrained=False), tasks, size).build().eval()
    image = torch.randint(256, (1, 3, *size), dtype=torch.uint8)
    return lambda: forward_views(tasks, network, image, ONCE_VIEWS)


if __name__ == "__main__":
    main()
