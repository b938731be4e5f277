"""Runs a benchmark whose runs of `tasktokens` are forks of it, so that torch and the rest are imported once:

python tests/forked_runs.py benchmarks/accuracy.py SUITE ...
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tasktokens.inference.evaluate
import tasktokens.reporting.train
import tasktokens.training.trainer  # noqa: F401
from tasktokens import cli


class Fork:
    """What the benchmark takes for a `subprocess.Popen` of ``python -m tasktokens.cli``: it waits for its `pid`."""

    def __init__(self, command: Sequence[str], stdout: Any, stderr: int) -> None:
        assert list(command[:3]) == [sys.executable, "-m", "tasktokens.cli"]
        assert stderr == subprocess.STDOUT
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            os.dup2(stdout.fileno(), 1)
            os.dup2(1, 2)
            sys.argv = ["tasktokens", *command[3:]]
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


if __name__ == "__main__":
    subprocess.Popen = Fork  # type: ignore[assignment,misc]
    script = Path(sys.argv[1])
    sys.path.insert(0, str(script.parent))
    sys.argv = sys.argv[1:]
    runpy.run_path(str(script), run_name="__main__")
