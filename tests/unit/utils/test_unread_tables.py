"""A table whose reader has gone is dropped, and the program goes on."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os, sys
reads, writes = os.pipe()
os.close(reads)
os.dup2(writes, 1)
from rich.table import Table
from tasktokens.utils.console import table_console
console = table_console()
for _ in range(2):
    console.print(Table("a", title="t"))
print("more")
sys.stderr.write("done")
"""


def test_a_table_that_nobody_reads_ends_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "done")
