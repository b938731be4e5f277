"""The embedded rooms: exact labels, the same everywhere, written once and whole."""

from __future__ import annotations

import ast
import hashlib
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tasktokens.datasets.rooms
from tasktokens.datasets.rooms import HUMAN_PARTS, ROOMS_CLASSES, ROOMS_FOCAL
from tasktokens.datasets.rooms.dataset import rooms_folder, write_rooms
from tasktokens.datasets.rooms.render import render_room, stage
from tasktokens.datasets.rooms.trace import trace
from tasktokens.errors import DataError, RunExistsError

LABELS = ("semseg", "depth", "normals", "edge", "saliency", "human_parts")
DIGESTS = {  # of all labels at 48 x 64; if one differs on your machine, its labels are not ours
    0: "da54173f0d49cf7f48fb934ba8f6d6d44ba7b7714074da62898048259d02a38b",
    7: "ddc18e75f0cc21c9d8f16d85f36bb17476ba1d5508636e43a562798c3a9e480b",
}


@cache
def rooms():
    """Forty of them by seed, rendered when the first test asks."""
    return {seed: render_room(seed, 96, 128) for seed in range(40)}


def digest(room):
    whole = hashlib.sha256()
    for name in LABELS:
        if name in room:
            whole.update(
                name.encode() + np.ascontiguousarray(room[name]).astype(room[name].dtype.newbyteorder("<")).tobytes()
            )
    return whole.hexdigest()


def rays(height, width):
    """Directions (H, W, 3) through the pixel centres, from the documented camera."""
    x = (np.arange(width) + 0.5 - width / 2) / (ROOMS_FOCAL * width)
    y = (np.arange(height) + 0.5 - height / 2) / (ROOMS_FOCAL * width)
    return np.stack([*np.meshgrid(x, y), np.ones((height, width))], -1)


@pytest.mark.parametrize("seed", DIGESTS)
def test_labels_have_the_committed_digest(seed):
    assert digest(render_room(seed, 48, 64)) == DIGESTS[seed]


def test_same_seed_gives_the_same_scene_and_others_differ():
    first, again = render_room(3, 48, 64), render_room(3, 48, 64)
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    others = [
        render_room(3, 48, 64, "val"),
        render_room(3, 48, 64, "test"),
        render_room(4, 48, 64),
        render_room(3 + 2**32, 48, 64),
    ]
    assert len({digest(room) for room in [first, *others]}) == 5


@pytest.mark.slow
def test_types_and_ranges():
    for room in rooms().values():
        assert {name: (array.shape, array.dtype.name) for name, array in room.items() if name != "human_parts"} == {
            "image": ((96, 128, 3), "uint8"),
            "semseg": ((96, 128), "uint8"),
            "depth": ((96, 128), "float32"),
            "normals": ((96, 128, 3), "float32"),
            "edge": ((96, 128), "uint8"),
            "saliency": ((96, 128), "uint8"),
        }
        assert room["semseg"].max() < len(ROOMS_CLASSES) == 14
        assert room["depth"].min() >= 0.5
        assert room["depth"].max() <= 10.0
        assert set(np.unique(room["edge"])) == {0, 1} == set(np.unique(room["saliency"]))
        assert room["image"].std() > 5


@pytest.mark.parametrize("size", [(57, 91), (96, 96), (128, 64), (8, 8), (40, 160)])
def test_any_size(size):
    for seed in (0, 1):
        room = render_room(seed, *size)
        assert all(array.shape[:2] == size for array in room.values())
        assert 0.5 <= room["depth"].min() <= room["depth"].max() <= 10.0


def test_a_scene_is_the_same_at_three_times_the_size():
    large = render_room(5, 288, 384)
    small = rooms()[5]
    assert np.mean(large["semseg"][1::3, 1::3] == small["semseg"]) > 0.999  # the same pixel centres, up to rounding
    assert np.mean(np.abs(large["depth"][1::3, 1::3] - small["depth"]) < 1e-4) > 0.999


