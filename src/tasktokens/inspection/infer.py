"""Guess the description of a data folder from what lies in it; each guess says what it saw."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from tasktokens.data.ids import read_ids
from tasktokens.datasets.folder import ARRAY_ENDINGS, IMAGE_ENDINGS, LABEL_ENDINGS, list_files
from tasktokens.datasets.index import read_image
from tasktokens.datasets.upright import UPRIGHT
from tasktokens.errors import DataError, TaskTokensError
from tasktokens.inspection.scan import FolderScan, scan_files, some
from tasktokens.tasks import build_task
from tasktokens.tasks.directions import FACING_SHARE, frames


@dataclass(frozen=True)
class InferredTask:
    """A task: its name, its settings in ``dataset.yaml``, its files that belong to an image, and what was seen."""

    name: str
    spec: dict[str, Any]
    files: int
    saw: str


@dataclass
class InferredFolder:
    """What a folder seems to hold. ``left_out`` gives, by folder or file, why it is not used."""

    images: str
    count: int
    tasks: list[InferredTask] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def infer_folder(root: Path) -> InferredFolder:
    """Look at a folder and up to 20 files of each folder in it. Raises `DataError` where there are no images."""
    folders = [path.name for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    images_folder = _images_folder(root, folders)
    images = list_files(root / images_folder, IMAGE_ENDINGS + ARRAY_ENDINGS)
    guess = InferredFolder(images_folder, len(images))
    for folder in folders:
        if folder in (images_folder, "confidence", "pictures"):  # the last two are what predict and discover write
            continue
        _add_tasks(guess, root, folder, images)
    _add_splits(guess, root, images)
    return guess


# -- the images --------------------------------------------------------------------------------------------------------
def _images_folder(root: Path, folders: Sequence[str]) -> str:
    """``images``, else the folder with the most photographs."""
    if "images" in folders and list_files(root / "images", IMAGE_ENDINGS + ARRAY_ENDINGS):
        return "images"
    photographs: dict[str, float] = {}
    for folder in folders:
        files = list(list_files(root / folder, IMAGE_ENDINGS).values())
        chosen = some(files) if files else []
        photographs[folder] = len(files) * sum(map(_is_photograph, chosen)) / max(len(chosen), 1)
    if not any(photographs.values()):
        raise DataError(
            f"no folder of photographs in {root} (folders: {', '.join(folders) or 'none'}); put the images into "
            f"{root / 'images'}, and the labels of each task into a folder of its own"
        )
    return max(photographs, key=lambda folder: photographs[folder])


def _is_photograph(path: Path) -> bool:
    """RGB with many colours that are no unit vectors."""
    try:
        read_image(path)
    except DataError:
        return False
    look = scan_files([(path, path)], "")
    return look.channels == 3 and look.unit < 0.9 and (look.colours is None or len(look.colours) > 64)


# -- the tasks ---------------------------------------------------------------------------------------------------------
def _add_tasks(guess: InferredFolder, root: Path, folder: str, images: Mapping[str, Path]) -> None:
    """The task of a folder, or of the folders in it: ``labels/depth``."""
    try:
        files = list_files(root / folder, LABEL_ENDINGS)
    except DataError as error:
        guess.left_out[folder] = str(error)
        return
    matching = {id: path for id, path in files.items() if id in images}
    inner = [path.name for path in sorted((root / folder).iterdir()) if path.is_dir() and path.name[0] != "."]
    if not matching and inner and "/" not in folder:
        for name in inner:
            _add_tasks(guess, root, f"{folder}/{name}", images)
        return
    if not matching:
        guess.left_out[folder] = f"none of its {len(files)} label files has the name of an image"
        return
    name = task_name(folder.split("/")[-1], [task.name for task in guess.tasks])
    chosen = some(list(matching.values()))
    image_of = {path: images[id] for id, path in matching.items()}
    look = scan_files([(path, image_of[path]) for path in chosen], name)
    try:
        spec, saw = infer_kind(folder, look)
        if look.other_size and not look.other_shape:
            spec["resize"] = True
            saw += f"; {look.other_size} of them have another size than their image"
        task = build_task(name, {key: value for key, value in spec.items() if key != "resize"})
        for path in chosen:
            if not any(str(path) in text for text in look.unreadable):
                task.read(path)
    except TaskTokensError as error:
        guess.left_out[folder] = str(error)
        return
    if look.transparent:
        saw += f"; {look.transparent:.0%} of the pixels are transparent, hence void"
    if look.unreadable:
        saw += f"; {len(look.unreadable)} could not be read: {look.unreadable[0]}"
    if look.other_shape:
        saw += f"; {look.other_shape} of them do not have the shape of their image: crop them"
    if look.turned:
        saw += (
            f"; {look.turned} of their images have an EXIF orientation, which is not applied: turn them with {UPRIGHT}"
        )
    spec |= {} if name == folder else {"folder": folder}
    guess.tasks.append(InferredTask(name, spec, len(matching), f"{look.files} of {len(matching)} files: {saw}"))


def task_name(folder: str, taken: Sequence[str]) -> str:
    """A name that a task can have: ``1-depth`` becomes ``task_1_depth``."""
    name = re.sub(r"\W", "_", folder, flags=re.ASCII)
    if not re.match(r"[A-Za-z]", name) or hasattr(nn.ModuleDict, name):
        name = f"task_{name}"
    while name in taken:
        name += "_2"
    return name


_EDGE = re.compile(r"edge|boundar|contour", re.IGNORECASE)
_SALIENCY = re.compile(r"salien", re.IGNORECASE)
_BINARY = re.compile(r"mask|binary|foreground|\bfg\b|matte|silhouette", re.IGNORECASE)
_DEPTH = re.compile(r"depth|distance", re.IGNORECASE)
_DISPARITY = re.compile(r"dispar|inverse|inv_?depth", re.IGNORECASE)


def infer_kind(name: str, look: FolderScan) -> tuple[dict[str, Any], str]:
    """The settings of a task and the words for what speaks for them. Raises `DataError` where nothing fits."""
    if not look.files:
        raise DataError(f"none of its files can be read: {look.unreadable[0]}")
    if not look.channels:
        raise DataError("its files have neither one nor three channels, or differ in that")
    if look.channels == 3:
        return _of_three_channels(name, look)
    values = set(look.values) if look.values is not None else None
    probability = "edge" if _EDGE.search(name) else "saliency" if _SALIENCY.search(name) else "binary"
    named = probability != "binary" or bool(_BINARY.search(name))
    if (_DEPTH.search(name) or _DISPARITY.search(name)) and look.dtype not in ("uint8", "bool") and look.least >= 0:
        return _depth(name, look)
    if values is not None and not look.palette and (look.dtype == "bool" or values in ({0, 255}, {0, 65535}, {255})):
        return {"kind": probability}, f"two values, {_range(look)}"
    if look.greys and not look.palette and look.dtype == "uint8":
        return {"kind": probability}, f"palettes of two greys, {_range(look)}"
    if named and values is not None and values <= {0, 1, 255}:
        return {"kind": probability, "white": 1} | ({"void": [255]} if 255 in values else {}), "values of 0 and 1"
    if named and (look.dtype in ("uint8", "uint16") or 0 <= look.least <= look.most <= 1):
        return {"kind": probability}, f"{look.dtype}, {_range(look)}; taken as a probability by its name"
    if look.jpeg and _nearly_two_valued(look):
        return {"kind": probability}, "JPEG, nearly all pixels near 0 or 255"
    if values is not None and (len(values) <= 32 or look.flat > 0.8):
        if look.jpeg:
            raise DataError("JPEG files of what seem to be class ids, which compression has changed; export PNG files")
        return _classes(look, sorted(values))
    void = {"void": list(look.marks)} if look.marks else {}
    spec = {"kind": "regression", "range": _round_range(look.least, look.most)} | void
    advice = "set its unit, and scale where a stored 1 is not 1 of the unit"
    if _DEPTH.search(name):
        advice = "8 bits tell no unit; for metres write kind: depth with the scale and the range in metres"
    return spec, f"{look.dtype}, {_range(look)}; {advice}"


def _of_three_channels(name: str, look: FolderScan) -> tuple[dict[str, Any], str]:
    if look.unit > 0.9:
        saw = f"three channels, {look.unit:.0%} of the vectors of length 1, mean z {look.mean_z:+.2f}"
        if "norm" not in name.lower() and look.one_sided < 0.9:
            return {"kind": "vectors"}, f"{saw}, z of both signs; set flip if a mirrored picture does not negate x"
        saw += f", mean y {look.mean_y_below:+.2f} in the lower third (ours: z and the y of floors are negative)"
        frame = ["x", "-y" if look.mean_y_below > 0.05 else "y", "-z" if look.mean_z > 0 else "z"]
        if look.facing is not None and look.facing.max() >= FACING_SHARE:
            frame = list(frames()[int(look.facing.argmax())])
            saw += f"; {look.facing.max():.0%} face the camera in this frame"
        return {"kind": "normals"} | ({"frame": frame} if frame != ["x", "y", "z"] else {}), saw
    if look.colours is None or len(look.colours) > 64:
        raise DataError("three channels that are no unit vectors, and more than 64 colours: pictures, no labels")
    if look.jpeg:
        raise DataError("JPEG files of what seem to be colour-coded classes, which compression has changed; export PNG")
    colours = {f"class_{i}": list(colour) for i, colour in enumerate(sorted(look.colours))}
    return {"kind": "classes", "colours": colours}, f"{len(colours)} colours; one that was not seen will be an error"


def _depth(name: str, look: FolderScan) -> tuple[dict[str, Any], str]:
    spec, saw = _depth_range(name, look)
    if look.marks:
        spec["void"] = list(look.marks)
        saw += f"; {', '.join(f'{mark:.10g}' for mark in look.marks)} taken as no measurement"
    return spec, saw


def _depth_range(name: str, look: FolderScan) -> tuple[dict[str, Any], str]:
    saw = f"{look.dtype}, {_range(look)}, half of the pixels below {look.middle:g}"
    whole = look.dtype.startswith(("uint", "int"))
    if _DISPARITY.search(name):
        scale = 1 / 65535 if whole else 1
        spec = {"kind": "depth", "inverse": True, "range": _round_range(look.low * scale, look.high * scale)}
        return spec, f"{saw}; inverse depth by its name" + (", in units of 1/65535" if whole else "")
    if not whole:
        advice = "; floats are read as metres, these look like millimetres: divide them" if look.middle > 100 else ""
        return {"kind": "depth", "range": _round_range(look.low, look.high)}, saw + advice
    scale = 0.001 if look.middle > 100 else 1.0
    spec = {"kind": "depth", "scale": scale, "range": _round_range(look.low * scale, look.high * scale)}
    unit = "looks like millimetres (scale: 0.00390625 if it is metres x 256)" if scale < 1 else "looks like metres"
    return spec, f"{saw}; {unit}"


def _classes(look: FolderScan, values: Sequence[int]) -> tuple[dict[str, Any], str]:
    void = [value for value in values if value < 0 or value in (255, 65535)]
    ids = [value for value in values if value not in void] or [0]
    saw = f"{'palette' if look.palette else look.dtype}, ids {_some(values)}"
    if ids[-1] > 255 or (len(ids) <= 12 and ids[-1] >= 10 * len(ids)):
        if len(ids) > 256:
            raise DataError(
                f"{len(ids)} different values, and neighbours that are equal: ids of things, not of classes"
            )
        spec = {"kind": "classes", "classes": [f"class_{id}" for id in ids], "ids": {id: i for i, id in enumerate(ids)}}
    else:
        spec = {"kind": "classes", "classes": [f"class_{id}" for id in range(ids[-1] + 1)]}
    advice = "write the names; an id that was not seen is an error until it has one; void: [0] if 0 means no label"
    return spec | {"void": void or [255]}, f"{saw}; {advice}"


def _nearly_two_valued(look: FolderScan) -> bool:
    counts = look.values or {}
    return sum(n for value, n in counts.items() if value <= 16 or value >= 239) > 0.95 * sum(counts.values())


def _range(look: FolderScan) -> str:
    return f"{look.least:g} to {look.most:g}"


def _some(values: Sequence[int]) -> str:
    shown = [str(value) for value in values]
    return ", ".join(shown if len(shown) <= 12 else [*shown[:10], "…", shown[-1]])


def _round_range(low: float, high: float) -> list[float]:
    """A little wider, to three digits, so that it can be read; never empty."""
    if not low < high:
        low, high = low - abs(low) / 10 - (low == 0), high + abs(high) / 10 + (high == 0)

    def outward(value: float, up: bool) -> float:
        if value == 0:
            return 0.0
        step = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
        return float(f"{(math.ceil(value / step - 1e-9) if up else math.floor(value / step + 1e-9)) * step:.6g}")

    return [outward(low, up=False), outward(high, up=True)]


# -- the splits --------------------------------------------------------------------------------------------------------
_SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


def _add_splits(guess: InferredFolder, root: Path, images: Mapping[str, Path]) -> None:
    """Lists in text files, else folders below the images."""
    for split, words in _SPLITS.items():
        for word in words:
            file = next((f for f in (f"{word}.txt", f"splits/{word}.txt") if (root / f).is_file()), None)
            if file is None or split in guess.splits:
                continue
            try:
                if read_ids(root / file, images):
                    guess.splits[split] = file
            except DataError as error:
                guess.left_out[file] = str(error)
    if not guess.splits:
        above = {id.split("/")[0] for id in images if "/" in id}
        found = {split: f"{word}/" for split, words in _SPLITS.items() for word in words if word in above}
        guess.splits = found if "train" in found else {}
