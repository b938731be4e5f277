"""Provenance of result files: command, commit, date, machine, versions and seeds."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from tasktokens.training.run_folder import code_commit

PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of this package."""


def describe(
    how: str,
    seeds: Sequence[int],
    packages: Sequence[str] = ("torch", "timm", "numpy"),
    measured: Sequence[str] = ("src", "configs"),
) -> dict[str, object]:
    """The head of a result; the rows follow.

    Args:
        how: how the machine was used, such as ``one thread``.
        packages: whose versions matter, besides this one's and Python's.
        measured: files and folders of the project that the figures depend on; where they differ from the commit, the
            commit's name ends in ``+changes``. In a copy without a repository ``GIT_COMMIT`` gives the commit.
    """
    return {
        "command": " ".join([*_program(), *(shlex.quote(_public(argument)) for argument in sys.argv[1:])]),
        "commit": os.environ.get("GIT_COMMIT") or code_commit([f":/{name}" for name in measured]) or "",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": ", ".join(filter(None, (_processor(), f"{os.cpu_count()} cores", _gpu(), how))),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in ("tasktokens", *packages)},
        "seeds": list(seeds),
    }


def _program() -> list[str]:
    """``tasktokens``, however it was started, or a script by the path that was given."""
    path = Path(sys.argv[0])
    of_package = path.name == "tasktokens" or path.resolve().parent == PACKAGE
    return ["tasktokens"] if of_package else ["python", shlex.quote(_public(sys.argv[0]))]


def _public(argument: str) -> str:
    """Folders outside the project by their name alone."""
    key, sign, value = argument.rpartition("=")
    return f"{key}{sign}{Path(value).name}" if Path(value).is_absolute() or value.startswith("..") else argument


def _gpu() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def _processor() -> str:
    """The model of the CPU, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
