"""How good are discovered labels? A run's network on the pairs of training image and task whose labels it never saw.

    python benchmarks/discovery_quality.py --run RUN --out benchmarks/results/discovery_quality.json \
        --picture docs/reliability.png

RUN is a finished run whose data has labels that its `labels.csv` hides, or a model folder in it (`RUN/teacher`). Labels
and predictions are compared at the network's input size, all pixels pooled. `coverage` is the share of pixels whose
confidence is above `confidence`, `accuracy` the share of right ones among them; what is right is in the head of the
result (`right`), as is the expected calibration error in 100 bins. `kind`: `ours` (`Task.confidence`) or `paper` (as
published).
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch

from tasktokens.data.dataset import PartialDataset
from tasktokens.data.loading import eval_loader
from tasktokens.data.visibility import VisibleLabels, load_visible
from tasktokens.datasets.open import Data, open_data
from tasktokens.discovery.pseudo_labels import forward_views
from tasktokens.discovery.views import AS_IT_IS, second_view
from tasktokens.inference.evaluate import run_config, run_folder
from tasktokens.metrics import Reliability
from tasktokens.models.files import load_model
from tasktokens.models.layers import upsample
from tasktokens.reporting.provenance import describe
from tasktokens.tasks import Task

LEVELS = tuple(k / 20 for k in range(20))
"""0, 0.05, ..., 0.95."""
BINS = 100
KINDS = ("ours", "paper")
Found = Mapping[str, Mapping[str, Reliability]]  # by task and kind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--views", type=int, choices=(1, 2), default=2, help="as of tasktokens discover")
    args = parser.parse_args()

    config = run_config(args.run)
    data = open_data(config)
    network, info = load_model(args.run)
    pairs = hidden(data, run_folder(args.run))
    dataset = PartialDataset(data.collection, pairs, info.tasks, info.size)
    found = measure(network, info.tasks, dataset, config.optim.images, args.views)
    threads = torch.get_num_threads()
    how = f"{threads} thread{'s' if threads > 1 else ''}"
    result = describe(how, [config.seed], measured=["src", "benchmarks/discovery_quality.py"]) | {
        "views": args.views,
        "images": len(pairs),
        "hidden_labels": {name: sum(name in names for names in pairs.values()) for name in info.tasks},
        "right": {name: inspect.getdoc(task.correct) for name, task in info.tasks.items()},
        "ece": {t: {kind: plain(r.expected_calibration_error()) for kind, r in of.items()} for t, of in found.items()},
        "rows": rows(found),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    if args.picture is not None:
        draw(found, args.picture)


def hidden(data: Data, run: Path) -> VisibleLabels:
    """Labels of the training images that exist and that the run did not see."""
    available = {name: data.collection.labels[name] for name in data.tasks}
    seen = load_visible(run / "labels.csv", list(data.train), available)
    pairs = {id: tuple(name for name in available if id in available[name] and name not in seen[id]) for id in seen}
    pairs = {id: names for id, names in pairs.items() if names}
    if not pairs:
        raise SystemExit(f"{run} saw every label that there is; give a run with data.labels=one, random or a fraction")
    return pairs


@torch.no_grad()
def measure(
    network: torch.nn.Module, tasks: Mapping[str, Task], dataset: PartialDataset, batch_size: int, views: int
) -> dict[str, dict[str, Reliability]]:
    found = {name: {kind: Reliability(bins=BINS) for kind in KINDS} for name in tasks}
    for batch in eval_loader(dataset, batch_size):
        outputs = forward_views(tasks, network, batch.image, second_view() if views == 2 else (AS_IT_IS,))
        for name, task in tasks.items():
            labels = batch.labels[name]
            if len(labels.rows) == 0:
                continue
            logits = upsample(outputs[name].logits[labels.rows], labels.value.shape[-2:])
            right = task.correct(task.decode(logits), labels.value)
            for kind, sure in (("ours", task.confidence(logits)), ("paper", task.paper_confidence(logits))):
                found[name][kind].update(sure, right, labels.valid)
    return found


def rows(found: Found) -> list[dict[str, object]]:
    return [
        {
            "task": task, "kind": kind, "confidence": level,
            "coverage": plain(each.coverage(level)), "accuracy": plain(each.accuracy(level)),
        }
        for task, of in found.items() for kind, each in of.items() for level in LEVELS
    ]  # fmt: skip


def plain(value: float) -> float | None:
    """Four digits, and None for what is not defined."""
    return round(value, 4) if math.isfinite(value) else None


def draw(found: Found, path: Path) -> None:
    """A reliability diagram a task (how often pixels of a confidence are right), and what lies above each threshold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(found), 6.4), layout="constrained")
    panels = figure.subplots(2, len(found), sharex=True, sharey=True, squeeze=False)
    for (top, bottom), (task, of) in zip(panels.T, found.items(), strict=True):
        for kind, colour in zip(KINDS, ("tab:blue", "tab:orange"), strict=True):
            each = of[kind]
            pixels, right, sure = each.binned(len(LEVELS))
            error = each.expected_calibration_error()
            kept = pixels >= 0.001 * pixels.sum()  # of fewer the share says little
            label = f"{kind}, ECE {100 * error:.1f} %"
            top.plot((sure / pixels)[kept], (right / pixels)[kept], "o-", ms=3, color=colour, label=label)
            bottom.plot(LEVELS, [each.accuracy(level) for level in LEVELS], color=colour, label=f"{kind}: right")
            bottom.plot(
                LEVELS, [each.coverage(level) for level in LEVELS], ":", color=colour, label=f"{kind}: share of pixels"
            )
        top.plot([0, 1], [0, 1], color="grey", lw=0.7)
        top.set_title(task)
        top.legend(fontsize=8, loc="upper left")
        bottom.set_xlabel("confidence")
    panels[0, 0].set_ylabel("right, of pixels of that confidence")
    panels[1, 0].set_ylabel("above that confidence")
    panels[1, 0].legend(fontsize=8, loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
