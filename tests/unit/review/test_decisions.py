"""Nothing that was decided is lost, and nothing is half done, whenever the process is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from fakes.discovered import snapshot, sources, stored, write_discovered
from tasktokens.datasets.folder import open_folder
from tasktokens.errors import DataError
from tasktokens.review.decisions import Decisions, decided_row, open_decisions
from tasktokens.review.folder import Key, ReviewFolder
from tasktokens.review.writing import write_label


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_discovered(tmp_path / "found")


def decide(decisions: Decisions, key: Key, source: str) -> None:
    decisions.decide([(key, decided_row(decisions.folder, key, source, None), None)])


def mask_out(decisions: Decisions, key: Key, rows: slice, scratch: Path) -> None:
    """Correct a label: some rows become void."""
    value, valid = decisions.folder.read(key)
    valid = valid.copy()
    valid[rows] = False
    content = write_label(decisions.folder, key, value, valid, scratch)
    decisions.decide([(key, decided_row(decisions.folder, key, "corrected", float(valid.mean())), content)])


def test_decisions_are_there_when_the_folder_is_opened_again(folder: Path, tmp_path: Path) -> None:
    key = Key("room/3", "semseg")
    with open_decisions(folder) as decisions:
        decide(decisions, key, "accepted")
        mask_out(decisions, Key("room/4", "depth"), slice(0, 5), tmp_path / "scratch")
    assert sources(folder)[key] == "accepted"
    assert (stored(folder, "depth", "room/4")[:5] == 0).all()
    assert ReviewFolder(folder).source(key) == "accepted"


def test_undo_goes_back_one_by_one_and_outlives_the_process(folder: Path, tmp_path: Path) -> None:
    before = snapshot(folder)
    key = Key("room/4", "semseg")
    with open_decisions(folder) as decisions:
        mask_out(decisions, key, slice(0, 5), tmp_path / "a")
        once = snapshot(folder)
        mask_out(decisions, key, slice(5, 9), tmp_path / "b")
        decide(decisions, key, "rejected")
    with open_decisions(folder) as decisions:
        assert decisions.undo() == (key,)
        assert decisions.undo() == (key,)
        assert snapshot(folder) == once
        decide(decisions, Key("room/5", "depth"), "accepted")
        assert decisions.undo() == (Key("room/5", "depth"),)
        assert decisions.undo() == (key,)
        assert decisions.undo() == ()
    assert snapshot(folder) == before


def test_half_a_line_is_cut_off(folder: Path) -> None:
    with open_decisions(folder) as decisions:
        decide(decisions, Key("room/3", "semseg"), "accepted")
    journal = folder / ".review" / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole[: len(whole) // 2])
    with open_decisions(folder) as decisions:
        assert len(decisions.records) == 1
        decide(decisions, Key("room/4", "semseg"), "rejected")
    assert len(journal.read_text().splitlines()) == 2
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_what_a_kill_left_undone_is_finished(folder: Path, tmp_path: Path) -> None:
    before = snapshot(folder)
    key = Key("room/4", "semseg")
    with open_decisions(folder) as decisions:
        mask_out(decisions, key, slice(0, 5), tmp_path / "a")
    after = snapshot(folder)
    for changed in ("semseg/room/4.png", "provenance.csv"):  # as if it had been killed right after the journal
        (folder / changed).write_bytes(before[changed])
    (folder / ".review" / "applied").write_text("0")
    with open_decisions(folder):
        pass
    assert snapshot(folder) == after


def test_what_a_killed_import_had_staged_goes(folder: Path) -> None:
    (folder / ".review" / "import-abc").mkdir(parents=True)
    with open_decisions(folder):
        pass
    assert not (folder / ".review" / "import-abc").exists()


def test_a_damaged_journal_is_named(folder: Path) -> None:
    with open_decisions(folder) as decisions:
        decide(decisions, Key("room/3", "semseg"), "accepted")
    (folder / ".review" / "journal.jsonl").write_text("nonsense\n")
    with pytest.raises(DataError, match=r"journal\.jsonl"), open_decisions(folder):
        pass


def test_readers_of_folders_pass_over_the_files_of_a_review(folder: Path) -> None:
    images = set(open_folder(folder).images)
    with open_decisions(folder) as decisions:
        decide(decisions, Key("room/3", "semseg"), "accepted")
    assert set(open_folder(folder).images) == images


def decide_on_and_on(root: Path, first: int, said: int) -> None:
    """Correct one label after the other, and say the number of each that is saved."""
    with open_decisions(root) as decisions:
        os.write(said, b"ready\n")
        for number in range(first, 10**6):
            key = Key(f"room/{2 + number % 4}", ("semseg", "depth")[number // 4 % 2])
            value, valid = decisions.folder.read(key)
            valid = valid.copy()
            valid.flat[number % valid.size] = False
            with tempfile.TemporaryDirectory() as scratch:
                content = write_label(decisions.folder, key, value, valid, Path(scratch) / "new")
                row = decided_row(decisions.folder, key, "corrected", float(valid.mean()))
                decisions.decide([(key, row, content)])
            os.write(said, f"{number}\n".encode())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, which saves importing torch twenty times")
def test_kill_9_loses_nothing_that_was_said_to_be_saved(folder: Path) -> None:
    rng = np.random.default_rng(0)
    begun = {key: stored(folder, key.task, key.id) for key in keys()}
    first = 0
    for _ in range(20):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                decide_on_and_on(folder, first, writing)
            os._exit(1)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            assert pipe.readline() == "ready\n"
            said = [pipe.readline() for _ in range(rng.integers(1, 4))]
            time.sleep(rng.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            said += pipe.read().splitlines()
        os.waitpid(child, 0)
        with open_decisions(folder) as decisions:
            done = len(decisions.records)
        assert done >= first + len(said)
        assert done <= first + len(said) + 1  # at most the one that was being written
        first = done
        check_truth(folder, begun, done)
    assert first >= 20


def keys() -> list[Key]:
    return [Key(f"room/{n}", task) for n in range(2, 6) for task in ("semseg", "depth")]


def check_truth(folder: Path, begun: dict[Key, np.ndarray], done: int) -> None:
    """Every file and the table are what the first ``done`` decisions make of the beginning; nothing is left over."""
    expected = {key: array.copy() for key, array in begun.items()}
    decided = set()
    for number in range(done):
        key = Key(f"room/{2 + number % 4}", ("semseg", "depth")[number // 4 % 2])
        expected[key].flat[number % expected[key].size] = 255 if key.task == "semseg" else 0
        decided.add(key)
    for key, array in expected.items():
        assert (stored(folder, key.task, key.id) == array).all(), key
    table = sources(folder)
    assert {key for key in keys() if table[key] == "corrected"} == decided
    assert all(table[f"room/{n}", task] == "given" for n in range(2) for task in ("semseg", "depth"))
    assert not [path for path in (folder / "semseg").rglob("*") if "partial" in path.name]