def test_normals_are_unit_and_face_the_camera():
    for room in rooms().values():
        normals = room["normals"].astype(np.float64)
        assert np.abs(np.linalg.norm(normals, axis=-1) - 1).max() < 1e-6
        assert (normals * rays(96, 128)).sum(-1).max() < 1e-6


def test_normals_agree_with_depth_on_planes():
    compared = 0
    for room in rooms().values():
        point = rays(96, 128) * room["depth"][..., None].astype(np.float64)
        normals = room["normals"].astype(np.float64)
        middle = normals[1:-1, 1:-1]
        calm = np.ones((94, 126), bool)
        for dy in (0, 1, 2):
            for dx in (0, 1, 2):
                near = (slice(dy, dy + 94), slice(dx, dx + 126))
                calm &= np.abs(normals[near] - middle).max(-1) < 1e-6
                calm &= np.abs(((point[near] - point[1:-1, 1:-1]) * middle).sum(-1)) < 1e-4  # not a parallel plane
                calm &= room["edge"][near] == 0
        across, down = point[1:-1, 2:] - point[1:-1, :-2], point[2:, 1:-1] - point[:-2, 1:-1]
        found = np.cross(down, across)
        found /= np.linalg.norm(found, axis=-1, keepdims=True)
        assert (found * middle).sum(-1)[calm].min() > np.cos(np.radians(1))
        compared += calm.mean() / len(rooms())
    assert compared > 0.5


def test_floor_and_ceiling_look_up_and_down_and_are_planes():
    for room in rooms().values():
        for name, sign in (("floor", -1), ("ceiling", 1)):
            normals = room["normals"][room["semseg"] == ROOMS_CLASSES.index(name)]
            if len(normals):
                assert (sign * normals[:, 1]).min() > 0.7 or name == "floor"  # a rug's rim is floor too
                assert np.median(sign * normals[:, 1]) > 0.7


def test_edges_lie_where_the_instance_or_the_crease_changes():
    runs = 0
    for seed in range(8):
        room, camera, _ = stage(seed, 96 / 128, "train")
        seen = trace(room, camera, *camera.grid(96, 128))
        thing = np.array([piece.thing for piece in room.kit.pieces])[seen.which].reshape(96, 128)
        face = (seen.which * 8 + seen.face).reshape(96, 128)
        edge, normals, depth = rooms()[seed]["edge"], rooms()[seed]["normals"], rooms()[seed]["depth"]
        must, may = np.zeros((96, 128), bool), np.zeros((96, 128), bool)
        for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
            bent = (normals[here] * normals[there]).sum(-1) < 0.8
            must[here] |= (thing[here] != thing[there]) | ((face[here] != face[there]) & bent)
            may[here] |= (face[here] != face[there]) & (bent | (np.abs(depth[here] - depth[there]) > 0.02))
        assert (edge[must] == 1).all()
        assert (edge[~must & ~may] == 0).all()
        assert must.any()
        # one pixel wide: five pixels of one face left and right of a straight border hold one edge pixel
        for y in range(95):
            for x in range(5, 122):
                left, right = face[y : y + 2, x - 5 : x], face[y : y + 2, x : x + 6]
                if (left == left[0, 0]).all() and (right == right[0, 0]).all() and thing[y, x - 1] != thing[y, x]:
                    assert edge[y, x - 5 : x + 5].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
                    runs += 1
    assert runs > 50


def test_something_is_salient_and_it_is_one_thing():
    for seed in range(8):
        room, camera, _ = stage(seed, 96 / 128, "train")
        salient = rooms()[seed]["saliency"] == 1
        assert 0.005 < salient.mean() < 0.6
        seen = trace(room, camera, *camera.grid(96, 128))
        group = np.array([piece.group for piece in room.kit.pieces])[seen.which].reshape(96, 128)
        assert len(np.unique(group[salient])) == 1
        assert not np.isin(group[~salient], group[salient]).any()


def test_human_parts_cover_people_exactly():
    person, met = ROOMS_CLASSES.index("person"), set()
    for room in rooms().values():
        people = room["semseg"] == person
        assert ("human_parts" in room) == (people.sum() >= 30)
        if "human_parts" in room:
            assert np.array_equal(room["human_parts"] > 0, people)
            met |= set(np.unique(room["human_parts"]))
    assert met == set(range(len(HUMAN_PARTS)))


