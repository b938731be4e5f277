"""What discover and predict write: given labels whenever they came, other splits, a summary; one writer at a time."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import processes
from conftest import CLASSES, discovered_rows, run_cli, write_folder
from tasktokens.config import Config
from tasktokens.datasets.folder import open_folder
from tasktokens.errors import ConfigError, RunExistsError, WriteError
from tasktokens.inference.discover import discover
from tasktokens.inference.discovery_page import PAGE
from tasktokens.inference.discovery_summary import read_discovery
from tasktokens.inference.evaluate import evaluate
from tasktokens.inference.predict import predict
from tasktokens.training.trainer import train
from tasktokens.utils.lock import LOCK, only_writer

MakeConfig = Callable[..., Config]
TASKS = ("semseg", "depth", "normals", "edge", "saliency")
SHORT = {"method": {"name": "mtl", "steps": 2}, "data.check": False, "model.backbone": "test_resnet"}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def seen_by(run: Path) -> dict[str, set[str]]:
    rows = csv.DictReader((run / "labels.csv").open())
    return {row.pop("id"): {task for task, flag in row.items() if flag == "1"} for row in rows}


@pytest.fixture
def trained(tmp_path: Path, make_config: MakeConfig) -> tuple[Path, Path]:
    """A folder of which some labels are missing for good, and a run that saw one label per image of the others."""
    root = write_folder(tmp_path / "data")
    for task, number in (("depth", 0), ("edge", 1), ("semseg", 2)):
        (root / task / f"im0{number}.png").unlink()
    return root, train(make_config(root, tmp_path / "run", **SHORT), quiet=True)


def test_labels_added_after_the_training_are_kept_and_hidden_ones_stay_hidden(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = trained
    other = write_folder(tmp_path / "other", seed=5)
    for task, number in (("depth", 0), ("edge", 1)):
        shutil.copyfile(other / task / f"im0{number}.png", root / task / f"im0{number}.png")
    seen = seen_by(run)
    for id, tasks in seen.items():  # whoever opened a hidden label would fail
        for task in set(TASKS) - tasks - {"depth" if id == "im00" else "edge" if id == "im01" else ""}:
            if (root / task / f"{id}.png").exists():
                (root / task / f"{id}.png").write_bytes(b"no picture")
    code, _, said = run_cli(capsys, "discover", run, "--out", tmp_path / "out", "-q", "--threshold", "0", "--pictures")
    assert code == 0, said
    assert "2 labels were added since the training: kept as given" in said
    for task, number in (("depth", 0), ("edge", 1)):
        written = (tmp_path / "out" / task / f"im0{number}.png").read_bytes()
        assert written == (other / task / f"im0{number}.png").read_bytes()
    discovered = {(row["id"], row["task"]) for row in discovered_rows(tmp_path / "out")}
    added = {("im00", "depth"), ("im01", "edge")}
    assert discovered == {(id, task) for id in seen for task in set(TASKS) - seen[id]} - added
    for id, task in discovered:
        Image.open(tmp_path / "out" / task / f"{id}.png").load()


def test_a_run_of_an_earlier_version_says_that_added_and_hidden_cannot_be_told_apart(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    root, run = trained
    (run / "labels-available.csv").unlink()
    shutil.copyfile(root / "depth" / "im01.png", root / "depth" / "im00.png")
    out = discover(run, tmp_path / "out", quiet=True)
    assert "cannot be told from hidden ones" in " ".join(out.notes)
    seen = seen_by(run)
    rows = discovered_rows(out)
    assert {(r["id"], r["task"]) for r in rows} == {(id, task) for id in seen for task in set(TASKS) - seen[id]}


def test_images_that_were_set_aside_stay_so_when_the_data_grows(tmp_path: Path, make_config: MakeConfig) -> None:
    root = write_folder(tmp_path / "data")
    run = train(
        make_config(root, tmp_path / "run", **SHORT, **{"data.holdout": 0.34, "data.labels": "0.5"}), quiet=True
    )
    aside = {f"im0{i}" for i in range(6)} - set(seen_by(run))
    assert len(aside) == 2
    for folder in ("images", *TASKS):
        shutil.copyfile(root / folder / "im07.png", root / folder / "new.png")
    (root / "train.txt").write_text((root / "train.txt").read_text() + "new\n")
    out = discover(run, tmp_path / "out", quiet=True)
    written = open_folder(out.folder)
    assert set(written.split("val")) == aside
    assert set(written.split("train")) == set(seen_by(run)) | {"new"}
    assert "new" not in {row["id"] for row in discovered_rows(out)}


def test_the_completed_folder_carries_the_other_splits_and_trains_with_the_next_command(
    trained: tuple[Path, Path], tmp_path: Path, make_config: MakeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = trained
    out = discover(str(run), str(tmp_path / "out"), {"depth": 0.25}, quiet=True)
    assert os.fspath(out) == str(tmp_path / "out") == str(out)
    for id in ("im06", "im07"):
        for folder in ("images", *TASKS):
            assert (out.folder / folder / f"{id}.png").read_bytes() == (root / folder / f"{id}.png").read_bytes()
    values = yaml.safe_load((out.folder / "dataset.yaml").read_text())
    assert values["splits"] == {"train": "train.txt", "test": "test.txt"}
    assert values["tasks"]["semseg"]["classes"] == CLASSES
    assert values["tasks"]["depth"]["threshold"] == 0.25
    assert values["tasks"]["normals"]["threshold"] == 0.4
    assert not list(out.folder.glob("*.jsonl")) + list(out.folder.glob(".*"))
    config = make_config(out.folder, tmp_path / "again", **SHORT, **{"data.labels": "full", "run.evaluate": "test"})
    again = train(config, quiet=True)
    assert json.loads((again / "evaluation-test.json").read_text()).keys() == set(TASKS)
    before, after = evaluate(run, "test", write=False), None
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace(str(root), str(out.folder)))
    shutil.rmtree(root)
    after = evaluate(run, "test", write=False)
    np.testing.assert_equal(before, after)


def test_an_image_that_is_trained_on_too_is_not_measured_by_discovered_labels(
    tmp_path: Path, make_config: MakeConfig
) -> None:
    root = write_folder(tmp_path / "data")
    (root / "test.txt").write_text("im05\nim06\n")
    run = train(make_config(root, tmp_path / "run", **SHORT), quiet=True)
    out = discover(run, tmp_path / "out", quiet=True)
    assert open_folder(out.folder).split("test") == ("im06",)
    assert "1 image of split 'test' left out" in " ".join(out.notes)


def test_the_summary_is_that_of_the_written_files_and_its_thresholds_fill_what_they_say(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    _, run = trained
    out = discover(run, tmp_path / "out", 0.6, quiet=True)
    for task in out.tasks:
        maps = [np.asarray(Image.open(p)) / 255 for p in (out.folder / "confidence" / task.task).glob("*.png")]
        pixels = np.concatenate([m.ravel() for m in maps])
        assert task.images == len(maps)
        assert task.threshold == 0.6
        assert task.confidence == pytest.approx(pixels.mean(), abs=2e-3)
        assert (pixels > 0.602).mean() - 1e-4 <= (task.filled or 0) <= (pixels > 0.598).mean() + 1e-4
        for share, threshold in task.fills.items():
            assert (pixels > threshold - 0.002).mean() >= float(share) - 1e-9
            assert (pixels > threshold + 0.012).mean() <= float(share) + 1e-9
    wanted = {task.task: task.fills["0.5"] for task in out.tasks if task.fills}
    assert "semseg" in wanted
    for task in discover(run, tmp_path / "half", wanted, quiet=True).tasks:
        assert (task.filled or 0) >= 0.5 - 1e-4 or task.task not in wanted


def test_the_page_shows_the_summary_and_the_least_confident_images_and_needs_no_network(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = trained
    out = tmp_path / "o<b>&"
    code, _, said = run_cli(capsys, "discover", run, "--out", out, "-q", "--page", "--threshold", "semseg=0.5")
    assert code == 0, said
    text = (out / PAGE).read_text()
    assert "http" not in text.replace("http-equiv", "")
    assert "<b>&" not in text
    summary = read_discovery(out)
    for task in summary.tasks:
        line = text.partition(f'<th scope="row">{task.task}</th>')[2].partition("</tr>")[0]
        cells = re.findall(">([^<>]+)</td>", line)
        fills = [f"{task.fills[key]:g}" if key in task.fills else "–" for key in ("0.2", "0.5", "0.8")]
        shown = [str(task.images), f"{task.filled:.1%}", f"{task.confidence:.2f}", f"{task.threshold:g}", *fills]
        assert cells == shown
    rows = discovered_rows(out)
    relative = {}
    for row in rows:
        mean = np.mean([float(other["confidence"]) for other in rows if other["task"] == row["task"]])
        relative.setdefault(row["id"], []).append(float(row["confidence"]) / (mean or 1))
    order = sorted(relative, key=lambda id: min(relative[id]))
    assert re.findall(r'<p class="muted">(im\d\d)</p>', text) == order
    labels = sum(len(tasks) for tasks in seen_by(run).values())
    assert text.count('alt="confidence of') == len(rows)
    assert text.count("<span>given</span>") == labels
    for name in (*CLASSES, "depth", "to the camera"):
        assert name in text
    # Without it the folder is the same, but for the page.
    plain = files(discover(run, tmp_path / "plain", {"semseg": 0.5}, quiet=True).folder)
    assert {name: content for name, content in files(out).items() if name != PAGE} == plain


def test_fixed_thresholds_hold_whatever_the_run_trained_with_and_it_says_so(
    tmp_path: Path, make_config: MakeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folder(tmp_path / "data")
    short = SHORT | {"method": {"name": "htt", "stage1_steps": 1, "stage2_steps": 1}}
    run = train(make_config(root, tmp_path / "run", **short), quiet=True)
    code, _, said = run_cli(capsys, "discover", run, "--out", tmp_path / "o", "-q")
    assert code == 0
    assert "the run trained with adaptive thresholds; written are labels above the fixed ones" in said
    found = {task.task: task.threshold for task in read_discovery(tmp_path / "o").tasks}
    assert found == {"semseg": 0.9, "depth": 0.85, "normals": 0.4, "edge": 0.9, "saliency": 0.7}
    assert "trained with" not in run_cli(capsys, "discover", run, "--out", tmp_path / "p", "--threshold", 0.5)[2]


def test_the_table_fits_and_warns_where_next_to_nothing_was_filled(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = trained
    words = ("discover", run, "--out", tmp_path / "o", "-q", "--threshold", "depth=1", "--threshold", "semseg=0")
    code, said, errors = run_cli(capsys, *words)
    assert code == 0
    lines = said.splitlines()
    assert lines[-1] == str(tmp_path / "o")
    assert max(map(len, lines[1:-1])) <= 80
    assert any("depth" in line and "0.0%" in line and " 1 " in line for line in lines)
    assert any("semseg" in line and "100.0%" in line for line in lines)
    assert "WARNING: hardly any pixel of 'depth' was filled" in errors
    assert "no threshold would" in errors  # after two steps it is sure of no depth at all
    assert "'semseg'" not in errors


def test_an_ascii_console_gets_the_table_too(trained: tuple[Path, Path], tmp_path: Path) -> None:
    done = processes.run("discover", trained[1], "--out", tmp_path / "o", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "semseg" in done.stdout
    assert "discovering 8/8" in done.stderr  # no terminal: a line now and then


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["deth=0.5"], "did you mean 'depth'"), (["1.5"], "from 0 to 1"), (["depth=x"], "found 'depth=x'"),
        (["nan"], "from 0 to 1"), (["0.5", "depth=0.5"], "not both"), (["depth=0.5", "depth=0.6"], "given twice"),
    ],
)  # fmt: skip
def test_a_wrong_threshold_is_one_sentence_and_nothing_is_written(
    words: list[str], named: str, trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [option for word in words for option in ("--threshold", word)]
    code, _, errors = run_cli(capsys, "discover", trained[1], "--out", tmp_path / "o", *options)
    assert code == 2
    assert named in errors
    assert not (tmp_path / "o").exists()
    for value in (-0.1, float("nan"), {"depth": 2}, {"depth": True}):
        with pytest.raises(ConfigError, match="from 0 to 1"):
            discover(trained[1], tmp_path / "o", value)  # type: ignore[arg-type]


# -- data that means something else ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda tasks: tasks["semseg"].update(classes=CLASSES[::-1]),
            "semseg: class 0 is 'floor' in the .* 'person'",
        ),
        (lambda tasks: tasks["depth"].update(scale=0.01), "depth: 'scale' is 0.001 in the model and 0.01 in the data"),
        (lambda tasks: tasks.pop("edge"), "task 'edge' is in the model and no longer in the data"),
    ],
)
def test_a_dataset_that_was_redescribed_is_refused_with_the_first_difference(
    change: Callable[[Any], Any], named: str, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    root, run = trained
    values = yaml.safe_load((root / "dataset.yaml").read_text())
    change(values["tasks"])
    (root / "dataset.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(ConfigError, match=named):
        discover(run, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


# -- one writer, and disks ---------------------------------------------------------------------------------------------
def stop_after_an_image() -> None:
    """Let a discovery copy its first image, say so, and wait."""
    from tasktokens.inference import filler, stream

    stream.workers = lambda: 1
    copy = filler.copy_image
    filler.copy_image = lambda *rest: (copy(*rest), print("at work", flush=True), time.sleep(100))  # type: ignore


def test_two_at_once_are_refused_overwrite_too_and_a_kill_leaves_nothing_that_refuses(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = trained
    images = run.parent / "data" / "images"
    words = ("discover", run, "--out", tmp_path / "out", "-q")
    with processes.started(*words, before=stop_after_an_image) as first:
        first.until(lambda: "at work" in first.output)
        held = files(tmp_path / "out")
        for words in (
            ("discover", run), ("discover", run, "--overwrite"), ("predict", run, images, "--overwrite"),
            ("explain", run, images, "--overwrite"),
        ):  # fmt: skip
            code, _, errors = run_cli(capsys, *words, "--out", tmp_path / "out", "-q")
            assert code == 2
            assert "another process is writing into" in errors
        assert files(tmp_path / "out") == held
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert (tmp_path / "out" / LOCK).exists()
    whole = discover(run, tmp_path / "out", quiet=True)
    assert files(whole.folder) == files(discover(run, tmp_path / "alone", quiet=True).folder)


def test_rooms_are_rendered_by_one_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tasktokens.utils.lock import only_writer_of_new

    with only_writer_of_new(tmp_path / "rooms"):
        code, _, errors = run_cli(capsys, "rooms", "--out", tmp_path / "rooms", "-q")
    assert code == 2
    assert "another process is writing into" in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting takes root")
@pytest.mark.parametrize("size", ["60k", "100k"])
def test_a_full_disk_names_the_file_written_and_the_same_command_goes_on(
    size: str, trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = trained
    images = run.parent / "data" / "images"
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        for words in (("discover", run), ("predict", run, images)):
            out = disk / words[0]
            code, _, errors = run_cli(capsys, *words, "--out", out, "-q")
            assert code == 2
            assert errors.startswith(f"error: {out}/")
            assert f"no space is left on the disk at {disk} (0.0 MB are free)" in errors
            assert "run the same command to resume" in errors
            assert not list(out.glob("dataset.yaml")) or words[0] == "predict"
            subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
            code, _, errors = run_cli(capsys, *words, "--out", out, "-q")
            assert code == 0, errors
            alone = tmp_path / f"alone-{words[0]}"
            run_cli(capsys, *words, "--out", alone, "-q")
            assert files(out) == files(alone)
            shutil.rmtree(out)
            subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_evaluate_prints_what_it_measured_before_it_fails_to_write_it(
    trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*rest: Any, **more: Any) -> None:
        raise WriteError("evaluation-test.json cannot be written: no space is left on the disk")

    monkeypatch.setattr("tasktokens.inference.evaluate.write_results", full)
    code, said, errors = run_cli(capsys, "evaluate", trained[1])
    assert code == 2
    assert "mIoU" in said
    assert "evaluation-test.json cannot be written" in errors


# -- predict -----------------------------------------------------------------------------------------------------------
def test_predict_describes_its_files_and_goes_on_after_a_signal(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tasktokens.inference import predict_files as app

    root, run = trained
    whole = tmp_path / "whole"
    assert len(predict(run, [root / "images"], whole, quiet=True)) == 8
    values = yaml.safe_load((whole / "dataset.yaml").read_text())
    assert values["tasks"]["semseg"]["classes"] == CLASSES
    rows = list(csv.DictReader((whole / "classes.csv").open()))
    assert [(r["task"], r["stored"], r["class"]) for r in rows] == [
        ("semseg", str(i), c) for i, c in enumerate(CLASSES)
    ]
    draw, calls = app.save_label_picture, iter(range(100))

    def stopped(*rest: Any) -> Any:
        if next(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return draw(*rest)

    monkeypatch.setattr(app, "save_label_picture", stopped)
    words = ("predict", run, root / "images", "--out", tmp_path / "out", "-q")
    code, _, errors = run_cli(capsys, *words)
    assert code == 143
    assert "run the same command to resume" in errors
    count = int(re.search(r"(\d) of 8 images are done", errors)[1])  # type: ignore[index]
    assert 3 <= count < 8  # what was being written was written to its end
    assert len(list((tmp_path / "out" / "semseg").iterdir())) == count
    code, _, errors = run_cli(capsys, *words, "--views", 2)
    assert code == 2
    assert "another choice of views" in errors
    assert run_cli(capsys, *words)[0] == 0
    assert next(calls) == 8  # none twice
    assert files(tmp_path / "out") == files(whole)


def test_predict_without_pictures_and_of_large_images(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = trained
    Image.new("RGB", (2500, 300), "red").save(tmp_path / "wide.png")
    assert run_cli(capsys, "predict", run, tmp_path / "wide.png", "--out", tmp_path / "a", "--no-pictures")[0] == 0
    assert not (tmp_path / "a" / "pictures").exists()
    code, _, errors = run_cli(capsys, "predict", run, tmp_path / "wide.png", "--out", tmp_path / "b")
    assert code == 0
    assert "pictures of 1 images are reduced to 1024 pixels" in errors
    assert "predicting 1/1" in errors
    assert Image.open(tmp_path / "b" / "semseg" / "wide.png").size == (2500, 300)
    assert Image.open(tmp_path / "b" / "pictures" / "wide.png").size[0] < 7 * 1100


def test_two_images_of_one_stem_are_named_with_the_way_out(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for ending in ("png", "jpg"):
        Image.new("RGB", (48, 32)).save(tmp_path / "in" / f"a.{ending}")
    code, _, errors = run_cli(capsys, "predict", trained[1], tmp_path / "in", "--out", tmp_path / "o")
    assert code == 2
    assert "a.png" in errors
    assert "a.jpg" in errors
    assert "in/*.jpg" in errors
    assert run_cli(capsys, "predict", trained[1], tmp_path / "in" / "*.jpg", "--out", tmp_path / "o", "-q")[0] == 0


def test_a_lock_of_this_process_is_refused_too_and_leaves_no_folder(tmp_path: Path) -> None:
    with only_writer(tmp_path / "a"), pytest.raises(RunExistsError), only_writer(tmp_path / "a"):
        pass
    assert not (tmp_path / "a").exists()
    time.sleep(0)
