"""Void values, depth after scale and offset, and numbers that stand for "no measurement"; the truth is NumPy's."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasktokens.errors import ConfigError, LabelError
from tasktokens.tasks import build_task
from tasktokens.tasks.marks import MARKS, likely_marks
from tasktokens.tasks.stored import read_stored
from tasktokens.tasks.void import is_void

VALUES = (-9999.0, -9999.9, 0.1, 1e20, -3.4e38, -3.4028235e38, 9.96921e36, 65504.0, 1e-7, 1 / 3)
KINDS: dict[str, dict[str, Any]] = {
    "regression": {"range": [0, 60]}, "depth": {"range": [1, 60]}, "binary": {}, "edge": {}, "saliency": {}
}  # fmt: skip


# -- void values -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", ["npy", "npz", "tif"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_void_is_compared_in_the_type_of_the_file(kind: str, dtype: type, ending: str, tmp_path: Path) -> None:
    if ending == "tif" and dtype != np.float32:
        pytest.skip("Pillow writes floats of 32 bits only")
    good = 0.75 if kind in ("binary", "edge", "saliency") else 5
    for value in VALUES:
        with np.errstate(over="ignore"):
            plane = np.full((4, 4), good, dtype)
            plane[0] = value
        path = tmp_path / f"a.{ending}"
        if ending == "tif":
            Image.fromarray(plane).save(path)
        else:
            (np.save if ending == "npy" else np.savez)(path, plane)
        found, valid = build_task("m", {"kind": kind, "void": [value]} | KINDS[kind]).read(path)
        assert np.array_equal(valid, np.arange(4)[:, None].repeat(4, 1) > 0), value
        assert (found[0][valid] == good).all()


@given(st.floats(-1e6, 1e6, allow_subnormal=False))
def test_doubles_that_were_floats_are_void_too(value: float) -> None:
    assert is_void(np.array([np.float32(value)], np.float64), (value,)).all()
    assert is_void(np.array([value], np.float64), (value,)).all()
    near = float(np.nextafter(np.float32(value), np.float32(np.inf), dtype=np.float32))
    assert not is_void(np.array([near], np.float32), (value,)).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64, bool])
@given(numbers=st.lists(st.integers(-300, 70000), max_size=5))
def test_void_of_integers_is_exact(dtype: type, numbers: list[int]) -> None:
    stored = np.array([0, 1]).astype(dtype) if dtype is bool else np.arange(0, 120).astype(dtype)
    void = (*map(float, numbers), 0.5, 7.25, 1e30)
    assert is_void(stored, void).tolist() == [int(value) in numbers for value in stored]


def test_void_of_vectors_is_a_vector_or_one_number_for_all_three(tmp_path: Path) -> None:
    stored = np.array([[[127, 127, 255], [0, 127, 127], [127, 127, 0], [202, 202, 202]]], np.uint8)
    Image.fromarray(stored).save(tmp_path / "a.png")
    for kind in ("normals", "vectors"):
        task = build_task("m", {"kind": kind, "void": [[127, 127, 255], 202]})
        assert task.read(tmp_path / "a.png")[1].tolist() == [[False, True, True, False]]
        assert build_task("m", task.spec()) == task
    floats = np.float32([[[0, 0.6, 0.8], [0, 0, -1]]])
    np.save(tmp_path / "a.npy", floats)
    task = build_task("m", {"kind": "normals", "void": [[0, 0.6, 0.8]]})
    assert task.read(tmp_path / "a.npy")[1].tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "classes", "classes": ["a", "b"], "void": [1.5]}, "whole class ids, found 1.5"),
        ({"kind": "classes", "classes": ["a", "b"], "void": [True]}, "found True"),
        ({"kind": "classes", "classes": ["a", "b"], "void": 255}, "must be a list"),
        ({"kind": "classes", "classes": ["a", "b", "a"]}, "names 'a' twice"),
        ({"kind": "classes", "classes": ["a", None]}, "must be text, found None"),
        ({"kind": "classes", "classes": ["a"], "ids": {1.5: "a"}}, "whole stored ids, found 1.5"),
        ({"kind": "depth", "range": [1, 2], "void": 0}, "must be a list"),
        ({"kind": "depth", "range": [1, 2], "void": ["x"]}, "x"),
        ({"kind": "normals", "void": [[1, 2]]}, "three components"),
        ({"kind": "binary", "void": "0"}, "must be a list"),
    ],
    ids=str,
)
def test_wrong_void_values_and_names_are_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_task("m", spec)


@pytest.mark.parametrize("count", [2, 255, 256])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_255_is_void_unless_it_is_a_class(count: int, dtype: type, tmp_path: Path) -> None:
    stored = np.array([[0, 1, count - 1, 255]], dtype)
    task = build_task("seg", {"kind": "classes", "classes": [f"c{i}" for i in range(count)]})
    np.save(tmp_path / "a.npy", stored)
    value, valid = task.read(tmp_path / "a.npy")
    np.testing.assert_array_equal(valid, stored < count)
    np.testing.assert_array_equal(value[0][valid], stored[stored < count])
    task.write(tmp_path / "b.png", value, valid)
    again, still = task.read(tmp_path / "b.png")
    np.testing.assert_array_equal(again[0][still], value[0][valid])
    np.testing.assert_array_equal(still, valid)
    assert build_task("seg", task.spec()) == task


def test_what_yaml_takes_for_a_truth_value_stays_a_word() -> None:
    assert build_task("m", {"kind": "classes", "classes": [False, True, "no"]}).class_names() == ("false", "true", "no")


# -- depth after scale and offset --------------------------------------------------------------------------------------
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32])
@given(
    stored=st.lists(st.integers(0, 255), min_size=1, max_size=12),
    offset=st.integers(-300, 300),
    scale=st.sampled_from([1.0, 0.001, 1 / 256, 0.3]),
)
def test_depth_is_positive_or_void_or_refused(
    dtype: type, inverse: bool, stored: list[int], offset: int, scale: float
) -> None:
    spec = {"kind": "depth", "inverse": inverse, "range": [0.5, 10], "scale": scale, "offset": offset}
    task = build_task("m", spec)
    plane = np.array([stored]).clip(0, np.iinfo(dtype).max).astype(dtype)
    true = (plane.astype(np.float64) + offset) * scale
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "a.npy", plane)
        if (true[plane != 0] < 0).any():
            with pytest.raises(LabelError, match=r"a\.npy of task 'm' holds negative depth on \d+ pixels"):
                task.read(Path(folder) / "a.npy")
            return
        value, valid = task.read(Path(folder) / "a.npy")
    assert np.array_equal(valid, (plane != 0) & (true > 0))
    np.testing.assert_allclose(value[0][valid], true[valid], rtol=1e-6)
    assert (value > 0).all()
    assert np.isfinite(value).all()


def test_a_declared_void_is_never_negative_depth(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.float32([[-1, 2, np.nan, 1e-50, 0]]))
    task = build_task("m", {"kind": "depth", "range": [1, 9], "void": [-1]})
    assert task.read(tmp_path / "a.npy")[1].tolist() == [[False, True, False, False, False]]


@given(
    depth=st.lists(st.floats(0.001, 60), min_size=1, max_size=9), offset=st.sampled_from([0, -1, -40]),
    void=st.sampled_from([(), (65535,), (1, 2, 3), (1000, 1001)]),
)  # fmt: skip
def test_predicted_depth_is_never_read_back_as_void(depth: list[float], offset: int, void: tuple[int, ...]) -> None:
    task = build_task("m", {"kind": "depth", "range": [0.5, 60], "offset": offset, "void": list(void)})
    with tempfile.TemporaryDirectory() as folder:
        task.write(Path(folder) / "a.png", np.float32([[depth]]), None)
        value, valid = task.read(Path(folder) / "a.png")
    assert valid.all()
    np.testing.assert_allclose(value[0, 0], depth, atol=0.005)


# -- marks -------------------------------------------------------------------------------------------------------------
def found(task_spec: dict[str, Any], path: Path) -> list[tuple[str, str]]:
    task = build_task("m", task_spec)
    value, valid = task.read(path)
    sums = task.examine(value, valid) | task.examine_stored(read_stored(path, "m"))
    return [(each.severity, each.message) for each in task.summarise(sums).suspicions if each.code == "saturated"]


@pytest.mark.parametrize("kind", ["depth", "inverse", "regression"])
@pytest.mark.parametrize(
    ("dtype", "mark"),
    [
        (np.uint8, 255), (np.uint16, 65535), (np.int16, 32767), (np.int32, 65535), (np.int32, 2147483647),
        (np.uint32, 4294967295), (np.int64, 10**12), (np.float16, 65504), (np.float32, 65535), (np.float32, 1e10),
        (np.float32, 1e38), (np.float64, 1e20), (np.float32, 65.535), (np.float32, 9999), (np.float32, 500),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_numbers_that_nobody_measured_are_found_with_their_share(
    kind: str, dtype: type, mark: float, ending: str, tmp_path: Path
) -> None:
    plane = np.linspace(10, 50, 400).reshape(20, 20).astype(dtype)
    plane[3, :8] = mark
    (np.save if ending == "npy" else np.savez)(tmp_path / f"a.{ending}", plane)
    spec: dict[str, Any] = {"kind": "depth" if kind == "inverse" else kind, "range": [1, 60], "scale": 1}
    spec |= {"inverse": True} if kind == "inverse" else {}
    [(severity, message)] = found(spec, tmp_path / f"a.{ending}")
    assert "2.0%" in message
    assert severity == ("warning" if mark == 500 else "error")
    assert mark in (500, 10**12, 1e38, 1e20) or f"void: [{mark:.10g}]" in message
    # Declared, it is neither learned nor found; measurements are as they were.
    task = build_task("m", spec | {"void": [mark]})
    assert np.array_equal(task.read(tmp_path / f"a.{ending}")[1], plane != dtype(mark))
    assert found(spec | {"void": [mark]}, tmp_path / f"a.{ending}") == []


@given(share=st.floats(0, 0.2), dtype=st.sampled_from([np.uint16, np.int32, np.float32]))
def test_measurements_alone_are_no_finding(share: float, dtype: type) -> None:
    rng = np.random.default_rng(0)
    plane = rng.integers(500, 9000, (30, 40)).astype(dtype)
    plane[rng.random((30, 40)) < share] = 0
    scale = 0.001 if np.dtype(dtype).kind != "f" else 1
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "a.npy", plane if scale == 0.001 else plane / dtype(1000))
        assert found({"kind": "depth", "scale": scale, "range": [0.4, 10]}, Path(folder) / "a.npy") == []
    assert likely_marks(plane) == ()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_likely_marks_stand_apart(dtype: type) -> None:
    plane = np.linspace(500, 9000, 1000).astype(dtype)
    plane[::50] = 65535
    assert likely_marks(plane) == (65535,)
    ramp = np.linspace(0, 65535, 1000).astype(dtype)
    ramp[-5:] = 65535
    assert likely_marks(ramp) == ()  # the largest of many like it
    assert all(math.isfinite(mark.value) for mark in MARKS)
