"""Preparing a data set: what is written, what is kept after an interruption, what is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import processes
from conftest import Array
from conftest import run_cli as run
from fakes import cityscapes, nyud, pascal_context
from tasktokens.config import Config, load_config
from tasktokens.datasets.cityscapes import CityscapesSource, open_cityscapes
from tasktokens.datasets.folder import FolderSource, open_folder
from tasktokens.datasets.index import DatasetIndex, LabelFile
from tasktokens.datasets.nyud import NyudSource
from tasktokens.datasets.pascal_context import PascalContextSource
from tasktokens.datasets.prepare import prepare, verify
from tasktokens.errors import ConfigError, DataError, LabelError, RunExistsError
from tasktokens.utils.lock import only_writer

HEADER = "id,semseg,depth,normals,edge,saliency\n"


def add_to_description(root: Path, line: str) -> None:
    with (root / "dataset.yaml").open("a") as file:
        file.write(line + "\n")


def test_a_folder_brings_its_published_splits_along(own_folder: Path) -> None:
    (own_folder / "mine.csv").write_text(HEADER + "im00,1,0,0,0,0\nim01,0,1,1,0,0\nim07,1,1,1,1,1\n")
    add_to_description(own_folder, "labels: {one: mine.csv}")
    (own_folder / "semseg" / "im00.png").unlink()  # is no matter while nobody chooses the split
    split = open_folder(own_folder).published["one"]
    assert list(split) == [f"im{number:02d}" for number in range(6)], "the training images, in their order"
    assert split["im00"] == ("semseg",)
    assert split["im01"] == ("depth", "normals")
    assert split["im02"] == ()


def test_a_bad_labels_entry_is_named(own_folder: Path) -> None:
    add_to_description(own_folder, "labels: mine.csv")
    with pytest.raises(ConfigError, match=r"one: labels_one\.csv"):
        open_folder(own_folder)
    (own_folder / "dataset.yaml").write_text(
        (own_folder / "dataset.yaml").read_text().replace("labels: mine.csv", "labels: {one: nowhere.csv}")
    )
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        open_folder(own_folder)


# -- preparing ---------------------------------------------------------------------------------------------------------
def snapshot(root: Path) -> dict[str, bytes]:
    """Every file's bytes by relative path."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def make(root: Path, out: Path, **options: Any) -> Path:
    """Prepare an own folder in this process."""
    return prepare(FolderSource(root=root), out, **{"workers": 1, "quiet": True, **options})


def check_same(direct: DatasetIndex, prepared: DatasetIndex, depth: float = 0.0, normals: float = 0.0) -> None:
    """Equal but for rounding: ``depth`` in its unit, ``normals`` a component; images too."""
    assert list(prepared.splits.items()) == list(direct.splits.items())
    assert set(prepared.images) == set(direct.images)
    assert dict(prepared.published) == dict(direct.published)
    for id, image in direct.images.items():
        np.testing.assert_array_equal(prepared.images[id].read(), image.read())
    for name, files in direct.labels.items():
        assert prepared.tasks[name].spec() == direct.tasks[name].spec()
        assert set(prepared.labels[name]) == set(files)
        for id, file in files.items():
            (value, valid), (again, again_valid) = file.read(), prepared.labels[name][id].read()
            np.testing.assert_array_equal(again_valid, valid)
            allowed = {"depth": depth, "normals": normals}.get(name, 0.0)
            assert again.dtype == value.dtype
            assert np.abs(again.astype(float) - value)[:, valid].max() <= allowed, (name, id)


def test_an_own_folder_is_copied_byte_for_byte(folder_root: Path, tmp_path: Path) -> None:
    out = make(folder_root, tmp_path / "out")
    before, after = snapshot(folder_root), snapshot(out)
    assert {name: after[name] for name in before if name.endswith((".png", ".txt"))} == {
        name: data for name, data in before.items() if name.endswith((".png", ".txt"))
    }
    assert set(after) - set(before) == {"prepared.json", "checksums.sha256"}
    check_same(open_folder(folder_root), open_folder(out))
    manifest = json.loads(after["prepared.json"])
    assert manifest["images"] == 8
    assert manifest["labels"] == dict.fromkeys(["semseg", "depth", "normals", "edge", "saliency"], 8)
    assert manifest["left_out"] == []
    for line in after["checksums.sha256"].decode().splitlines():
        sum, name = line.split("  ")
        assert hashlib.sha256(after[name]).hexdigest() == sum
    assert after["checksums.sha256"].count(b"\n") == len(after) - 2


