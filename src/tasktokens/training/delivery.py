"""What a run delivers: its last student, or that student's teacher where it is better on held-out labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasktokens.data.dataset import PartialDataset
from tasktokens.inference.evaluate import eval_dataset, evaluate_network
from tasktokens.metrics import mean_improvement
from tasktokens.models import Network
from tasktokens.models.files import load_model, save_model
from tasktokens.tasks import Task
from tasktokens.training.discovering import TEACHER
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.distributed import raise_on_all_ranks

if TYPE_CHECKING:
    from tasktokens.training.trainer import Trainer

DELIVERED, STUDENT = "delivered.json", "student"
"""What was compared, and the folder of a student that was not delivered."""

LEAST = 8
"""Held-out images with labels, below which a comparison says nothing."""


def better_network(trainer: Trainer) -> Network:
    """The network of the last stage, or its teacher where that is better on labels that neither was trained on.

    These are the images that the run set aside, or those of a split called ``val``. Says what was compared, or why
    nothing was; writes ``delivered.json``. Every rank returns the same network.
    """
    student, main = trainer.network, trainer.accelerator.is_main_process
    if not trainer.method.delivers_better or not (trainer.folder / TEACHER / "model.json").is_file():
        return student
    split = _split(trainer)
    dataset = None if split is None else _dataset(trainer, split)
    if split is None or dataset is None:
        trainer.log.say(
            f"student and teacher are not compared: fewer than {LEAST} held-out images have labels; "
            f"data.holdout=0.1 sets some aside"
        )
        return student
    with raise_on_all_ranks(trainer.accelerator):
        teacher = load_model(trainer.folder / TEACHER)[0].to(trainer.accelerator.device)
    found = {name: _evaluate(trainer, network, dataset) for name, network in (("teacher", teacher), (STUDENT, student))}
    change = improvement(trainer.tasks, found["teacher"], found[STUDENT])
    keep_teacher = change is not None and change < 0
    if main:
        better = "teacher" if keep_teacher else STUDENT
        record = {"network": better, "split": split, "images": len(dataset), "change": change, **found}
        write_atomically(trainer.folder / DELIVERED, strict_json.dumps(strict_json.finite(record), indent=1).encode())
        _say(trainer, split, len(dataset), change)
        if keep_teacher:
            save_model(trainer.folder / STUDENT, student, trainer.info)
    return teacher if keep_teacher else student


def improvement(
    tasks: Mapping[str, Task], before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]
) -> float | None:
    """`mean_improvement` in percent of the primary metrics that both have; None where that is none."""
    old, new, higher = {}, {}, {}
    for name, task in tasks.items():
        metric = task.metric()
        pair = before.get(name, {}).get(metric.primary), after.get(name, {}).get(metric.primary)
        if all(value is not None and value == value for value in pair):
            old[name], new[name] = map(float, pair)  # type: ignore[arg-type]
            higher[name] = metric.primary_is_higher
    change = mean_improvement(new, old, higher)
    return change if change == change else None


def _split(trainer: Trainer) -> str | None:
    if trainer.data.holdout:
        return "holdout"
    return "val" if trainer.data.collection.splits.get("val") else None


def _dataset(trainer: Trainer, split: str) -> PartialDataset | None:
    """Images of a split with all their labels; None where too few have one."""
    settings = trainer.config.data
    dataset = eval_dataset(trainer.data, split, trainer.tasks, settings.size, settings.evaluation)
    return dataset if sum(bool(names) for names in dataset.split.values()) >= LEAST else None


def _evaluate(trainer: Trainer, network: Network, dataset: PartialDataset) -> dict[str, dict[str, Any]]:
    return evaluate_network(
        network, dataset, trainer.config.optim.images, trainer.accelerator, trainer.stop,
        note="student and teacher were not compared to the end; the run is trained, --resume continues",
        workers=trainer.config.data.workers,
    )  # fmt: skip


def _say(trainer: Trainer, split: str, images: int, change: float | None) -> None:
    where = f"on {images} images of {split}" + (
        ", which the result is measured on too" if split == trainer.config.run.evaluate else ""
    )
    if change is None:
        trainer.log.say(f"student and teacher are not compared: no metric was measured {where}")
    elif change < 0:
        trainer.log.say(
            f"WARNING: the student is worse than its teacher by {-change:.2f} % {where}: the teacher is delivered as "
            f"model/, the student is in {STUDENT}/"
        )
    else:
        trainer.log.say(f"the student is better than its teacher by {change:.2f} % {where}: it is delivered")
