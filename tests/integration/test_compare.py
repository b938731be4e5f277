"""``tasktokens compare``: rows, tables and page; stopped, it goes on; a run that fails is named."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import processes
from conftest import run_cli
from tasktokens.config import load_config
from tasktokens.errors import TaskTokensError
from tasktokens.reporting.comparison import runs
from tasktokens.reporting.comparison.compare import compare
from tasktokens.reporting.comparison.suite import read_suite, shipped
from tasktokens.training.trainer import train

TINY: dict[str, Any] = {
    "settings": {
        "data": {"kind": "rooms", "size": [32, 48], "train": 8, "val": 1, "test": 3, "labels": "one", "check": False},
        "tasks": {"semseg": {}, "depth": {}},
        "model": {"backbone": "test_resnet", "pretrained": False, "width": 16},
        "optim": {"batch_size": 3},
        "run": {"log_every": 1},
    },
    "steps": 2, "methods": ["stl", "mtl", "htt"], "seeds": [0],
}  # fmt: skip


def suite(folder: Path, **values: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY | values))
    return path


def trained_here(command: list[str], log: Path) -> int:
    """What the command of a run does, in this process, which has imported everything; its exit code."""
    options = dict(zip(command, [*command[1:], ""], strict=True))
    start = Path(options["--init-from"]) if "--init-from" in command else None
    try:
        train(load_config(options["--config"]), "--resume" in command, "--overwrite" in command, start, quiet=True)
    except TaskTokensError as error:
        log.write_text(str(error))
        return 2
    return 0


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of the runs, which are made in this process."""
    made: list[list[str]] = []

    def run(command: list[str], log: Path, *_: object) -> tuple[float, int]:
        made.append(command)
        began = time.process_time()
        code = trained_here(command, log)
        return time.process_time() - began, code

    monkeypatch.setattr(runs, "_run", run)
    return made


def test_a_suite_becomes_rows_tables_and_a_page(tmp_path: Path, commands: list[list[str]]) -> None:
    found = compare(suite(tmp_path), tmp_path / "out", quiet=True, jobs=1)
    rows = {row["method"]: row for row in found.rows}
    assert list(rows) == ["stl", "mtl", "htt"]
    assert all(row[name] is not None for row in rows.values() for name in ("mIoU", "absErr", "delta_mtl", "gflops"))
    assert rows["stl"]["delta_mtl"] == 0
    assert {name: row["steps"] for name, row in rows.items()} == {"stl": 4, "mtl": 2, "htt": 4}
    assert rows["htt"]["cpu_minutes"] > 0
    assert len(commands) == 5  # two networks of stl, mtl, the teacher, htt
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {"commit", "suite", "rows", "seeds"} <= results.keys()
    page = (tmp_path / "out" / "report.html").read_text()
    for part in ("htt", "<svg"):
        assert part in page
    pictures = 3 * 2 * 5  # images, tasks; the image, its label and three methods
    assert page.count("data:image/png") == pictures
    for text in ("semseg: stl", "depth: htt", "depth: label"):
        assert text in page
    assert "http" not in page.replace("http://www.w3.org", "")
    for name in ("table.md", "table.csv", "table.tex"):
        assert "htt" in (tmp_path / "out" / name).read_text()

    again = compare(suite(tmp_path, methods=["mtl", "htt", "htt-no-discovery"]), tmp_path / "out", quiet=True, jobs=1)
    assert len(commands) == 6  # one more second stage, from the same teacher
    assert [row["method"] for row in again.rows] == ["mtl", "htt", "htt-no-discovery"]
    assert again.rows[0]["mIoU"] == rows["mtl"]["mIoU"]


@pytest.mark.slow
def test_shares_of_labels_become_a_figure_and_a_sentence(tmp_path: Path, commands: list[list[str]]) -> None:
    labels = {"labels": ["0.5", "full"], "reference_labels": "full", "methods": ["stl", "mtl"]}
    found = compare(suite(tmp_path, **labels), tmp_path / "out", quiet=True, jobs=1)
    assert [(row["method"], row["share"]) for row in found.rows] == [
        ("stl", 0.5), ("mtl", 0.5), ("stl", 1.0), ("mtl", 1.0),
    ]  # fmt: skip
    assert found.rows[2]["delta_mtl"] == 0
    assert found.rows[0]["delta_mtl"] != 0
    page = (tmp_path / "out" / "report.html").read_text()
    said = json.loads((tmp_path / "out" / "results.json").read_text())["equal_labels"]
    assert said == [each.sentence() for each in found.equal_shares]
    assert [sentence.split(" of the labels")[0] for sentence in said] == ["mtl with 50 %", "mtl with 100 %"]
    for text in ("mIoU against labels", *said):
        assert text in page


