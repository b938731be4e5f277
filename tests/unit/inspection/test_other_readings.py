"""What `init` and `check` say where the numbers of a folder can be read in another way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_variants_init import box, write

from tasktokens.inspection.infer import infer_folder
from tasktokens.tasks import build_task


@pytest.mark.parametrize("yes", [2, 100, 128, 254])
@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "uint8", "uint16"])
def test_masks_of_an_odd_white_are_read_as_yes_and_no_too(yes: int, kind: str, tmp_path: Path) -> None:
    (task,) = infer_folder(write(tmp_path, "hair", lambda i: (box(i) * yes).astype(kind))).tasks
    assert "the other reading: yes and no" in task.saw
    assert f"kind: binary, white: {yes}" in task.saw
    # The setting that it names is one that reads the files, or their integers.
    np.save(tmp_path / "a.npy", (box(0) * yes).astype("uint8"))
    value, valid = build_task("hair", {"kind": "binary", "white": yes}).read(tmp_path / "a.npy")
    assert np.array_equal(value[0], box(0))
    assert valid.all()


def test_floats_of_0_and_255_are_read_as_yes_and_no_too(tmp_path: Path) -> None:
    (task,) = infer_folder(write(tmp_path, "hair", lambda i: box(i).astype(np.float32) * 255)).tasks
    assert "kind: binary, white: 255" in task.saw


@pytest.mark.parametrize("values", [(0, 1, 2), (0, 5, 9), (1, 2)])
def test_classes_have_no_second_reading(values: tuple[int, ...], tmp_path: Path) -> None:
    levels = np.array([*values, values[-1]])[: len(values)]
    (task,) = infer_folder(
        write(tmp_path, "seg", lambda i: levels[np.mgrid[:32, :48][0] * len(levels) // 32].astype(np.uint8))
    ).tasks
    assert task.spec["kind"] == "classes"
    assert "yes and no" not in task.saw


# -- distances in another unit -----------------------------------------------------------------------------------------
def unusual(settings: dict[str, Any], array: np.ndarray, path: Path) -> list[str]:
    np.save(path, array)
    task = build_task("depth", {"kind": "depth"} | settings)
    value, valid = task.read(path)
    summary = task.summarise(task.examine(value, valid))
    return [each.message for each in summary.suspicions if each.code == "unusual-distance"]


@pytest.mark.parametrize(
    ("per_metre", "scale", "named"),
    [(1000, 0.001, ""), (100, 0.01, ""), (5000, 0.0002, ""), (100, 0.001, "scale: 0.01"), (5000, 0.001, "0.0002")],
)
def test_a_unit_that_makes_distances_unusual_is_said(per_metre: int, scale: float, named: str, tmp_path: Path) -> None:
    metres = np.random.default_rng(0).uniform(1, 5, (32, 48))
    stored = np.rint(metres * per_metre).astype(np.uint16)
    said = unusual({"scale": scale, "range": [0.01, 70]}, stored, tmp_path / "a.npy")
    assert len(said) == bool(named)
    assert all(named in text for text in said)


METRES = 6 - 0.1 * np.mgrid[:32, :48][0] - 0.01 * np.mgrid[:32, :48][1]
"""A floor from 2.4 to 6 metres."""


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
@pytest.mark.parametrize("folder", ["depth", "distance_maps"])
@pytest.mark.parametrize("per_metre", [1000, 256, 100, 5000, 4000, 512, 1])
def test_the_unit_of_depth_that_the_files_have_is_taken_or_named(
    per_metre: int, folder: str, dtype: str, tmp_path: Path
) -> None:
    """Whatever the unit is, its settings stand in what `init` says, and read the files as the metres they were."""
    metres = METRES * (4 if per_metre == 1 else 1)
    root = write(tmp_path, folder, lambda i: np.rint((metres - 0.01 * i) * per_metre).astype(dtype))
    (task,) = infer_folder(root).tasks
    said = re.findall(r"scale: ([\d.e-]+), range: (\[[^\]]*\])", task.saw)
    readings = {float(scale): json.loads(wide) for scale, wide in said} | {task.spec["scale"]: task.spec["range"]}
    assert len(readings) == 1 + len(said)
    spec = {"kind": "depth", "scale": 1 / per_metre, "range": readings[1 / per_metre]}
    value, valid = build_task(folder, spec).read(root / folder / "000.npy")
    assert valid.all()
    np.testing.assert_allclose(value[0], metres, atol=0.51 / per_metre)
    assert spec["range"][0] <= np.percentile(metres, 5) < np.percentile(metres, 95) <= spec["range"][1]
    if len(readings) > 1:
        assert "compare a known distance" in task.saw


def test_units_of_disparity_are_two_readings(tmp_path: Path) -> None:
    root = write(tmp_path, "disparity", lambda i: np.rint((80 - 8 * METRES) * 256).astype(np.uint16))
    (task,) = infer_folder(root).tasks
    assert task.spec["inverse"]
    assert "pixels x 256, as KITTI: scale: 0.00390625" in task.saw


@pytest.mark.parametrize("settings", [{"range": [0.01, 90], "scale": 1 / 256}, {"range": [0.01, 300], "inverse": True}])
def test_streets_and_inverse_depth_are_not_unusual(settings: dict[str, Any], tmp_path: Path) -> None:
    metres = np.random.default_rng(0).uniform(5, 80, (32, 48))
    assert unusual(settings, np.rint(metres * 256).astype(np.uint16), tmp_path / "a.npy") == []


def test_relative_depth_of_floats_is_unusual(tmp_path: Path) -> None:
    near = np.random.default_rng(0).uniform(0.01, 0.5, (32, 48)).astype(np.float32)
    (said,) = unusual({"range": [0.01, 1]}, near, tmp_path / "a.npy")
    assert "relative depth" in said
