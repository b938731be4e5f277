"""``tasktokens runs``, on run folders made up here from what a run writes."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import processes
from conftest import run_cli
from tasktokens.config import ModelSettings, load_config, to_yaml
from tasktokens.errors import CheckpointError
from tasktokens.models.files import ModelInfo, to_json
from tasktokens.reporting import runs
from tasktokens.reporting.compare_runs import compare_runs
from tasktokens.reporting.runs import list_runs, run_facts
from tasktokens.tasks import build_task
from tasktokens.training.log import RunLog

TASKS: dict[str, dict[str, Any]] = {
    "semseg": {"kind": "classes", "classes": ["wall", "bed"]},
    "depth": {"kind": "depth"},
}
SETTINGS = ["method.stage1_steps=4", "method.stage2_steps=6"]


def rows(*steps: tuple[str, int], **last: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"stage": stage, "step": step, "minutes": step / 10} for stage, step in steps]
    return [*found, last] if last else found


def write_run(
    folder: Path,
    overrides: list[str],
    log: list[dict[str, Any]],
    results: dict[str, dict[str, Any]] | None = None,
    tasks: dict[str, dict[str, Any]] = TASKS,
) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(load_config(None, [*overrides, f"run.dir={folder}"])))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    if results is not None:
        built = {name: build_task(name, spec) for name, spec in tasks.items()}
        (folder / "model").mkdir()
        info = ModelInfo("htt", ModelSettings(), built, (32, 48))
        (folder / "model" / "model.json").write_text(json.dumps(to_json(info)))
        (folder / "evaluation-test.json").write_text(json.dumps(results))
    return folder


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """A finished run, one that is better but for depth, an interrupted one deeper down, and folders that are none."""
    base = {"semseg": {"mIoU": 40.0, "pixAcc": 70.0}, "depth": {"absErr": 0.5, "RMSE": 0.9}}
    new = {"semseg": {"mIoU": 44.0, "pixAcc": 71.0}, "depth": {"absErr": 0.51, "RMSE": None}}
    done = rows(("supervised", 4), ("discovery", 6), finished=True, minutes=1.5)
    write_run(tmp_path / "base", ["method.name=mtl", "method.steps=10"], rows(("supervised", 10), finished=True), base)
    write_run(tmp_path / "new", [*SETTINGS, "seed=1", "optim.lr=0.01"], done, new)
    write_run(tmp_path / "more" / "cut", SETTINGS, rows(("supervised", 4), ("discovery", 2)))
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "dataset.yaml").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_the_list_says_where_each_run_stands(some: Path) -> None:
    found = {run.name: run for run in list_runs(some)}
    assert found.keys() == {"base", "new", "more/cut"}
    assert [(run.method, run.state, run.steps) for run in (found["base"], found["new"], found["more/cut"])] == [
        ("mtl", "finished", (10, 10)),
        ("htt", "finished", (10, 10)),
        ("htt", "interrupted", (6, 10)),
    ]
    assert found["new"].minutes == 1.5
    assert found["more/cut"].minutes == 0.2
    metrics = {name: (value.metric, value.value, value.unit) for name, value in found["new"].metrics.items()}
    assert metrics == {"semseg": ("mIoU", 44.0, "%"), "depth": ("absErr", 0.51, "m")}
    assert found["more/cut"].metrics == {}
    assert list_runs(some / "new")[0].steps == (10, 10)  # a run itself


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.yaml", "optim: {lrr: 1}", "unknown key 'optim.lrr'"),
        ("config.yaml", "[", "cannot be read as YAML"),
        ("evaluation-test.json", "{", "evaluation-test.json is damaged"),
        ("evaluation-test.json", "[1]", "evaluation-test.json is damaged"),
        ("model/model.json", "{}", "model.json is damaged"),
        ("metrics.jsonl", '{"stage": "discovery"}\n{"finished": true}\n', "KeyError"),
    ],
)
def test_a_broken_folder_is_said_to_be_and_the_others_are_listed(
    file: str, content: str, says: str, some: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (some / "new" / file).write_text(content)
    found = {run.name: run for run in list_runs(some)}
    assert (found["base"].state, found["new"].state) == ("finished", "broken")
    assert says in (found["new"].fault or "")
    code, out = run_verb(capsys, some)
    assert code == 0
    assert says in out
    assert "Traceback" not in out


def test_a_log_with_half_a_line_and_garbage_is_read(some: Path) -> None:
    with (some / "more" / "cut" / "metrics.jsonl").open("ab") as file:
        file.write(b'[1]\n\xff\xfe\n{"stage": "discovery", "st')
    assert run_facts(some / "more" / "cut").steps == (6, 10)


def hold_open(log: Path) -> None:
    """Write a run's log for as long as the process lives."""
    held = RunLog(log, quiet=True)
    print("open", flush=True)
    signal.pause()
    held.close()


@pytest.mark.slow
def test_a_run_that_another_process_writes_is_running(some: Path) -> None:
    log = some / "more" / "cut" / "metrics.jsonl"
    with processes.started(before=partial(hold_open, log)) as process:
        process.until(lambda: process.output)
        assert run_facts(log.parent).state == "running"
    assert run_facts(log.parent).state == "interrupted"


