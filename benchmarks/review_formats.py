"""Labels to every format of annotation tools and back: whether each pixel comes back, how fast, how large.

Given labels of a data folder play discovered ones. ``round_trip_identical`` means all three: what is imported unchanged
is accepted with the label files byte for byte as they were; a corrected copy, in which a box of each label is another
class or void, comes back pixel for pixel; and the export, opened as a data set of its format, has the same pixels. For
``maps``, which masks other kinds of tasks, the corrected copy has a box made void. ``mb`` is the size of the zip per
label, without photographs; seconds are of exporting and of importing per label, on one thread.

    tasktokens rooms --train 12 --val 1 --test 1 --out rooms
    # nyud: NYU Depth v2 at 288x384 as a folder with a dataset.yaml, 40 classes (ids 1 to 40, 0 void) and 8-bit depth
    python benchmarks/review_formats.py --roots rooms nyud --images 12 --out benchmarks/results/review.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.formats import FORMATS
from tasktokens.datasets.prepare import source_settings
from tasktokens.datasets.provenance import ProvenanceRow, write_provenance
from tasktokens.reporting.provenance import describe
from tasktokens.review.exporting import export_labels
from tasktokens.review.importing import import_labels
from tasktokens.review.maps import MAPS
from tasktokens.tasks.files import write_png
from tasktokens.utils.safe_io import dump_yaml

SIDE = 5
"""The corrected box is this part of the height and width."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--roots", type=Path, nargs="+", required=True)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for root in args.roots for row in measure(root, args.images)]
    head = describe("one thread", [0], measured=["src/tasktokens/datasets", "src/tasktokens/review"])
    before = json.loads(args.out.read_text()) if args.out.is_file() else {"rows": []}
    others = [row for row in before["rows"] if row["what"] != "format"]  # of review.py
    found = before | {"formats": head | {"images": args.images}, "rows": [*others, *rows]}
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    for row in rows:
        print(row)