def test_every_class_is_met_often_enough():
    shown = np.mean([np.bincount(room["semseg"].ravel(), minlength=14) >= 20 for room in rooms().values()], 0)
    assert shown.min() >= 0.08, dict(zip(ROOMS_CLASSES, shown, strict=True))
    assert 0.2 < shown[ROOMS_CLASSES.index("person")] < 0.6


def test_colour_alone_does_not_give_the_class():
    """The best guess from a coarse colour histogram of other rooms stays far from right on furniture-like classes."""
    movable = [ROOMS_CLASSES.index(name) for name in ("bed", "chair", "sofa", "table", "furniture", "objects")]
    votes = np.zeros((512, 14))
    right = total = 0
    for seed, room in rooms().items():
        code = (room["image"] // 32 @ np.array([64, 8, 1])).ravel()
        label, keep = room["semseg"].ravel(), np.isin(room["semseg"].ravel(), movable)
        if seed < 25:
            np.add.at(votes, (code[keep], label[keep]), 1)
        else:
            right += (votes.argmax(1)[code[keep]] == label[keep]).sum()
            total += keep.sum()
    assert right / total < 0.5


def test_folder_holds_what_was_rendered(tmp_path):
    out = write_rooms(tmp_path / "rooms", {"train": 3, "val": 2, "test": 1}, 48, 64, seed=2, workers=1, progress=False)
    names = [f"train_{i:05d}" for i in (1, 2, 3)] + ["val_00001", "val_00002", "test_00001"]
    assert "".join((out / f"{split}.txt").read_text() for split in ("train", "val", "test")).split() == names
    assert [path.name for path in tmp_path.iterdir()] == ["rooms"]
    for name in names:
        split, number = name.split("_")
        room = render_room(2_000_000 + int(number), 48, 64, split)
        read = {task: np.asarray(Image.open(out / task / f"{name}.png")) for task in ("images", *LABELS[:-1])}
        assert np.array_equal(read["images"], room["image"])
        assert np.array_equal(read["semseg"], room["semseg"])
        assert read["semseg"].dtype == np.uint8
        assert np.abs(read["depth"].astype(float) / 1000 - room["depth"]).max() < 0.00051
        assert np.abs(read["normals"].astype(float) * 2 / 255 - 1 - room["normals"]).max() < 0.004
        assert not (read["normals"] == 128).all(-1).any()
        assert np.array_equal(read["edge"], room["edge"] * 255)
        assert np.array_equal(read["saliency"], room["saliency"] * 255)
        parts = out / "human_parts" / f"{name}.png"
        assert parts.exists() == ("human_parts" in room)
        assert not parts.exists() or np.array_equal(np.asarray(Image.open(parts)), room["human_parts"])


def test_description_is_yaml_with_all_tasks(tmp_path):
    yaml = pytest.importorskip("yaml")
    out = write_rooms(tmp_path / "rooms", {"train": 1, "val": 1, "test": 1}, 16, 16, progress=False)
    described = yaml.safe_load((out / "dataset.yaml").read_text())
    assert described["splits"] == {"train": "train.txt", "val": "val.txt", "test": "test.txt"}
    assert described["name"] == "rooms"
    assert described["images"] == "images"
    assert described["tasks"] == {
        "semseg": {"kind": "classes", "classes": list(ROOMS_CLASSES), "void": [255]},
        "depth": {"kind": "depth", "scale": 0.001, "range": [0.5, 10.0]},
        "normals": {"kind": "normals"},
        "edge": {"kind": "edge"},
        "saliency": {"kind": "saliency"},
        "human_parts": {"kind": "classes", "classes": list(HUMAN_PARTS), "void": [255]},
    }


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(RunExistsError, match="not empty"):
        write_rooms(tmp_path, {"train": 1}, 16, 16, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert write_rooms(empty, {"train": 1}, 16, 16, progress=False) == empty


@pytest.mark.parametrize("counts", [{}, {"train": 0}, {"training": 3}, {"train": -1}])
def test_senseless_counts_are_refused(tmp_path, counts):
    with pytest.raises(DataError):
        write_rooms(tmp_path / "rooms", counts, 16, 16, progress=False)


def test_senseless_arguments_are_refused():
    for arguments in ((0, 4, 64), (-1, 48, 64), (0, 48, 64, "trian"), (0, 2000, 8)):
        with pytest.raises(DataError):
            render_room(*arguments)


@pytest.mark.slow
def test_parallel_is_the_same_as_serial_even_from_standard_input(tmp_path):
    code = (
        # A job in the background of a script is started with SIGINT ignored, and its children inherit that.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path; from tasktokens.datasets.rooms.dataset import write_rooms; import sys\n"
        "write_rooms(Path(sys.argv[1]), {'train': 16}, 16, 24, workers=2, progress=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-", str(tmp_path / "two")],
        input=code,
        text=True,
        capture_output=True,
        env=environment(),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "16/16" in done.stderr
    one = write_rooms(tmp_path / "one", {"train": 16}, 16, 24, workers=1, progress=False)
    files = sorted(path.relative_to(one) for path in one.rglob("*"))
    assert files == sorted(path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*"))
    assert all((one / f).is_dir() or (one / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_cache_is_rendered_once_and_shared_by_two_at_once(tmp_path, monkeypatch):
    code = (
        "from tasktokens.datasets.rooms.dataset import rooms_folder\n"
        "print(rooms_folder({'val': 2}, 16, 24, progress=False))"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment(TASKTOKENS_CACHE=str(tmp_path)),
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    folders = {process.communicate(timeout=60)[0].strip() for process in both}
    assert len(folders) == 1
    assert [process.returncode for process in both] == [0, 0]
    folder = Path(folders.pop())
    assert folder.is_relative_to(tmp_path / "tasktokens" / "rooms")
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # nothing half-done is left
    monkeypatch.setenv("TASKTOKENS_CACHE", str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert rooms_folder({"val": 2, "train": 0}, 16, 24, progress=False) == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert rooms_folder({"val": 2}, 16, 24, seed=1, progress=False) != folder


def test_another_that_finishes_just_before_the_renaming_is_used(tmp_path, monkeypatch):
    described = tasktokens.datasets.rooms.dataset._description

    def overtaken(*arguments):
        (partial,) = tmp_path.glob("tasktokens/rooms/.*.partial")
        out = partial.with_name(partial.name[1:].rsplit(".", 2)[0])
        out.mkdir()
        (out / "dataset.yaml").touch()
        return described(*arguments)

    monkeypatch.setenv("TASKTOKENS_CACHE", str(tmp_path))
    monkeypatch.setattr(tasktokens.datasets.rooms.dataset, "_description", overtaken)
    folder = rooms_folder({"val": 1}, 16, 24, progress=False)
    assert [path.name for path in folder.iterdir()] == ["dataset.yaml"]  # the other's, untouched
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("images", [0, 16])
def test_interrupting_leaves_nothing(tmp_path, images):
    code = (
        "from pathlib import Path; from tasktokens.datasets.rooms.dataset import write_rooms; import signal, sys\n"
        # What a shell starts in the background ignores interrupts, and so would this.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "write_rooms(Path(sys.argv[1]), {'train': 5000}, 64, 64, workers=2)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "rooms")], env=environment(), stderr=subprocess.DEVNULL
    )
    try:
        limit = time.monotonic() + 120
        # With 0, the very first moment: processes are being started and jobs handed out.
        while not list(tmp_path.glob(".rooms.*.partial")) and time.monotonic() < limit:
            time.sleep(0.01)
        while len(list(tmp_path.glob(".rooms.*.partial/images/*.png"))) < images and time.monotonic() < limit:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) != 0
    finally:
        process.kill()
    assert list(tmp_path.iterdir()) == []


def test_no_module_here_imports_torch():
    for path in Path(tasktokens.datasets.rooms.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0].startswith("torch") for name in names), path


def environment(**more):
    """The environment of a child that finds this very package."""
    source = str(Path(next(iter(tasktokens.__path__))).parent)
    return {**os.environ, "PYTHONPATH": source, **more}
