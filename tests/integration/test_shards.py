"""Discovery in shards: the bytes of one process alone, whoever works, dies and comes again; folders, tar files, Ray."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import processes
from conftest import run_cli, write_folder
from tasktokens.config import Config
from tasktokens.datasets.folder import open_folder
from tasktokens.errors import ConfigError, DataError, RunExistsError
from tasktokens.inference.discover import discover
from tasktokens.inference.shards.discover import discover_shards
from tasktokens.inference.shards.plan import WHOLE
from tasktokens.training.trainer import train

MakeConfig = Callable[..., Config]
TASKS = ("semseg", "depth", "normals", "edge", "saliency")


def files(folder: Path) -> dict[str, bytes]:
    """All but the note that the folder is whole."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != WHOLE)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def in_tar(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]


def pack(path: Path, members: dict[str, bytes | Path]) -> Path:
    """By the standard library, as anybody would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            source = path.with_suffix(".tmp")
            source.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
            archive.add(source, name)
            source.unlink()
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_config: MakeConfig) -> tuple[Path, Path]:
    """Data of which labels are missing, and a run that saw one label per image; nobody changes them."""
    root = write_folder(tmp_path_factory.mktemp("shards") / "data")
    for task, number in (("depth", 0), ("edge", 1), ("semseg", 2)):
        (root / task / f"im0{number}.png").unlink()
    short = {"method": {"name": "mtl", "steps": 2}, "data.check": False, "model.backbone": "test_resnet"}
    return root, train(make_config(root, root.parent / "run", **short), quiet=True)


@pytest.fixture(scope="module")
def tars(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tar files: images of several folders, other files, and given labels of depth."""
    root, folder = made[0], tmp_path_factory.mktemp("tars")
    for number in range(2):
        members: dict[str, bytes | Path] = {}
        for id in [f"im{n:02}" for n in range(number, 8, 2)]:
            members[f"v1.0/{id}.png"] = root / "images" / f"{id}.png"
            members[f"v1.0/{id}.json"] = b'{"caption": "a room"}'
            if (root / "depth" / f"{id}.png").exists():
                members[f"v1.0/{id}.depth.png"] = root / "depth" / f"{id}.png"
        pack(folder / f"part-{number}.tar", members)
    return folder


