"""Time and memory of prediction and of training steps, as ratios to the bare backbone in the same run.

    python benchmarks/speed.py --out benchmarks/results/speed.json
    python benchmarks/speed.py --device cuda --batches 8 32 --out speed.json

Batches are random images with one label each, already on the device: nothing is loaded. ``predict`` is a forward pass
to logits at the heads' size, batch norms folded; ``supervised`` a step of the first stage; ``discovery`` one of the
second on labels that were discovered before (``paper``: with the outputs of a live teacher, computed before). The
backbone does the same beside each: a folded forward pass, or a training step of its own. Rounds of all of them
alternate: ratios are medians over the rounds, milliseconds are those of the fastest round. On a CPU one thread is used
and its own time counts, so that other programs matter little.

``share_of_conv_ceiling`` is FLOP/s relative to those of a large convolution in the same rounds; ``memory_mb`` the peak
of weights, gradients, optimiser and activations; ``operations`` how many operators compute. ``scaling`` has the
cost against pixels and against tasks, ``exponents`` the slopes of straight lines through the logarithms, of the whole
network and of what follows the backbone.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity
from torch.utils._python_dispatch import TorchDispatchMode

from speed_cases import METHODS, Case, Do, Workload, convolution
from tasktokens.models.flops import count_flops
from tasktokens.reporting.provenance import describe
from tasktokens.training.step_memory import is_out_of_memory
from tasktokens.utils.memory import keep_freed_memory

MEASURED = [f"src/tasktokens/{name}" for name in ("training", "methods", "models", "tasks")]
SECONDS = {"htt": 12.0, "mtl": 6.0, "paper": 1.0, "deeplab": 6.0}
"""Of the rounds of a case; at least two are made."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--variants", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--size", type=int, nargs=2, default=[288, 384])
    parser.add_argument("--backbones", nargs="+", default=["resnet18"])
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--no-scaling", action="store_true")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()
    result: dict[str, Any] = {"rows": [], "scaling": [], "exponents": []}

    def write() -> None:
        how = "one thread, CPU time" if args.device == "cpu" else "one process"
        args.out.write_text(json.dumps(describe(how, [0], measured=MEASURED) | result, indent=1) + "\n")

    for backbone, variant, batch in itertools.product(args.backbones, args.variants, args.batches):
        if variant == "paper" and batch > min(args.batches) and args.device == "cpu":
            continue  # minutes a step
        case = Case(variant, backbone, (args.size[0], args.size[1]), 3, batch, args.device, args.precision)
        result["rows"] += measure(case)
        write()
    if not args.no_scaling:
        for against in ("pixels", "tasks"):
            points = scaling(replace(case, variant="htt", batch=1), against)
            result["scaling"] += points
            result["exponents"].append(exponents(points, against))
            write()


