"""HTT against the MTL baseline and single-task networks, with its ablations: one table, several seeds, one JSON.

The main table of NYU Depth v2, from a folder that `tasktokens prepare --data nyud` made, and of the embedded rooms:

    python benchmarks/accuracy.py --data nyud --root DIR --weights FILE
    python benchmarks/accuracy.py --data rooms

NYU Depth v2 at the published size, on a GPU:

    python benchmarks/accuracy.py --data nyud_full_size --root DIR --weights FILE --seeds 0 \
        --methods mtl htt-in-one

Further blocks of the same files:

    python benchmarks/accuracy.py --data nyud --root DIR --weights FILE --labels random --seeds 0 1
    python benchmarks/accuracy.py --data nyud --root DIR --weights FILE --block ablation --seeds 0 1

Every run is `tasktokens train` in a process of its own with one thread, two side by side. A row is written as soon as
its run has ended, and a run whose row is there is not made again, so the command can be stopped and started; runs in
the middle are resumed. All methods see the same labels (`labels.csv` of the published split, or one drawn from the
seed), the same batches in the same order, the same augmentation, optimiser and steps: S a network, so that two-stage
HTT takes S steps of the teacher and S of the student, and `htt-online` S steps in all. `htt-two-rounds` has a second
student of S steps, which that of `htt` teaches, as with `method.rounds: 2`: 3 S in all, `htt-three-rounds` a third.
`mtl-long` is the baseline with 2 S, `mtl-longer` with 3 S, `htt-teacher` HTT of S steps that has discovered nothing:
the teacher of `htt`. The seed decides initial weights, order and augmentation. A single-task network leaves images
without its label out of the batches that all methods share. `--labels full` hides none: what could be had if every
missing label were discovered without an error.

`htt-in-one` is `htt` with both stages in one run: the teacher is its own, and not evaluated; likewise
`htt-two-rounds-in-one`. `htt-paper-full-width` is the `paper` variant in its place, for a GPU.

`htt-no-...` is two-stage HTT with one part off. Where that part belongs to the second stage alone, the teacher is the
same as that of `htt`. Minutes are of all stages: of the CPU, or by the clock where there is a GPU.

With `data.augmentation.late_scale=[...]` HTT has that zoom range while its students learn, every other method in the
second half of its steps.

`--holdout` measures on a fifth of the training images instead of the test images; settings were chosen there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import children
from provenance import describe
from tasktokens.config import Config, HttMethod, MtlMethod, load_config, to_yaml
from tasktokens.data.visibility import save_visible
from tasktokens.datasets.open import open_data
from tasktokens.methods import build_method
from tasktokens.metrics.delta import delta_mtl
from tasktokens.models import build_network
from tasktokens.training.log import minutes_of, read_rows
from tasktokens.utils.atomic import atomically

HERE = Path(__file__).parent
PRIMARY = {"semseg": "mIoU", "depth": "absErr", "normals": "mErr"}
"""The metric of each task that Δ_MTL counts."""
NETWORK_PARTS = {
    "no-global-tokens": ["model.global_tokens=false"],
    "no-multi-scale": ["model.multi_scale=false"],
    "no-fine-tokens": ["model.fine_tokens=false"],
    "no-image-affinity": ["model.image_affinity=false"],
}
"""What turns a part of the network off: both stages are made with it."""
DISCOVERY_PARTS = {
    "no-prediction-level": ["method.prediction_level=0"],
    "no-feature-level": ["method.feature_level=0"],
    "no-token-level": ["method.token_level=0"],
    "no-confidence-weighting": ["method.confidence_weighting=false"],
    "no-discovery": ["method.prediction_level=0", "method.feature_level=0", "method.token_level=0"],
    "no-second-view": ["method.teacher_views=1"],
    "no-strong-view": ["method.strong={photometric: 0.3, grey: 0, blur: 0, cutmix: 0}"],
    "no-adaptive-thresholds": ["method.thresholds=fixed"],
}
"""What turns a part of the second stage off: the teacher is that of `htt`."""
ROUNDS = ["htt-teacher", "htt", "htt-two-rounds", "htt-three-rounds"]
"""Each learns from the network of the one before."""
TAUGHT = {
    **{name: [] for name in ROUNDS[1:]},
    "htt-geometry": ["method.geometry=true", "method.focal=0.81"],  # NYU Depth v2's camera
    "htt-fresh-student": ["method.student=fresh"],
    **{f"htt-{name}": changes for name, changes in DISCOVERY_PARTS.items()},
}
"""What learns from the network of another run, and what it changes of the second stage."""
ROUND_SEED = 1000
"""Added to the seed in each round after the first, or its student would see the crops of the one before again."""
SUPERVISED = {"stl": 1, "mtl": 1, "mtl-long": 2, "mtl-longer": 3}
"""What learns from the given labels alone, and for how many times the steps of a network."""
WHOLE = {
    "htt-in-one": [],
    "htt-two-rounds-in-one": ["method.rounds=2", "data.augmentation.late_from=0.3333"],
    "htt-paper-full-width": ["model.variant=paper"],
    # Both at one width, for the paper's own is too slow for a CPU.
    "htt-narrow": ["model.width=32"],
    "htt-paper": ["model.width=32", "model.variant=paper"],
    **{f"htt-{name}": changes for name, changes in NETWORK_PARTS.items()},
}
"""What makes both stages itself, and what it changes of them."""
BLOCKS = {
    "main": ["stl", "mtl", "htt", "htt-online"],
    "long": ["mtl-long"],
    "teacher": ["htt-teacher"],
    "in-one": ["htt-in-one", "htt-two-rounds-in-one"],
    "variants": ["htt-geometry", "htt-fresh-student"],
    "rounds": ["htt-two-rounds", "htt-three-rounds", "mtl-longer"],
    "paper": ["htt-narrow", "htt-paper"],
    "full-width": ["htt-paper-full-width"],
    "ablation": [f"htt-{name}" for name in NETWORK_PARTS | DISCOVERY_PARTS],
}
METHODS = [method for methods in BLOCKS.values() for method in methods]


def main() -> None:
    args = parse()
    args.runs.mkdir(parents=True, exist_ok=True)
    table = Table(args)
    methods = args.methods or BLOCKS[args.block]
    labels_file(args)  # before the runs, which all read it
    jobs = [(method, seed) for seed in args.seeds for method in methods if not table.has(method, seed)]
    with ThreadPoolExecutor(args.jobs) as pool:
        for teacher in ROUNDS[:-1]:  # each before what goes on from it
            taught = sorted({seed for method, seed in jobs if teacher in teachers(method)})
            list(pool.map(partial(chain, args, teacher), taught))
        list(pool.map(lambda job: table.add(measure(args, *job)), jobs))
    table.write()
    print(table.markdown())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["nyud", "nyud_full_size", "rooms"], required=True)
    parser.add_argument("--root", type=Path, help="NYU: the folder that `tasktokens prepare` made")
    parser.add_argument("--weights", type=Path, help="NYU: ImageNet weights (benchmarks/imagenet_weights.py)")
    parser.add_argument("--labels", choices=["one", "random", "full"], default="one")
    parser.add_argument("--block", choices=list(BLOCKS), default="main")
    parser.add_argument("--methods", nargs="+", help="in place of a block")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--holdout", action="store_true")
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_args()
    if args.data != "rooms" and (args.root is None or args.weights is None):
        parser.error(f"{args.data} needs --root and --weights")
    for method in args.methods or []:
        if method not in METHODS:
            parser.error(f"no method '{method}'; there are {', '.join(METHODS)}")
    args.out = args.out or HERE / "results" / f"accuracy_{args.data}{'_holdout' * args.holdout}.json"
    return args


class Table:
    """The rows of a results file: those that are there, and those that are added."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.lock = args, Lock()
        self.head: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        if args.out.is_file():
            self.head = json.loads(args.out.read_text())
            self.rows = self.head.pop("rows")

    def has(self, method: str, seed: int) -> bool:
        return any((r["method"], r["seed"], r["labels"]) == (method, seed, self.args.labels) for r in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        with self.lock:
            self.rows.append(row)
            self.write()

    def write(self) -> None:
        for row in self.rows:
            reference = self._reference(row)
            row["delta_mtl"] = round(change(row, reference), 2) if reference else None
        seeds = sorted({row["seed"] for row in self.rows})
        head = describe(f"{self.args.jobs} runs at a time; minutes: {MINUTES}, evaluation included", seeds)
        commands = dict.fromkeys([*str(self.head.get("command", "")).splitlines(), head["command"]])
        head["command"] = "\n".join(str(command) for command in commands if command)
        order = {method: i for i, method in enumerate(METHODS)}
        rows = sorted(self.rows, key=lambda row: (row["labels"], order[row["method"]], row["seed"]))
        self.args.out.write_text(json.dumps(head | {"rows": rows}, indent=1, ensure_ascii=False) + "\n")

    def _reference(self, row: Mapping[str, Any]) -> dict[str, float] | None:
        """Mean of the single-task networks over the seeds: a seed of its own would be noise."""
        single = [r for r in self.rows if r["method"] == "stl" and r["labels"] == row["labels"]]
        if not single:
            return None
        return {key: sum(r[key] for r in single) / len(single) for key in PRIMARY.values()}

    def markdown(self) -> str:
        """Means over the seeds, one line a method."""
        lines = ["| method | labels | seeds | mIoU | absErr | mErr | Δ_MTL % | GFLOP | minutes |", "|---" * 9 + "|"]
        for labels, method in dict.fromkeys((row["labels"], row["method"]) for row in self.rows):
            rows = [r for r in self.rows if (r["labels"], r["method"]) == (labels, method)]
            cells = [f"{mean(rows, key):.{digits}f}" for key, digits in DIGITS.items()]
            lines.append(f"| {method} | {labels} | {len(rows)} | {' | '.join(cells)} |")
        return "\n".join(lines)


ON_GPU = torch.cuda.is_available()
MINUTES = "by the clock" if ON_GPU else "CPU time of the run"
DIGITS = {"mIoU": 2, "absErr": 4, "mErr": 2, "delta_mtl": 2, "gflops": 3, "minutes": 1}


def mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    values = [row[key] for row in rows if row[key] is not None]
    return sum(values) / len(values) if values else float("nan")


def change(row: Mapping[str, Any], reference: Mapping[str, float]) -> float:
    """Δ_MTL in percent against the single-task networks."""
    return delta_mtl({key: row[key] for key in reference}, reference, {key: key == "mIoU" for key in reference})


def measure(args: argparse.Namespace, method: str, seed: int) -> dict[str, Any]:
    """Train and evaluate one method with one seed; the single-task networks are one row."""
    split = "holdout" if args.holdout else "test"
    row: dict[str, Any] = {"method": method, "seed": seed, "labels": args.labels, "split": split}
    totals = {"gflops": 0.0, "minutes": 0.0}
    for task in PRIMARY if method == "stl" else [None]:
        runs, minutes = chain(args, method, seed, task)
        totals["minutes"] += minutes
        totals["gflops"] += gflops(runs[-1])
        row |= primary(json.loads((runs[-1].run.dir / f"evaluation-{split}.json").read_text()))
    row["steps"] = sum(build_method(run.method, {}).steps for run in runs)
    if len(runs) > 1:
        row["teacher"] = runs[-2].run.dir.name
    return row | {name: round(value, 4) for name, value in totals.items()}


def teachers(method: str) -> list[str]:
    """The methods whose networks come before that of ``method``, the first one first."""
    if method not in TAUGHT:
        return []
    return ROUNDS[: ROUNDS.index(method)] if method in ROUNDS else ROUNDS[:1]


def chain(args: argparse.Namespace, method: str, seed: int, task: str | None = None) -> tuple[list[Config], float]:
    """Train a method, for one task or all, after what it goes on from; all the runs and their CPU minutes."""
    runs: list[Config] = []
    minutes = 0.0
    for name in [*teachers(method), method]:
        config = load_config(base(args), settings(args, name, seed, task))
        minutes += train(config, runs[-1] if runs else None)
        runs.append(config)
    return runs, minutes


def primary(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The metric that counts of each task that was evaluated."""
    return {metric: round(results[task][metric], 4) for task, metric in PRIMARY.items() if task in results}


def base(args: argparse.Namespace) -> Path:
    """The configuration of a data set, which all methods share."""
    return HERE.parent / "configs" / f"accuracy_{args.data}.yaml"


def folder(args: argparse.Namespace) -> Path:
    """Where the runs of a data set and kind of split lie."""
    return Path(args.runs) / f"{args.data}-{args.labels}{'-holdout' * args.holdout}"


def common(args: argparse.Namespace) -> list[str]:
    """What all runs change of their data set's configuration."""
    files = [] if args.root is None else [f"data.root={args.root}", f"model.weights={args.weights}"]
    return [*args.overrides, *files]


def settings(args: argparse.Namespace, method: str, seed: int, task: str | None = None) -> list[str]:
    """What a run, of one task or of all, changes of its data set's configuration."""
    config = load_config(base(args), common(args))
    assert isinstance(config.method, HttMethod)
    assert config.tasks is not None
    steps = config.method.stage1_steps + config.method.stage2_steps
    chosen = {name: config.tasks[name].model_dump(exclude_none=True) for name in ([task] if task else PRIMARY)}
    name = f"{method}-{task}-{seed}" if task else f"{method}-{seed}"
    changes = [
        *common(args),
        f"seed={seed + ROUND_SEED * max(0, len(teachers(method)) - 1)}",
        f"run.dir={folder(args) / name}",
        f"run.evaluate={'holdout' if args.holdout else 'test'}",
        f"data.holdout={0.2 if args.holdout else 0.0}",
        f"data.labels={labels_file(args)}",
        f"tasks={json.dumps(chosen)}",
    ]
    if method in SUPERVISED:
        return [*changes, f"method={{name: mtl, steps: {SUPERVISED[method] * steps}}}"]
    if method == "htt-online":
        return [*changes, "method.schedule=online"]
    first, second = (0 if method in TAUGHT else steps), (0 if method == "htt-teacher" else steps)
    stages = [f"method.stage1_steps={first}", f"method.stage2_steps={second}"]
    late = f"data.augmentation.late_from={first / (first + second)}"  # the students' steps
    return [*changes, "method.schedule=two-stage", *stages, late, *(TAUGHT | WHOLE).get(method, [])]


def labels_file(args: argparse.Namespace) -> Path:
    """Which labels all runs may see: the published split where there is one, else one that is drawn once."""
    path = folder(args) / "labels.csv"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        data = open_data(load_config(base(args), [*common(args), f"data.labels={args.labels}"]))
        with atomically(path) as new:
            save_visible(new, data.train, list(data.tasks))
    return path


def train(config: Config, first: Config | None = None) -> float:
    """Run `tasktokens train` to its end, whatever of it was done before; its minutes, of all attempts.

    Args:
        first: the run that it goes on from.
    """
    start = ["--overwrite"] if first is None else ["--overwrite", "--init-from", str(first.run.dir)]
    folder = config.run.dir
    spent = folder.with_suffix(".minutes")
    folder.parent.mkdir(parents=True, exist_ok=True)
    while not (folder / f"evaluation-{config.run.evaluate}.json").is_file():
        whole = folder.with_suffix(".yaml")
        whole.write_text(to_yaml(config))
        how = ["--resume"] if any(folder.glob("checkpoints/*/complete.json")) else start
        began = time.monotonic()
        status, cpu_seconds = children.train(folder, ["--config", str(whole), *how])
        before = float(spent.read_text()) if spent.is_file() else 0.0
        seconds = time.monotonic() - began if ON_GPU else cpu_seconds
        spent.write_text(str(before + seconds / 60))
        children.expect_success(folder, status)
    if not spent.is_file():  # this program was killed just then; a run with one thread takes as long by the clock
        spent.write_text(str(minutes_of(read_rows(folder / "metrics.jsonl"))))
    return float(spent.read_text())


def gflops(config: Config) -> float:
    """Floating-point operations of one image, a multiplication and an addition being two."""
    data = open_data(config)
    kind = "mtl" if isinstance(config.method, MtlMethod) else "htt"
    network = build_network(kind, data.tasks, config.model, load_weights=False).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, *config.data.size, dtype=torch.uint8))
    return counter.get_total_flops() / 1e9


if __name__ == "__main__":
    children.hand_on_sigterm()
    main()
