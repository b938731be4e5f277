"""What machines do to a run: other processes, umasks, stops, ``python -O``, and files whose times change."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import processes
import tasktokens
from conftest import run_cli
from tasktokens.datasets.rooms.dataset import rooms_folder

TINY = [
    "model.backbone=test_resnet", "model.pretrained=false", "model.width=16", "data.size=[32,48]", "optim.batch_size=3",
    "optim.warmup=1", "method.name=mtl", "method.steps=2", "run.device=cpu", "run.threads=1", "run.log_every=1",
]  # fmt: skip
posix = pytest.mark.skipif(os.name != "posix", reason="umasks and signals of POSIX")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def words(root: Path, run: Path, *more: str) -> list[str]:
    return ["train", f"data.root={root}", *TINY, f"run.dir={run}", *more]


# -- two at once -------------------------------------------------------------------------------------------------------
def test_a_cache_of_rooms_that_two_render_at_once_is_that_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"train": 1, "test": 1}
    script = tmp_path / "render.py"
    script.write_text(
        f"from tasktokens.datasets.rooms.dataset import rooms_folder\nprint(rooms_folder({counts}, 32, 48))\n"
    )
    cache = {"TASKTOKENS_CACHE": str(tmp_path / "shared")}
    with processes.started(script=script, env=cache) as one, processes.started(script=script, env=cache) as other:
        assert (one.wait(), other.wait()) == (0, 0)
        assert one.output == other.output
        shared = Path(one.output.strip())
    monkeypatch.setenv("TASKTOKENS_CACHE", str(tmp_path / "alone"))
    assert files(shared) == files(rooms_folder(counts, 32, 48, progress=False))
    assert [path.name for path in shared.parent.iterdir()] == [shared.name]  # nothing half is left


# -- rights ------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@posix
@pytest.mark.parametrize("mask", [0o077, 0o027, pytest.param(0o000, marks=pytest.mark.slow)])
def test_any_umask_leaves_files_that_the_next_verb_can_use(mask: int, own_folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(own_folder / "edge")
    (own_folder / "edge").mkdir()
    for id in ("im00", "im01", "im06"):
        Image.fromarray(np.eye(40, 56, dtype=np.uint8) * np.uint8(255)).save(own_folder / "edge" / f"{id}.png")
    run, out = tmp_path / "run", tmp_path / "out"
    verbs: list[list[object]] = [
        ["check", own_folder], [*words(own_folder, run, "method.steps=1")],
        ["train", "--resume", f"run.dir={run}"], ["discover", run, "--out", out / "filled", "--views", "1"],
        ["predict", run, own_folder / "images" / "im00.png", "--out", out / "predicted"],
        ["evaluate", run], ["check", out / "filled"],
    ]  # fmt: skip
    cache = {"TASKTOKENS_CACHE": str(tmp_path / "cache")}
    for verb in verbs:
        done = processes.run(*verb, before=partial(os.umask, mask), env=cache)
        assert done.returncode == 0, done.stderr
    for folder in (run, out, tmp_path / "cache"):
        for path in (folder, *folder.rglob("*")):
            rights = path.stat().st_mode
            assert rights & (0o700 if path.is_dir() else 0o600) == (0o700 if path.is_dir() else 0o600), path
            assert not rights & mask, path


# -- stopped and continued ---------------------------------------------------------------------------------------------
def stop_and_continue(process: processes.Process, reached: Callable[[], object]) -> None:
    process.until(reached)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0, process.errors


@pytest.mark.slow
@posix
def test_a_run_and_a_discovery_that_are_stopped_for_a_while_end_with_the_same_bits(
    own_folder: Path, tmp_path: Path
) -> None:
    for id in ("im00", "im03"):
        (own_folder / "depth" / f"{id}.png").unlink()
    long = ["method.steps=12", "run.evaluate=none", "data.check=false"]
    assert processes.run(*words(own_folder, tmp_path / "whole", *long)).returncode == 0
    log = tmp_path / "run" / "metrics.jsonl"
    with processes.started(*words(own_folder, tmp_path / "run", *long)) as process:
        stop_and_continue(process, lambda: log.is_file() and log.read_text().count("\n") > 1)
    whole, stopped = (next((tmp_path / name).rglob("model.safetensors")) for name in ("whole", "run"))
    assert whole.read_bytes() == stopped.read_bytes()

    discover = ["discover", tmp_path / "whole", "--views", "1", "--out"]
    assert processes.run(*discover, tmp_path / "filled").returncode == 0
    with processes.started(*discover, tmp_path / "again") as process:
        stop_and_continue(process, lambda: list((tmp_path / "again").rglob("*.png")))
    assert files(tmp_path / "filled") == files(tmp_path / "again")


# -- without asserts ---------------------------------------------------------------------------------------------------
SEVERAL = """
import json, runpy, sys
assert False, "of python -O"
codes = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["tasktokens", *words]
    try:
        runpy.run_module("tasktokens", run_name="__main__")
        codes.append(0)
    except SystemExit as end:
        codes.append(end.code or 0)
