"""Depth labels that grow towards the camera: geometry, bins, files, settings, metrics."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasktokens.errors import ConfigError
from tasktokens.tasks import Depth, build_task

INVERSE = Depth("depth", minimum=0.004, maximum=0.5, bins=20, scale=1 / 65535, inverse=True)
METRES = Depth("depth", minimum=0.5, maximum=10.0)
zooms = st.floats(0.3, 4.0)


@settings(deadline=None)  # the first use of torch takes its time
@given(scale=zooms)
def test_zooming_inverse_depth_is_zooming_depth(scale: float) -> None:
    metres = torch.linspace(0.5, 80, 60).reshape(1, 6, 10)
    torch.testing.assert_close(INVERSE.zoom(1 / metres, scale), 1 / METRES.zoom(metres, scale))


@settings(deadline=None)
@given(scale=zooms)
def test_zooming_in_brings_nearer_and_back_again(scale: float) -> None:
    value = torch.linspace(0.004, 0.5, 60).reshape(1, 6, 10)
    there = INVERSE.zoom(value, scale)
    assert ((there > value) == (scale > 1)).all() or scale == 1
    torch.testing.assert_close(INVERSE.zoom(there, 1 / scale), value)


@settings(deadline=None)
@given(scale=st.floats(0.6, 1.7), where=st.floats(0.4, 0.6))
def test_logits_of_a_magnified_image_brought_back_decode_to_the_distances_of_the_image(
    scale: float, where: float
) -> None:
    for task in (METRES, INVERSE):
        places = torch.linspace(0, 1, task.bins)
        logits = (-((places - where) ** 2) / (2 * 0.05**2))[None, :, None, None].expand(1, -1, 2, 3)
        back = task.zoom_logits(logits, scale)
        assert back.shape == logits.shape
        torch.testing.assert_close(task.zoom(task.decode(back), scale), task.decode(logits), rtol=0.01, atol=0)
        assert torch.equal(task.zoom_logits(logits, 1.0), logits)


@pytest.mark.parametrize("task", [METRES, INVERSE])
def test_distances_brought_back_beyond_the_range_stay_at_its_end(task: Depth) -> None:
    for end, value in ((0, task.minimum), (task.bins - 1, task.maximum)):
        surely = torch.where(torch.arange(task.bins) == end, 50.0, 0.0)[None, :, None, None]
        outwards = 0.5 if (end == 0) != task.inverse else 2.0
        assert task.decode(task.zoom_logits(surely, outwards)).item() == pytest.approx(value, rel=1e-3)


@settings(deadline=None)
@given(low=st.floats(0.3, 1.0), high=st.floats(1.0, 3.0), bins=st.integers(2, 60))
def test_widened_bins_hold_every_zoomed_label_at_the_same_spacing(low: float, high: float, bins: int) -> None:
    task = Depth("depth", minimum=0.004, maximum=0.5, bins=bins, inverse=True)
    wide = task.widened((low, high))
    ends = torch.tensor([[[task.minimum, task.maximum]]])
    for scale in (low, 1.0, high):
        zoomed = task.zoom(ends, scale)
        assert zoomed.min().item() >= wide.minimum * (1 - 1e-5)
        assert zoomed.max().item() <= wide.maximum * (1 + 1e-5)
    assert wide.inverse
    steps = wide.centres().double().log().diff()
    np.testing.assert_allclose(steps, math.log(0.5 / 0.004) / (bins - 1), rtol=1e-3)
    # Less would not do: neither end could be left out.
    assert wide.minimum == pytest.approx(0.004 * low)
    assert wide.maximum / math.exp(steps[0].item()) < 0.5 * high * (1 + 1e-4)


def test_the_description_makes_the_same_task_again() -> None:
    assert build_task("depth", INVERSE.spec()) == INVERSE
    assert build_task("depth", METRES.spec()) == METRES
    assert build_task("depth", INVERSE.widened((0.5, 2.0)).spec()).spec() == INVERSE.widened((0.5, 2.0)).spec()
    assert "inverse" not in METRES.spec()  # what older versions wrote and read stays the same


def test_in_a_yaml_its_files_are_fractions_of_65535(tmp_path: Path) -> None:
    task = build_task("depth", {"kind": "depth", "inverse": True, "range": [0.004, 0.5]})
    stored = np.array([[0, 1, 257], [3410, 32257, 65535]], np.uint16)
    Image.fromarray(stored).save(tmp_path / "depth.png")
    value, valid = task.read(tmp_path / "depth.png")
    assert valid.tolist() == (stored > 0).tolist()
    np.testing.assert_allclose(value[0][valid], stored[valid] / 65535, rtol=1e-6)
    task.write(tmp_path / "again.png", value, valid)
    with Image.open(tmp_path / "again.png") as image:
        assert np.asarray(image).tolist() == stored.tolist()
    other = build_task("depth", {"kind": "depth", "inverse": True, "range": [0.004, 0.5], "scale": 0.001})
    np.testing.assert_allclose(other.read(tmp_path / "depth.png")[0][0][valid], stored[valid] * 0.001, rtol=1e-6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"inverse": True}, r"inverse depth needs its range"),
        ({"inverse": "yes", "range": [0.1, 0.5]}, r"inverse must be true or false"),
        ({"inverse": 1, "range": [0.1, 0.5]}, r"inverse must be true or false"),
        ({"inverse": True, "range": [0.5, 0.1]}, r"0 < far < near"),
        ({"invers": True}, r"did you mean 'inverse'"),
    ],
)
def test_mistakes_in_its_settings_are_explained(spec: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_task("depth", {"kind": "depth", **spec})


def test_near_has_the_same_colour_as_in_depth() -> None:
    metres = np.geomspace(2.0, 250.0, 40, dtype=np.float32).reshape(1, 4, 10)
    depth = Depth("depth", minimum=2.0, maximum=250.0)
    inverse = Depth("depth", minimum=1 / 250, maximum=1 / 2, inverse=True)
    difference = inverse.colourise(1 / metres).astype(int) - depth.colourise(metres).astype(int)
    assert np.abs(difference).max() <= 3


def test_its_errors_are_not_metres() -> None:
    metric, of_depth = INVERSE.metric(), METRES.metric()
    assert metric.primary == of_depth.primary == "absErr"
    assert metric.units["absErr"] == metric.units["RMSE"] == ""
    assert metric.units["delta1"] == "%"
    assert of_depth.units["absErr"] == "m"
    target = torch.full((1, 1, 2, 2), 0.1)
    metric.update(target + 0.02, target, torch.tensor([[[[True, True], [True, False]]]]))
    assert metric.compute()["absErr"] == pytest.approx(0.02)
    assert metric.compute()["relErr"] == pytest.approx(0.2)


def test_a_sharp_distribution_is_decoded_to_its_bin() -> None:
    logits = torch.zeros(1, INVERSE.num_tokens, 1, 2)
    logits[0, 0, 0, 0] = logits[0, -1, 0, 1] = 100
    torch.testing.assert_close(INVERSE.decode(logits).flatten(), torch.tensor([0.004, 0.5]))