def test_rows_are_those_of_evaluate(tmp_path: Path, commands: list[list[str]]) -> None:
    import tasktokens

    found = compare(suite(tmp_path, methods=["mtl"]), tmp_path / "out", quiet=True, jobs=1)
    results = tasktokens.evaluate(tmp_path / "out" / "runs" / "mtl-one-0", "test", write=False)
    assert found.rows[0]["mIoU"] == pytest.approx(results["semseg"]["mIoU"], abs=1e-3)
    assert found.rows[0]["absErr"] == pytest.approx(results["depth"]["absErr"], abs=1e-4)


@pytest.mark.slow
def test_equal_total_cost_gives_cheaper_methods_more_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], log: Path, *_: object) -> tuple[float, int]:
        """A step of HTT takes two seconds, of others one; the start takes three."""
        code = trained_here(command, log)
        config = yaml.safe_load(Path(command[command.index("--config") + 1]).read_text())["method"]
        steps = config.get("steps") or config["stage1_steps"] + config["stage2_steps"]
        return 3 + steps * (2 if config["name"] == "htt" else 1), code

    monkeypatch.setattr(runs, "_run", run)
    monkeypatch.setattr(runs, "PROBES", (1, 3))
    monkeypatch.setattr("tasktokens.reporting.comparison.compare.PROBES", (1, 3))
    path = suite(tmp_path, methods=["mtl", "htt"], define={"htt": {"stages": [1, 1]}}, cost="total")
    found = {row["method"]: row for row in compare(path, tmp_path / "out", quiet=True, jobs=1).rows}
    assert found["htt"]["steps"] == 4
    assert found["mtl"]["steps"] == 8
    assert found["mtl"]["cpu_minutes"] == found["htt"]["cpu_minutes"]


def test_a_run_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    define = {"bad": {"steps": 1, "set": {"method.name": "mtl", "model.backbone": "resnet19"}}}
    path = suite(tmp_path, methods=["bad", "mtl"], define=define)
    code, _, errors = run_cli(capsys, "compare", path, "--out", tmp_path / "out", "-q", "--jobs", "1")
    assert code == 2
    assert "bad-one-0.log" in errors
    assert "resnet19" in (tmp_path / "out" / "runs" / "bad-one-0.log").read_text()
    assert (tmp_path / "out" / "rows" / "mtl-one-0.json").is_file()


@pytest.mark.slow
def test_stopped_it_goes_on_where_it_was(tmp_path: Path) -> None:
    path = suite(tmp_path, methods=["mtl"], steps=400)
    log = tmp_path / "out" / "runs" / "mtl-one-0" / "metrics.jsonl"
    with processes.started("compare", path, "--out", tmp_path / "out", "--jobs", "1") as process:
        process.until(lambda: log.is_file() and log.read_text().count("\n") > 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143, process.errors
        assert "the same command goes on" in process.errors
    assert any((tmp_path / "out" / "runs" / "mtl-one-0" / "checkpoints").iterdir())


def test_the_command_refuses_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["quik"], "did you mean 'quick'"),
        (["quick", "--methods", "htx"], "did you mean 'htt'"),
        (["quick", "--seeds", "a"], "--seeds"),
        (["quick", "optim.lrr=3"], "optim.lrr"),
    ):
        code, _, errors = run_cli(capsys, "compare", *words, "--out", tmp_path / "out")
        assert code == 2
        assert message in errors
        assert not (tmp_path / "out").exists()


def test_the_list_and_the_help_name_every_shipped_suite(capsys: pytest.CaptureFixture[str]) -> None:
    code, listed, _ = run_cli(capsys, "compare", "--list")
    _, helped, _ = run_cli(capsys, "compare", "--help")
    assert code == 0
    for name in shipped():
        assert name in listed
        assert name in helped
    code, _, errors = run_cli(capsys, "compare")
    assert code == 2
    assert "compare --list" in errors


def test_quick_is_small_enough_for_a_first_table() -> None:
    found = read_suite("quick")
    assert found.steps <= 300
    assert found.seeds == [0]
