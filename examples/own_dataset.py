"""A data set of your own, in files that no reader of ours knows: ``python examples/own_dataset.py``

A reader lists images and label files and says how to read each; nothing is decoded before it is needed. Here each
``scene{n}.npz`` holds an image, and perhaps a depth in centimetres and a mask of people.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from torch.utils.data import DataLoader

import tasktokens
from tasktokens.datasets.base import DATASETS, FolderOfFiles
from tasktokens.datasets.index import DatasetIndex, ImageFile, LabelFile
from tasktokens.errors import DataError
from tasktokens.tasks import build_task
from tasktokens.tasks.base import Array

TASKS = {
    "depth": build_task("depth", {"kind": "depth", "range": [0.5, 10]}),
    "person": build_task("person", {"kind": "binary"}),
}


def read_scene(path: Path) -> Array:
    """The image (H, W, 3) uint8."""
    image: Array = np.load(path)["image"]
    return image


def read_label(path: Path, name: str) -> tuple[Array, Array]:
    """The label (1, H, W) in the task's units and where it is valid (H, W)."""
    stored = np.load(path)[name]
    if name == "depth":
        return np.maximum(stored, 1).astype(np.float32)[None] / 100, stored > 0  # 0 cm: no measurement
    return (stored > 0).astype(np.float32)[None], np.ones(stored.shape, dtype=bool)


@DATASETS.register("scenes")  # from here on a configuration may say `data.kind: scenes`
class Scenes(FolderOfFiles):
    """Scenes in .npz files."""

    kind: Literal["scenes"] = "scenes"
    pattern: str = "scene*.npz"  # a setting of its own: data.pattern

    def open_index(self, size: tuple[int, int], progress: bool = False) -> DatasetIndex:
        """List the scenes. Raises `DataError` where there are none."""
        scenes = {path.stem: path for path in sorted(self.folder().glob(self.pattern))}
        if not scenes:
            raise DataError(f"{self.root} holds no {self.pattern}; give the folder of the scenes")
        held = {id: set(np.load(path).files) for id, path in scenes.items()}
        labels = {
            name: {id: LabelFile(scenes[id], partial(read_label, name=name)) for id in scenes if name in held[id]}
            for name in TASKS
        }
        images = {id: ImageFile(path, read_scene) for id, path in scenes.items()}
        return DatasetIndex(self.folder(), images, TASKS, labels, {"train": tuple(scenes)})


def write_scenes(root: Path) -> None:
    """Six small scenes; every second has no depth, every third no people."""
    rng = np.random.default_rng(0)
    for number in range(6):
        scene = {"image": rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)}
        if number % 2 == 0:
            scene["depth"] = rng.integers(0, 900, (40, 56), dtype=np.uint16)
        if number % 3 == 0:
            scene["person"] = rng.integers(0, 2, (40, 56), dtype=np.uint8)
        np.savez(root / f"scene{number}.npz", **scene)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_scenes(Path(folder))
        train = tasktokens.open_dataset("scenes", root=folder).train_dataset(size=(32, 48))
        for batch in DataLoader(train, batch_size=3, collate_fn=train.collate):
            present = {name: [batch.ids[row] for row in labels.rows] for name, labels in batch.labels.items()}
            print(f"images {tuple(batch.image.shape)}, labelled: {present}")
