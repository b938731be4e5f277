"""Properties that every task, metric and network must have, and random labels and batches to show them on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasktokens.data.sample import Batch, Label, Sample, collate
from tasktokens.methods import Method, PreparedBatch, StepOptions, Term
from tasktokens.metrics.base import Metric
from tasktokens.models import Network, TaskOutput
from tasktokens.tasks import Depth, Normals, Regression, Segmentation, Task, Vectors


class Hostile:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def random_label(task: Task, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """A label map (C, H, W) of a task, every pixel usable."""
    if isinstance(task, Segmentation):
        return torch.from_numpy(rng.integers(0, task.num_tokens, (1, *size)).astype(np.uint8))
    if isinstance(task, Depth | Regression):
        return torch.from_numpy(rng.uniform(task.minimum, task.maximum, (1, *size)).astype(np.float32))
    if isinstance(task, Normals | Vectors):
        vectors = rng.normal(size=(3, *size))
        if isinstance(task, Normals):
            vectors[2] = -np.abs(vectors[2])
        return torch.from_numpy((vectors / np.linalg.norm(vectors, axis=0)).astype(np.float32))
    return torch.from_numpy(rng.uniform(0, 1, (task.label_channels, *size)).astype(np.float32))


def random_batch(
    tasks: Mapping[str, Task], present: Sequence[Sequence[str]], size: tuple[int, int] = (64, 64), seed: int = 0
) -> Batch:
    """A batch whose image i has labels for ``present[i]``; about a fifth of the label pixels are invalid."""
    rng = np.random.default_rng(seed)
    samples = []
    for number, names in enumerate(present):
        image = torch.from_numpy(rng.integers(0, 256, (3, *size), dtype=np.uint8))
        labels = {
            name: Label(random_label(tasks[name], size, rng), torch.from_numpy(rng.random((1, *size)) > 0.2))
            for name in names
        }
        samples.append(Sample(f"image{number}", image, torch.ones(1, *size, dtype=torch.bool), labels))
    return collate(samples, {name: task.label_channels for name, task in tasks.items()})


def prepared(
    method: Method, batch: Batch, teacher: bool = False, stride: int = 1, photometric: float = 0.0
) -> PreparedBatch:
    """A batch of the first step, with the same draws each time."""
    options = StepOptions(teacher=teacher, photometric=photometric, loss_stride=stride)
    return method.prepare(batch, torch.Generator().manual_seed(5), options)


def terms_of(
    method: Method,
    batch: Batch,
    student: nn.Module,
    teacher: nn.Module | None,
    stride: int = 1,
    photometric: float = 0.0,
) -> list[Term]:
    """The terms of the first step on a batch."""
    return method.terms(prepared(method, batch, teacher is not None, stride, photometric), student, teacher)


def garbage(like: Tensor, valid: Tensor, seed: int = 0) -> Tensor:
    """The same values where valid; NaN, infinity and absurd numbers (255 for class ids) elsewhere."""
    if like.dtype == torch.uint8:
        return torch.where(valid, like, torch.tensor(255, dtype=torch.uint8))
    kinds = torch.tensor([float("nan"), float("inf"), -float("inf"), -1e30, 1e30, 0.0])
    index = torch.randint(len(kinds), like.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(valid, like, kinds[index])


def assert_same_output(left: TaskOutput, right: TaskOutput, tolerance: float = 1e-4) -> None:
    """Equal logits, feature, confidence and token, to rounding."""
    for name in ("logits", "feature", "confidence", "token"):
        a, b = getattr(left, name), getattr(right, name)
        assert (a is None) == (b is None), name
        if a is not None:
            torch.testing.assert_close(
                a, b, atol=tolerance, rtol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
            )


def assert_batch_independent(network: Network, image_B3HW: Tensor) -> None:
    """``predict(batch) == cat(predict(image))``: what an image gets does not depend on its companions."""
    network.eval()
    with torch.no_grad():
        whole = network(image_B3HW)
        single = [network(image[None]) for image in image_B3HW]
    for name, output in whole.items():
        parts = {
            field: None if getattr(output, field) is None else torch.cat([getattr(one[name], field) for one in single])
            for field in ("logits", "feature", "confidence", "token")
        }
        assert_same_output(output, TaskOutput(**parts))  # type: ignore[arg-type]


def assert_sums(make: Callable[[], Metric], prediction: Tensor, target: Tensor, valid: Tensor) -> None:
    """A metric gives the same for any batches, adds up over ranks, and does not see invalid pixels."""
    whole = make()
    whole.update(prediction, target, valid)
    expected = whole.compute()
    for size in (1, 2, 3):
        parts, states = make(), []
        for at in range(0, len(prediction), size):
            alone = make()
            for metric in (parts, alone):
                metric.update(prediction[at : at + size], target[at : at + size], valid[at : at + size])
            states.append(alone.state)
        assert_metrics_equal(parts.compute(), expected)
        summed = make()
        summed.state = torch.stack(states).sum(0)
        assert_metrics_equal(summed.compute(), expected)
    spoilt = make()
    spoilt.update(prediction, garbage(target, valid), valid)
    assert_metrics_equal(spoilt.compute(), expected)


def assert_metrics_equal(left: Mapping[str, float], right: Mapping[str, float], tolerance: float = 1e-9) -> None:
    """The same names and values; NaN equals NaN."""
    assert left.keys() == right.keys()
    np.testing.assert_allclose(
        [left[name] for name in left],
        [right[name] for name in left],
        rtol=tolerance,
        atol=tolerance,
        err_msg=str(list(left)),
    )


def same_tensors(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Bit for bit equal."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
