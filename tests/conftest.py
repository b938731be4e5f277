"""Shared fixtures: a tiny data set in the own-folder layout, written with PIL alone, and a tiny configuration."""

from __future__ import annotations

import copy
import csv
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

# One thread: the machines that run the tests have few cores, and torch's sums then have one order.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
import pytest
import yaml
from hypothesis import settings
from numpy.typing import NDArray
from PIL import Image

import processes

Array = NDArray[Any]

HEIGHT, WIDTH = 40, 56
SMALL_ROOMS = ["data.train=6", "data.val=1", "data.test=2", "data.size=[32, 48]", "data.render_size=[32, 48]"]
CLASSES = ["floor", "wall", "chair", "person"]
DESCRIPTION: dict[str, Any] = {
    "name": "tiny",
    "tasks": {
        "semseg": {"kind": "classes", "classes": CLASSES},
        "depth": {"kind": "depth", "range": [0.5, 10.0], "bins": 8},
        "normals": {"kind": "normals", "centres": 12},
        "edge": {"kind": "edge"},
        "saliency": {"kind": "saliency"},
    },
    "splits": {"train": "train.txt", "test": "test.txt"},
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--run-slow",
        action="store_true",
        help="also run what takes more than a second or two; four times as many random examples",
    )
    parser.addoption("--campaign", action="store_true", help="also run the whole fault campaign: 15 minutes of a core")