# -- folders -----------------------------------------------------------------------------------------------------------
def test_shards_write_what_discover_writes(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, run = made
    discover(run, tmp_path / "plain", threshold=0.1, quiet=True)
    expected = files(tmp_path / "plain")
    for shards in (1, 3, 8):
        found = discover_shards(run, tmp_path / f"{shards}", shards=shards, threshold=0.1, quiet=True)
        assert files(tmp_path / f"{shards}") == expected
        assert found.tasks == discover_shards(run, tmp_path / f"{shards}", threshold=0.1, quiet=True).tasks  # whole
    for task in TASKS:
        for id in open_folder(tmp_path / "3").labels[task]:
            assert expected[f"{task}/{id}.png"] == (root / task / f"{id}.png").read_bytes()


def test_hidden_labels_are_not_opened(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, run = made
    shutil.copytree(root, tmp_path / "data")
    seen = {row.pop("id"): row for row in csv.DictReader((run / "labels.csv").open())}
    for id, flags in seen.items():
        for task, flag in flags.items():
            if flag == "0" and (path := tmp_path / "data" / task / f"{id}.png").exists():
                path.write_bytes(b"no picture")
    discover_shards(run, tmp_path / "out", shards=2, root=tmp_path / "data", quiet=True)
    assert not [name for name, content in files(tmp_path / "out").items() if content == b"no picture"]


def test_a_folder_of_images_and_one_with_given_labels(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, run = made
    bare = discover_shards(run, tmp_path / "bare", images=root / "images", shards=3, threshold=0, quiet=True)
    assert [task.images for task in bare.tasks] == [8] * 5
    other = write_folder(tmp_path / "other", seed=5)
    description = yaml.safe_load((other / "dataset.yaml").read_text())
    for left_out in TASKS[2:]:
        del description["tasks"][left_out]
    (other / "dataset.yaml").write_text(yaml.safe_dump(description))
    shutil.rmtree(other / "normals")
    (other / "depth" / "im03.png").unlink()
    found = discover_shards(run, tmp_path / "out", images=other, threshold=0, quiet=True)
    assert [(task.task, task.images) for task in found.tasks] == [
        ("semseg", 0), ("depth", 1), ("normals", 8), ("edge", 8), ("saliency", 8),
    ]  # fmt: skip
    assert (tmp_path / "out/semseg/im03.png").read_bytes() == (other / "semseg/im03.png").read_bytes()
    index = open_folder(tmp_path / "out")
    assert index.sources("depth") == {"given": 7, "discovered": 1}
    again = discover_shards(run, tmp_path / "again", images=tmp_path / "out", threshold=0, quiet=True)
    assert [task.images for task in again.tasks] == [0, 1, 8, 8, 8]  # what was discovered is not given


def slow() -> None:
    """Each image takes a while, so that a process can be killed in the middle of a shard."""
    from tasktokens.inference.shards import worker

    before = worker.write_prediction

    def write(*arguments: Any, **settings: Any) -> Any:
        time.sleep(0.02)
        return before(*arguments, **settings)

    worker.write_prediction = write  # type: ignore[assignment]


def test_a_killed_worker_is_replaced_by_another_and_all_files_are_whole(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    root, run = made
    words = ("discover", run, "--images", root / "images", "--shards", 4, "--threshold", 0, "--batch-size", 1)
    expected_run = discover_shards(run, tmp_path / "whole", images=root / "images", shards=1, threshold=0, quiet=True)
    expected, out = files(tmp_path / "whole"), tmp_path / "out"
    assert expected_run.folder.is_dir()
    with (
        processes.started(*words, "--out", out, "-q", before=slow) as first,
        processes.started(*words, "--out", out, "-q", before=slow) as second,
    ):
        first.until(lambda: len(list(out.glob("confidence/*/*.png"))) > 3)
        first.kill()
        there = files(out)
        assert all(expected[name] == content for name, content in there.items() if not _unfinished(name))
        assert second.wait() == 0, second.errors
    assert files(out) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]  # no lock is left
    with processes.started(*words, "--out", out, "-q") as late:
        assert late.wait() == 0  # nothing is left to do


def _unfinished(name: str) -> bool:
    return name.startswith((".", "discovering/")) or ".partial" in name


def test_a_signal_ends_it_and_the_same_command_goes_on(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, run = made
    words = ("discover", run, "--images", root / "images", "--shards", 8, "--out", tmp_path / "out", "-q")
    with processes.started(*words, before=slow) as process:
        process.until(lambda: list((tmp_path / "out").glob("discovering/*.jsonl")))
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143
        assert "shards are done; run the same command to resume" in process.errors
    assert not (tmp_path / "out/dataset.yaml").exists()
    discover_shards(run, tmp_path / "out", images=root / "images", quiet=True)  # the number of shards is known
    discover_shards(run, tmp_path / "whole", images=root / "images", quiet=True)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_others_are_kept_out_and_other_settings_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, run = made
    words = ("discover", run, "--images", root / "images", "--shards", 8, "--out", tmp_path / "out", "-q")
    with processes.started(*words, before=slow) as process:
        process.until(lambda: list((tmp_path / "out").glob("discovering/*.jsonl")))
        for overwrite in (False, True):
            with pytest.raises(RunExistsError):
                discover(run, tmp_path / "out", overwrite=overwrite, quiet=True)
        with pytest.raises(RunExistsError, match="another process is writing"):
            discover_shards(run, tmp_path / "out", images=root / "images", overwrite=True, quiet=True)
        for changes in ({"threshold": 0.3}, {"views": 1}, {"shards": 7}, {"to": "tars"}, {"images": root / "semseg"}):
            settings: dict[str, Any] = {"images": root / "images", "shards": 8, "quiet": True} | changes
            with pytest.raises(RunExistsError, match="another discovery was begun"):
                discover_shards(run, tmp_path / "out", **settings)
        assert process.wait() == 0, process.errors
    discover_shards(run, tmp_path / "out", images=root / "images", threshold=0.3, overwrite=True, quiet=True)
    assert "threshold: 0.3" in (tmp_path / "out/dataset.yaml").read_text()


def test_wrong_input_is_a_sentence_and_the_corrected_command_works(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, run = made
    (tmp_path / "empty").mkdir()
    shutil.copytree(root / "images", tmp_path / "images")
    (tmp_path / "images" / "v1.2.png").write_bytes((root / "images/im00.png").read_bytes())
    (tmp_path / "other").mkdir()
    (tmp_path / "other/dataset.yaml").write_text("tasks: {depth: {kind: depth, range: [1.0, 2.0]}}")
    (tmp_path / "other/depth").mkdir()
    (tmp_path / "other/images").mkdir()
    out = tmp_path / "out"
    for said, words in {
        "no images in": ["--images", tmp_path / "empty"],
        "must be a folder, a tar file or a pattern": ["--images", tmp_path / "nothing"],
        "leave out --images": ["--images", root],
        "must not exceed the number of images": ["--images", root / "images", "--shards", 9],
        "has a dot in its name": ["--images", tmp_path / "images", "--to", "tars"],
        "'range' is": ["--images", tmp_path / "other"],
        "--page does not go with": ["--shards", 2, "--page"],
        "must be from 0 to 1": ["--shards", 2, "--threshold", 2],
    }.items():
        code, _, errors = run_cli(capsys, "discover", run, "--out", out, "-q", *words)
        assert (code, errors.count("error:")) == (2, 1), errors
        assert said in errors
        assert not out.exists(), said
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="delete the folder first"):
        discover_shards(run, out, shards=2, overwrite=True, quiet=True)
    monkeypatch.undo()
    (tmp_path / "images" / "im03.png").write_bytes(b"no picture")
    words = ["discover", run, "--out", out, "-q", "--images", tmp_path / "images", "--shards", 3]
    code, _, errors = run_cli(capsys, *words)
    assert (code, "im03.png" in errors) == (2, True)
    assert not (out / "dataset.yaml").exists()
    (tmp_path / "images" / "im03.png").write_bytes((root / "images/im03.png").read_bytes())
    assert run_cli(capsys, *words)[0] == 0


# -- tar files ---------------------------------------------------------------------------------------------------------
def test_tar_files_come_back_with_labels_and_where_they_are_from(
    made: tuple[Path, Path], tars: Path, tmp_path: Path
) -> None:
    root, run = made
    discover_shards(run, tmp_path / "out", images=tars, threshold=0, quiet=True)
    discover_shards(run, tmp_path / "bare", images=root / "images", threshold=0, quiet=True)
    for number in range(2):
        before, after = in_tar(tars / f"part-{number}.tar"), in_tar(tmp_path / f"out/part-{number}.tar")
        assert before.items() <= after.items()
        for name in before:
            if not name.endswith(".json"):
                continue
            key, id = name[:-5], name[5:-5]
            given = {"depth"} if f"{key}.depth.png" in before else set()
            rows = json.loads(after[f"{key}.provenance.json"])
            assert {task: row["source"] for task, row in rows.items()} == {
                task: "given" if task in given else "discovered" for task in TASKS
            }
            for task in set(TASKS) - given:  # the labels that a folder would hold
                assert after[f"{key}.{task}.png"] == (tmp_path / f"bare/{task}/{id}.png").read_bytes()
                confidence = (tmp_path / f"bare/confidence/{task}/{id}.png").read_bytes()
                assert after[f"{key}.{task}.confidence.png"] == confidence
    with pytest.raises(DataError, match="the tar files beside it are unpacked by"):
        open_folder(tmp_path / "out")
    table = list(csv.DictReader((tmp_path / "out/provenance.csv").open(newline="")))
    assert len(table) == 8 * 5
    assert {row["id"].split("/")[0] for row in table} == {"part-0", "part-1"}
    # Read again, what was discovered is discovered, and what was given stays; here into a folder.
    discover_shards(run, tmp_path / "folder", images=tmp_path / "out", to="folder", threshold=0, quiet=True)
    index = open_folder(tmp_path / "folder")
    assert index.sources("depth") == {"given": 7, "discovered": 1}
    assert index.sources("semseg") == {"discovered": 8}


def test_a_folder_becomes_tar_files(made: tuple[Path, Path], tmp_path: Path) -> None:
    run = made[1]
    discover_shards(run, tmp_path / "tars", shards=2, to="tars", quiet=True)
    discover_shards(run, tmp_path / "folder", shards=2, quiet=True)
    packed = in_tar(tmp_path / "tars/00000.tar") | in_tar(tmp_path / "tars/00001.tar")
    for name, content in files(tmp_path / "folder").items():
        parts = Path(name).with_suffix("").parts
        if parts[0] == "images":
            assert packed[f"{parts[1]}.png"] == content
        elif parts[0] == "confidence":
            assert packed[f"{parts[2]}.{parts[1]}.confidence.png"] == content
        elif len(parts) == 2:
            assert packed[f"{parts[1]}.{parts[0]}.png"] == content
    assert (tmp_path / "tars/provenance.csv").read_bytes() == (tmp_path / "folder/provenance.csv").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.sem_seg.png", b"", "there is no task 'sem_seg' (did you mean 'semseg'?)"),
        ("a.depth.npy", b"", "two labels of task 'depth'"),
        ("a.provenance.json", b"[]", "cannot be read"),
        ("a.provenance.json", b'{"depth": {"source": "guessed"}}', "a source must be one of given"),
    ],
)
def test_a_sample_that_says_something_else_is_refused(
    name: str, content: bytes, said: str, made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = made
    members: dict[str, bytes | Path] = {"a.png": root / "images/im00.png", "a.depth.png": root / "depth/im01.png"}
    pack(tmp_path / "in/a.tar", members | {name: content})
    code, _, errors = run_cli(capsys, "discover", run, "--images", tmp_path / "in", "--out", tmp_path / "out", "-q")
    assert (code, said in errors) == (2, True), errors
    assert not list((tmp_path / "out").glob("*.tar"))
    pack(tmp_path / "in/a.tar", members)
    code, _, errors = run_cli(capsys, "discover", run, "--images", tmp_path / "in", "--out", tmp_path / "out", "-q")
    assert code == 0, errors


def test_a_tar_file_that_was_cut_off_is_named_and_the_others_are_done(
    made: tuple[Path, Path], tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tars, tmp_path / "in")
    half = tmp_path / "in/part-1.tar"
    half.write_bytes(half.read_bytes()[:5000])
    words = ["discover", made[1], "--images", tmp_path / "in", "--out", tmp_path / "out", "-q"]
    code, _, errors = run_cli(capsys, *words)
    assert (code, "part-1.tar" in errors) == (2, True), errors
    assert [path.name for path in (tmp_path / "out").glob("*.tar")] == ["part-0.tar"]
    shutil.copyfile(tars / "part-1.tar", half)
    assert run_cli(capsys, *words)[0] == 0


@pytest.mark.slow
def test_a_process_that_is_killed_as_it_packs_leaves_no_half_a_tar_file(
    made: tuple[Path, Path], tars: Path, tmp_path: Path
) -> None:
    discover_shards(made[1], tmp_path / "whole", images=tars, quiet=True)
    out = tmp_path / "out"
    words = ("discover", made[1], "--images", tars, "--out", out, "-q")
    for pattern in (".part-*.partial.tar", "part-0.tar"):
        with processes.started(*words, before=slow) as process:
            process.until(lambda pattern=pattern: list(out.glob(pattern)))
            process.kill()
        for path in out.glob("part-*.tar"):
            assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
    discover_shards(made[1], out, images=tars, quiet=True)
    assert files(out) == files(tmp_path / "whole")


# -- Ray ---------------------------------------------------------------------------------------------------------------
def test_without_ray_it_says_how_to_get_it(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    words = ["discover", made[1], "--shards", 2, "--engine", "ray", "--out", tmp_path / "out", "-q"]
    code, _, errors = run_cli(capsys, *words)
    assert (code, "pip install 'tasktokens[ray]'" in errors) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ray_writes_the_same_bytes_and_a_killed_one_is_resumed(
    made: tuple[Path, Path], tars: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    discover_shards(made[1], tmp_path / "whole", images=tars, quiet=True)
    words = ["tasktokens", "discover", made[1], "--images", tars, "--engine", "ray", "--out", tmp_path / "out", "-q"]
    command, environment = [*map(str, words)], os.environ | {"RAY_ADDRESS": ""}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    while not list((tmp_path / "out/discovering").glob("plan.json")):
        time.sleep(0.05)
        assert process.poll() is None
    time.sleep(5)
    process.kill()
    process.wait()
    subprocess.run(command, env=environment, check=True, timeout=250)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
