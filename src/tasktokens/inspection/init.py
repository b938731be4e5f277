"""``tasktokens init``: write the ``dataset.yaml`` of a data folder by looking at it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.formats import FORMATS, open_archive
from tasktokens.errors import DataError
from tasktokens.inspection.infer import InferredFolder, infer_folder
from tasktokens.utils.safe_io import dump_yaml

MANIFEST = "manifest.csv"
"""The table that is written where files of labels do not have the names of their images."""


def init(root: str | Path, force: bool = False) -> InferredFolder:
    """Write ``dataset.yaml`` with a proposal for every folder of labels, each with a comment that says what was seen.

    Where label files do not have the names of their images (``0001_rgb.jpg``, ``0001_mask.png``), a ``manifest.csv``
    that pairs them is written, too.

    Args:
        root: the folder: images in ``images/`` (or in the folder with the most photographs), labels of each task in a
            folder of its own; or a table (CSV or Parquet) with the column ``image`` and a column per task.
        force: replace a ``dataset.yaml`` and a ``manifest.csv`` that are there.

    Raises:
        DataError: there is one already, no images, or no folder that can be taken for labels.

    Examples:
        >>> import tasktokens
        >>> found = tasktokens.init("mydata", force=True)
        >>> [task.name for task in found.tasks], found.count
        (['depth', 'semseg'], 8)
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"data folder {root} does not exist")
    _require_none(root / "dataset.yaml", force)
    annotations = annotations_in(root)
    try:
        inferred = infer_folder(root)
    except DataError as error:
        raise DataError(f"{error}; {annotations}" if annotations else str(error)) from error
    if annotations:
        inferred.left_out["annotations"] = annotations
    if not inferred.tasks:
        reasons = "; ".join(f"{folder}: {reason}" for folder, reason in inferred.left_out.items())
        raise DataError(
            f"{root} has {inferred.count} images in {inferred.images} but no labels; give each task a folder whose "
            f"files are named as their images" + (f" ({reasons})" if reasons else "")
        )
    files = {root / "dataset.yaml": describe(root.resolve().name, inferred)}
    if inferred.needs_manifest:
        _require_none(root / MANIFEST, force)
        files[root / MANIFEST] = manifest_text(root, inferred)
    before = {path: path.read_bytes() if path.exists() else None for path in files}
    try:
        for path, text in files.items():
            path.write_text(text, encoding="utf-8", newline="")
        open_folder(root)
    except Exception:
        # What cannot be opened must not stay, nor cost the user the file that could.
        for path, content in before.items():
            path.unlink(missing_ok=True) if content is None else path.write_bytes(content)
        raise
    return inferred


def annotations_in(root: Path) -> str:
    """A sentence on annotations of a labelling tool in a folder, and what reads them; empty where there are none."""
    with open_archive(root) as archive:
        found = [name for name, format in FORMATS.items() if format().recognises(archive)]
    if len(found) != 1:
        return ""
    return (
        f"annotations in the format {found[0]} are read by `tasktokens prepare --from {found[0]} --root {root} --out "
        f"DIR`, or as the data set {found[0]}"
    )


def _require_none(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise DataError(f"{path} exists and is kept; give --force to replace it")


def describe(name: str, inferred: InferredFolder) -> str:
    """The text of the ``dataset.yaml``."""
    lines = [
        "# Written by `tasktokens init`. Inferred from some of the files: check each line (docs/reference/data.md).",
        f"name: {_flow(name)}",
    ]
    if inferred.is_table or inferred.needs_manifest:
        lines.append(
            f"manifest: {_flow(inferred.images if inferred.is_table else MANIFEST)}  # {inferred.count} images"
        )
    else:
        lines.append(f"images: {_flow(inferred.images)}  # {inferred.count} images")
    if inferred.members and (inferred.needs_manifest or not inferred.splits):
        lines.append(f"# splits: in the manifest's column split ({', '.join(inferred.members)})")
    elif inferred.splits:
        lines.append(f"splits: {_flow(inferred.splits)}")
    else:
        lines.append("# splits: {train: train.txt, test: test.txt}  # none found: all images are for training")
    lines.append("tasks:")
    for task in inferred.tasks:
        # Of a folder, the manifest says the same for each file.
        spec = {key: value for key, value in task.spec.items() if key != "folder" or not inferred.needs_manifest}
        lines += [f"  # {_one_line(task.saw)}", f"  {task.name}: {_flow(spec)}"]
    lines += [f"# left out: {_one_line(f'{what}: {reason}')}" for what, reason in inferred.left_out.items()]
    return "\n".join(lines) + "\n"


def manifest_text(root: Path, inferred: InferredFolder) -> str:
    """A CSV that names each image, its labels and its split."""
    split_of = {id: split for split, ids in inferred.members.items() for id in ids}
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["image", *(task.name for task in inferred.tasks), *(["split"] if split_of else [])])
    for id, image in inferred.image_files.items():
        labels = [task.labels.get(id) for task in inferred.tasks]
        paths = [path and path.relative_to(root).as_posix() for path in (image, *labels)]
        table.writerow([*paths, *([split_of.get(id, "")] if split_of else [])])
    return file.getvalue()


def _flow(value: Any) -> str:
    text: str = dump_yaml(value, default_flow_style=True, allow_unicode=True, width=10**9)
    return text.removesuffix("\n").removesuffix("\n...")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def inferred_json(root: Path, inferred: InferredFolder) -> dict[str, Any]:
    """What was written, as plain values."""
    tasks = [{"task": task.name, "spec": task.spec, "labels": task.files, "seen": task.saw} for task in inferred.tasks]
    return {
        "folder": str(root), "images": inferred.count, "tasks": tasks, "left_out": dict(inferred.left_out),
        "splits": {name: len(ids) for name, ids in inferred.members.items()},
    }  # fmt: skip


def print_inferred(root: Path, inferred: InferredFolder) -> None:
    """What was written, as a table."""
    table = Table("task", "kind", "labels", "seen", title=f"{root}: {inferred.count} images in {inferred.images}")
    for task in inferred.tasks:
        table.add_row(task.name, task.spec["kind"], str(task.files), task.saw)
    for what, reason in inferred.left_out.items():
        table.add_row(f"({what})", "left out", "", reason)
    console = Console(markup=False)  # a folder may be called [a]
    console.print(table)
    splits = (
        ", ".join(f"{name}: {len(ids)}" for name, ids in inferred.members.items()) or "none found, all for training"
    )
    console.print(f"splits: {splits}")
    wrote = [root / "dataset.yaml", *([root / MANIFEST] if inferred.needs_manifest else [])]
    console.print(
        f"wrote {' and '.join(map(str, wrote))}; read it, write the names of the classes, then train", soft_wrap=True
    )
