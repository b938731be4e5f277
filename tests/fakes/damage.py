"""Every kind of damage that `tasktokens check` must name, planted in a folder of `conftest.write_folder`.

Each function damages the folder in one way; `FILES` spoil a file each and can all be planted in one folder, `WHOLE`
spoil a task or the lists. The values say what must be reported.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]


class Damage(NamedTuple):
    """How to plant it, and the finding that must name it."""

    plant: Callable[[Path], None]
    code: str
    severity: str
    task: str | None = None
    id: str | None = None


def load(path: Path) -> Array:
    """A picture as stored."""
    return np.asarray(Image.open(path))


def save(path: Path, array: Array) -> None:
    """Write a picture, or an npy in place of the picture of that name."""
    if path.suffix == ".npy":
        path.with_suffix(".png").unlink(missing_ok=True)
        np.save(path, array)
    else:
        Image.fromarray(np.ascontiguousarray(array)).save(path)


def write(name: str, content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Change the bytes of a file."""
    return lambda root: (root / name).write_bytes(content((root / name).read_bytes())) and None


def change(name: str, new: str, values: Callable[[Array], Array]) -> Callable[[Path], None]:
    """Change the pixels of a file, perhaps under another ending."""
    return lambda root: save(root / new, values(load(root / name)))


def change_all(task: str, ending: str, values: Callable[[Array], Array]) -> Callable[[Path], None]:
    """Change the pixels of every label of a task."""

    def plant(root: Path) -> None:
        for path in sorted((root / task).glob("*.png")):
            save(path.with_suffix(ending), values(load(path)))

    return plant


