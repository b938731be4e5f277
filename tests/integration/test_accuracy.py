"""The runner of suites: what its methods share, which network each goes on from, what it writes, and how it stops."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

import forked_runs
import processes
from conftest import SMALL_ROOMS
from tasktokens.config import load_config

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "benchmarks" / "accuracy.py"
SMALL = [*SMALL_ROOMS, "model.width=16", "optim.batch_size=3", "run.log_every=1"]
TASKS = {"semseg": "mIoU", "depth": "absErr", "normals": "mErr"}


def command(folder: Path, methods: Sequence[str], steps: int = 1) -> list[str]:
    suite = folder / "tiny.yaml"
    shared = {"settings": str(ROOT / "configs" / "accuracy_rooms.yaml"), "steps": steps, "primary": TASKS}
    suite.write_text(
        yaml.safe_dump(shared | {"methods": list(methods), "seeds": [3], "labels": ["one"]}, sort_keys=False)
    )
    places = ["--runs", str(folder / "runs"), "--out", str(folder / "out.json"), "--jobs", "1"]
    return [str(suite), *places, *SMALL]


def make(folder: Path, *methods: str) -> dict[str, dict[str, Any]]:
    """Run the suite, its runs as forks of one process; its rows by method."""
    done = processes.run(*command(folder, methods), script=RUNNER, before=forked_runs.install, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    return {row["method"]: row for row in json.loads((folder / "out.json").read_text())["rows"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite that was made in two calls, the second of which finds rows and runs of the first."""
    folder = tmp_path_factory.mktemp("suite")
    make(folder, "mtl", "htt")
    # As if it was killed between the end of a run and its note; then the log tells the minutes, by the clock.
    (folder / "runs" / "tiny-one" / "htt-teacher-3.minutes").rename(folder / "teacher.minutes")
    make(folder, "stl", "htt-teacher", "htt-two-rounds", "htt-no-discovery")
    return folder


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["method"]: row for row in json.loads((folder / "out.json").read_text())["rows"]}


def test_rows_stay_and_say_how_they_were_made(made: Path) -> None:
    found = json.loads((made / "out.json").read_text())
    assert {"command", "commit", "date", "machine", "versions", "seeds"} <= found.keys()
    assert len(found["command"].splitlines()) == 1  # both calls were the same but for the suite's methods
    assert set(rows(made)) == {"mtl", "htt", "stl", "htt-teacher", "htt-two-rounds", "htt-no-discovery"}
    steps = {name: row["steps"] for name, row in rows(made).items()}
    assert steps == {"mtl": 1, "stl": 1, "htt-teacher": 1, "htt": 2, "htt-no-discovery": 2, "htt-two-rounds": 3}
    assert rows(made)["htt"]["minutes"] > float((made / "teacher.minutes").read_text())  # of both stages
    assert rows(made)["htt-teacher"]["minutes"] > 0


def test_methods_share_all_but_what_makes_them(made: Path) -> None:
    configs = {path.stem: load_config(path) for path in (made / "runs" / "tiny-one").glob("*.yaml")}
    shared = configs["mtl-3"].model_dump()
    for name, config in configs.items():
        own = config.model_dump()
        for section in ("data", "optim", "model"):
            own[section].pop("augmentation", None), shared[section].pop("augmentation", None)
            assert own[section] == shared[section], name
        # Or a further round's student would see the same crops again.
        assert config.seed == (1003 if name.startswith("htt-two-rounds") else 3)
        assert list(config.tasks or {}) == ([name.split("-")[1]] if name.startswith("stl") else list(TASKS))


def test_what_differs_in_the_second_stage_goes_on_from_one_teacher(made: Path) -> None:
    def network(method: str, which: str) -> bytes:
        return (made / "runs" / "tiny-one" / f"{method}-3" / which / "model.safetensors").read_bytes()

    taught = network("htt-teacher", "model")
    assert network("htt", "teacher") == network("htt-no-discovery", "teacher") == taught
    assert network("htt-two-rounds", "teacher") == network("htt", "model")
    assert len({taught, *(network(m, "model") for m in ("htt", "htt-no-discovery", "htt-two-rounds"))}) == 4


def test_changes_are_counted_against_the_single_task_networks(made: Path) -> None:
    found = rows(made)
    single = {metric: found["stl"][metric] for metric in TASKS.values()}
    for row in found.values():
        if not all(single.values()):
            assert row["delta_mtl"] is None
            continue
        signs = {"mIoU": 1, "absErr": -1, "mErr": -1}
        changes = [100 * signs[m] * (row[m] - single[m]) / single[m] for m in signs]
        assert row["delta_mtl"] == pytest.approx(sum(changes) / 3, abs=0.01)


def test_an_unknown_method_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done = processes.run(*command(tmp_path, ["mtl", "hht"]), script=RUNNER)
    assert done.returncode == 1
    assert "no method 'hht'; there are" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_stopping_it_stops_its_run_and_begins_no_other(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "tiny-one" / "mtl-3"
    words = command(tmp_path, ["mtl", "htt"], steps=60)
    with processes.started(*words, script=RUNNER, before=forked_runs.install) as process:
        process.until(lambda: (run / "metrics.jsonl").is_file() and (run / "metrics.jsonl").read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 1
        assert f"{run.name} ended with 143" in process.errors
    assert list(run.glob("checkpoints/*/complete.json"))  # it has saved itself, so it is no longer there
    assert not (run / "evaluation-test.json").exists()
    assert not (tmp_path / "runs" / "tiny-one" / "htt-3").exists()


def print_settings(paths: Sequence[Path]) -> None:
    """Read suites as the runner does, and print the method's settings of each of their runs."""
    sys.path.insert(0, str(RUNNER.parent))
    suite = import_module("suite")
    for path in paths:
        data = [] if path.stem in ("disjoint", "rooms", "demo") else ["data.root=x"]
        read = suite.read_suite(path, [*data, "model.weights=y"])
        for method in read.methods:
            task = next(iter(read.primary)) if read.method(method).get("each_task") else None
            print(path.stem, method, read.config(method, task, {}).method)
    sys.exit(0)


def test_every_suite_makes_settings_that_are_valid() -> None:
    suites = sorted((ROOT / "benchmarks" / "suites").glob("*.yaml"))
    paths = [path for path in suites if path.stem != "methods"]  # what the methods change, no suite
    done = processes.run(before=partial(print_settings, paths))
    assert done.returncode == 0, done.stderr[-2000:]
    assert {line.split()[0] for line in done.stdout.splitlines()} == {path.stem for path in paths}
