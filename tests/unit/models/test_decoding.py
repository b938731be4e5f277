"""Logits at an image's own size: what is enlarged, what is decoded, and how much memory that takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tasktokens.models import decoding
from tasktokens.models.decoding import decode_at, decode_with_confidence_at
from tasktokens.tasks import Task, build_task

SPECS: dict[str, dict[str, Any]] = {
    "classes": {"kind": "classes", "classes": [f"c{i}" for i in range(7)]},
    "depth": {"kind": "depth", "range": [0.5, 10]},
    "inverse": {"kind": "depth", "range": [0.004, 0.5], "inverse": True},
    "normals": {"kind": "normals", "centres": 12},
    "vectors": {"kind": "vectors"},
    "edge": {"kind": "edge"},
    "saliency": {"kind": "saliency"},
    "binary": {"kind": "binary"},
    "regression": {"kind": "regression", "range": [-40, 60]},
}
FINE = [(40, 60), (33, 47), (10, 15), (7, 60)]
"""At most four times the head's size."""
LARGE = [(123, 200), (41, 60), (500, 31)]


def logits_of(task: Task, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, task.num_tokens, 10, 15, generator=torch.Generator().manual_seed(seed)) * 3


def whole(task: Task, logits: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """All logits at full size at once, by torch alone."""
    enlarged = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    return task.decode(enlarged)[0], task.confidence(enlarged)[0, 0]


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("size", FINE)
@pytest.mark.parametrize("strip", [1, 1000, 10**9])
def test_up_to_four_times_the_head_logits_are_enlarged(
    kind: str, size: tuple[int, int], strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(decoding._STRIP, "cpu", strip)
    task = build_task("t", SPECS[kind])
    value, confidence = decode_with_confidence_at(task, logits_of(task), size)
    expected = whole(task, logits_of(task), size)
    torch.testing.assert_close(value, expected[0], atol=1e-4, rtol=1e-5)
    # Of the truth as well: the variance is a difference of squares.
    torch.testing.assert_close(confidence, expected[1], atol=2e-4, rtol=1e-5)
    torch.testing.assert_close(decode_at(task, logits_of(task), size), value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", LARGE)
@pytest.mark.parametrize("strip", [1, 5000, 10**9])
def test_the_class_of_every_pixel_is_that_of_its_own_logits(
    size: tuple[int, int], strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(decoding._STRIP, "cpu", strip)
    task = build_task("t", SPECS["classes"])
    for seed in range(3):
        value, confidence = decode_with_confidence_at(task, logits_of(task, seed), size)
        expected = whole(task, logits_of(task, seed), size)
        assert (value != expected[0]).float().mean() < 1e-4  # equal logits, up to rounding
        torch.testing.assert_close(confidence, expected[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in SPECS if kind != "classes"])
@pytest.mark.parametrize("size", LARGE)
def test_larger_maps_of_what_is_continuous_are_enlarged(kind: str, size: tuple[int, int]) -> None:
    task = build_task("t", SPECS[kind])
    logits = F.interpolate(logits_of(task), (40, 60), mode="bilinear")  # as smooth as those of networks
    value, confidence = decode_with_confidence_at(task, logits, tuple(4 * side for side in size))  # type: ignore[arg-type]
    exact, sure = whole(task, logits, tuple(4 * side for side in size))  # type: ignore[arg-type]
    span = float(exact.max() - exact.min())
    assert (value - exact).abs().mean() < 0.004 * span
    assert (confidence - sure).abs().mean() < 0.004
    assert 0 <= confidence.min() <= confidence.max() <= 1
    if kind in ("normals", "vectors"):
        np.testing.assert_allclose(np.linalg.norm(value.numpy(), axis=0), 1, atol=1e-5)


def test_a_photograph_never_has_all_its_logits_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    task, seen = build_task("t", SPECS["classes"]), list[int]()
    decode = type(task).decode_with_confidence

    def watched(self: Task, logits: torch.Tensor) -> Any:
        seen.append(logits.numel())
        return decode(self, logits)

    monkeypatch.setattr(type(task), "decode_with_confidence", watched)
    value, _ = decode_with_confidence_at(task, logits_of(task), (1500, 1000))
    assert value.shape == (1, 1500, 1000)
    assert sum(seen) == 7 * 1500 * 1000
    assert max(seen) <= decoding._STRIP["cpu"]


class Halves(type(build_task("t", SPECS["binary"]))):  # type: ignore[misc]
    """A kind from outside that says nothing of being continuous."""

    continuous = False


def test_a_kind_that_says_nothing_is_decoded_at_full_size() -> None:
    task = Halves("t")
    value, _ = decode_with_confidence_at(task, logits_of(task), (123, 200))
    torch.testing.assert_close(value, whole(task, logits_of(task), (123, 200))[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", SPECS)
def test_value_and_confidence_at_once_are_those_of_each(kind: str) -> None:
    task = build_task("t", SPECS[kind])
    for scale in (0.0, 1.0, 30.0):
        logits = logits_of(task) * scale
        value, confidence = task.decode_with_confidence(logits.clone())
        torch.testing.assert_close(value, task.decode(logits), atol=1e-5, rtol=1e-5)
        # Where bins hardly spread, a deviation is the root of what rounding leaves of a difference of squares.
        tolerance = 2e-3 if kind in ("depth", "inverse", "regression") else 1e-5
        torch.testing.assert_close(confidence, task.confidence(logits), atol=tolerance, rtol=1e-5)
