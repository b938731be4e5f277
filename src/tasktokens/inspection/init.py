"""``tasktokens init``: write the ``dataset.yaml`` of a data folder by looking at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tasktokens.datasets.folder import open_folder
from tasktokens.errors import DataError
from tasktokens.inspection.infer import InferredFolder, infer_folder
from tasktokens.utils.safe_io import dump_yaml


def init(root: str | Path, force: bool = False) -> InferredFolder:
    """Write ``dataset.yaml`` with a guess for every folder of labels, each with a comment that says what was seen.

    Args:
        root: the folder: images in ``images/`` (or in the folder with the most photographs), labels of each task in a
            folder of its own under the images' names.
        force: replace a ``dataset.yaml`` that is there.

    Raises:
        DataError: there is one already, no images, or no folder that can be taken for labels.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"data folder {root} does not exist")
    path = root / "dataset.yaml"
    before = path.read_bytes() if path.exists() else None
    if before is not None and not force:
        raise DataError(f"{path} exists and is kept; give --force to replace it")
    guess = infer_folder(root)
    if not guess.tasks:
        reasons = "; ".join(f"{folder}: {reason}" for folder, reason in guess.left_out.items())
        raise DataError(
            f"{root} has {guess.count} images in {guess.images}/ but no labels; give each task a folder whose files "
            f"are named as their images" + (f" ({reasons})" if reasons else "")
        )
    path.write_text(describe(root.resolve().name, guess), encoding="utf-8")
    try:
        open_folder(root)
    except Exception:
        # What cannot be opened must not stay, nor cost the user the file that could.
        path.unlink() if before is None else path.write_bytes(before)
        raise
    return guess


def describe(name: str, guess: InferredFolder) -> str:
    """The text of the ``dataset.yaml``."""
    lines = [
        "# Written by `tasktokens init`. It looked at some of the files: check each guess (docs/data.md).",
        f"name: {_flow(name)}",
        f"images: {_flow(guess.images)}  # {guess.count} images",
    ]
    if guess.splits:
        lines.append(f"splits: {_flow(guess.splits)}")
    else:
        lines.append("# splits: {train: train.txt, test: test.txt}  # none found: all images are for training")
    lines.append("tasks:")
    for task in guess.tasks:
        lines += [f"  # {_one_line(task.saw)}", f"  {task.name}: {_flow(task.spec)}"]
    lines += [f"# left out: {_one_line(f'{what}: {reason}')}" for what, reason in guess.left_out.items()]
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    text = dump_yaml(value, default_flow_style=True, allow_unicode=True, width=10**9)
    return text.removesuffix("\n").removesuffix("\n...")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def print_inferred(root: Path, guess: InferredFolder) -> None:
    """What was written, as a table."""
    table = Table("task", "kind", "labels", "seen", title=f"{root}: {guess.count} images in {guess.images}/")
    for task in guess.tasks:
        table.add_row(task.name, task.spec["kind"], str(task.files), task.saw)
    for what, reason in guess.left_out.items():
        table.add_row(f"({what})", "left out", "", reason)
    console = Console(markup=False)  # a folder may be called [a]
    console.print(table)
    splits = ", ".join(f"{name}: {file}" for name, file in guess.splits.items()) or "none found, all for training"
    console.print(f"splits: {splits}")
    console.print(f"wrote {root / 'dataset.yaml'}; read it, write the names of the classes, then train", soft_wrap=True)
