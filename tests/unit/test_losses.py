"""Masked losses: sums and counts over valid pixels, whatever lies elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor
from torch.nn import functional as F

from properties import garbage, random_batch, random_label
from tasktokens.config import ModelSettings
from tasktokens.losses import masked_divergence, masked_loss, masked_mse, mean
from tasktokens.methods.base import PixelSampler, supervised_term
from tasktokens.models import at_least_one, build_network, head_rows
from tasktokens.tasks import Depth, Edge, Normals, Saliency, Segmentation, Task

ALL = [
    Segmentation("semseg", classes=("a", "b", "c")), Depth("depth", bins=6), Normals("normals", centres_count=6),
    Edge("edge"), Saliency("saliency"),
]  # fmt: skip
every_task = pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)


def draw(task: Task, size: tuple[int, int], count: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(count, task.num_tokens, *size)).astype(np.float32) * 2)
    return logits.requires_grad_(), torch.stack([random_label(task, size, rng) for _ in range(count)])


@every_task
@settings(max_examples=15)
@given(data=st.data())
def test_masked_loss_is_the_sum_over_valid_pixels(task: Task, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 3), st.just(1), st.integers(1, 6), st.integers(1, 6)))
    valid = torch.from_numpy(data.draw(hnp.arrays(bool, shape)))
    weight = torch.from_numpy(data.draw(hnp.arrays(np.float32, shape, elements=st.floats(0, 1, width=32))))
    logits, target = draw(task, shape[2:], shape[0])
    total, count = masked_loss(task, logits, target, valid, weight)
    one_by_one = task.pixel_loss(logits, target).detach().numpy().astype(np.float64)
    assert count.item() == valid.sum().item()
    assert total.item() == pytest.approx((one_by_one * weight.numpy())[valid.numpy()].sum(), rel=1e-4, abs=1e-5)
    if valid.any():
        expected = (one_by_one * weight.numpy())[valid.numpy()].mean()
        assert mean(total, count).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@every_task
def test_what_invalid_pixels_hold_has_no_influence(task: Task) -> None:
    logits, target = draw(task, (7, 8))
    valid = torch.rand(2, 1, 7, 8, generator=torch.Generator().manual_seed(1)) > 0.4
    results = []
    for seed in range(3):
        spoilt = target if seed == 0 else garbage(target, valid, seed)
        logits.grad = None
        total, count = masked_loss(task, logits, spoilt, valid)
        total.backward()
        assert logits.grad is not None
        results.append((total.item(), count.item(), logits.grad.clone()))
        assert torch.isfinite(logits.grad).all()
        assert (logits.grad[(~valid).expand_as(logits)] == 0).all()
    for total, count, gradient in results[1:]:
        assert (total, count) == results[0][:2]
        assert torch.equal(gradient, results[0][2])


@every_task
def test_nothing_valid_is_exactly_zero_with_zero_gradients(task: Task) -> None:
    logits, target = draw(task, (5, 6))
    valid = torch.zeros(2, 1, 5, 6, dtype=torch.bool)
    total, count = masked_loss(task, logits, garbage(target, valid), valid)
    mean(total, count).backward()
    assert (total.item(), count.item()) == (0.0, 0.0)
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@every_task
@pytest.mark.parametrize("one_class", [0.0, 1.0])
def test_a_crop_with_one_class_only_has_a_finite_loss(task: Task, one_class: float) -> None:
    logits, target = draw(task, (5, 6))
    target = torch.full_like(target, one_class) if task.label_channels == 1 else target
    total, _ = masked_loss(task, logits, target, torch.ones(2, 1, 5, 6, dtype=torch.bool))
    total.backward()
    assert total.item() > 0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


@every_task
def test_weights_scale_the_loss_but_not_the_count(task: Task) -> None:
    logits, target = draw(task, (5, 6))
    valid = torch.ones(2, 1, 5, 6, dtype=torch.bool)
    whole, count = masked_loss(task, logits, target, valid, torch.ones(2, 1, 5, 6))
    half, same = masked_loss(task, logits, target, valid, torch.full((2, 1, 5, 6), 0.5))
    none, _ = masked_loss(task, logits, target, valid, torch.zeros(2, 1, 5, 6))
    assert half.item() == pytest.approx(whole.item() / 2, rel=1e-5)
    assert (count, same, none) == (60, 60, 0)


@every_task
def test_an_image_alone_and_among_others_has_the_same_loss(task: Task) -> None:
    logits, target = draw(task, (5, 6), count=3)
    valid = torch.rand(3, 1, 5, 6, generator=torch.Generator().manual_seed(2)) > 0.3
    raise_on_all_ranks = masked_loss(task, logits, target, valid)
    alone = [masked_loss(task, logits[i : i + 1], target[i : i + 1], valid[i : i + 1]) for i in range(3)]
    assert raise_on_all_ranks[0].item() == pytest.approx(sum(a[0].item() for a in alone), rel=1e-5)
    assert raise_on_all_ranks[1].item() == sum(a[1].item() for a in alone)


@pytest.mark.parametrize("kind", ["htt", "mtl"])
def test_a_task_without_a_label_gives_zero_loss_with_every_parameter_in_the_graph(kind: str) -> None:
    tasks = {task.name: task for task in ALL}
    network = build_network(kind, tasks, ModelSettings(backbone="test_resnet", pretrained=False, width=16)).train()
    batch = random_batch(tasks, [["semseg"], []])
    outputs = network(batch.image, {name: at_least_one(labels.rows) for name, labels in batch.labels.items()})
    losses = {}
    for name, task in tasks.items():
        labels = batch.labels[name]
        logits = outputs[name].logits_at((64, 64))[: len(labels.rows)]
        losses[name] = mean(*masked_loss(task, logits, labels.value, labels.valid))
    assert [name for name, loss in losses.items() if loss != 0] == ["semseg"]
    sum(losses.values()).backward()  # type: ignore[union-attr]
    gradients = {name: p.grad for name, p in network.named_parameters() if ".semseg." not in name}
    gradients = {name: g for name, g in gradients.items() if "heads." in name and ".confidence." not in name}
    assert gradients
    assert all(gradient is not None and (gradient == 0).all() for gradient in gradients.values())


def test_distillation_is_the_weighted_mean_of_squared_errors() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 2, 5, 3, 4)).astype(np.float32)
    weight = rng.uniform(size=(2, 1, 3, 4)).astype(np.float32) * (rng.random((2, 1, 3, 4)) > 0.4)
    total, count = masked_mse(*map(torch.from_numpy, (student, teacher, weight)))
    expected = sum(
        weight[b, 0, y, x] * np.mean((student[b, :, y, x] - teacher[b, :, y, x]) ** 2)
        for b in range(2) for y in range(3) for x in range(4)
    )  # fmt: skip
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert count.item() == (weight > 0).sum()


def test_the_mean_of_nothing_is_zero() -> None:
    assert mean(torch.zeros(()), torch.zeros(())) == 0
    assert mean(torch.tensor(6.0), torch.tensor(4.0)) == 1.5


def test_divergence_is_zero_with_no_gradient_where_student_and_teacher_agree_and_counts_valid_pixels_alone() -> None:
    teacher = torch.randn(2, 5, 3, 4)
    student = teacher.clone()
    student[1, 0, 0, 0] += 1  # they agree but for one pixel, which counts
    student[0, 1, 2, 2] += 1  # and one that does not
    student.requires_grad_()
    valid = torch.ones(2, 1, 3, 4, dtype=torch.bool)
    valid[0, 0, 2, 2] = False
    weight = torch.full(valid.shape, 0.5)
    total, count = masked_divergence(student, teacher, valid, weight)
    expected = F.kl_div(student.log_softmax(1)[1, :, 0, 0], teacher.softmax(1)[1, :, 0, 0], reduction="sum") / 2
    torch.testing.assert_close(total, expected)
    assert count == 23
    total.backward()
    assert student.grad is not None
    elsewhere = student.grad.clone()
    elsewhere[1, :, 0, 0] = 0
    assert elsewhere.abs().max() < 1e-6
    assert student.grad[1, 0, 0, 0] > 0


@given(st.integers(0, 9), st.integers(1, 9), st.sampled_from([1, 4, 16]))
def test_a_head_computes_the_labelled_images_first_and_company_up_to_a_multiple(
    labelled: int, images: int, multiple: int
) -> None:
    order = torch.randperm(images)
    rows, absent = order[:labelled], order[labelled:]
    chosen = head_rows(rows, absent, multiple)
    assert torch.equal(chosen[: len(rows)], rows)
    assert len(chosen.unique()) == len(chosen)
    assert len(chosen) in (1, images) or len(chosen) % multiple == 0
    assert len(chosen) - len(rows) < max(multiple, 2)


def test_what_a_head_computes_besides_the_labelled_images_has_no_loss() -> None:
    tasks = {task.name: task for task in ALL}
    network = build_network("htt", tasks, ModelSettings(backbone="test_resnet", pretrained=False, width=16))
    network.eval()  # batch norm sees the company, too
    batch = random_batch(tasks, [["semseg"], ["depth"], ["semseg", "normals"], ["edge"], ["saliency"]])
    sampler = PixelSampler((64, 64))
    losses = []
    for multiple in (1, 4):
        rows = {name: head_rows(labels.rows, labels.absent, multiple) for name, labels in batch.labels.items()}
        outputs = network(batch.image, rows)
        losses.append([supervised_term(task, outputs[n], batch.labels[n], sampler).total for n, task in tasks.items()])
    assert torch.allclose(torch.stack(losses[0]), torch.stack(losses[1]), rtol=1e-4)