LAYOUTS: dict[str, tuple[Callable[[Path], Path], Any]] = {
    "nyud-mtan": (nyud.write_mtan, NyudSource),
    "nyud-atrc": (nyud.write_atrc, NyudSource),
    "nyud-compact": (nyud.write_compact, NyudSource),
    "nyud-official": (nyud.write_official, partial(NyudSource, classes=40)),
    "cityscapes-mtan": (cityscapes.write_mtan, CityscapesSource),
    "cityscapes-official": (cityscapes.write_official, partial(CityscapesSource, classes=19)),
    "cityscapes-metres": (cityscapes.write_official, partial(CityscapesSource, depth="metres")),
    "pascal-context": (pascal_context.write, PascalContextSource),
}
DEPTH = {"nyud": 0.00051, "cityscapes": 1 / 131070 + 1e-7, "cityscapes-metres": 0.0051, "pascal": 0.0}
"""The largest rounding of depth: half a millimetre, half of 1/65535, half a centimetre."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_benchmark_prepared_is_what_is_read_directly(layout: str, tmp_path: Path) -> None:
    if layout == "nyud-official":
        pytest.importorskip("h5py")
    write, kind = LAYOUTS[layout]
    source = kind(root=write(tmp_path / "source"))
    out = prepare(source, tmp_path / "out", workers=1, quiet=True)
    depth = DEPTH[layout] if layout in DEPTH else DEPTH[layout.split("-")[0]]
    # 8 bits for -1..1, whose vector is made one of unit length again.
    check_same(source.open_index((1, 1)), open_folder(out), depth, normals=0.012)
    rounding = json.loads((out / "prepared.json").read_text())["rounding"]
    assert all(rounding[task] == 0 for task in rounding if task not in ("depth", "normals"))


def test_nyud_is_stored_in_millimetres(tmp_path: Path) -> None:
    root = nyud.write_mtan(tmp_path / "source")
    out = prepare(NyudSource(root=root), tmp_path / "out", workers=1, quiet=True)
    metres = np.nan_to_num(np.load(root / "train" / "depth" / "3.npy")[..., 0].astype(np.float64))
    with Image.open(out / "depth" / "train" / "3.png") as image:
        assert image.mode == "I;16"
        np.testing.assert_array_equal(np.asarray(image), np.rint(metres * 1000))
    normal = np.load(root / "val" / "normal" / "1.npy")
    ours = np.stack([normal[..., 0], -normal[..., 2], normal[..., 1]], -1)  # x right, y down, z forward
    with Image.open(out / "normals" / "val" / "1.png") as image:
        assert np.abs(np.asarray(image) - (ours + 1) * 127.5).max() <= 0.501


def test_inverse_depth_has_a_scale_of_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 32000, (3, 12, 16), dtype=np.uint16)
    arrays = {
        "image": rng.random((3, 12, 16, 3)),
        "label_7": rng.integers(-1, 7, (3, 12, 16)),
        "depth": stored[..., None] / 65535,
    }
    for name, array in arrays.items():
        for i in range(3):
            path = tmp_path / "source" / ("train" if i < 2 else "val") / name / f"{i % 2}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array[i])
    out = prepare(CityscapesSource(root=tmp_path / "source"), tmp_path / "out", workers=1, quiet=True)
    np.testing.assert_array_equal(np.asarray(Image.open(out / "depth" / "train" / "1.png")), stored[1])
    check_same(open_cityscapes(tmp_path / "source"), open_folder(out), depth=1e-6)


def test_depth_too_far_for_the_scale_gets_another(own_folder: Path, tmp_path: Path) -> None:
    text = (own_folder / "dataset.yaml").read_text()
    (own_folder / "dataset.yaml").write_text(text.replace("- 0.5\n    - 10.0", "- 0.5\n    - 300.0"))
    metres = np.linspace(0.5, 300, 40 * 56, dtype=np.float32).reshape(40, 56)
    (own_folder / "depth" / "im00.png").unlink()
    np.save(own_folder / "depth" / "im00.npy", metres)
    out = make(own_folder, tmp_path / "out")
    assert yaml.safe_load((out / "dataset.yaml").read_text())["tasks"]["depth"]["scale"] == 0.005
    value, _ = open_folder(out).labels["depth"]["im00"].read()
    np.testing.assert_allclose(value[0], metres, atol=0.00251)
    old, valid = open_folder(own_folder).labels["depth"]["im01"].read()  # millimetres, written anew
    new, _ = open_folder(out).labels["depth"]["im01"].read()
    np.testing.assert_allclose(new[:, valid], old[:, valid], atol=0.00251)


def test_values_without_a_png_format_stay_npy(own_folder: Path, tmp_path: Path) -> None:
    text = (own_folder / "dataset.yaml").read_text()
    heat = "  heat:\n    kind: regression\n    range: [250, 350]\n"
    (own_folder / "dataset.yaml").write_text(text.replace("  semseg:\n", heat + "  semseg:\n"))
    (own_folder / "heat").mkdir()
    kelvin = np.linspace(250, 350, 40 * 56, dtype=np.float32).reshape(40, 56)
    np.save(own_folder / "heat" / "im03.npy", kelvin)
    out = make(own_folder, tmp_path / "out")
    np.testing.assert_array_equal(np.load(out / "heat" / "im03.npy"), kelvin)
    assert set(open_folder(out).labels["heat"]) == {"im03"}


def test_stretching_follows_the_tasks_rules(folder_root: Path, tmp_path: Path) -> None:
    out = make(folder_root, tmp_path / "out", size=(20, 28))
    before, after = open_folder(folder_root), open_folder(out)
    # Pillow's bilinear filter is widened for smaller pictures, too.
    with Image.open(folder_root / "images" / "im00.png") as image:
        expected = np.asarray(image.resize((28, 20), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(after.images["im00"].read() - expected).max() <= 1
    classes, valid = before.labels["semseg"]["im00"].read()
    small, small_valid = after.labels["semseg"]["im00"].read()
    # Halved, the nearest pixel centre is the later of two.
    np.testing.assert_array_equal(small, classes[:, 1::2, 1::2])
    np.testing.assert_array_equal(small_valid, valid[1::2, 1::2])
    edge, edge_valid = after.labels["edge"]["im00"].read()
    blocks = before.labels["edge"]["im00"].read()[0].reshape(1, 20, 2, 28, 2).max((2, 4))
    np.testing.assert_array_equal(edge[:, edge_valid], blocks[:, edge_valid])


def test_jpeg_is_copied_and_only_asked_for_otherwise(own_folder: Path, tmp_path: Path) -> None:
    path = own_folder / "images" / "im00.png"
    Image.open(path).save(path.with_suffix(".JPG"), quality=80)
    path.unlink()
    Image.open(own_folder / "images" / "im01.png").save(own_folder / "images" / "im01.bmp")
    (own_folder / "images" / "im01.png").unlink()
    plain, small = make(own_folder, tmp_path / "plain"), make(own_folder, tmp_path / "small", jpeg=50)
    original = (own_folder / "images" / "im00.JPG").read_bytes()
    assert (plain / "images" / "im00.jpg").read_bytes() == original == (small / "images" / "im00.jpg").read_bytes()
    bitmap = np.asarray(Image.open(own_folder / "images" / "im01.bmp"))
    np.testing.assert_array_equal(np.asarray(Image.open(plain / "images" / "im01.png")), bitmap)
    assert Image.open(small / "images" / "im01.jpg").format == "JPEG"
    assert (small / "images" / "im02.jpg").is_file()


def test_published_splits_come_along(own_folder: Path, tmp_path: Path) -> None:
    (own_folder / "a.csv").write_text(HEADER + "im00,1,0,0,0,0\nim01,0,1,1,0,1\n")
    add_to_description(own_folder, "labels: {one: a.csv}")
    out = make(own_folder, tmp_path / "out")
    assert yaml.safe_load((out / "dataset.yaml").read_text())["labels"] == {"one": "labels_one.csv"}
    rows = (out / "labels_one.csv").read_text().splitlines()
    assert rows[:4] == [HEADER.strip(), "im00,1,0,0,0,0", "im01,0,1,1,0,1", "im02,0,0,0,0,0"]
    assert open_folder(out).published == open_folder(own_folder).published


# -- interruptions -----------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_killed_and_started_again_it_writes_the_same_bytes(make_folder: Any, tmp_path: Path) -> None:
    root = make_folder(tmp_path / "source", count=160, train=100, height=24, width=32)
    for path in list((root / "depth").iterdir())[:120]:  # so that something has to be written
        np.save(path.with_suffix(".npy"), np.asarray(Image.open(path)) / 1000)
        path.unlink()
    out = tmp_path / "out"
    words = ["prepare", "--data", "folder", "--root", str(root), "--out", str(out), "--workers", "2", "-q"]
    journal = out / "preparing.jsonl"
    with processes.started(*words) as process:
        process.until(lambda: journal.is_file() and journal.read_bytes().count(b"\n") > 20)
    assert not (out / "prepared.json").exists()
    with pytest.raises(DataError, match="did not end"):
        verify(out, quiet=True)

    lines = journal.read_text().splitlines()
    done = [json.loads(line)["id"] for line in lines[1:] if line.endswith("}")]
    assert 20 <= len(done) < 160
    journal.write_text("\n".join(lines) + '\n{"id": "im15')  # a line cut in two
    kept = out / "images" / f"{done[0]}.png"
    inode = kept.stat().st_ino
    (out / "semseg" / f"{done[1]}.png").write_bytes(b"damaged")
    (out / "depth" / ".im140.1.partial.png").write_bytes(b"half")

    make(root, out)
    assert snapshot(out) == snapshot(make(root, tmp_path / "whole"))
    assert kept.stat().st_ino == inode, "what is whole is not written again"
    assert verify(out, quiet=True) == []


def test_what_was_mended_or_removed_in_between_is_done_again(own_folder: Path, tmp_path: Path) -> None:
    good = (own_folder / "normals" / "im05.png").read_bytes()
    (own_folder / "normals" / "im05.png").write_bytes(good[:100])
    with pytest.raises(LabelError, match=r"im05\.png.*--skip-corrupt"):
        make(own_folder, tmp_path / "out")
    (own_folder / "normals" / "im05.png").write_bytes(good)
    (own_folder / "semseg" / "im01.png").unlink()  # a label that was written already
    make(own_folder, tmp_path / "out")
    assert snapshot(tmp_path / "out") == snapshot(make(own_folder, tmp_path / "whole"))


def test_a_finished_folder_stays_and_a_damaged_one_is_named(folder_root: Path, tmp_path: Path) -> None:
    out = make(folder_root, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert make(folder_root, out) == out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    (out / "preparing.jsonl").write_text("{}\n")  # what a kill at the very end leaves
    make(folder_root, out)
    assert not (out / "preparing.jsonl").exists()
    (out / "depth" / "im03.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"depth/im03\.png"):
        make(folder_root, out)


def test_a_full_disk_is_said_and_survived(
    folder_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, calls = shutil.copyfile, []

    def full(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target)

    words = ["prepare", "--data", "folder", "--root", folder_root, "--out", tmp_path / "out", "--workers", 1, "-q"]
    monkeypatch.setattr(shutil, "copyfile", full)
    code, _, error = run(capsys, *words)
    assert code == 2
    assert "no space is left on the disk" in error
    assert ".png cannot be written" in error
    assert run(capsys, *words)[0] == 0
    assert len(calls) == 9 + 7 * 6, "the first of eight images was kept, with its five labels"
    assert verify(tmp_path / "out", quiet=True) == []


def test_two_at_a_time_are_refused(folder_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    out = tmp_path / "out"
    out.mkdir()
    with only_writer(out), pytest.raises(RunExistsError, match="another process"):
        make(folder_root, out)
    assert make(folder_root, out) == out


# -- what is refused ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--height", "20", "--width", "28"], r"size was None, now \[20, 28\]"),
        (["--jpeg", "90"], "jpeg was None, now 90"),
        (["--root", "OTHER"], "source was"),
        (["--root", "OTHER_TASKS"], "tasks was"),
    ],
)
def test_nothing_is_mixed(
    change: list[str], named: str, make_folder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = make_folder(tmp_path / "source", count=3, train=2), tmp_path / "out"
    make(root, out)
    if change[1] == "OTHER":
        change = ["--root", str(make_folder(tmp_path / "other", count=3, train=2, seed=1))]
    if change[1] == "OTHER_TASKS":
        text = (root / "dataset.yaml").read_text()
        (root / "dataset.yaml").write_text(text.replace("bins: 8", "bins: 9"))
        change = []
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    code, _, error = run(capsys, "prepare", "--data", "folder", "--root", root, "--out", out, "-q", *change)
    assert code == 2
    assert re.search(named, error)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_an_unfinished_folder_of_another_version_is_refused(
    own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_folder / "images" / "im04.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="im04"):
        make(own_folder, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    monkeypatch.setattr("tasktokens.datasets.prepare.version", lambda package: "99.0")
    with pytest.raises(DataError, match=r"tasktokens was .*, now 99\.0"):
        make(own_folder, tmp_path / "out")
    assert snapshot(tmp_path / "out") == before


def test_a_folder_with_other_files_is_refused(folder_root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(RunExistsError, match="choose another --out"):
        make(folder_root, tmp_path / "out")
    with pytest.raises(RunExistsError):
        make(folder_root, tmp_path / "out" / "thesis.tex")
    assert snapshot(tmp_path / "out") == {"thesis.tex": b"mine"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--data nyud --out x", "--root is not set"),
        ("--data nyudd --root x --out x", "did you mean 'nyud'"),
        ("--root x --out x", "--data must be one of"),
        ("--data nyud --root x --out x --classes 14", "13 or 40"),
        ("--data folder --root x --out x --classes 13", "classes"),
        ("--data folder --root x --out x --height 4", "--height and --width"),
        ("--data folder --root x", "--out is not set"),
        ("--data folder --root nowhere --out x", "nowhere does not exist"),
        ("--verify nowhere", "nothing was prepared"),
    ],
)
def test_mistakes_on_the_command_line(
    words: str, named: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, "prepare", *words.split())
    assert code == 2
    assert error.startswith("error: ")
    assert named in error
    assert list(tmp_path.iterdir()) == []


def test_corrupt_files_are_named_or_left_out_and_listed(own_folder: Path, tmp_path: Path) -> None:
    (own_folder / "a.csv").write_text(HEADER + "im00,1,1,0,0,0\nim02,0,1,0,0,0\nim03,0,0,1,0,0\n")
    add_to_description(own_folder, "labels: {one: a.csv}")
    (own_folder / "images" / "im02.png").write_bytes(b"not an image")
    data = (own_folder / "depth" / "im00.png").read_bytes()
    (own_folder / "depth" / "im00.png").write_bytes(data[: len(data) // 2])
    Image.fromarray(np.zeros((7, 9), np.uint8)).save(own_folder / "semseg" / "im06.png")  # not the image's size
    with pytest.raises(DataError, match=r"im00\.png"):
        make(own_folder, tmp_path / "out")
    out = make(own_folder, tmp_path / "out", skip_corrupt=True)  # goes on from there
    manifest = json.loads((out / "prepared.json").read_text())
    assert [(item["id"], item["task"]) for item in manifest["left_out"]] == [
        ("im00", "depth"), ("im02", None), ("im06", "semseg"),
    ]  # fmt: skip
    assert all(Path(item["file"]).is_file() and item["reason"] for item in manifest["left_out"])
    assert manifest["images"] == 7
    assert manifest["labels"]["depth"] == 6
    prepared = open_folder(out)
    assert "im02" not in prepared.images
    assert "im02" not in prepared.splits["train"]
    assert "im00" not in prepared.labels["depth"]
    assert prepared.published["one"]["im00"] == ("semseg",), "a label that is left out is not promised"
    assert verify(out, quiet=True) == []


def test_a_label_that_would_read_back_as_another_is_refused(
    own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A reader that calls vectors of no length valid; the written file says void.
    def zeros(path: Path) -> tuple[Array, Array]:
        return np.zeros((3, 40, 56), np.float32), np.ones((40, 56), bool)

    opened = open_folder(own_folder)
    labels = {**opened.labels, "normals": {"im03": LabelFile(own_folder / "normals" / "im03.png", zeros)}}
    monkeypatch.setattr("tasktokens.datasets.folder.FolderSource.open_index", lambda *_: replace(opened, labels=labels))
    with pytest.raises(LabelError, match=r"im03\.png cannot be stored"):
        make(own_folder, tmp_path / "out")


# -- verifying ---------------------------------------------------------------------------------------------------------
def test_verify_finds_every_change(folder_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = make(folder_root, tmp_path / "out")
    assert run(capsys, "prepare", "--verify", out, "-q")[0] == 0
    data = bytearray((out / "normals" / "im03.png").read_bytes())
    data[50] ^= 1
    (out / "normals" / "im03.png").write_bytes(data)
    (out / "edge" / "im01.png").unlink()
    (out / "semseg" / "im99.png").write_bytes(b"")
    code, text, _ = run(capsys, "prepare", "--verify", out, "-q")
    assert code == 1
    assert sorted(text.splitlines()) == [
        "edge/im01.png: missing",
        "normals/im03.png: changed since it was written",
        "semseg/im99.png: not among the prepared files",
    ]
    sums = out / "checksums.sha256"
    sums.write_text(sums.read_text().replace("edge/im01.png", "edge/im77.png"))
    assert run(capsys, "prepare", "--verify", out, "-q")[0] == 2


def test_sha256sum_reads_the_checksums(folder_root: Path, tmp_path: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum on this machine")
    out = make(folder_root, tmp_path / "out")
    words = ["sha256sum", "-c", "--quiet", "--strict", "checksums.sha256"]
    assert subprocess.run(words, cwd=out, check=False).returncode == 0
    (out / "train.txt").write_text("im00\n")
    assert subprocess.run(words, cwd=out, check=False, capture_output=True).returncode == 1


# -- train --data --root -----------------------------------------------------------------------------------------------
def test_train_takes_data_and_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Config] = []
    monkeypatch.setattr(
        "tasktokens.training.trainer.train", lambda settings, *_, **__: seen.append(settings) or tmp_path
    )
    assert run(capsys, "train", "--data", "nyud", "--root", "2024")[0] == 0
    assert seen[-1] == load_config(None, ["data.kind=nyud", "data.root='2024'"])
    assert isinstance(seen[-1].data, NyudSource)
    assert seen[-1].data.root == Path("2024")
    config = tmp_path / "c.yaml"
    config.write_text("data: {kind: folder, root: a, size: [32, 48]}\n")
    run(capsys, "train", "--config", config, "--root", tmp_path / "b c")
    assert seen[-1].data.root == tmp_path / "b c"
    assert seen[-1].data.size == (32, 48)
    run(capsys, "train", "--data", "nyud", "--root", "a", "data.classes=40")
    assert seen[-1].data.classes == 40
    code, _, error = run(capsys, "train", "--data", "nyu", "--root", "a")
    assert code == 2
    assert "did you mean 'nyud'" in error


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("nyud", "nyu_depth_v2_labeled.mat .2.8 GB.*splits.mat.*classMapping40.mat"),
        ("cityscapes", "register at https://www.cityscapes-dataset.com.*gtFine_trainvaltest.zip .241 MB"),
        ("pascal_context", "PASCALContext.tar.gz"),
    ],
)
def test_without_a_root_it_says_how_to_get_the_data_set(
    kind: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(capsys, "prepare", "--data", kind)
    assert code == 2
    assert re.search(f"--root is not set.*{named}", error)
