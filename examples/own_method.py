"""A method of your own: learn from given labels, and from the network's own sure predictions where there are none.

``python examples/own_method.py mydata``. A method says what its stages are and which loss terms a batch gives; sums and
counts stay apart, so that it works on any number of processes too.
"""

import argparse
import json
from collections.abc import Mapping
from typing import Literal

from torch import nn

import tasktokens
from tasktokens.config import MethodSettings
from tasktokens.losses import Term, masked_loss
from tasktokens.methods import METHODS, Method, PreparedBatch, Stage
from tasktokens.tasks import Task


class SelfTrainingMethod(MethodSettings):
    """Hard pseudo-labels of the student itself, from step ``start`` on (Lee, 2013)."""

    name: Literal["self-training"] = "self-training"
    steps: int = 1000
    start: int = 500


@METHODS.register("self-training")  # from here on a configuration may say `method.name: self-training`
class SelfTraining(Method):
    """One stage, one network."""

    settings_class = SelfTrainingMethod
    network = "mtl"

    def __init__(self, tasks: Mapping[str, Task], settings: SelfTrainingMethod) -> None:
        super().__init__(tasks)
        self.settings = settings

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("self-training", self.settings.steps),)

    def terms(self, prepared: PreparedBatch, student: nn.Module, teacher: nn.Module | None = None) -> list[Term]:
        batch, outputs, terms = prepared.batch, student(prepared.image), []
        for name, task in self.tasks.items():
            labels, logits = batch.labels[name], outputs[name].logits_at(batch.image.shape[-2:])
            given = masked_loss(task, logits[labels.rows], labels.value, labels.valid)
            terms.append(Term(f"loss/{name}", task.weight, *given))
            if prepared.options.step >= self.settings.start:
                guess = logits[labels.absent].detach()
                sure = (task.confidence(guess) > task.threshold) & batch.pixels[labels.absent]
                own = masked_loss(task, logits[labels.absent], task.decode(guess), sure)
                terms.append(Term(f"discovered_loss/{name}", 0.5 * task.weight, *own))
        return terms


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--out", default="runs/self-training")
    args = parser.parse_args()
    run = tasktokens.train(
        {
            "data": {"root": args.folder, "labels": "one"},
            "model": {"backbone": args.backbone, "pretrained": False},
            "method": {"name": "self-training", "steps": args.steps, "start": args.steps // 2},
            "optim": {"batch_size": 3},
            "run": {"dir": args.out},
        },
        quiet=True,
    )
    losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    print({name: value for name, value in losses[-2].items() if "loss/" in name})
