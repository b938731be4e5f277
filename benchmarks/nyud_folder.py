"""Turn NYU Depth v2 as JPEG images, 8-bit depth and 40-class labels into a folder data set with three tasks.

The source holds ``image/{id}.jpg``, ``depth/{id}.png`` (8 bit, metres = (v + 0.5) / 25.5), ``semseg40/{id}.png``
(0 = void, 1..40 = the classes), all at 288 x 384, and ``train.txt`` and ``test.txt`` with one id a line.

The result holds ``images/`` (the same bytes), ``semseg/`` (the 13 classes from 0, 255 = void), ``depth/`` (16 bit,
millimetres, 0 = invalid), ``normals/`` (8-bit RGB, n = 2v/255 - 1, x right, y down, z forward, facing the camera;
(128, 128, 128) = void), the two lists and ``dataset.yaml``. The normals are computed from the depth: they are not the
published ones. With ``--split-csv`` it also holds ``labels_one.csv``: which image of the training list has which label.

    python benchmarks/nyud_folder.py --source nyuv2 --split-csv nyud_one_label.csv --out nyud
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from tasktokens.data.geometry import Camera, dequantise_depth, normals_from_depth
from tasktokens.errors import DataError, RunExistsError

SIZE = (384, 288)
"""Width and height of every picture."""
CAMERA = Camera(fx=518.858, fy=519.470, cx=325.582, cy=253.736).scaled(SIZE[0] / 640, SIZE[1] / 480)
"""The published camera of the 640 x 480 pictures, scaled to these."""
DEPTH_STEPS_PER_METRE = 25.5
HALF_WINDOW = 6
"""Pixels. Against the published normals of image 433 the median error is 3.9, 4.5 and 5.7 degrees with 5, 6 and 7; on
synthetic planes with noise a larger window is better: 6 is between."""

FORTY_TO_THIRTEEN = (
    *(12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5),
    *(7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 7, 7, 6, 7),
)
"""The 13 classes, counted from 1, of the 40 classes in their published order."""
VOID = 255
CLASS_TABLE = np.full(256, VOID, np.uint8)
CLASS_TABLE[1:41] = np.array(FORTY_TO_THIRTEEN, np.uint8) - 1

TASKS = ("semseg", "depth", "normals")
DESCRIPTION = """\
name: nyud
images: images
splits: {train: train.txt, test: test.txt}
tasks:
  semseg:
    kind: classes
    classes: [bed, books, ceiling, chair, floor, furniture, objects, picture, sofa, table, tv, wall, window]
    void: [255]
  depth: {kind: depth, scale: 0.001, range: [0.67, 10.0]}
  normals: {kind: normals}
"""


def encode_normals(normals: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return (H, W, 3) unit normals, -1..1, as 8 bit: v = (n + 1) * 127.5; (0, 0, 0) becomes (128, 128, 128)."""
    levels: NDArray[np.uint8] = np.rint((normals + 1) * 127.5).astype(np.uint8)
    return levels


def convert_image(source: Path, out: Path, name: str) -> None:
    """Write the picture and the three labels of one id.

    Raises:
        DataError: a file has another size or type than described above, or a class above 40.
    """
    depth_steps = _read_8bit(source / "depth" / f"{name}.png")
    classes = _read_8bit(source / "semseg40" / f"{name}.png")
    if classes.max() > 40:
        raise DataError(f"expected classes 0..40, found {classes.max()} in {source}/semseg40/{name}.png")
    metres = (depth_steps + 0.5) / DEPTH_STEPS_PER_METRE
    normals = normals_from_depth(dequantise_depth(metres, 1 / DEPTH_STEPS_PER_METRE), CAMERA, half_window=HALF_WINDOW)

    shutil.copyfile(source / "image" / f"{name}.jpg", out / "images" / f"{name}.jpg")
    Image.fromarray(CLASS_TABLE[classes]).save(out / "semseg" / f"{name}.png")
    Image.fromarray(np.rint(metres * 1000).astype(np.uint16)).save(out / "depth" / f"{name}.png")
    Image.fromarray(encode_normals(normals)).save(out / "normals" / f"{name}.png")


def _read_8bit(path: Path) -> NDArray[np.uint8]:
    """Read a single-channel 8-bit picture of ``SIZE`` as (H, W)."""
    with Image.open(path) as image:
        if image.mode not in ("L", "P") or image.size != SIZE:
            raise DataError(f"expected 8 bit, one channel, {SIZE}; found {image.mode}, {image.size} in {path}")
        pixels: NDArray[np.uint8] = np.asarray(image, dtype=np.uint8)
        return pixels


def read_list(path: Path) -> list[str]:
    """Return the ids of a list file, one a line, blank lines left out."""
    return path.read_text(encoding="utf-8").split()


def write_given_labels(split_csv: Path, train: list[str], out: Path) -> None:
    """Translate a split by position in the training list into one by id.

    ``split_csv`` has the columns index, semseg, depth, normals (0/1); ``out`` gets id in place of index.

    Raises:
        DataError: the rows are not exactly the positions 0 .. len(train) - 1.
    """
    with split_csv.open(newline="", encoding="utf-8") as file:
        rows = {int(row["index"]): row for row in csv.DictReader(file)}
    if sorted(rows) != list(range(len(train))):
        raise DataError(f"expected the indices 0..{len(train) - 1}, found {len(rows)} other rows in {split_csv}")
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", *TASKS))
        for index, name in enumerate(train):
            writer.writerow((name, *(rows[index][task] for task in TASKS)))


def build(source: Path, out: Path, split_csv: Path | None, processes: int) -> None:
    """Build the whole folder beside ``out`` and give it its name when it is complete.

    Raises:
        RunExistsError: ``out`` exists and is not empty.
        DataError: the source is incomplete or a file of it is not as described.
    """
    if out.exists() and any(out.iterdir()):
        raise RunExistsError(f"expected a new or empty folder, found files in {out}: remove it or choose another --out")
    lists = {split: read_list(source / f"{split}.txt") for split in ("train", "test")}
    names = lists["train"] + lists["test"]

    partial_out = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        for folder in ("images", *TASKS):
            (partial_out / folder).mkdir(parents=True)
        with ProcessPoolExecutor(processes) as pool:
            done = pool.map(partial(convert_image, source, partial_out), names, chunksize=8)
            for _ in track(done, "images", total=len(names)):
                pass
        for split in lists:
            (partial_out / f"{split}.txt").write_text("\n".join(lists[split]) + "\n", encoding="utf-8")
        if split_csv is not None:
            write_given_labels(split_csv, lists["train"], partial_out / "labels_one.csv")
        (partial_out / "dataset.yaml").write_text(DESCRIPTION, encoding="utf-8")
        if out.exists():
            out.rmdir()
        partial_out.rename(out)
    finally:
        shutil.rmtree(partial_out, ignore_errors=True)


def main() -> int:
    """Read the command line, build the folder, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with image/, depth/, semseg40/ and lists")
    parser.add_argument("--out", type=Path, required=True, help="new folder to write")
    parser.add_argument("--split-csv", type=Path, help="published split by position: index,semseg,depth,normals")
    parser.add_argument("--processes", type=int, default=2, help="processes to run (default 2)")
    arguments = parser.parse_args()
    try:
        build(arguments.source, arguments.out, arguments.split_csv, arguments.processes)
    except (DataError, RunExistsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
