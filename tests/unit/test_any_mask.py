"""What holds for losses of any task, labels and masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from properties import random_label
from tasktokens.losses import masked_divergence, masked_loss, masked_mse
from tasktokens.tasks import Depth, Edge, Normals, Saliency, Segmentation, Task

ALL: list[Task] = [
    Segmentation("semseg", classes=("a", "b", "c")),
    Depth("depth", bins=6),
    Normals("normals", centres_count=6),
    Edge("edge"),
    Saliency("saliency"),
]
every_task = pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
SIZE = (4, 5)


def pair(task: Task, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(count, task.num_tokens, *SIZE)).astype(np.float32) * 2)
    return logits.requires_grad_(), torch.stack([random_label(task, SIZE, rng) for _ in range(count)])


masks = hnp.arrays(bool, (2, 1, *SIZE)).map(torch.from_numpy)
seeds = st.integers(0, 1000)
close = {"rtol": 1e-4, "atol": 1e-4}


@every_task
@settings(max_examples=10, deadline=None)
@given(valid=masks, other=masks, seed=seeds)
def test_the_losses_of_two_parts_add_up(task: Task, valid: torch.Tensor, other: torch.Tensor, seed: int) -> None:
    logits, target = pair(task, 2, seed)
    ones = torch.ones(2, 1, *SIZE)  # or saliency would be balanced within each part
    whole, first, rest = (
        masked_loss(task, logits, target, mask, ones) for mask in (valid | other, valid, other & ~valid)
    )
    assert whole[1] == first[1] + rest[1]
    torch.testing.assert_close(whole[0], first[0] + rest[0], **close)


@every_task
@settings(max_examples=10, deadline=None)
@given(valid=masks, seed=seeds, bad=st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e30]))
def test_what_is_not_valid_gives_exactly_no_gradient_whatever_it_holds(
    task: Task, valid: torch.Tensor, seed: int, bad: float
) -> None:
    logits, target = pair(task, 2, seed)
    if target.is_floating_point():
        target = torch.where(valid, target, torch.tensor(bad))
    else:
        target = torch.where(valid, target, torch.tensor(255, dtype=target.dtype))
    total, _ = masked_loss(task, logits, target, valid)
    total.backward()
    assert torch.isfinite(total)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[(~valid).expand_as(logits)] == 0).all()
    if not valid.any():
        assert total.item() == 0


@every_task
@settings(max_examples=10, deadline=None)
@given(valid=masks, seed=seeds, factor=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_order_does_not_matter_and_weights_scale(task: Task, valid: torch.Tensor, seed: int, factor: float) -> None:
    logits, target = pair(task, 2, seed)
    total, count = masked_loss(task, logits, target, valid)
    turned = masked_loss(task, logits.flip(0), target.flip(0), valid.flip(0))
    torch.testing.assert_close(total, turned[0], **close)
    assert count == turned[1]
    ones = torch.ones(2, 1, *SIZE)
    weighted, whole = (masked_loss(task, logits, target, valid, ones * f)[0] for f in (factor, 1.0))
    torch.testing.assert_close(weighted, factor * whole, **close)


@settings(max_examples=20, deadline=None)
@given(valid=masks, seed=seeds, shift=st.floats(-50, 50))
def test_divergence_and_distillation_are_not_negative_and_ignore_what_is_not_valid(
    valid: torch.Tensor, seed: int, shift: float
) -> None:
    student, _ = pair(ALL[1], 2, seed)
    teacher = pair(ALL[1], 2, seed + 1)[0].detach()
    ones = torch.ones(2, 1, *SIZE)
    total, count = masked_divergence(student, teacher, valid, ones)
    assert total >= -1e-4
    assert count == valid.sum()
    torch.testing.assert_close(
        total, masked_divergence(student + shift, teacher - shift, valid, ones)[0], rtol=1e-3, atol=1e-2
    )
    spoilt = torch.where(valid, teacher, teacher.flip(1) * 3)
    assert masked_divergence(student, spoilt, valid, ones)[0] == total
    error, positions = masked_mse(student, teacher, valid.float())
    assert error >= 0
    assert positions == valid.sum()
    assert masked_mse(student, spoilt, valid.float())[0] == error
