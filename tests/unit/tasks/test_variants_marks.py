"""Marks of "no measurement" in files of floats: the finding names a void value that then matches."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasktokens.tasks import build_task
from tasktokens.tasks.marks import likely_marks
from tasktokens.tasks.stored import read_stored
from tasktokens.utils.safe_io import load_yaml

BIG = [float(np.finfo(np.float32).max), 9.969209968386869e36, 1e38, 1e30, 1e20]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("value", [sign * value for value in BIG for sign in (1, -1)])
def test_the_void_that_is_proposed_is_the_one_in_the_files(value: float, kind: Any, tmp_path: Path) -> None:
    plane = np.linspace(1, 5, 2000, dtype=kind).reshape(40, 50)
    plane[:5, :5] = value
    np.save(tmp_path / "a.npy", plane)
    spec = {"kind": "regression", "range": [0, 6]}
    task = build_task("t", spec)
    stored = read_stored(tmp_path / "a.npy", "t")
    sums = {**task.examine(*task.interpret(stored)), **task.examine_stored(stored)}
    (finding,) = (each for each in task.summarise(sums).suspicions if each.code == "saturated")
    assert finding.severity == "error"
    found = re.search(r"void: (\[.*\])", finding.message)
    assert found is not None
    declared = build_task("t", spec | {"void": load_yaml(found[1])})
    np.testing.assert_array_equal(declared.read(tmp_path / "a.npy")[1], np.abs(plane) < 1e10)
    (likely,) = likely_marks(plane)
    assert kind(likely) == kind(value) or np.float32(likely) == np.float32(value)


def test_any_other_number_beyond_1e10_is_found_and_not_misnamed(tmp_path: Path) -> None:
    plane = np.linspace(1, 5, 2000, dtype=np.float32).reshape(40, 50)
    plane[:5, :5] = 7e12
    np.save(tmp_path / "a.npy", plane)
    task = build_task("t", {"kind": "depth", "range": [0.5, 6]})
    stored = read_stored(tmp_path / "a.npy", "t")
    sums = {**task.examine(*task.interpret(stored)), **task.examine_stored(stored)}
    (finding,) = (each for each in task.summarise(sums).suspicions if each.code == "saturated")
    assert "void: [" not in finding.message
    assert likely_marks(plane) == (float(np.float32(7e12)),)


def test_half_floats_are_looked_at_without_a_warning() -> None:
    plane = np.linspace(1, 5, 2000, dtype=np.float16)
    plane[:50] = 65504
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert likely_marks(plane) == (65504.0,)
