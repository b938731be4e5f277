"""A method of your own: learn from given labels, and from the network's own sure predictions where there are none.

``python examples/own_method.py mydata``. A method says what its stages are and which loss terms a batch gives; sums and
counts stay apart, so that it works on any number of processes too.
"""

import argparse
from collections.abc import Mapping

import torch
from torch import nn
from torch.utils.data import DataLoader

import tasktokens
from tasktokens.losses import Term, masked_loss, total_loss
from tasktokens.methods import Method, PreparedBatch, Stage, StepOptions
from tasktokens.tasks import Task


class SelfTraining(Method):
    """Hard pseudo-labels of the student itself, from step ``start`` on (Lee, 2013)."""

    network = "mtl"

    def __init__(self, tasks: Mapping[str, Task], steps: int, start: int) -> None:
        super().__init__(tasks)
        self._steps, self._start = steps, start

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("self-training", self._steps),)

    def terms(self, prepared: PreparedBatch, student: nn.Module, teacher: nn.Module | None = None) -> list[Term]:
        batch, outputs, terms = prepared.batch, student(prepared.image), []
        for name, task in self.tasks.items():
            labels, logits = batch.labels[name], outputs[name].logits_at(batch.image.shape[-2:])
            given = masked_loss(task, logits[labels.rows], labels.value, labels.valid)
            terms.append(Term(f"loss/{name}", task.weight, *given))
            if prepared.options.step >= self._start:
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
    args = parser.parse_args()
    torch.manual_seed(0)
    train = tasktokens.open_dataset("folder", root=args.folder).train_dataset(labels="one")
    method = SelfTraining(train.tasks, args.steps, start=args.steps // 2)
    model = tasktokens.create_model(method.network, train.tasks, args.backbone)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader, step = DataLoader(train, batch_size=3, shuffle=True, drop_last=True, collate_fn=train.collate), 0
    while step < args.steps:
        for batch in loader:
            prepared = method.prepare(batch, torch.Generator().manual_seed(step), StepOptions(step))
            terms = method.terms(prepared, model.train())
            optimizer.zero_grad()
            total_loss(terms).backward()
            optimizer.step()
            step += 1
    print({term.name: round((term.total / term.count.clamp(min=1)).item(), 3) for term in terms})