def measure(root: Path, images: int) -> Iterator[dict[str, Any]]:
    """A row per format for a task of classes, and one per other task for ``maps``."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        as_it_is, corrected = (
            discovered(root, place / name, images, name == "corrected") for name in ("plain", "corrected")
        )
        tasks = open_folder(as_it_is).tasks
        with_classes = [name for name, task in tasks.items() if task.class_names()]
        for format in FORMATS:
            for task in with_classes[:1]:
                yield {"data": root.name} | round_trip(format, task, as_it_is, corrected, place)
        for task in tasks:
            if task not in with_classes:
                yield {"data": root.name} | round_trip(MAPS, task, as_it_is, corrected, place)


def discovered(root: Path, out: Path, images: int, corrected: bool) -> Path:
    """A copy of a folder whose labels pass for discovered ones, with a box of each corrected or not."""
    index = open_folder(root)
    ids = [id for id in index.images if all(id in files for files in index.labels.values())][:images]
    rows = []
    for number, id in enumerate(ids):
        copy(index.images[id].path, out / "images" / id)
        for name, task in index.tasks.items():
            copy(index.labels[name][id].path, out / name / id)
            value, valid = index.labels[name][id].read()
            if corrected:
                box = tuple(slice(side // SIDE, 2 * side // SIDE) for side in valid.shape)
                valid = valid.copy()
                if task.class_names() and number % 2:
                    value[:, *box] = number % len(task.class_names() or ())
                    valid[box] = True
                else:
                    valid[box] = False
                for old in (out / name / id).parent.glob(f"{(out / name / id).name}.*"):
                    old.unlink()
                task.write(out / name / f"{id}.png", value, valid)
            confidence = np.random.default_rng(number).integers(0, 256, valid.shape, dtype=np.uint8)
            write_png(out / "confidence" / name / f"{id}.png", confidence)
            mean = round(float(confidence.mean()) / 255, 4)
            rows.append(ProvenanceRow(id, name, "discovered", "benchmark", confidence=mean))
    tasks = {name: task.spec() for name, task in index.tasks.items()}
    (out / "dataset.yaml").write_text(dump_yaml({"name": root.name, "tasks": tasks}))
    assert yaml.safe_load((out / "dataset.yaml").read_text())
    write_provenance(out, rows)
    return out


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target.with_name(target.name + source.suffix))


def round_trip(format: str, task: str, as_it_is: Path, corrected: Path, place: Path) -> dict[str, Any]:
    """Export, import unchanged, import corrected, and open as a data set."""
    plain, changed = place / "plain.zip", place / "corrected.zip"
    begin = time.perf_counter()
    labels = export_labels(as_it_is, format, plain, task=task, images=False, overwrite=True, quiet=True).labels
    export_seconds = (time.perf_counter() - begin) / labels
    size = plain.stat().st_size / labels / 1e6
    export_labels(corrected, format, changed, task=task, images=True, overwrite=True, quiet=True)
    answer(format, plain, task, as_it_is), answer(format, changed, task, as_it_is)

    target = place / "target"
    before = files(as_it_is, task)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(as_it_is, target)
    begin = time.perf_counter()
    accepted = import_labels(target, plain, format, task, quiet=True)
    import_seconds = (time.perf_counter() - begin) / labels
    unchanged = {each.outcome for each in accepted.labels} == {"accepted"} and files(target, task) == before

    import_labels(target, changed, format, task, quiet=True)
    same = same_labels(target, corrected, as_it_is if format == MAPS else corrected, task)
    opened = True if format == MAPS else opens_the_same(format, changed, corrected, task, place / "unpacked")
    return {
        "what": "format",
        "task": task,
        "format": format,
        "labels": labels,
        "round_trip_identical": unchanged and same and opened,
        "export_seconds": round(export_seconds, 4),
        "import_seconds": round(import_seconds, 4),
        "mb": round(size, 4),
    }


def answer(format: str, path: Path, task: str, folder: Path) -> None:
    """What a person adds in tools that ask for it: an annotation in Label Studio, a word in the table of maps."""
    if format not in ("label_studio", MAPS):
        return
    old = {name: zipfile.ZipFile(path).read(name) for name in zipfile.ZipFile(path).namelist()}
    if format == MAPS:
        word = "accept" if "plain" in path.name else "mask"
        header, *lines = old["decisions.csv"].decode().splitlines()
        cells = [line.split(",") for line in lines]
        old["decisions.csv"] = "\n".join([header, *(",".join([*c[:2], word, *c[3:]]) for c in cells)]).encode()
        # A person masks the label as it is: the values are those of the folder.
        old = {name: content for name, content in old.items() if not name.startswith(f"{task}/")}
    else:
        tasks = json.loads(old["tasks.json"])
        for each in tasks:
            each["annotations"] = [{"result": each["predictions"][0]["result"]}]
        old["tasks.json"] = json.dumps(tasks).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in old.items():
            out.writestr(name, content)


def files(folder: Path, task: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / task).rglob("*") if path.is_file()}


def same_labels(found: Path, corrected: Path, values: Path, task: str) -> bool:
    """Whether labels are void where the corrected ones are, and elsewhere have the values of a third folder."""
    a, b, c = (labels_of(folder, task) for folder in (found, corrected, values))
    return a.keys() == b.keys() and all(identical(a[id].read(), (c[id].read()[0], b[id].read()[1])) for id in a)


def labels_of(folder: Path, task: str) -> dict[str, Any]:
    index = open_folder(folder)
    found = index.discovered.get(task, {})
    return dict(index.labels[task]) | {id: each.label for id, each in found.items()}


def identical(a: tuple[Any, Any], b: tuple[Any, Any]) -> bool:
    return np.array_equal(a[1], b[1]) and np.array_equal(np.where(a[1], a[0], 0), np.where(b[1], b[0], 0))


def opens_the_same(format: str, path: Path, folder: Path, task: str, place: Path) -> bool:
    """Whether the zip, unpacked, is a data set of its format with the labels of the folder."""
    shutil.rmtree(place, ignore_errors=True)
    zipfile.ZipFile(path).extractall(place)
    index = source_settings({"kind": format, "root": place, "task": task}).open_index((1, 1))
    expected = labels_of(folder, task)
    names = open_folder(folder).tasks[task].class_names() or ()
    own = index.tasks[task].class_names() or ()
    numbers = np.array([names.index(name) for name in own])
    for id, label in index.labels[task].items():
        value, valid = label.read()
        known = next(known for known in expected if id.endswith(known))
        if not identical((numbers[value], valid), expected[known].read()):
            return False
    return len(index.labels[task]) == len(expected)


if __name__ == "__main__":
    main()
