"""In a benchmark, runs of `tasktokens` that are forks of it, so that torch and the rest are imported once."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from tasktokens import cli

POPEN = subprocess.Popen
COMMAND = [sys.executable, "-m", "tasktokens.cli"]


def start(command: Sequence[str], **settings: Any) -> Any:
    """In place of `subprocess.Popen`: a fork where the command is ours, else the real one."""
    return Fork(command[3:], settings["stdout"]) if list(command[:3]) == COMMAND else POPEN(command, **settings)


class Fork:
    """A run of the command line; a benchmark waits for its `pid`."""

    def __init__(self, words: Sequence[str], log: Any) -> None:
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            os.dup2(log.fileno(), 1)
            os.dup2(1, 2)
            sys.argv = ["tasktokens", *words]
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def install() -> None:
    """Let the runs that this process starts from now on be forks."""
    subprocess.Popen = start  # type: ignore[assignment,misc]
