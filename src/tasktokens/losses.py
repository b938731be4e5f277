"""Masked losses. Every loss is a (sum, count) pair, so that ranks and micro-batches can be added before dividing.

One convention for all tasks, labelled and discovered: per-pixel losses are summed over channels, then averaged over
the valid pixels of the task's pairs in the whole batch. A pair therefore weighs the same in a one-label run as in a
fully labelled one (the factor T of the paper, section 3.4, is implied).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tasktokens.tasks import Task


@dataclass(frozen=True)
class Term:
    """One term of the loss: ``weight * total / count``, both summed over all ranks. Weight 0: reported only.

    Attributes:
        name: as in the log, such as ``loss/semseg``.
        weight: factor in the total loss.
        total: sum over the pixels of this rank, ().
        count: what it is divided by once both are summed over all ranks, ().

    Examples:
        >>> term = Term("loss/depth", weight=0.5, total=torch.tensor(6.0), count=torch.tensor(3.0))
        >>> total_loss([term])
        tensor(1.)
    """

    name: str
    weight: float
    total: Tensor
    count: Tensor
    reported: bool = True
    """Whether the log shows it; some terms only serve the method."""


def masked_loss(
    task: Task, logits_BKHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor, weight_B1HW: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sum of a task's loss over valid pixels, and their number.

    Args:
        logits_BKHW: the network's logits of the labelled images; B may be 0.
        target_BCHW: labels; what invalid pixels hold (NaN, any id) has no influence.
        valid_B1HW: bool, the pixels that count.
        weight_B1HW: optional factor per pixel in [0, 1]; it does not enter the count.

    Returns:
        (sum, count), scalars. Without a valid pixel the sum is exactly 0, with zero gradients, still in the graph.

    Examples:
        >>> from tasktokens.tasks import Segmentation
        >>> task, valid = Segmentation("semseg", classes=("a", "b")), torch.tensor([[[[True, False]]]])
        >>> total, count = masked_loss(task, torch.zeros(1, 2, 1, 2), torch.tensor([[[[0, 255]]]]), valid)
        >>> round(total.item(), 3), count.item()
        (0.693, 1.0)
    """
    if len(logits_BKHW) == 0:
        return logits_BKHW.float().sum(), logits_BKHW.new_zeros((), dtype=torch.float32)
    target = without_invalid(task, target_BCHW, valid_B1HW)
    loss = task.pixel_loss(logits_BKHW, target)
    balance = task.pixel_weight(target, valid_B1HW) if weight_B1HW is None else weight_B1HW
    if balance is not None:
        loss = loss * balance
    return torch.where(valid_B1HW, loss, 0.0).sum(), valid_B1HW.sum().float()


def without_invalid(task: Task, value_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
    """The labels (B, C, H, W) with the task's neutral value where they are not valid, safe in every formula.

    Examples:
        >>> from tasktokens.tasks import Segmentation
        >>> task, valid = Segmentation("semseg", classes=("a", "b")), torch.tensor([[[[True, False]]]])
        >>> without_invalid(task, torch.tensor([[[[1, 255]]]]), valid)
        tensor([[[[1, 0]]]])
    """
    neutral = torch.tensor(task.neutral, device=value_BCHW.device).to(value_BCHW.dtype)[:, None, None]
    return torch.where(valid_B1HW, value_BCHW, neutral)


def masked_divergence(
    logits_BKHW: Tensor, teacher_BKHW: Tensor, valid_B1HW: Tensor, weight_B1HW: Tensor
) -> tuple[Tensor, Tensor]:
    """Kullback-Leibler divergence of the student's distribution over bins from the teacher's; (sum, count of valid).

    Its gradient fades as the two agree; that of an L1 loss to the teacher's value keeps its size and dominates the loss
    on labels.

    Args:
        logits_BKHW: of the student.
        teacher_BKHW: of the teacher.
        valid_B1HW: bool, the pixels that count.
        weight_B1HW: factor per pixel; it does not enter the count.

    Examples:
        >>> ones = torch.ones(1, 1, 2, 2)
        >>> masked_divergence(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), ones > 0, ones)
        (tensor(0.), tensor(4.))
    """
    log_teacher = F.log_softmax(teacher_BKHW.float(), dim=1)
    difference = log_teacher - F.log_softmax(logits_BKHW.float(), dim=1)
    divergence = (log_teacher.exp() * difference).sum(dim=1, keepdim=True)
    return torch.where(valid_B1HW, divergence * weight_B1HW, 0.0).sum(), valid_B1HW.sum().float()


def masked_mse(student_BDHW: Tensor, teacher_BDHW: Tensor, weight_B1HW: Tensor) -> tuple[Tensor, Tensor]:
    """Feature distillation: squared error averaged over channels, weighted; (sum, count of positions with weight).

    Examples:
        >>> masked_mse(torch.ones(1, 8, 2, 2), torch.zeros(1, 8, 2, 2), torch.ones(1, 1, 2, 2))
        (tensor(4.), tensor(4.))
    """
    error = (student_BDHW.float() - teacher_BDHW.float()).square().mean(dim=1, keepdim=True)
    return (error * weight_B1HW).sum(), (weight_B1HW > 0).sum().float()


def masked_distance(student_BD: Tensor, teacher_BD: Tensor, weight_B: Tensor) -> tuple[Tensor, Tensor]:
    """Token distillation: one minus the cosine of each pair of vectors, weighted; (sum, sum of the weights).

    Examples:
        >>> masked_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.ones(1))
        (tensor(1.), tensor(1.))
    """
    distance = 1 - F.cosine_similarity(student_BD.float(), teacher_BD.float(), dim=1)
    return (distance * weight_B).sum(), weight_B.sum()


def mean(total: Tensor, count: Tensor) -> Tensor:
    """``total / count``, exactly zero where the count is 0; scalars.

    Examples:
        >>> mean(torch.tensor(6.0), torch.tensor(3.0)), mean(torch.tensor(0.0), torch.tensor(0.0))
        (tensor(2.), tensor(0.))
    """
    return total / count.clamp(min=1)


def total_loss(terms: Iterable[Term]) -> Tensor:
    """What to call ``backward`` on in a loop of one process: the sum of ``weight * total / count`` over the terms.

    Over several processes the counts have to be added first: see `tasktokens.training.step.combine`.

    Examples:
        >>> from torch import tensor
        >>> total_loss([Term("a", 2.0, tensor(6.0), tensor(3.0)), Term("b", 1.0, tensor(0.0), tensor(0.0))])
        tensor(4.)
    """
    loss: Tensor = torch.stack([term.weight * mean(term.total, term.count) for term in terms]).sum()
    return loss