def measure(case: Case) -> list[dict[str, Any]]:
    """The rows of one network and batch size."""
    head = {
        "variant": case.variant, "backbone": case.backbone, "size": f"{case.size[0]}x{case.size[1]}",
        "tasks": case.tasks, "batch": case.batch, "device": case.device, "precision": case.precision,
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    for what in ("predict", "supervised", "discovery")[: 3 if case.two_stages else 2]:
        gc.collect()
        try:
            rows.append(head | {"what": what} | cost(case, what))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            rows.append(head | {"what": what, "out_of_memory": True})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def cost(case: Case, what: str) -> dict[str, float | int]:
    """What one thing costs, beside the backbone and the convolution."""
    work = Workload(case)
    if what == "predict":
        pair = {"network": work.predict(), "backbone": work.predict_backbone()}
    else:
        pair = {"network": work.step(what == "discovery"), "backbone": work.step_backbone()}
    ceiling = convolution(work.accelerator, 2 if case.device == "cpu" else 32)
    rounds = alternate(pair | {"ceiling": ceiling}, case.device, SECONDS[case.variant])
    flops, peak, launches = observe(pair["network"], case.device)
    network, best = min(rounds["network"]), min(rounds["ceiling"])
    return {
        "milliseconds": round(network * 1000, 2),
        "images_per_second": round(case.batch / network, 2),
        "ratio_to_backbone": round(statistics.median(map(float.__truediv__, rounds["network"], rounds["backbone"])), 3),
        "share_of_conv_ceiling": round(flops / network / (count_flops(ceiling) / best), 3),
        "memory_mb": round(peak / 2**20),
        "operations": launches,
        "gflop": round(flops / 1e9, 2),
        "rounds": len(rounds["network"]),
    }


def alternate(work: Mapping[str, Do], device: str, seconds: float) -> dict[str, list[float]]:
    """Seconds of each, round by round."""
    times: dict[str, list[float]] = {name: [] for name in work}
    calls = {name: max(1, round(0.1 / timed(do, device, 1))) if device != "cpu" else 1 for name, do in work.items()}
    for name, do in work.items():
        timed(do, device, calls[name])
    end = time.perf_counter() + seconds
    while len(times["network"]) < 2 or time.perf_counter() < end:
        for name, do in work.items():
            times[name].append(timed(do, device, calls[name]))
    return times


def timed(do: Do, device: str, calls: int) -> float:
    """Seconds per call: of this thread on a CPU, by the clock on a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device != "cpu":
        torch.cuda.synchronize()
    begin = clock()
    for _ in range(calls):
        do()
    if device != "cpu":
        torch.cuda.synchronize()
    return (clock() - begin) / calls


class Launches(TorchDispatchMode):
    """Counts the operators that compute: about as many as a GPU launches kernels."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func`` and count it, unless its result is a view."""
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def observe(do: Do, device: str) -> tuple[int, int, int]:
    """FLOPs, the most bytes that tensors take while it runs (weights and what else is there included), operators."""
    gc.collect()
    launches = Launches()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        with launches:
            flops = count_flops(do)
        return flops, int(torch.cuda.max_memory_allocated()), launches.count
    there = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in gc.get_objects() if _is_tensor(t)}
    with torch.profiler.profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler, launches:
        flops = count_flops(do)
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    sums = itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    return flops, sum(there.values()) + max(0, *sums), launches.count


def _is_tensor(thing: object) -> bool:
    return type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.device.type == "cpu"  # type: ignore[attr-defined]


def scaling(case: Case, against: str) -> list[dict[str, Any]]:
    """Prediction at growing sizes or with a growing number of tasks."""
    cases = {
        "pixels": [(side * side, replace(case, size=(side, side))) for side in (128, 256, 512, 1024)],
        "tasks": [(count, replace(case, tasks=count)) for count in (1, 2, 4, 8)],
    }
    points = []
    for value, one in cases[against]:
        work = Workload(one)
        pair = {"network": work.predict(), "backbone": work.predict_backbone()}
        rounds = alternate(pair, case.device, 4.0)
        network, backbone = (min(rounds[name]) * 1000 for name in pair)
        points.append(
            {"variant": case.variant, "backbone": case.backbone, "against": against, "value": value,
             "milliseconds": round(network, 2), "milliseconds_backbone": round(backbone, 2),
             "ratio_to_backbone": round(network / backbone, 3), "gflop": round(count_flops(pair["network"]) / 1e9, 2)}
        )  # fmt: skip
        print(json.dumps(points[-1]), flush=True)
    return points


def exponents(points: list[dict[str, Any]], against: str) -> dict[str, Any]:
    """Slopes of the logarithm of the cost against that of the pixels or tasks."""
    values = np.log([point["value"] for point in points])
    whole = np.array([point["milliseconds"] for point in points])
    heads = whole - [point["milliseconds_backbone"] for point in points]
    slopes = {
        name: round(float(np.polyfit(values, np.log(cost), 1)[0]), 3)
        for name, cost in (("network", whole), ("heads", heads))
    }
    return {"against": against} | slopes


if __name__ == "__main__":
    main()
