"""MTL baseline against HTT: the same configuration and labels, several seeds; one JSON of results.

`mtl` takes as many optimiser steps as all stages of HTT together, or --mtl-steps; `mtl-both` always the former.

    python benchmarks/compare.py --config configs/nyud_small.yaml --seeds 0 --out benchmarks/results/nyud_small.json \
        data.root=DIR model.weights=FILE

Every run is `tasktokens train` in a process of its own with one thread; as many run side by side as there are cores.
A run that is finished is not run again, so the command can be stopped and started.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import children
from provenance import describe
from tasktokens.config import Config, load_config
from tasktokens.methods import build_method


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", default=["mtl", "htt"], choices=["mtl", "mtl-both", "htt"])
    parser.add_argument("--mtl-steps", type=int)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_args()

    started = time.time()
    jobs = [(method, seed) for seed in args.seeds for method in args.methods]
    with ThreadPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(lambda job: run(args, *job), jobs))
    result = describe(f"one thread a run, {args.jobs} runs side by side", args.seeds) | {
        "minutes_in_all": round((time.time() - started) / 60, 1),
        "rows": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(rows, indent=1))


def run(args: argparse.Namespace, method: str, seed: int) -> dict[str, object]:
    """Train and evaluate once, and read the figures that `tasktokens train` wrote."""
    folder = args.runs / args.out.stem / f"{method}-{seed}"
    overrides = [*args.overrides, f"seed={seed}", f"data.label_seed={seed}", f"run.dir={folder}", "run.threads=1"]
    config = load_config(args.config, overrides)
    steps = total_steps(config)
    if method == "mtl":
        steps = args.mtl_steps or steps
    if method != "htt":
        overrides.append(f"method={{name: mtl, steps: {steps}}}")
    split = config.run.evaluate
    results = folder / f"evaluation-{split}.json"
    if not results.is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        status, _ = children.train(folder, ["--config", str(args.config), "--overwrite", *overrides])
        children.expect_success(folder, status)
    metrics = json.loads(results.read_text())
    finished = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    flat = {
        name: round(value, 4)
        for values in metrics.values()
        for name, value in values.items()
        if value and "/" not in name
    }
    return {"method": method, "seed": seed, "labels": config.data.labels, "split": split, **flat,
            "steps": steps, "minutes": round(finished["minutes"], 1)}  # fmt: skip


def total_steps(config: Config) -> int:
    """Optimiser steps of all stages of HTT: what the baseline gets too."""
    assert config.method.name == "htt", "give a configuration of HTT; the baseline's follows from it"
    return build_method(config.method, {}).steps


if __name__ == "__main__":
    children.hand_on_sigterm()
    main()
