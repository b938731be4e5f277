"""Labels and predictions as maps that other networks read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from properties import random_label
from tasktokens.tasks import KINDS, Task, build_task

SPECS = {
    "classes": {"kind": "classes", "classes": ["a", "b", "c"]}, "depth": {"kind": "depth", "range": [0.5, 10]},
    "normals": {"kind": "normals", "centres": 40}, "vectors": {"kind": "vectors", "centres": 40},
    "regression": {"kind": "regression", "range": [-3, 5]}, "edge": {"kind": "edge"},
    "saliency": {"kind": "saliency"}, "binary": {"kind": "binary"},
}  # fmt: skip


def test_every_kind_is_tried() -> None:
    assert set(SPECS) == set(KINDS)


@pytest.fixture(params=list(SPECS))
def task(request: pytest.FixtureRequest) -> Task:
    return build_task("mine", SPECS[request.param])


def test_labels_lie_in_the_unit_interval(task: Task) -> None:
    label = random_label(task, (6, 7), np.random.default_rng(0))[None]
    found = task.label_map(label)
    assert found.shape == (1, task.map_channels, 6, 7)
    assert found.is_floating_point()
    assert 0 <= found.min() <= found.max() <= 1
    assert found.max() > 0.5


def test_a_prediction_has_the_form_of_a_label_and_a_gradient(task: Task) -> None:
    logits = torch.randn(2, task.num_tokens, 6, 7, requires_grad=True)
    found = task.prediction_map(logits)
    assert found.shape == (2, task.map_channels, 6, 7)
    assert -1e-6 <= found.min() <= found.max() <= 1 + 1e-6
    weights = torch.randn(found.shape)
    (gradient,) = torch.autograd.grad((found * weights).sum(), logits)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    if task.class_names() is None:
        torch.testing.assert_close(found, task.label_map(task.decode(logits)))
    else:  # the likeliest class of a sure prediction is one, as in a label
        torch.testing.assert_close(task.prediction_map(logits * 1e6), task.label_map(task.decode(logits)))


def test_maps_mean_what_the_labels_do() -> None:
    depth, normals = build_task("d", SPECS["depth"]), build_task("n", SPECS["normals"])
    torch.testing.assert_close(depth.label_map(torch.tensor([[[[5.0, 20.0]]]])), torch.tensor([[[[0.5, 1.0]]]]))
    vector = torch.tensor([0.0, 0.6, -0.8]).view(1, 3, 1, 1)
    torch.testing.assert_close(normals.label_map(vector).flatten(), torch.tensor([0.5, 0.8, 0.1]))
    classes = build_task("c", SPECS["classes"]).label_map(torch.tensor([[[[2, 0]]]], dtype=torch.uint8))
    assert classes[0, :, 0].tolist() == [[0, 1], [0, 0], [1, 0]]
