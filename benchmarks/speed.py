"""Time and memory of training steps and of prediction on this machine: `htt` against `paper`, at the published size.

    python benchmarks/speed.py --out benchmarks/results/speed.json

Batches are random images with one label each, already on the device: nothing is loaded. ``supervised`` is a step of the
first stage, ``discovery`` one of the second, teacher and strong view included, ``prediction`` a forward pass with all
logits at image size. Milliseconds are the median over blocks of steps; memory is the peak that tensors took, on a GPU.
A case that does not fit into memory has a row that says so. ``--profile`` also prints where a step's time goes.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flops import TASKS
from tasktokens.config import Config
from tasktokens.data.sample import Batch, Label, Sample, collate
from tasktokens.methods import StepOptions, build_method
from tasktokens.models.files import ModelInfo
from tasktokens.reporting.provenance import describe
from tasktokens.tasks import Task, build_task
from tasktokens.training.clock import memory_mb
from tasktokens.training.nan_guard import finite_guard
from tasktokens.training.optim import make_optimizer
from tasktokens.training.step import Step
from tasktokens.training.step_memory import is_out_of_memory
from tasktokens.utils.distributed import start, training_precision

MEASURED = [f"src/tasktokens/{name}" for name in ("engine", "methods", "models", "tasks")]
METHOD = {"name": "htt", "thresholds": "adaptive", "teacher": "live", "token_level": 0.1, "stage1_steps": 1000,
          "stage2_steps": 1000}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs=2, default=[288, 384])
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "tf_efficientnet_lite0"])
    parser.add_argument("--batches", type=int, nargs="+", default=[6, 32], help="the published one is 6")
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="steps a block")
    parser.add_argument("--profile", action="store_true", help="print the dearest kernels of each case")
    args = parser.parse_args()
    rows = []
    for backbone in args.backbones:
        for images in args.batches:
            for precision in args.precisions:
                for variant in ("htt", "paper"):
                    rows += measure(args, backbone, images, precision, variant)
                    print(json.dumps(rows[-3:]), flush=True)
                    result = describe("one process", [0], measured=MEASURED) | {"rows": rows}
                    args.out.write_text(json.dumps(result, indent=1) + "\n")


def measure(args: argparse.Namespace, backbone: str, images: int, precision: str, variant: str) -> list[dict[str, Any]]:
    """The rows of one network and batch size."""
    model = {"variant": variant, "backbone": backbone, "pretrained": False}
    config = Config.model_validate(
        {"model": model, "method": METHOD, "optim": {"loss_stride": 2}, "run": {"precision": precision}}
    )
    size = (args.size[0], args.size[1])
    head = {"variant": variant, "backbone": backbone, "size": list(size), "batch": images, "precision": precision}
    rows = []
    for what in ("supervised", "discovery", "prediction"):
        torch.cuda.empty_cache()
        try:
            rows.append(head | {"what": what} | cost(args, config, what, images, size))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            rows.append(head | {"what": what, "out_of_memory": True})
    return rows


def cost(
    args: argparse.Namespace, config: Config, what: str, images: int, size: tuple[int, int]
) -> dict[str, float | None]:
    """Milliseconds and images per second of what is done to a batch, and the most memory that it took."""
    accelerator = start(config.run, training_precision(config.run))
    torch.manual_seed(0)
    tasks = {name: build_task(name, spec) for name, spec in TASKS.items()}
    batch = random_batch(tasks, images, size).to(accelerator.device)
    on_gpu = accelerator.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    network = ModelInfo("htt", config.model, tasks, size).build().to(accelerator.device)
    if what == "prediction":
        do = predicting(network.eval(), batch, accelerator)
    else:
        method = build_method(config.method, tasks)
        if (state := method.state()) is not None:
            state.to(accelerator.device)
        teacher = copy.deepcopy(network).eval().requires_grad_(False) if what == "discovery" else None
        optimizer = make_optimizer(network, config.optim)
        prepared, stepper = accelerator.prepare(network, optimizer)
        prepared.train()
        guard = finite_guard(optimizer, network, accelerator)
        step = Step(method, accelerator, prepared, stepper, guard, config.optim.clip)
        # A step in the middle of training.
        options = StepOptions(500, teacher is not None, photometric=0.3, loss_stride=2)

        def do() -> object:
            return step([method.prepare(batch, torch.Generator().manual_seed(0), options)], teacher)

    seconds = statistics.median(timed(do, args.steps, on_gpu) for _ in range(args.blocks + 1))
    if args.profile:
        profile(do, on_gpu)
    return {
        "milliseconds": round(seconds * 1000, 2),
        "images_per_second": round(images / seconds, 1),
        "memory_mb": round(memory_mb(accelerator.device)) if on_gpu else None,
    }


def predicting(network: torch.nn.Module, batch: Batch, accelerator: Any) -> Callable[[], object]:
    """A forward pass with logits at the image's size."""

    @torch.no_grad()
    def do() -> object:
        with accelerator.autocast():
            outputs = network(batch.image)
            return [output.logits_at(batch.image.shape[-2:]) for output in outputs.values()]

    return do


def timed(do: Callable[[], object], steps: int, on_gpu: bool) -> float:
    """Seconds a step."""
    if on_gpu:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(steps):
        do()
    if on_gpu:
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) / steps


def profile(do: Callable[[], object], on_gpu: bool) -> None:
    """Print the operations that take longest."""
    with torch.profiler.profile(record_shapes=True) as profiler:
        timed(do, 1, on_gpu)
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    print(profiler.key_averages(group_by_input_shape=True).table(order, row_limit=25, max_name_column_width=60))


def random_batch(tasks: dict[str, Task], images: int, size: tuple[int, int]) -> Batch:
    """Images of noise, each with a label of one task that is valid everywhere."""
    names, samples = list(tasks), []
    valid = torch.ones(1, *size, dtype=torch.bool)
    for number in range(images):
        name = names[number % len(names)]
        value = torch.rand(tasks[name].label_channels, *size) + 1
        image = torch.randint(256, (3, *size), dtype=torch.uint8)
        samples.append(Sample(str(number), image, valid, {name: Label(value, valid)}))
    return collate(samples, {name: task.label_channels for name, task in tasks.items()})


if __name__ == "__main__":
    main()