def pytest_configure(config: pytest.Config) -> None:
    """How long to search for an example that breaks a property, before test modules are imported.

    How long one takes is up to the machine. In CI the same examples every time: a failure there must be the change's
    own.
    """
    many = 100 if config.getoption("--run-slow") else 25
    settings.register_profile("tests", deadline=None, derandomize=bool(os.environ.get("CI")), max_examples=many)
    settings.load_profile("tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker, option in (("slow", "--run-slow"), ("campaign", "--campaign")):
        if not config.getoption(option):
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(pytest.mark.skip(reason=f"takes long; {option} runs it"))


@pytest.hookimpl(optionalhook=True)  # of xdist, which says no more than that a worker has gone
def pytest_testnodedown(node: Any, error: object) -> None:
    """Say how a worker's process ended: -9, as where memory is short, or another signal, or a code."""
    process = getattr(node.gateway._io, "popen", None)
    if error and process is not None:
        with suppress(subprocess.TimeoutExpired):
            code, free = process.wait(timeout=30), psutil.virtual_memory().available >> 20
            reporter = node.config.pluginmanager.get_plugin("terminalreporter")
            reporter.write_line(f"\n{node.gateway.id} ended with {code}; {free} MB of memory are free")


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over all that is imported by now: every training asks it to look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is cached outside the session's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TASKTOKENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _without_pictures() -> Iterator[None]:
    """No pictures of runs, which take half of the time of so small a run; what is about them uses `pictures`."""
    with pytest.MonkeyPatch.context() as patch:
        if "torch" in sys.modules:  # which no test imports for this alone
            processes.leave_out_pictures(patch.setattr)
        yield


@pytest.fixture(scope="module")
def pictures() -> Iterator[None]:
    """Runs draw their pictures, as they do for users."""
    from tasktokens.reporting import curves, train

    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_curves", "write_samples"):
            patch.setattr(train, name, getattr(curves, name))
        yield


def draw_maps(rng: np.random.Generator, height: int, width: int) -> dict[str, Array]:
    """One image and its label files' arrays, as they are stored: a box before a wall, each label with some void."""
    image = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    top, left = rng.integers(2, height // 2), rng.integers(2, width // 2)
    box = (slice(top, top + height // 3), slice(left, left + width // 3))
    image[box] = rng.integers(0, 256, 3)

    semseg = np.zeros((height, width), np.uint8)
    semseg[: height // 2] = 1
    semseg[box] = rng.integers(2, len(CLASSES))
    semseg[:2] = 255

    depth = np.full((height, width), rng.integers(4000, 9000), np.uint16)
    depth[box] = rng.integers(800, 3000)
    depth[:, :2] = 0

    vectors = rng.normal(size=(2, 3)) * [1, 1, 0.3] - [0, 0, 1]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    normals = np.tile(np.rint((vectors[0] + 1) * 127.5).astype(np.uint8), (height, width, 1))
    normals[box] = np.rint((vectors[1] + 1) * 127.5)
    normals[-2:] = 128

    inside = np.zeros((height, width), np.uint8)
    inside[box] = 255
    edge = np.zeros((height, width), np.uint8)
    edge[box][0], edge[box][-1], edge[box][:, 0], edge[box][:, -1] = 255, 255, 255, 255
    alpha = np.full((height, width), 255, np.uint8)
    alpha[:, -3:] = 0
    return {
        "images": image, "semseg": semseg, "depth": depth, "normals": normals,
        "edge": np.stack([edge, alpha], -1), "saliency": np.stack([inside, alpha], -1),
    }  # fmt: skip


def write_folder(
    root: Path, count: int = 8, train: int = 6, seed: int = 0, height: int = HEIGHT, width: int = WIDTH
) -> Path:
    """Write ``count`` images with all five labels, the first ``train`` of them for training."""
    rng = np.random.default_rng(seed)
    ids = [f"im{number:02d}" for number in range(count)]
    for id in ids:
        for name, array in draw_maps(rng, height, width).items():
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(array)).save(root / name / f"{id}.png")
    (root / "train.txt").write_text("".join(f"{id}\n" for id in ids[:train]))
    (root / "test.txt").write_text("".join(f"{id}\n" for id in ids[train:]))
    (root / "dataset.yaml").write_text(yaml.safe_dump(DESCRIPTION, sort_keys=False))
    return root


@pytest.fixture(scope="session")
def folder_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data set that no test changes."""
    return write_folder(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A tiny data set that a test may change; the same files as `folder_root`."""
    return write_folder(tmp_path / "tiny")


@pytest.fixture(scope="session")
def make_folder() -> Callable[..., Path]:
    """`write_folder`."""
    return write_folder


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Any]:
    """``make_config(root, run, **{"optim.lr": 1})``: a run of seconds on a folder."""

    def make(root: Path, run: Path, **changes: Any) -> Any:
        from tasktokens.config import parse_config

        values: dict[str, Any] = copy.deepcopy(
            {
                "data": {
                    "kind": "folder", "root": str(root), "size": [32, 48], "labels": "one",
                    "augmentation": {"scale": [0.8, 1.3]},
                },
                "model": {"backbone": "test_resnet", "pretrained": False, "width": 16},
                "method": {"name": "htt", "stage1_steps": 4, "stage2_steps": 4},
                "optim": {"batch_size": 3, "warmup": 1},
                "run": {
                    "dir": str(run), "device": "cpu", "threads": 1, "checkpoint_every": 2, "keep": 100,
                    "log_every": 1, "evaluate": None,
                },
            }
        )  # fmt: skip
        for key, value in changes.items():
            *parents, last = key.split(".")
            level = values
            for parent in parents:
                level = level.setdefault(parent, {})
            level[last] = value
        return parse_config(values)

    return make


TWO_TASKS: dict[str, Any] = {"tasks": {"semseg": {}, "depth": {}}}
"""A run on these takes half of the time of one on all five: for what is the same with any tasks."""


@pytest.fixture(scope="session")
def make_config_of_two(make_config: Callable[..., Any]) -> Callable[..., Any]:
    """`make_config` with `TWO_TASKS`, unless it is given ``tasks``."""
    return partial(make_config, **TWO_TASKS)


@pytest.fixture(scope="session")
def tiny_tasks(folder_root: Path) -> dict[str, Any]:
    """The five tasks of the tiny data set."""
    from tasktokens.tasks import build_task

    return {name: build_task(name, spec) for name, spec in DESCRIPTION["tasks"].items()}


@pytest.fixture(scope="session")
def untrained(tiny_tasks: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of the five tasks, for images of 32x48, that was not trained: for what is written, and how."""
    import torch

    from tasktokens.config import ModelSettings
    from tasktokens.models.files import ModelInfo, save_model

    settings = ModelSettings(backbone="test_resnet", pretrained=False, width=16)
    info = ModelInfo("mtl", settings, tiny_tasks, (32, 48))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = info.build()
    for name, parameter in network.named_parameters():
        if not name.startswith("backbone.") and parameter.ndim > 1:
            parameter.data.mul_(6)  # so that predictions differ from pixel to pixel
    folder = tmp_path_factory.mktemp("untrained") / "model"
    save_model(folder, network, info)
    return folder


DOCUMENTED_SETTINGS = {
    "data": {"kind": "folder", "root": "mydata", "size": [32, 48], "labels": "full"},
    "model": {"backbone": "test_resnet", "pretrained": False, "width": 16},
    "method": {"name": "htt", "stage1_steps": 2, "stage2_steps": 2},
    "optim": {"batch_size": 2, "warmup": 1},
    "run": {"dir": "runs/my", "device": "cpu", "threads": 1, "checkpoint_every": 2, "evaluate": None},
}


@pytest.fixture(scope="session")
def documented_folder(make_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``mydata`` with classes and depth, ``runs/mine`` of it, ``filled`` as if discovered, ``my.yaml``, and ``photos``,
    ``map.tif`` and ``clip.mp4`` to predict.
    """
    import tasktokens
    from fakes.discovered import write_discovered
    from fakes.videos import draw_frames, write_clip

    root = tmp_path_factory.mktemp("docs")
    make_folder(root / "mydata")
    write_discovered(root / "filled")
    description = yaml.safe_load((root / "mydata/dataset.yaml").read_text())
    description["tasks"] = {name: description["tasks"][name] for name in ("semseg", "depth")}
    for left_out in ("normals", "edge", "saliency"):
        shutil.rmtree(root / "mydata" / left_out)
    (root / "mydata/dataset.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    (root / "my.yaml").write_text(yaml.safe_dump(DOCUMENTED_SETTINGS))
    (root / "photos").mkdir()
    for name, size in {"one.jpg": (64, 48), "two.jpg": (48, 64), "three.png": (60, 60)}.items():
        Image.effect_mandelbrot(size, (-2, -1.5, 1, 1.5), 20).convert("RGB").save(root / "photos" / name)
    write_clip(root / "clip.mp4", draw_frames(4))
    Image.effect_mandelbrot((300, 200), (-2, -1.5, 1, 1.5), 20).convert("RGB").save(root / "map.tif")
    shutil.copy(root / "photos" / "one.jpg", root / "photo.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        tasktokens.train("my.yaml", ["run.dir=runs/mine"], quiet=True)
        shutil.copytree("runs/mine", "runs/demo/htt")  # what `tasktokens demo` leaves, for the quickstart
    return root


@pytest.fixture
def documented(documented_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that an example may change, as the working directory."""
    shutil.copytree(documented_folder, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def run_cli(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run the command line in this process: exit code, standard output, standard error."""
    from tasktokens import cli

    old, sys.argv = sys.argv, ["tasktokens", *map(str, words)]
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = old
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def discovered_rows(folder: str | Path) -> list[dict[str, str]]:
    """What the table of a completed folder says of its discovered labels, read without this package."""
    with (Path(folder) / "provenance.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["source"] == "discovered"]