def replace_text(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Change a text file."""
    return lambda root: (root / name).write_text((root / name).read_text().replace(old, new, 1)) and None


def copy(source: str, target: str) -> Callable[[Path], None]:
    """The same bytes under another name."""
    return lambda root: shutil.copy(root / source, root / target) and None


def _object_array(root: Path) -> None:
    """An npy that would execute code if it were unpickled."""
    (root / "depth" / "im06.png").unlink()
    header = {"descr": "|O", "fortran_order": False, "shape": (1,)}
    with (root / "depth" / "im06.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        pickle.dump([print], file)


def _tiny(root: Path) -> None:
    save(root / "images" / "im19.png", load(root / "images" / "im19.png")[:5, :7])
    for task in ("semseg", "depth", "normals", "edge", "saliency"):
        (root / task / "im19.png").unlink()


def _unit(colours: Array) -> Array:
    vectors = colours.astype(np.float32) * np.float32(2 / 255) - 1
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Array = np.where(length > 0.5, vectors / length.clip(0.5), 0).astype(np.float32)
    return unit


def _floors(sign: float) -> Callable[[Array], Array]:
    """Walls that face the camera above a floor, whose y has this sign."""

    def draw(colours: Array) -> Array:
        vectors = np.zeros(colours.shape, np.float32)
        vectors[..., 2] = -1
        vectors[len(vectors) // 2 :] = [0, sign * 0.9, -np.sqrt(1 - 0.81)]
        return vectors

    return draw


def _far_below(depth: Array) -> Array:
    """What looks like disparity: larger towards the bottom."""
    rows = np.linspace(1, 60, len(depth), dtype=np.float32)
    return np.broadcast_to(rows[:, None], depth.shape).copy()


def _only(classes: range) -> Callable[[Array], Array]:
    return lambda ids: np.where(np.isin(ids, [*classes, 255]), ids, np.uint8(0))


def _without_split_labels(root: Path) -> None:
    for id in (root / "test.txt").read_text().split():
        (root / "depth" / f"{id}.png").unlink()


FILES: dict[str, Damage] = {
    "truncated image": Damage(write("images/im00.png", lambda b: b[:100]), "unreadable", "error", None, "im00"),
    "empty image": Damage(write("images/im01.png", lambda b: b""), "unreadable", "error", None, "im01"),
    "text as image": Damage(write("images/im02.png", lambda b: b"a letter"), "unreadable", "error", None, "im02"),
    "truncated label": Damage(write("semseg/im03.png", lambda b: b[:60]), "unreadable", "error", "semseg", "im03"),
    "garbage label": Damage(write("edge/im04.png", lambda b: b"garbage"), "unreadable", "error", "edge", "im04"),
    "broken checksum": Damage(
        write("depth/im05.png", lambda b: b[:-20] + bytes(255 - v for v in b[-20:])),
        "unreadable",
        "error",
        "depth",
        "im05",
    ),
    "pickled npy": Damage(_object_array, "unreadable", "error", "depth", "im06"),
    "label of another size": Damage(
        change("semseg/im07.png", "semseg/im07.png", lambda a: a[:-3]), "size-mismatch", "error", "semseg", "im07"
    ),
    "transposed label": Damage(
        change("depth/im08.png", "depth/im08.png", lambda a: a.T), "size-mismatch", "error", "depth", "im08"
    ),
    "class id too large": Damage(
        change("semseg/im09.png", "semseg/im09.png", lambda a: a + (a == 1) * np.uint8(76)),
        "wrong-values",
        "error",
        "semseg",
        "im09",
    ),
    "float classes": Damage(
        change("semseg/im10.png", "semseg/im10.npy", lambda a: a / 2), "wrong-values", "error", "semseg", "im10"
    ),
    "negative depth": Damage(
        change("depth/im11.png", "depth/im11.npy", lambda a: -a.astype(np.float32)),
        "wrong-values",
        "error",
        "depth",
        "im11",
    ),
    "depth in three channels": Damage(
        change("depth/im12.png", "depth/im12.npy", lambda a: np.stack([a, a, 2 * a], -1).astype(np.float32)),
        "wrong-values",
        "error",
        "depth",
        "im12",
    ),
    "probability above 1": Damage(
        change("saliency/im13.png", "saliency/im13.npy", lambda a: a[..., 0].astype(np.float32)),
        "wrong-values",
        "error",
        "saliency",
        "im13",
    ),
    "grey normals": Damage(
        change("normals/im14.png", "normals/im14.png", lambda a: a[..., 0]), "wrong-values", "error", "normals", "im14"
    ),
    "all void": Damage(
        change("semseg/im15.png", "semseg/im15.png", lambda a: np.full_like(a, 255)),
        "all-void",
        "warning",
        "semseg",
        "im15",
    ),
    "all NaN": Damage(
        change("depth/im16.png", "depth/im16.npy", lambda a: np.full(a.shape, np.nan, np.float32)),
        "all-void",
        "warning",
        "depth",
        "im16",
    ),
    "constant image": Damage(
        change("images/im18.png", "images/im18.png", np.zeros_like), "image-constant", "warning", None, "im18"
    ),
    "tiny image": Damage(_tiny, "image-tiny", "warning", None, "im19"),
    "copy within a split": Damage(copy("images/im17.png", "images/im20.png"), "duplicate", "warning", None, "im20"),
    "copy between splits": Damage(
        copy("images/im21.png", "images/im24.png"), "duplicate-between-splits", "error", None, "im24"
    ),
    "label without image": Damage(copy("edge/im22.png", "edge/nowhere.png"), "label-without-image", "warning", "edge"),
    "image in no split": Damage(
        copy("images/im22.png", "images/loose.png"), "image-in-no-split", "warning", None, "loose"
    ),
    "image without label": Damage(
        copy("images/im23.png", "images/bare.png"), "image-without-label", "warning", None, "bare"
    ),
    "id in two splits": Damage(
        replace_text("test.txt", "im24", "im22\nim24"), "id-in-two-splits", "error", None, "im22"
    ),
    "id listed twice": Damage(replace_text("train.txt", "im23", "im23\nim23"), "listed-twice", "warning", None, "im23"),
}
"""Of a folder of 28 images, the first 24 for training."""

WHOLE: dict[str, Damage] = {
    "float millimetres": Damage(
        change_all("depth", ".npy", lambda a: a.astype(np.float32)), "looks-like-millimetres", "error", "depth"
    ),
    "wrong scale": Damage(
        replace_text("dataset.yaml", "kind: depth", "kind: depth\n    scale: 1.0"),
        "looks-like-millimetres",
        "error",
        "depth",
    ),
    "disparity": Damage(change_all("depth", ".npy", _far_below), "looks-like-disparity", "warning", "depth"),
    "decimetres": Damage(change_all("depth", ".png", lambda a: a // 100), "outside-range", "error", "depth"),
    "half unit normals": Damage(
        change_all("normals", ".npy", lambda a: 0.7 * _unit(a)), "not-unit-length", "error", "normals"
    ),
    "normals away": Damage(
        change_all("normals", ".npy", lambda a: _unit(a) * np.float32([1, 1, -1])), "normals-frame", "error", "normals"
    ),
    "normals y up": Damage(change_all("normals", ".npy", _floors(1.0)), "normals-frame", "warning", "normals"),
    "edges of 0 and 1": Damage(
        change_all("edge", ".png", lambda a: a[..., 0] // 255), "values-0-and-1", "error", "edge"
    ),
    "edges inverted": Damage(
        change_all("edge", ".png", lambda a: 255 - a[..., 0]), "looks-inverted", "warning", "edge"
    ),
    "nothing salient": Damage(
        change_all("saliency", ".png", lambda a: np.zeros_like(a[..., 0])), "one-sided", "error", "saliency"
    ),
    "class never seen": Damage(change_all("semseg", ".png", _only(range(3))), "class-never-seen", "warning", "semseg"),
    "mostly void": Damage(
        change_all("semseg", ".png", lambda a: np.where(np.arange(a.size).reshape(a.shape) % 50, np.uint8(255), a)),
        "mostly-void",
        "warning",
        "semseg",
    ),
    "no labels at all": Damage(lambda root: shutil.rmtree(root / "depth"), "task-without-labels", "error", "depth"),
    "no labels in a split": Damage(_without_split_labels, "split-without-labels", "warning", "depth"),
    "no images": Damage(lambda root: shutil.rmtree(root / "images"), "cannot-open", "error"),
    "unknown id in a split": Damage(replace_text("train.txt", "im00", "im99"), "cannot-open", "error"),
    "split file missing": Damage(lambda root: (root / "test.txt").unlink(), "cannot-open", "error"),
    "no description": Damage(lambda root: (root / "dataset.yaml").write_text("tasks: [x"), "cannot-open", "error"),
    "unknown kind": Damage(replace_text("dataset.yaml", "kind: depth", "kind: dept"), "cannot-open", "error"),
}
