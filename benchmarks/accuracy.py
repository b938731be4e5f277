"""Methods x seeds x label settings on one data set, as one table: the suites in ``benchmarks/suites``.

    python benchmarks/accuracy.py nyud data.root=DIR model.weights=FILE
    python benchmarks/accuracy.py nyud --labels random --seeds 0 1 data.root=DIR model.weights=FILE
    python benchmarks/accuracy.py rooms --methods mtl htt htt-no-discovery --jobs 2

Every run is `tasktokens train` in a process of its own with one thread. A row is written as soon as its run has ended,
a run whose row is there is not made again, and a run that was cut off is resumed, so the command can be stopped and
started. All methods see the same labels, the same batches in the same order, the same augmentation and optimiser; the
seed decides initial weights, order and augmentation. ``suites/methods.yaml`` says what each method changes, and which
run it goes on from. With ``data.augmentation.late_scale=[...]`` a run that goes on from another has that zoom range
from its start, every other in the second half of its steps. Minutes are of all runs of a row: of the CPU, or by the
clock where there is a GPU. ``--holdout`` measures on a fifth of the training images instead of the test images:
settings are chosen there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import children
from suite import Suite, read_suite
from table import Table
from tasktokens.config import Config, to_yaml
from tasktokens.data.visibility import save_visible
from tasktokens.datasets.open import open_data
from tasktokens.methods import build_method
from tasktokens.models import build_network
from tasktokens.reporting.provenance import describe
from tasktokens.training.log import minutes_of, read_rows
from tasktokens.utils.atomic import atomically

HERE = Path(__file__).parent
ON_GPU = torch.cuda.is_available()
ROUND_SEED = 1000
"""Added to the seed in each round after the first, or its student would see the crops of the one before again."""


def main() -> None:
    """Make what is missing of a table, and print it."""
    args = parse()
    suite = read_suite(args.suite, args.overrides)
    suite = replace(suite, steps=args.steps or suite.steps)
    methods = args.methods or suite.default
    for method in methods:
        suite.method(method)  # or it is refused before anything runs
    minutes = "by the clock" if ON_GPU else "CPU time of the run"
    table = Table(
        args.out or HERE / "results" / f"accuracy_{args.suite.stem}{'_holdout' * args.holdout}.json",
        suite.primary,
        list(suite.methods),
        lambda seeds: describe(f"{args.jobs} runs at a time; minutes: {minutes}, evaluation included", seeds),
    )
    jobs = [
        Job(suite, args.runs, method, seed, labels, args.holdout)
        for labels in args.labels or suite.labels
        for seed in (suite.seeds if args.seeds is None else args.seeds)
        for method in methods
        if not table.has(method, seed, labels)
    ]
    for job in jobs:
        job.labels_file()  # before the runs, which all read it
    with ThreadPoolExecutor(args.jobs) as pool:
        shared = {(chain.method, chain.seed, chain.labels): chain for job in jobs for chain in job.before()}
        for depth in range(1, 1 + max((len(chain.before()) + 1 for chain in shared.values()), default=0)):
            list(pool.map(Job.train, [chain for chain in shared.values() if len(chain.before()) + 1 == depth]))
        list(pool.map(lambda job: table.add(job.measure()), jobs))
    table.write()
    print(table.markdown())


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=_suite, help="a file, or the name of one in benchmarks/suites")
    parser.add_argument("--methods", nargs="+", help="in place of the suite's")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--labels", nargs="+", help="one, random, full, or a fraction")
    parser.add_argument("--steps", type=int, help="of a network, in place of the suite's")
    parser.add_argument("--holdout", action="store_true")
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path)
    args, overrides = parser.parse_known_args()
    if any(word.startswith("-") or "=" not in word for word in overrides):
        parser.error(f"not an option, and no KEY=VALUE: {' '.join(overrides)}")
    args.overrides = overrides
    return args


def _suite(text: str) -> Path:
    path = Path(text)
    return path if path.is_file() else HERE / "suites" / f"{text}.yaml"


class Job:
    """One row: a method with a seed and a label setting, after the runs that it goes on from."""

    def __init__(self, suite: Suite, runs: Path, method: str, seed: int, labels: str, holdout: bool) -> None:
        self.suite, self.runs, self.method, self.seed, self.labels, self.holdout = (
            suite, runs, method, seed, labels, holdout
        )  # fmt: skip
        self.folder = runs / f"{suite.name}-{labels}{'-holdout' * holdout}"
        self.split = "holdout" if holdout else "test"

    def before(self) -> list[Job]:
        """The runs that this one goes on from, the first one first."""
        names: list[str] = []
        while (after := self.suite.method((names or [self.method])[-1]).get("after")) is not None:
            names.append(str(after))
        return [Job(self.suite, self.runs, name, self.seed, self.labels, self.holdout) for name in reversed(names)]

    def measure(self) -> dict[str, Any]:
        """Train and evaluate; single-task networks are one row."""
        row: dict[str, Any] = {"method": self.method, "seed": self.seed, "labels": self.labels, "split": self.split}
        totals = {"gflops": 0.0, "minutes": 0.0}
        tasks = list(self.suite.primary) if self.suite.method(self.method).get("each_task") else [None]
        for task in tasks:
            chain = [*(job.config() for job in self.before()), self.config(task)]
            totals["minutes"] += sum(job.train() for job in self.before()) + self.train(task)
            totals["gflops"] += gflops(chain[-1])
            results = json.loads((chain[-1].run.dir / f"evaluation-{self.split}.json").read_text())
            row |= {m: round(results[t][m], 4) for t, m in self.suite.primary.items() if t in results}
        row["steps"] = sum(build_method(config.method, {}).steps for config in chain)
        if len(chain) > 1:
            row["teacher"] = chain[-2].run.dir.name
        return row | {name: round(value, 4) for name, value in totals.items()}

    def config(self, task: str | None = None) -> Config:
        """The settings of the run, of one task or of all."""
        name = f"{self.method}-{task}-{self.seed}" if task else f"{self.method}-{self.seed}"
        rounds = max(0, len(self.before()) - 1)
        drawn = {} if task and self.suite.own_data(self.method) else {"data.labels": str(self.labels_file())}
        return self.suite.config(self.method, task, {
            "seed": self.seed + ROUND_SEED * rounds,
            "run.dir": str(self.folder / name),
            "run.evaluate": self.split,
            "run.threads": 1 if not ON_GPU else None,
            "data.holdout": 0.2 if self.holdout else 0.0,
        } | drawn)  # fmt: skip

    def labels_file(self) -> Path:
        """Which labels all runs may see: the published split where there is one, else one that is drawn once."""
        path = self.folder / "labels.csv"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            data = open_data(self.suite.config(None, None, {"data.labels": self.labels}))
            with atomically(path) as new:
                save_visible(new, data.train, list(data.tasks))
        return path

    def train(self, task: str | None = None) -> float:
        """Run `tasktokens train` to its end, whatever of it was done before; its minutes, of all attempts."""
        config, before = self.config(task), self.before()
        folder, split = config.run.dir, self.split
        spent, whole = folder.with_suffix(".minutes"), folder.with_suffix(".yaml")
        start = ["--overwrite", *(["--init-from", str(before[-1].config().run.dir)] if before else [])]
        folder.parent.mkdir(parents=True, exist_ok=True)
        while not (folder / f"evaluation-{split}.json").is_file():
            whole.write_text(to_yaml(config))
            how = ["--resume"] if any(folder.glob("checkpoints/*/complete.json")) else start
            began = time.monotonic()
            status, cpu_seconds = children.train(folder, ["--config", str(whole), *how])
            seconds = time.monotonic() - began if ON_GPU else cpu_seconds
            spent.write_text(str((float(spent.read_text()) if spent.is_file() else 0.0) + seconds / 60))
            children.expect_success(folder, status)
        if not spent.is_file():  # this program was killed just then; a run with one thread takes as long by the clock
            spent.write_text(str(minutes_of(read_rows(folder / "metrics.jsonl"))))
        return float(spent.read_text())


def gflops(config: Config) -> float:
    """Floating-point operations of one image, a multiplication and an addition being two."""
    data = open_data(config)
    kind = build_method(config.method, data.tasks).network
    network = build_network(kind, data.tasks, config.model, load_weights=False).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, *config.data.size, dtype=torch.uint8))
    return counter.get_total_flops() / 1e9


if __name__ == "__main__":
    children.hand_on_sigterm()
    main()
