"""Rooms as a folder on disk: rendered in parallel, written at once or not at all, cached."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasktokens.datasets.rooms.names import FAR, HUMAN_PARTS, NEAR, RENDER_VERSION, ROOMS_CLASSES, SPLITS
from tasktokens.datasets.rooms.render import render_room
from tasktokens.errors import DataError, RunExistsError
from tasktokens.utils.atomic import cache_folder
from tasktokens.utils.processes import process_map
from tasktokens.utils.progress import Step, bar

SCENES = 1_000_000
"""Scenes that a data set's seed owns in each split."""

MAPS = ("images", "semseg", "depth", "normals", "edge", "saliency", "human_parts")
"""Folders of a rendered data set."""


def rooms_folder(counts: Mapping[str, int], height: int, width: int, seed: int = 0, progress: bool = True) -> Path:
    """Return the cached folder of such a data set (see ``write_rooms``), rendered on first use.

    It lies under ``$TASKTOKENS_CACHE``, ``$XDG_CACHE_HOME`` or ``~/.cache``, in ``tasktokens/rooms``. Two processes
    that ask at once both render; the first to finish is used by both.
    """
    sizes = "-".join(f"{split}{number}" for split, number in _checked(counts).items())
    name = f"v{RENDER_VERSION}-{height}x{width}-s{seed}-{sizes}"
    folder = cache_folder("rooms") / name
    if not (folder / "dataset.yaml").is_file():
        try:
            write_rooms(folder, counts, height, width, seed, progress=progress)
        except RunExistsError:
            if not (folder / "dataset.yaml").is_file():
                raise DataError(f"the cached data set {folder} has lost its dataset.yaml; delete the folder") from None
    return folder


def write_rooms(
    out: Path,
    counts: Mapping[str, int],
    height: int,
    width: int,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Render a data set into the new folder ``out`` and return it.

    ``counts``: images of each split, as ``{"train": 600, "val": 120}``. Image i (from 1) of a split, named
    ``train_00001``, is ``render_room(seed * 1_000_000 + i, height, width, split)``. Written are ``images``, ``semseg``
    (class, 255 void), ``depth`` (16 bit, millimetres, 0 invalid), ``normals`` (n = 2v/255 - 1, grey 128 void), ``edge``
    and ``saliency`` (0/255), ``human_parts`` (absent where nobody is seen), one list per split, and ``dataset.yaml``.
    ``workers``: processes, by default one per core (one for few images); ``progress``: a bar on standard error.
    The folder appears only when all is in it; an interrupted call leaves nothing. Raises ``RunExistsError`` where
    ``out`` is not empty.
    """
    out, counts = Path(out), _checked(counts)
    if not 0 <= seed < 2**32:
        raise DataError(f"seed must be between 0 and 2**32 - 1, found {seed}")
    _refuse(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        for name in MAPS:
            (unfinished / name).mkdir(parents=True)
        jobs = [(split, number) for split, count in counts.items() for number in range(1, count + 1)]
        with bar(len(jobs), progress) as step:
            _render_all(unfinished, jobs, height, width, seed, workers, step)
        for split, count in counts.items():
            lines = [f"{split}_{number:05d}\n" for number in range(1, count + 1)]
            (unfinished / f"{split}.txt").write_text("".join(lines), encoding="ascii", newline="\n")
        (unfinished / "dataset.yaml").write_text(
            _description(counts, height, width, seed), encoding="ascii", newline="\n"
        )
        try:
            with contextlib.suppress(FileNotFoundError):
                out.rmdir()  # empty: not every system renames onto an empty folder
            unfinished.rename(out)
        except OSError:
            _refuse(out)  # somebody else was faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out


def _checked(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the splits that have images, in their usual order."""
    for split, count in counts.items():
        if split not in SPLITS or not 0 <= count < SCENES:
            raise DataError(
                f"counts must give {', '.join(SPLITS)} 0 to {SCENES - 1} images each, found {split}: {count}"
            )
    if not any(counts.values()):
        raise DataError(f"counts must ask for at least one image, found {dict(counts)}")
    return {split: counts[split] for split in SPLITS if counts.get(split)}


def _refuse(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunExistsError(f"{out} is not empty: name a new folder for the rooms, or delete this one first")


def _description(counts: Mapping[str, int], height: int, width: int, seed: int) -> str:
    return f"""\
# Rendered indoor scenes: {height} x {width}, seed {seed}, render version {RENDER_VERSION}.
name: rooms
images: images
splits: {{{", ".join(f"{split}: {split}.txt" for split in counts)}}}
tasks:
  semseg: {{kind: classes, classes: [{", ".join(ROOMS_CLASSES)}], void: [255]}}
  depth: {{kind: depth, scale: 0.001, range: [{NEAR}, {FAR}]}}
  normals: {{kind: normals}}
  edge: {{kind: edge}}
  saliency: {{kind: saliency}}
  human_parts: {{kind: classes, classes: [{", ".join(HUMAN_PARTS)}], void: [255]}}
"""


def _write_room(folder: Path, height: int, width: int, seed: int, job: tuple[str, int]) -> None:
    """Render one image and write its files."""
    split, number = job
    room = render_room(seed * SCENES + number, height, width, split)
    maps: dict[str, npt.NDArray[Any]] = {
        "images": room["image"],
        "semseg": room["semseg"],
        "depth": np.floor(room["depth"].astype(np.float64) * 1000.0 + 0.5).astype(np.uint16),
        "normals": np.floor((room["normals"].astype(np.float64) + 1.0) * 127.5 + 0.5).astype(np.uint8),
        "edge": (room["edge"] * np.uint8(255)).astype(np.uint8),
        "saliency": (room["saliency"] * np.uint8(255)).astype(np.uint8),
    }
    if "human_parts" in room:
        maps["human_parts"] = room["human_parts"]
    for name, pixels in maps.items():
        Image.fromarray(pixels).save(folder / name / f"{split}_{number:05d}.png", compress_level=4)


def _render_all(
    folder: Path, jobs: list[tuple[str, int]], height: int, width: int, seed: int, workers: int | None, step: Step
) -> None:
    write = partial(_write_room, folder, height, width, seed)
    with contextlib.closing(process_map(write, jobs, workers)) as done:
        for _ in done:
            step()