def test_comparing_shows_what_differs_and_the_change_against_the_first(some: Path) -> None:
    found = compare_runs([some / "base", some / "new", some / "more" / "cut"])
    assert found["settings"]["optim.lr"] == [0.004, 0.01, 0.004]
    assert found["settings"]["seed"] == [0, 1, 0]
    assert found["settings"]["method.steps"] == [10, None, None]
    assert "run.dir" not in found["settings"]
    assert "optim.clip" not in found["settings"]
    assert found["metrics"]["semseg"]["mIoU"] == [40.0, 44.0, None]
    assert found["metrics"]["depth"]["RMSE"] == [0.9, None, None]
    first, second = found["delta_mtl"]
    assert first["value"] == pytest.approx((10 - 2) / 2)  # mIoU 10 % up, absErr 2 % worse
    assert first["tasks"] == ["semseg", "depth"]
    assert second == {"value": None, "tasks": []}


def test_tasks_that_are_defined_otherwise_are_no_part_of_the_change(some: Path) -> None:
    tasks = TASKS | {"semseg": {"kind": "classes", "classes": ["wall", "bed", "sofa"]}}
    results = {"semseg": {"mIoU": 80.0}, "depth": {"absErr": 0.25}}
    write_run(some / "other", SETTINGS, rows(("supervised", 4), finished=True), results, tasks)
    (delta,) = compare_runs([some / "base", some / "other"])["delta_mtl"]
    assert delta == {"value": pytest.approx(50.0), "tasks": ["depth"]}


def run_verb(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and what was printed, on both streams."""
    code, out, err = run_cli(capsys, "runs", *words)
    return code, out + err


def test_the_verb(some: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run_verb(capsys, some)
    assert code == 0
    for text in ("more/cut", "interrupted", "6/10", "mIoU 44 %", "absErr 0.51 m"):
        assert text in out
    code, out = run_verb(capsys, some, "--json")
    assert {run["name"] for run in json.loads(out)} == {"base", "new", "more/cut"}
    code, out = run_verb(capsys, some / "base", some / "new")
    assert code == 0
    for text in ("optim.lr", "0.01", "Δ_MTL", "+4.0 %"):
        assert text in out
    code, out = run_verb(capsys, some / "base", some / "new", "--json")
    assert json.loads(out) == compare_runs([some / "base", some / "new"])


@pytest.mark.parametrize("width", [60, 80, 120, 400])
def test_every_width_shows_every_column_whole(
    some: Path, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "table_console", lambda: Console(width=width, markup=False))
    runs.print_runs(list_runs(some))
    out = capsys.readouterr().out
    for text in ("more/cut", "interrupted", "6/10", "mIoU 44 %", "absErr 0.51 m", "changed", "minutes"):
        assert text in out
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= width
    tables = out.count("┏")
    assert out.count("more/cut") == tables  # each says whose rows they are
    assert tables == 1 if width == 400 else tables >= 1 + (width <= 80)


@pytest.mark.parametrize("long", [False, True])
def test_runs_of_different_methods_compare_in_80_columns_and_nothing_is_cut(
    long: bool, some: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [some / "base", some / "new", some / "more" / "cut"]
    if long:
        folders = [folder.rename(folder.with_name(f"{folder.name}-{'x' * 90}")) for folder in folders]
    code, out = run_verb(capsys, *folders)
    assert code == 0
    drawn = [line for line in out.splitlines() if set(line) & set("┃│━─")]
    assert max(map(len, drawn)) <= 80
    assert "…" not in out
    assert sum("stage1_steps" in line for line in out.splitlines()) == 2  # once for each run of the method
    text = "".join(line.strip("│┃ ") for line in out.splitlines())
    for value in ("0.01", "+4.0 %", "semseg mIoU", "depth RMSE", "method.stage2_steps=6", "method.steps=10"):
        assert value in text or value in " ".join(out.split())
    if not long:
        assert "┃ setting     ┃ base  ┃ new  ┃ more/cut ┃" in out
        assert "│ method.name │ mtl   │ htt  │ htt      │" in out


def test_the_list_fits_80_columns_where_it_is_piped(some: Path) -> None:
    done = processes.run("runs", some)
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_comparison_says_which_tasks_the_change_is_over(some: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run_verb(capsys, some / "base", some / "new", some / "more" / "cut")
    assert code == 0
    assert f"Δ_MTL of {some / 'new'} is over semseg, depth\n" in out
    assert f"Δ_MTL of {some / 'more' / 'cut'} is over no task" in out
    assert "None" not in out  # a setting that a method does not have


def test_what_is_no_folder_or_no_run_is_an_error(some: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match="no folder"):
        list_runs(some / "none")
    with pytest.raises(CheckpointError, match="no run folder"):
        compare_runs([some / "base", some / "empty"])
    code, out = run_verb(capsys, some / "base", some / "none")
    assert code == 2
    assert "error: " in out
    (some / "base" / "config.yaml").write_text("seed: x")
    code, out = run_verb(capsys, some / "base", some / "new")
    assert code == 2
    assert "'seed'" in out


def test_a_folder_without_runs_is_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list_runs(tmp_path) == []
    assert run_verb(capsys, tmp_path, "--json") == (0, "[]\n")
