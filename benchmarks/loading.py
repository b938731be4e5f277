"""How many samples one core loads and augments in a second, here and with plain torchvision v2; one JSON of results.

Three tasks (classes, depth, normals) at 288x384: zoom 0.5 to 2, crop with the 75 % rule, mirror, colours. The same
files, the same geometry, one process, one thread. Torchvision comes in two ways: its ready transforms, which zoom the
whole image before they crop (without that rule), and its kernels called by hand on the crop alone. Its colours are
brightness, contrast and saturation; ours have a change of white balance besides. Times are CPU seconds of the process,
so that other work on the machine counts for little; each is the median over repetitions, which take turns.

    python benchmarks/loading.py --out benchmarks/results/loading.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from tasktokens.config import Augmentation
from tasktokens.data.dataset import PartialDataset
from tasktokens.data.transforms import photometric
from tasktokens.data.visibility import draw_visible
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.rooms.dataset import rooms_folder
from tasktokens.reporting.provenance import describe

SIZE = (288, 384)
TASKS = ("semseg", "depth", "normals")
MEASURED = [f"src/tasktokens/{file}.py" for file in ("data/transforms", "data/dataset", "data/sample", "tasks/normals")]
SETTINGS = Augmentation(scale=(0.5, 2.0), crop_max_share=0.75, flip=True, photometric=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)

    root = rooms_folder({"train": args.images, "val": 1, "test": 1}, *SIZE, args.seed)
    ways = ours(root, args.seed) | torchvision(root, args.seed)
    seconds: dict[str, list[float]] = {what: [] for what in ways}
    for epoch in range(args.repeats + 1):  # the first round warms up, and fills the cache
        for what, way in ways.items():
            started = time.process_time()
            for index in range(args.images):
                way(epoch, index)
            seconds[what].append((time.process_time() - started) / args.images)
    result = describe(
        "one thread of one process", [args.seed], ("torch", "torchvision", "pillow", "numpy"), MEASURED
    ) | {
        "images": args.images,
        "size": list(SIZE),
        "tasks": list(TASKS),
        "rows": [row(what, times[1:]) for what, times in seconds.items()],
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for item in result["rows"]:
        print(f"{item['what']:62} {item['images_per_second_per_core']:8.1f} images/s  {item['milliseconds']:6.2f} ms")


def row(what: str, times: list[float]) -> dict[str, object]:
    middle = statistics.median(times)
    return {
        "what": what,
        "images_per_second_per_core": round(1 / middle, 1),
        "milliseconds": round(1000 * middle, 2),
        "fastest_and_slowest": [round(1000 * min(times), 2), round(1000 * max(times), 2)],
        "repeats": len(times),
    }


# -- ours --------------------------------------------------------------------------------------------------------------
def ours(root: Path, seed: int) -> dict[str, Callable[[int, int], object]]:
    """A sample by (epoch, index), its colours changed as the training step does."""
    folder = open_folder(root)
    ids = folder.split("train")
    tasks = {name: folder.tasks[name] for name in TASKS}
    available = {name: folder.labels[name] for name in TASKS}

    def dataset(labels: str, augmentation: Augmentation | None, cache: bool) -> PartialDataset:
        return PartialDataset(
            folder, draw_visible(ids, available, labels, seed), tasks, SIZE, augmentation, seed, cache
        )

    def coloured(samples: PartialDataset) -> Callable[[int, int], object]:
        generator = torch.Generator().manual_seed(seed)

        def way(epoch: int, index: int) -> object:
            sample = samples[epoch, index]
            return sample.labels, photometric(sample.image[None], SETTINGS.photometric, generator)

        return way

    plain = dataset("full", None, False)
    return {
        "ours: read files": lambda epoch, index: plain[epoch, index],
        "ours: read files, augment": coloured(dataset("full", SETTINGS, False)),
        "ours: from the cache, augment": coloured(dataset("full", SETTINGS, True)),
        "ours: read files, augment; one label per image": coloured(dataset("one", SETTINGS, False)),
        "ours: from the cache, augment; one label per image": coloured(dataset("one", SETTINGS, True)),
    }


# -- torchvision v2 ----------------------------------------------------------------------------------------------------
Tensors = dict[str, Tensor]


def torchvision(root: Path, seed: int) -> dict[str, Callable[[int, int], object]]:
    """The same with tv_tensors; void is 255, 0 and the zero vector, and becomes a mask of valid pixels at the end."""
    torch.manual_seed(seed)
    ids = open_folder(root).split("train")
    memory = {index: read(root, id) for index, id in enumerate(ids)}
    strength = SETTINGS.photometric
    colours = v2.ColorJitter(strength, strength, strength)
    ready = v2.Compose(
        [
            v2.ScaleJitter(SIZE, SETTINGS.scale, interpolation=v2.InterpolationMode.BILINEAR, antialias=True),
            v2.RandomCrop(SIZE, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: 0}),
            v2.RandomHorizontalFlip(),
            colours,
        ]
    )

    def by_hand(sample: Tensors, epoch: int, index: int) -> Tensors:
        sample = zoom_crop_flip(sample, np.random.default_rng([seed, epoch, index]))
        return finish({**sample, "image": colours(sample["image"])})

    return {
        "torchvision v2: read files": lambda epoch, index: read(root, ids[index]),
        "torchvision v2: read files, augment by kernels": lambda epoch, index: by_hand(
            read(root, ids[index]), epoch, index
        ),
        "torchvision v2: from memory, augment by kernels": lambda epoch, index: by_hand(memory[index], epoch, index),
        "torchvision v2: read files, augment by ready transforms": lambda epoch, index: finish(
            ready(read(root, ids[index]))
        ),
        "torchvision v2: from memory, augment by ready transforms": lambda epoch, index: finish(ready(memory[index])),
    }


def read(root: Path, id: str) -> Tensors:
    """Image, classes + 1 (so that padding is void), metres, unit vectors."""
    image, semseg, depth, normals = (Image.open(root / name / f"{id}.png") for name in ("images", *TASKS))
    vectors = torch.from_numpy(np.asarray(normals).astype(np.float32) * np.float32(2 / 255) - 1).permute(2, 0, 1)
    return {
        "image": tv_tensors.Image(TF.pil_to_tensor(image.convert("RGB"))),
        "semseg": tv_tensors.Mask(torch.from_numpy(np.asarray(semseg) + np.uint8(1))[None]),
        "depth": tv_tensors.Mask(torch.from_numpy(np.asarray(depth).astype(np.float32) * np.float32(0.001))[None]),
        "normals": tv_tensors.Mask(vectors / vectors.norm(dim=0, keepdim=True)),
    }


def zoom_crop_flip(sample: Tensors, rng: np.random.Generator) -> Tensors:
    """The draws of `tasktokens.data.transforms.augment`, for images of the output's shape."""
    scale = float(np.exp(rng.uniform(*np.log(SETTINGS.scale))))
    height, width = (min(side, round(side / scale)) for side in SIZE)
    for _ in range(10):
        top, left = int(rng.integers(SIZE[0] - height + 1)), int(rng.integers(SIZE[1] - width + 1))
        counts = torch.bincount(sample["semseg"][0, top : top + height, left : left + width].flatten())[1:]
        if counts.sum() > 0 and counts.max() <= 0.75 * counts.sum():
            break
    inner = [min(side, round(side * scale)) for side in SIZE]
    sample = {name: TF.resized_crop(x, top, left, height, width, inner) for name, x in sample.items()}
    if scale < 1:
        free = [out - side for out, side in zip(SIZE, inner, strict=True)]
        y, x = (int(rng.integers(room + 1)) for room in free)
        sample = {name: TF.pad(t, [x, y, free[1] - x, free[0] - y]) for name, t in sample.items()}
    sample["depth"] = sample["depth"] / scale
    if rng.random() < 0.5:
        sample = {name: TF.horizontal_flip(x) for name, x in sample.items()}
        sample["normals"] = sample["normals"] * torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
    return sample


def finish(sample: Tensors) -> Tensors:
    """Masks of valid pixels, and class ids again."""
    semseg = sample["semseg"]
    valid = {"semseg": semseg > 0, "depth": sample["depth"] > 0, "normals": (sample["normals"] != 0).any(dim=0)}
    return {**sample, "semseg": semseg - 1, **{f"{name} valid": mask for name, mask in valid.items()}}


if __name__ == "__main__":
    main()
