"""The processes that tests start are what they stand for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

import processes

SCRIPT = """
import os, signal, sys, threading
print("ä", sys.argv[1:], os.getcwd(), os.environ["GIVEN"], os.getpid() == os.getsid(0))
print("ä", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


def look() -> None:
    """Print what a process is made of, and leave."""
    threads = os.listdir(f"/proc/{os.getppid()}/task")
    torch = sys.modules["torch"]
    print(len(threads), threading.active_count(), torch.get_num_threads(), "tasktokens.cli" in sys.modules)
    print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.getsignal(signal.SIGINT).__name__)
    sys.exit(0)


def end(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there it is no fork")
def test_they_are_forks_of_a_process_with_one_thread_that_has_imported_torch() -> None:
    done = processes.run(before=look)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 1 1 True\nTrue default_int_handler\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1:replace", "utf-8", "ascii:backslashreplace"])
def test_a_script_gets_what_it_would_get_from_python(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    given = {"GIVEN": "x", "PYTHONIOENCODING": encoding}
    done = processes.run(3, script=tmp_path / "script.py", env=given, folder=tmp_path, own_session=True)
    real = subprocess.run(
        [sys.executable, tmp_path / "script.py", "3"], env=os.environ | given, cwd=tmp_path, capture_output=True,
        start_new_session=True,
    )  # fmt: skip
    written = encoding.partition(":")[0]
    assert (done.returncode, done.stdout) == (real.returncode, real.stdout.decode(written))
    assert done.stderr.splitlines()[-1] == real.stderr.decode(written).splitlines()[-1]


def test_they_end_by_signals_and_with_the_block() -> None:
    assert processes.run(before=partial(end, signal.SIGTERM)).returncode == -signal.SIGTERM
    assert processes.run("no-such-verb").returncode == 2
    with processes.started(before=signal.pause) as process:
        assert process.poll() is None
    assert process.poll() == -signal.SIGKILL
