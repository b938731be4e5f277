"""A run that is resumed after the files that it learns from were changed, copied, touched or moved."""

from __future__ import annotations

import csv
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import run_cli, write_folder
from resuming import stopped_at
from tasktokens.errors import CheckpointError, DataError
from tasktokens.training.trainer import train


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasktokens.reporting.train._attempt", lambda draw, run: None)


@pytest.fixture(scope="module")
def ended(make_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a run of four steps on it that hides labels and sets an image aside."""
    place = tmp_path_factory.mktemp("ended")
    for path in write_folder(place / "tiny").rglob("*.png"):
        save(np.array(Image.open(path)), path)
    config = make_config(
        place / "tiny", place / "run",
        **{"method": {"name": "mtl", "steps": 4}, "data.check": False, "model.backbone": "test_resnet",
           "data.holdout": 0.2, "data.labels": "one"},
    )  # fmt: skip
    train(config, quiet=True)
    return place


@pytest.fixture
def begun(ended: Path, tmp_path: Path) -> tuple[Path, Any]:
    """A copy of both, of which nothing has the old times, the run as it was when two steps were done."""
    shutil.copytree(ended / "tiny", tmp_path / "tiny")
    return tmp_path / "tiny", stopped_at(ended / "run", tmp_path / "run", "0-0000002", data=tmp_path / "tiny")


def listed(run: Path) -> list[dict[str, str]]:
    with (run / "files.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def path_of(row: dict[str, str], root: Path) -> Path:
    return root / row["file"].removeprefix("label of ").replace("image", "images") / f"{row['id']}.png"


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def save(picture: np.ndarray, path: Path) -> None:
    """Without compression, so that other pixels take as many bytes."""
    Image.fromarray(picture).save(path, compress_level=0)


def other_pixels(path: Path) -> None:
    picture = np.array(Image.open(path))
    picture.flat[picture.size // 2] ^= 1
    save(picture, path)


def test_the_files_of_a_run_are_those_that_it_sees(ended: Path) -> None:
    """No hidden label is read; sums and sizes by zlib and the file system."""
    expected = set()
    for name in ("labels.csv", "labels-holdout.csv"):
        with (ended / "run" / name).open(newline="") as file:
            for row in csv.DictReader(file):
                id = row.pop("id")
                expected |= {(id, "image"), *((id, f"label of {task}") for task, flag in row.items() if flag == "1")}
    rows = listed(ended / "run")
    assert {(row["id"], row["file"]) for row in rows} == expected
    for row in rows:
        path = path_of(row, ended / "tiny")
        assert int(row["crc32"], 16) == zlib.crc32(path.read_bytes())
        assert int(row["bytes"]) == path.stat().st_size


@pytest.mark.parametrize("what", ["image", "label", "held label"])
@pytest.mark.parametrize("times", ["new", "old"])
@pytest.mark.parametrize("size", ["equal", "other"])
def test_changed_pixels_are_named(what: str, times: str, size: str, begun: tuple[Path, Any]) -> None:
    root, config = begun
    with (config.run.dir / "labels-holdout.csv").open(newline="") as file:
        held = {row["id"] for row in csv.DictReader(file)}
    chosen = next(
        row for row in listed(config.run.dir)
        if (row["file"] == "image") == (what == "image") and (row["id"] in held) == (what == "held label")
    )  # fmt: skip
    path = path_of(chosen, root)
    if size == "equal":
        other_pixels(path)
        assert path.stat().st_size == int(chosen["bytes"])
    else:
        Image.fromarray(np.array(Image.open(path)) ^ 1).save(path)
    if times == "old":  # as `cp -p`, rsync and archives do
        os.utime(path, ns=(int(chosen["mtime_ns"]), int(chosen["mtime_ns"])))
    before = contents(config.run.dir)
    with pytest.raises(DataError, match=rf"the {chosen['file']} of '{chosen['id']}' is not what the run began with"):
        train(config, resume=True, quiet=True)
    assert contents(config.run.dir) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_changed_files_are_counted_and_the_command_line_ends_with_2(begun: tuple[Path, Any], capsys: Any) -> None:
    root, config = begun
    labels = [path_of(row, root) for row in listed(config.run.dir) if row["file"] != "image"]
    for path in labels:
        other_pixels(path)
    code, _, err = run_cli(capsys, "train", "--resume", f"run.dir={config.run.dir}", "-q")
    assert (code, err.count("\n")) == (2, 1)
    assert f"({len(labels)} such files)" in err
    for path in labels:
        other_pixels(path)  # once more is as before
    assert run_cli(capsys, "train", "--resume", f"run.dir={config.run.dir}", "-q")[0] == 0


SAME: dict[str, Callable[[Path], object]] = {
    "copied": lambda root: None,
    "touched": lambda root: [os.utime(path) for path in root.rglob("*")],
    "put back": lambda root: [path.write_bytes(path.read_bytes()) for path in root.rglob("*.png")],
    "hidden labels changed": lambda root: [
        other_pixels(path) for task in ("edge", "saliency") for path in (root / task).iterdir()
        if f"{path.stem},label of {task}," not in (root.parent / "run" / "files.csv").read_text()
    ],
    "test images changed": lambda root: [
        other_pixels(root / task / f"{id}.png") for task in ("images", "depth")
        for id in (root / "test.txt").read_text().split()
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", SAME)
def test_equal_content_is_the_same_run(
    what: str, begun: tuple[Path, Any], ended: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, config = begun
    SAME[what](root)
    train(config, resume=True, quiet=True)
    assert weights(config.run.dir) == weights(ended / "run")
    # The new times are remembered: the next time nothing is read.
    monkeypatch.setattr("tasktokens.training.seen_files.crc32", lambda path: pytest.fail(f"{path} was read again"))
    train(config, resume=True, quiet=True)


def test_runs_of_earlier_versions_have_nothing_to_compare(begun: tuple[Path, Any]) -> None:
    root, config = begun
    path = next(path_of(row, root) for row in listed(config.run.dir))
    other_pixels(path)
    (config.run.dir / "files.csv").unlink()
    train(config, resume=True, quiet=True)


@pytest.mark.parametrize("content", ["", "id,file\n", "id,file,bytes,mtime_ns,ctime_ns,crc32\nim00,image,x,1,1,0\n"])
def test_a_damaged_list_is_named(content: str, begun: tuple[Path, Any]) -> None:
    _, config = begun
    (config.run.dir / "files.csv").write_text(content)
    with pytest.raises(CheckpointError, match=r"files\.csv, which says what files the run began with"):
        train(config, resume=True, quiet=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.timeout(30)  # reading one that nobody writes to never ends
@pytest.mark.parametrize("which", ["images", "semseg"])
def test_a_pipe_in_place_of_a_file_is_a_sentence(
    which: str, make_config: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = write_folder(tmp_path / "tiny")
    for path in (root / which).glob("*.png"):  # whichever the run asks for first
        path.unlink()
        os.mkfifo(path)
    settings = {"method": {"name": "mtl", "steps": 4}, "data.check": False, "model.backbone": "test_resnet"}
    with pytest.raises(DataError, match=f"{which}.*ordinary file"):
        train(make_config(root, tmp_path / "run", **settings), quiet=True)