print(codes, file=sys.stderr)
"""


def test_asserts_do_nothing_but_tell_a_type() -> None:
    """So ``python -O`` leaves nothing out. To run it takes long: it compiles torch, timm and SciPy anew."""
    source = Path(tasktokens.__file__).parent
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in source.rglob("*.py")}
    found = [(path, ast.unparse(node.test)) for path, tree in trees.items() for node in ast.walk(tree)
             if isinstance(node, ast.Assert)]  # fmt: skip
    assert found
    tells = re.compile(r"isinstance\([\w.]+, [\w.| ]+\)|[\w.]+ is not None")
    assert [each for each in found if not tells.fullmatch(each[1])] == []
    assert not [path for path, tree in trees.items() for node in ast.walk(tree)
                if isinstance(node, ast.Name) and node.id == "__debug__"]  # fmt: skip


@pytest.mark.slow
def test_python_without_asserts_does_and_refuses_the_same(own_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    verbs = [
        ["check", str(own_folder)], words(own_folder, run), ["evaluate", str(run)],
        words(own_folder, tmp_path / "other", "optim.lr=-1"), ["evaluate", str(tmp_path / "other")],
    ]  # fmt: skip
    command = [sys.executable, "-O", "-c", SEVERAL, json.dumps(verbs)]  # one process: -O compiles every package anew
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert "[0, 0, 0, 2, 2]" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert processes.run(*words(own_folder, tmp_path / "usual")).returncode == 0
    optimised, usual = (next((tmp_path / name).rglob("model.safetensors")) for name in ("run", "usual"))
    assert optimised.read_bytes() == usual.read_bytes()


# -- the memory of the check -------------------------------------------------------------------------------------------
def test_a_file_that_changed_is_examined_again_whatever_its_times_say(
    own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("TASKTOKENS_CACHE", str(tmp_path / "cache"))
    label = own_folder / "semseg" / "im00.npy"
    (own_folder / "semseg" / "im00.png").unlink()
    good = np.zeros((40, 56), np.uint8)
    good[:20] = 1
    np.save(label, good)

    def said(run: str) -> tuple[int, str]:
        code, _, errors = run_cli(capsys, *words(own_folder, tmp_path / run, "run.evaluate=none", "method.steps=1"))
        return code, errors

    assert "checked in" in said("a")[1]
    assert "as checked before" in said("b")[1]
    before = label.stat()
    os.utime(label)  # touched: the content is the same, and is read again
    assert "checked in" in said("c")[1]
    os.utime(label, ns=(before.st_atime_ns, before.st_mtime_ns))
    wrong = good.copy()
    wrong[5] = 77  # no such class
    np.save(label, wrong)
    os.utime(label, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (label.stat().st_size, label.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    code, errors = said("d")
    assert code == 2
    assert str(label) in errors
    assert "77" in errors
