"""Memory that tensors free is kept for the next ones."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
{call}
def cycle():
    x = torch.ones(1 << 20)
    y = [x + 1, x + 2]
    del x, y
for _ in range(3):
    cycle()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(500):
    cycle()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call: str) -> int:
    """New pages that a process of its own asks for in 500 rounds of three tensors of 1024 pages each."""
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(call=call)], capture_output=True, text=True, check=True
    )
    return int(result.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_tensors_are_handed_out_again() -> None:
    kept = "from tasktokens.utils.memory import keep_freed_memory; keep_freed_memory(); keep_freed_memory()"
    assert 10 * faults(kept) < faults("")
