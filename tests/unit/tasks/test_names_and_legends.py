"""Reserved names, and legends: each colour that is explained is the colour that is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import run_cli
from tasktokens.datasets.folder import open_folder
from tasktokens.errors import ConfigError
from tasktokens.tasks import Depth, build_task
from tasktokens.tasks.names import RESERVED
from tasktokens.utils.pictures import LARGEST, Picture, Strip, reduced, save_strips

SPECS: dict[str, dict[str, Any]] = {
    "semseg": {"kind": "classes", "classes": ["floor", "wall"], "ids": {7: "floor", 9: "wall"}},
    "parts": {"kind": "classes", "colours": {"head": [250, 0, 0], "arm": [0, 250, 0]}},
    "depth": {"kind": "depth", "range": [0.5, 8]}, "disparity": {"kind": "depth", "range": [0.1, 1], "inverse": True},
    "normals": {"kind": "normals"}, "flow": {"kind": "vectors"}, "hair": {"kind": "binary"}, "edge": {"kind": "edge"},
    "saliency": {"kind": "saliency"}, "warmth": {"kind": "regression", "range": [-20, 60], "unit": "K"},
}  # fmt: skip


@pytest.mark.parametrize("name", [*RESERVED, "Images", "ID", "a b", "1st", "", "../x", "forward"])
def test_reserved_and_impossible_names_are_refused_wherever_a_task_gets_one(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a task's name"):
        build_task(name, {"kind": "depth"})
    with pytest.raises(ConfigError, match="cannot be a task's name"):
        Depth(name=name)  # as a part of several data sets renames one


def test_a_data_set_with_such_a_name_is_told_how_to_go_on(own_folder: Path, capsys: Any) -> None:
    values = yaml.safe_load((own_folder / "dataset.yaml").read_text())
    values["tasks"]["id"] = values["tasks"].pop("edge")
    (own_folder / "edge").rename(own_folder / "id")
    (own_folder / "dataset.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"my_id: \{kind: \.\.\., folder: id\}"):
        open_folder(own_folder)
    assert run_cli(capsys, "check", own_folder, "-q")[0] == 1
    values["tasks"]["my_id"] = values["tasks"].pop("id") | {"folder": "id"}
    (own_folder / "dataset.yaml").write_text(yaml.safe_dump(values))
    assert len(open_folder(own_folder).labels["my_id"]) == 8


@pytest.mark.parametrize("name", SPECS)
def test_a_legend_has_the_colours_of_the_pictures(name: str) -> None:
    task = build_task(name, SPECS[name])
    legend = task.legend()
    assert legend.title == name
    assert legend.swatches or legend.bar is not None
    if classes := task.class_names():
        drawn = task.colourise(np.arange(len(classes), dtype=np.uint8)[None, None])[0].tolist()
        assert [list(colour) for colour, _ in legend.swatches] == drawn
        assert tuple(text for _, text in legend.swatches) == classes
        one = task.legend(np.ones((1, 2, 2), np.uint8))
        assert [text for _, text in one.swatches] == [classes[1]]
    if name == "normals":
        camera = task.colourise(np.array([0, 0, -1], np.float32)[:, None, None])[0, 0].tolist()
        assert {text: list(colour) for colour, text in legend.swatches}["to the camera"] == camera
        up = task.colourise(np.array([0, -1, 0], np.float32)[:, None, None])[0, 0].tolist()
        assert {text: list(colour) for colour, text in legend.swatches}["up"] == up
    if legend.bar is not None:
        low, high = SPECS[name].get("range", (0, 1))
        for value, colour in ((low, legend.bar[0]), (high, legend.bar[-1])):
            assert (task.colourise(np.full((1, 1, 1), value, np.float32))[0, 0] == colour).all()


def test_what_files_store_for_a_class_is_what_is_written(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("semseg", "parts"):
        task = build_task(name, SPECS[name])
        task.write(tmp_path / f"{name}.png", np.array([[[0, 1]]], np.uint8))
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png"))[0]
        stored = [str(p) if np.ndim(p) == 0 else "#{:02x}{:02x}{:02x}".format(*p) for p in pixels]
        assert stored == [first for first, _, _ in task.stored_classes()]


def test_depth_beyond_16_bits_is_written_as_floats_and_not_nearer_than_it_is(tmp_path: Path) -> None:
    task = build_task("depth", {"kind": "depth", "range": [1, 200]})
    value = np.array([[[3.0, 150.0]]], np.float32)
    task.write(tmp_path / "a.png", value, np.array([[True, True]]))
    (path,) = tmp_path.iterdir()
    assert path.name == "a.npy"
    np.testing.assert_allclose(task.read(path)[0], value)


def test_pictures_are_no_larger_than_they_need_be(tmp_path: Path) -> None:
    large = np.zeros((300, 4000, 3), np.uint8)
    large[:, 2000:] = 255
    small = reduced(large)
    assert small.shape == (77, LARGEST, 3)
    assert set(np.unique(small)) == {0, 255}  # colours of classes are not mixed
    assert reduced(small) is small
    legends = [build_task(name, SPECS[name]).legend() for name in SPECS]
    with_legend = save_strips(tmp_path / "a.png", [Strip("t", (Picture("p", small),))], legends=legends)
    assert with_legend.stat().st_size > 0
