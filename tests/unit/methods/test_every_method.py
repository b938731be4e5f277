"""What every method promises, whatever it does: given labels, missing ones, ranks, resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from method_fakes import build
from properties import assert_batch_independent, garbage, random_batch, same_tensors
from resuming import stopped_at
from tasktokens.data.sample import Batch, Labels
from tasktokens.data.sharding import BatchShard
from tasktokens.methods import METHODS, Method, StepOptions, Term, build_method
from tasktokens.models import Network
from tasktokens.tasks import Task
from tasktokens.training.beside import trained
from tasktokens.training.checkpoint import complete_checkpoints
from tasktokens.training.step import combine
from tasktokens.training.trainer import train
from two_ranks import double_without_batch_statistics

Tasks = dict[str, Task]
every_method = pytest.mark.parametrize("name", list(METHODS))
SOME = [["semseg"], ["depth", "edge"], [], ["normals", "semseg"], ["saliency"], ["depth"], ["edge"], ["normals"]]
LATE = 900
"""A step at which losses that grow with time have grown."""


@pytest.fixture(scope="session")
def make_config(make_config_of_two: Callable[..., Any]) -> Callable[..., Any]:
    """Two tasks will do."""
    return make_config_of_two


class Case:
    """A method with its networks, as they are in its last stage."""

    def __init__(self, name: str, tasks: Tasks) -> None:
        self.method: Method = build_method(METHODS[name].settings_class(), tasks)  # type: ignore[call-arg]
        self.student: Network = build(self.method.network, tasks)
        torch.manual_seed(3)
        self.method.begin(self.student)
        stage = self.method.stages()[-1]
        self.teacher = build(self.method.network, tasks, seed=1).eval() if stage.has_teacher else None
        self.beside = trained(self.method.state())

    def train(self, mode: bool = True) -> None:
        for module in (self.student, *self.beside):
            module.train(mode)

    def terms(self, batch: Batch, shard: BatchShard | None = None) -> tuple[list[Term], dict[str, Tensor]]:
        options = StepOptions(LATE, self.teacher is not None, 0.3, 1, shard or BatchShard())
        prepared = self.method.prepare(batch, torch.Generator().manual_seed(5), options)
        return self.method.terms(prepared, self.student, self.teacher), self.method.counts(prepared)

    def backward(self, batch: Batch) -> Tensor:
        loss, _ = combine(self.terms(batch)[0], Accelerator(cpu=True))
        for module in (self.student, *self.beside):
            module.zero_grad()
        loss.backward()
        return loss


def part_of(batch: Batch, number: int, of: int) -> Batch:
    """Every ``of``-th image, from ``number`` on."""
    rows = list(range(len(batch.ids)))[number::of]

    def labels(item: Labels) -> Labels:
        own = [(rows.index(row), place) for place, row in enumerate(item.rows.tolist()) if row in rows]
        place = torch.tensor([p for _, p in own], dtype=torch.int64)
        here = torch.tensor([r for r, _ in own], dtype=torch.int64)
        absent = torch.tensor(sorted(set(range(len(rows))) - set(here.tolist())), dtype=torch.int64)
        return Labels(here, absent, item.value[place], item.valid[place])

    each = {name: labels(item) for name, item in batch.labels.items()}
    seen = sorted({row for item in each.values() for row in item.rows.tolist()})
    labelled = None if len(seen) == len(rows) else torch.tensor(seen, dtype=torch.int64)
    return Batch(tuple(batch.ids[r] for r in rows), batch.image[rows], batch.pixels[rows], each, labelled=labelled)


@every_method
def test_a_batch_without_labels_has_no_supervised_loss_and_can_be_learned_from(name: str, tiny_tasks: Tasks) -> None:
    case = Case(name, tiny_tasks)
    case.train()
    batch = random_batch(tiny_tasks, [[], [], []])
    loss = case.backward(batch)
    assert torch.isfinite(loss)
    supervised = [term for term in case.terms(batch)[0] if term.name.startswith("loss/")]
    assert len(supervised) == len(tiny_tasks)
    assert all(term.total == 0 and term.count == 0 for term in supervised)
    gradients = [p.grad for p in case.student.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@every_method
def test_gradients_reach_every_parameter(name: str, tiny_tasks: Tasks) -> None:
    """None is left out with labels of one task alone; with those of all, what is trained beside the student learns."""
    case = Case(name, tiny_tasks)
    case.train()
    for present in ([["depth"], ["depth"]], SOME):
        loss = case.backward(random_batch(tiny_tasks, present))
        assert torch.isfinite(loss)
        for key, parameter in case.student.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
    assert all(p.grad is None for p in ([] if case.teacher is None else case.teacher.parameters()))
    for module in case.beside:
        still = [key for key, p in module.named_parameters() if p.grad is None or not p.grad.any()]
        assert still == []


@every_method
def test_given_labels_stay_as_they_are_and_what_is_not_valid_is_not_read(name: str, tiny_tasks: Tasks) -> None:
    case = Case(name, tiny_tasks)
    case.train(False)
    batch = random_batch(tiny_tasks, SOME)
    copies = {task: labels.map(Tensor.clone) for task, labels in batch.labels.items()}
    plain = case.terms(batch)[0]
    for task, labels in batch.labels.items():
        assert torch.equal(labels.value, copies[task].value)
        assert torch.equal(labels.valid, copies[task].valid)
    spoilt = {
        task: replace(labels, value=garbage(labels.value, labels.valid.expand_as(labels.value)))
        for task, labels in batch.labels.items()
    }
    other = case.terms(replace(batch, labels=spoilt))[0]
    assert [term.name for term in plain] == [term.name for term in other]
    for one, two in zip(plain, other, strict=True):
        assert torch.isfinite(two.total), one.name
        torch.testing.assert_close(one.total, two.total, msg=one.name)
        assert torch.equal(one.count, two.count), one.name


@every_method
def test_a_prediction_does_not_depend_on_the_other_images(name: str, tiny_tasks: Tasks) -> None:
    assert_batch_independent(Case(name, tiny_tasks).student, random_batch(tiny_tasks, [[]] * 3).image)


@contextmanager
def same_results() -> Iterator[None]:
    """Double precision, so that sums of parts differ by rounding alone."""
    with double_without_batch_statistics():
        yield


@every_method
def test_parts_of_a_batch_add_up_to_the_whole(name: str, tiny_tasks: Tasks) -> None:
    """As several ranks and accumulated gradients have it: sums, counts, and counts that are known beforehand."""
    with same_results():
        case = Case(name, tiny_tasks)
        for module in (case.student, case.teacher, *case.beside):
            if module is not None:
                module.double().eval()
        batch = random_batch(tiny_tasks, SOME)
        whole, counts = case.terms(batch)
        sums = {term.name: torch.zeros(2) for term in whole}
        of_parts = {key: torch.zeros(()) for key in counts}
        for number in range(3):
            terms, known = case.terms(part_of(batch, number, 3), BatchShard(number, 3, len(batch.ids)))
            assert [term.name for term in terms] == [term.name for term in whole]
            for term in terms:
                sums[term.name] += torch.stack([term.total.detach(), term.count])
                if term.weight:
                    assert known[term.name] == term.count, term.name
            of_parts = {key: value + known[key] for key, value in of_parts.items()}
        for term in whole:
            expected = torch.stack([term.total.detach(), term.count.to(term.total.dtype)])
            torch.testing.assert_close(sums[term.name], expected, rtol=1e-6, atol=1e-6, msg=term.name)
        assert {key: value.item() for key, value in of_parts.items()} == {k: v.item() for k, v in counts.items()}


@every_method
def test_a_step_in_bf16_is_finite(name: str, tiny_tasks: Tasks) -> None:
    case = Case(name, tiny_tasks)
    case.train()
    batch = random_batch(tiny_tasks, SOME)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms, _ = case.terms(batch)
    exact, _ = case.terms(batch)
    for term, other in zip(terms, exact, strict=True):
        assert term.total.dtype == torch.float32, term.name
        assert torch.equal(term.count, other.count), term.name
    combine(terms, Accelerator(cpu=True))[0].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in case.student.parameters())


@every_method
def test_a_run_that_is_resumed_ends_with_the_same_weights(
    name: str, folder_root: Path, tmp_path: Path, make_config: Callable[..., Any]
) -> None:
    settings = METHODS[name].settings_class
    names = ("stage1_steps", "stage2_steps") if "stage1_steps" in settings.model_fields else ("steps",)
    steps = dict.fromkeys(names, 4)
    changes = {
        "method": {"name": name, **steps}, "model.backbone": "test_resnet", "data.check": False,
        "data.labels": "random",
    }  # fmt: skip
    run = train(make_config(folder_root, tmp_path / "run", **changes), quiet=True)
    last = complete_checkpoints(run / "checkpoints")[-1]
    train(stopped_at(run, tmp_path / "again", f"{last.name[0]}-0000002"), resume=True, quiet=True)
    for path in sorted(last.glob("*.safetensors")):
        again = tmp_path / "again" / "checkpoints" / last.name / path.name
        assert same_tensors(load_file(path), load_file(again)), path.name
