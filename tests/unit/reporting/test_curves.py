"""The pictures of a run: curves.png and samples/, and what else its folder says of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tasktokens
from conftest import run_cli
from tasktokens.config import Config, load_config, to_yaml
from tasktokens.datasets.open import open_data
from tasktokens.reporting import curves as run_pictures
from tasktokens.reporting import train as app
from tasktokens.reporting.curves import draw_curves, write_samples
from tasktokens.reporting.runs import run_facts
from tasktokens.training import run_folder
from tasktokens.training.log import read_rows
from tasktokens.utils.pictures import Strip, hidden

MakeConfig = Callable[..., Config]
pytestmark = pytest.mark.usefixtures("pictures")
HELD = {
    "method": {"name": "htt", "stage1_steps": 2, "stage2_steps": 2}, "run.validate_every": 1, "data.holdout": 0.34,
    "optim.batch_size": 2, "data.labels": "full", "data.check": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(pictures: None, folder_root: Path, make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the public function, with validations."""
    return tasktokens.train(make_config(folder_root, tmp_path_factory.mktemp("runs") / "run", **HELD), quiet=True)


@pytest.fixture
def strips(monkeypatch: pytest.MonkeyPatch) -> list[list[Strip]]:
    """The strips of every picture that is written from here on."""
    seen: list[list[Strip]] = []
    save = run_pictures.save_strips
    monkeypatch.setattr(run_pictures, "save_strips", lambda path, rows: (seen.append(rows), save(path, rows))[1])
    return seen


def test_a_run_has_curves_and_samples_of_its_held_out_images(run: Path) -> None:
    held = open_data(load_config(run / "config.yaml")).holdout
    assert sorted(path.stem for path in (run / "samples").iterdir()) == sorted(held)
    for path in (run / "curves.png", *(run / "samples").iterdir()):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert pixels.std() > 10, path


def test_curves_show_losses_and_validations_of_every_task(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    figures: list[Any] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
    draw_curves(run)
    titles = [axes.get_title() for axes in figures[0].axes]
    assert [title for title in titles if "loss" in title] == [
        f"{task}: loss" for task in ("semseg", "depth", "normals", "edge", "saliency")
    ]
    assert {"semseg: mIoU % ↑", "depth: absErr m ↓"} <= set(titles)
    metric = next(axes for axes in figures[0].axes if axes.get_title().startswith("depth: absErr"))
    drawn = [(int(x), y) for line in metric.lines if line.get_marker() == "o" for x, y in line.get_xydata()]
    rows = [row for row in read_rows(run / "metrics.jsonl") if "validation" in row]
    assert drawn == [(step, row["validation"]["depth"]["absErr"]) for step, row in zip((1, 2, 3, 4), rows, strict=True)]


def test_curves_are_drawn_after_each_validation(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    monkeypatch.setattr(app, "draw_curves", lambda run, rows=None: lengths.append(len(rows) if rows else -1))
    tasktokens.train(make_config(folder_root, tmp_path / "run", **HELD), quiet=True)
    assert lengths == [2, 4, 6, 8, -1]  # a row of training and one of validation a step; then all of the file


def test_curves_of_a_run_that_has_only_begun(run: Path, tmp_path: Path) -> None:
    rows = read_rows(run / "metrics.jsonl")[:1]
    for some in (rows, []):
        (tmp_path / "curves.png").unlink(missing_ok=True)
        assert Image.open(draw_curves(tmp_path, some)).size[0] > 100


def test_samples_of_training_images_show_no_hidden_label(
    own_folder: Path, make_config: MakeConfig, tmp_path: Path, strips: list[list[Strip]]
) -> None:
    """Every hidden label file is gone; what was not given is striped."""
    config = make_config(own_folder, tmp_path / "run", **{"method": {"name": "mtl", "steps": 1}, "data.check": False})
    data = open_data(config)
    for id in data.collection.images:
        for name in data.tasks:
            if name not in data.train.get(id, ()):
                (own_folder / name / f"{id}.png").write_bytes(b"garbage")
    run = tasktokens.train(config, quiet=True)
    assert len(strips) == 4
    for path, rows in zip(sorted((run / "samples").iterdir()), strips, strict=True):
        for strip in rows:
            captions = [picture.caption for picture in strip.pictures]
            assert captions == ["image", "label", "prediction", "confidence"]
            given = strip.title in data.train[path.stem]
            striped = np.array_equal(strip.pictures[1].pixels, hidden(strip.pictures[1].pixels.shape))
            assert striped == (not given), (path, strip.title)


def test_pictures_that_fail_do_not_cost_the_run(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no ink")

    monkeypatch.setattr(app, "draw_curves", fail)
    config = make_config(folder_root, tmp_path / "run", **HELD | {"method": {"name": "mtl", "steps": 1}})
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    code, _, err = run_cli(capsys, "train", "--config", tmp_path / "c.yaml", "-q")
    assert code == 0
    assert "were not drawn: ValueError: no ink" in err
    assert (tmp_path / "run" / "model" / "model.json").is_file()
    assert (tmp_path / "run" / "samples").is_dir()


def test_ids_of_parts_are_names_of_files(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    shutil.copytree(run, tmp_path / "run")
    data = open_data(load_config(run / "config.yaml"))
    images = {f"part/{id}": file for id, file in data.collection.images.items()}
    labels = {n: {f"part/{id}": f for id, f in of.items()} for n, of in data.collection.labels.items()}
    moved = replace(data, collection=replace(data.collection, images=images, labels=labels), holdout=("part/im01",))
    monkeypatch.setattr(run_pictures, "open_run_data", lambda run, config: moved)
    shutil.rmtree(tmp_path / "run" / "samples")
    assert [path.name for path in write_samples(tmp_path / "run")] == ["part-im01.png"]


def test_runs_names_the_best_step(run: Path, capsys: Any) -> None:
    best = json.loads((run / "best" / "best.json").read_text())
    facts = run_facts(run)
    assert facts.best == {key: best[key] for key in ("stage", "step", "score")}
    code, out, _ = run_cli(capsys, "runs", run.parent)
    assert code == 0
    assert f"{best['stage']} {best['step']} ({best['score']:+.1f} %)" in out


def test_the_log_says_what_happened_and_when(run: Path) -> None:
    lines = (run / "log.txt").read_text().splitlines()
    assert "from step 0 of stage supervised: 2 images per step on cpu" in lines[0]
    assert sum("validation after step" in line for line in lines) == 4
    assert any("| loss semseg" in line for line in lines)
    assert all(line[:2] == "20" and line[19] == " " for line in lines)


def test_the_commit_of_the_code_is_written_down(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "repo" / "src" / "tasktokens"
    (package / "engine").mkdir(parents=True)
    (package / "__init__.py").touch()

    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path / "repo"), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    monkeypatch.setattr(run_folder, "__file__", str(package / "engine" / "run_folder.py"))
    assert run_folder.code_commit() is None
    git("init")
    assert run_folder.code_commit() is None  # in a repository, but not of it
    git("add", ".")
    git("commit", "-m", "x")
    assert run_folder.code_commit() == git("rev-parse", "HEAD")
    (package / "__init__.py").write_text("x = 1\n")
    assert run_folder.code_commit() == git("rev-parse", "HEAD") + "+changes"
    monkeypatch.setenv("PATH", "")
    assert run_folder.code_commit() is None
