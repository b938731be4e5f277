"""Folders that `init` read wrongly: smoothed masks, whites of other types, lone far numbers, frames, names, tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tasktokens.data.ids import nearest_id
from tasktokens.datasets.folder import open_folder
from tasktokens.errors import ConfigError, DataError
from tasktokens.inspection.infer import infer_folder
from tasktokens.inspection.survey import check
from tasktokens.tasks import build_task
from tasktokens.tasks.marks import lone_extreme

ROWS = np.mgrid[:32, :48][0]


def box(i: int) -> np.ndarray:
    found = np.zeros((32, 48), dtype=bool)
    found[5 + i : 20 + i, 8 + 2 * i : 28 + 2 * i] = True
    return found


def write(root: Path, folder: str, label: Callable[[int], Any], count: int = 6) -> Path:
    (root / "images").mkdir(parents=True)
    (root / folder).mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (32, 48, 3), dtype=np.uint8)).save(root / "images" / f"{i:03}.png")
        value = label(i)
        if isinstance(value, Image.Image):
            value.save(root / folder / f"{i:03}.png")
        else:
            np.save(root / folder / f"{i:03}.npy", value)
    return root


def inferred(root: Path) -> dict[str, Any]:
    (task,) = infer_folder(root).tasks
    return task.spec


@pytest.mark.parametrize(("folder", "kind"), [("mask", "binary"), ("hair", "binary"), ("saliency", "saliency")])
@pytest.mark.parametrize("radius", [0.5, 0.7, 1])
def test_a_mask_with_smooth_borders_is_a_mask(folder: str, kind: str, radius: float, tmp_path: Path) -> None:
    def smooth(i: int) -> Image.Image:
        return Image.fromarray(box(i).astype(np.uint8) * np.uint8(255)).filter(ImageFilter.GaussianBlur(radius))

    assert inferred(write(tmp_path, folder, smooth)) == {"kind": kind}


@pytest.mark.parametrize("ids", [[0, 1, 2, 255], [0, 7, 26, 255], [0, 100, 201, 255], [0, 5, 60, 130, 200, 255]])
def test_few_large_regions_are_classes_still(ids: list[int], tmp_path: Path) -> None:
    root = write(tmp_path, "seg", lambda i: Image.fromarray(np.array(ids, np.uint8)[ROWS * len(ids) // 32]))
    assert inferred(root)["kind"] == "classes"


@pytest.mark.parametrize("white", [255, 65535])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32])
def test_the_white_of_a_mask_is_what_its_files_hold(dtype: Any, white: int, tmp_path: Path) -> None:
    if white > np.iinfo(dtype).max:
        pytest.skip("no such number in this type")
    root = write(tmp_path, "mask", lambda i: box(i).astype(dtype) * dtype(white))
    value, valid = build_task("mask", inferred(root)).read(root / "mask" / "002.npy")
    assert valid.all()
    np.testing.assert_array_equal(value[0], box(2))


FAR = {np.uint16: [65534, 60000, 20000], np.int32: [50000, 10**6], np.float32: [100.0, 1000.0], np.float16: [300.0]}


@pytest.mark.parametrize(("dtype", "far"), [(dtype, far) for dtype, values in FAR.items() for far in values])
def test_a_lone_far_number_is_no_measurement(dtype: Any, far: float, tmp_path: Path) -> None:
    whole = np.issubdtype(dtype, np.integer)

    def depth(i: int) -> np.ndarray:
        metres = 6 - 0.1 * ROWS - 0.01 * np.arange(48) - 0.01 * i
        plane = (metres * (1000 if whole else 1)).astype(dtype)
        plane[box(i)] = far
        return plane

    root = write(tmp_path, "depth", depth)
    spec = inferred(root)
    assert spec["void"] == [far]
    value, valid = build_task("depth", spec).read(root / "depth" / "001.npy")
    np.testing.assert_array_equal(valid, ~box(1))
    assert value[0][valid].max() < 6
    # Where it is not declared, and inside the range, `check` says so.
    most = far * (0.001 if whole else 1)
    (root / "dataset.yaml").write_text(f"tasks: {{depth: {{kind: depth, range: [0.5, {most}]}}}}\n")
    assert "saturated" in {finding.code for finding in check(open_folder(root), workers=1).findings}


@pytest.mark.parametrize("plane", [[*range(1, 65), 100], [*range(8), *[90] * 9], [*range(1, 65), 125, 125], [5] * 99])
def test_other_numbers_are_measurements(plane: list[int]) -> None:
    assert lone_extreme(np.array(plane, np.uint16)) is None


@pytest.mark.parametrize("stored", ["uint8", "float32", "float16"])
def test_of_two_frames_that_face_the_camera_that_with_floors_is_taken(stored: str, tmp_path: Path) -> None:
    ours = np.where((ROWS > 16)[..., None], [0.0, -0.95, -0.3122], [0.0, 0.0, -1.0])
    opengl = ours * [1, -1, -1]
    if stored == "uint8":
        root = write(tmp_path, "normals", lambda i: Image.fromarray(np.rint((opengl + 1) * 127.5).astype(np.uint8)))
        path = root / "normals" / "000.png"
    else:
        root = write(tmp_path, "normals", lambda i: opengl.astype(stored))
        path = root / "normals" / "000.npy"
    (task,) = infer_folder(root).tasks
    assert task.spec["frame"] == ["x", "-y", "-z"]
    assert "mean z +0.6" in task.saw
    value, valid = build_task("normals", task.spec).read(path)
    assert valid.all()
    np.testing.assert_allclose(np.moveaxis(value, 0, -1), ours, atol=0.02)


@pytest.mark.parametrize(("written", "meant"), [("7", "007"), ("7.0", "007"), ("1E+05", "100000"), ("7.png", "007")])
def test_numbers_of_spreadsheets_lead_to_the_id(written: str, meant: str) -> None:
    assert nearest_id(written, ["001", "007", "100000"]) == f" (did you mean '{meant}'?)"


@pytest.mark.parametrize("cell", ["images/7.png", "images/7", "images/7.0"])
def test_a_manifest_names_the_file_that_was_meant(cell: str, tmp_path: Path) -> None:
    root = write(tmp_path, "mask", lambda i: Image.fromarray(box(i)), 8)
    (root / "files.csv").write_text(f"image,mask\n{cell},mask/007.png\n")
    (root / "dataset.yaml").write_text("manifest: files.csv\ntasks: {mask: {kind: binary}}\n")
    with pytest.raises(DataError, match=r"did you mean '007.png'\?"):
        open_folder(root)


def test_one_label_file_of_several_images_is_a_finding(tmp_path: Path) -> None:
    root = write(tmp_path, "mask", lambda i: Image.fromarray(box(i)))
    (root / "files.csv").write_text("image,mask\n" + "".join(f"images/{i:03}.png,mask/000.png\n" for i in range(6)))
    (root / "dataset.yaml").write_text("manifest: files.csv\ntasks: {mask: {kind: binary}}\n")
    assert [f.code for f in check(open_folder(root), workers=1).findings if "shared" in f.code] == ["label-shared"]


@pytest.mark.parametrize(("splits", "code"), [
    ({"train": "a.txt", "test": "a.txt"}, "id-in-two-splits"),
    ({"Train": "a.txt", "test": "b.txt"}, "no-training-split"),
])  # fmt: skip
def test_splits_that_would_mislead_are_findings(splits: dict[str, str], code: str, tmp_path: Path) -> None:
    root = write(tmp_path, "mask", lambda i: Image.fromarray(box(i)))
    (root / "a.txt").write_text("000\n001\n002\n")
    (root / "b.txt").write_text("003\n004\n005\n")
    lists = ", ".join(f"{name}: {file}" for name, file in splits.items())
    (root / "dataset.yaml").write_text(f"splits: {{{lists}}}\ntasks: {{mask: {{kind: binary}}}}\n")
    assert code in {finding.code for finding in check(open_folder(root), workers=1).findings}


@pytest.mark.parametrize("name", ["con", "NUL", "com1", "a" * 101])
def test_a_task_is_not_called_like_a_device(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a task's name: it becomes a folder"):
        build_task(name, {"kind": "binary"})


def test_tasks_that_differ_in_case_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path, "mask", lambda i: Image.fromarray(box(i)))
    (root / "dataset.yaml").write_text("tasks: {mask: {kind: binary}, Mask: {kind: binary, folder: mask}}\n")
    with pytest.raises(ConfigError, match="'mask' and 'Mask' differ in case only"):
        open_folder(root)


@pytest.mark.parametrize(("spec", "words"), [
    ({"kind": "depth", "range": 10}, "range must be two numbers"),
    ({"kind": "depth", "range": [True, 10]}, "range must be two numbers"),
    ({"kind": "regression", "range": ["0", 1]}, "range must be two numbers"),
    ({"kind": "regression"}, "needs the setting 'range'"),
    ({"kind": "depth", "range": [1, 2], "scale": "1e-3"}, "scale must be a number, found '1e-3'"),
    ({"kind": "depth", "range": [1, 2], "scale": True}, "scale must be a number, found True"),
    ({"kind": "binary", "white": "255"}, "white must be a number"),
    ({"kind": "edge", "max_distance": [1]}, "max_distance must be a number"),
    ({"kind": "depth", "range": [1, 2], "void": [[1]]}, "void must be a list of numbers"),
    ({"kind": "depth", "range": [1, 2], "void": ["none"]}, "void must be a list of numbers"),
    ({"kind": "classes", "classes": {0: "wall", 1: "floor"}}, "classes must be a list of names"),
    ({"kind": "classes", "classes": 3}, "classes must be a list of names"),
    ({"kind": "classes", "classes": ["wall", "wall "]}, "names 'wall' twice"),
    ({"kind": "classes", "classes": ["wall", ""]}, "each class needs a name"),
    ({"kind": "classes", "classes": ["a"], "ids": [7]}, "'ids' must map"),
    ({"kind": "classes", "classes": ["a"], "ids": {"x": "a"}}, "must name whole stored ids"),
    ({"kind": "classes", "classes": ["a"], "colours": 3}, "'colours' must be a list"),
])  # fmt: skip
def test_settings_of_a_wrong_form_are_named_in_words(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        build_task("t", spec)
    assert "Error for" not in str(caught.value)
