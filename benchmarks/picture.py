"""The picture of the README, from what the demo leaves: ``docs/demo.png``.

    tasktokens demo
    python benchmarks/picture.py --run runs/demo/htt --out docs/demo.png

A row per training image whose only label is a depth map: what the network discovered of the other tasks, beside the
truth that was hidden from it. Pixels below the task's threshold of confidence, which discovery leaves void, are pale.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tasktokens.config import load_config
from tasktokens.data.dataset import load_sample
from tasktokens.datasets.open import all_visible, open_data
from tasktokens.inference.predictor import Predictor
from tasktokens.tasks.base import Array
from tasktokens.utils.pictures import Picture, Strip, save_strips

GIVEN, OTHERS = "depth", ("semseg", "normals")
PALE = 0.3
"""How much of its colour a pixel below the threshold keeps."""


def paled(colours_HWC: Array, valid_HW: Array) -> Array:
    """The picture with white over what is not valid."""
    pale = 255 - (255 - colours_HWC.astype(np.float32)) * PALE
    return np.where(valid_HW[..., None], colours_HWC, pale.astype(np.uint8))


def strips(run: Path, ids: Sequence[str]) -> Iterator[Strip]:
    """A strip per image. The hidden labels are opened here, after training, and nowhere else."""
    data, predictor = open_data(load_config(run / "config.yaml")), Predictor(run, views=2)
    truth = all_visible(data.collection, tuple(ids), data.tasks)
    for id in ids:
        assert set(data.train[id]) == {GIVEN}, f"{id} shows {set(data.train[id])}"
        sample = load_sample(data.collection, id, truth[id])
        image = sample.image.permute(1, 2, 0).numpy()
        predictions = predictor(image)

        def true(name: str, sample=sample) -> Array:
            label = sample.labels[name]
            return data.tasks[name].colourise(label.value.numpy(), label.valid[0].numpy())

        pictures = [Picture("image", image), Picture(f"given: {GIVEN}", true(GIVEN))]
        for name in OTHERS:
            found, task = predictions[name], data.tasks[name]
            colours = paled(task.colourise(found.value_CHW), found.valid(task.threshold))
            pictures += [Picture(f"discovered: {name}", colours), Picture("the hidden truth", true(name))]
        yield Strip("", tuple(pictures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--images", nargs="+", help="default: the first four that show a depth map alone")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    labels = open_data(load_config(args.run / "config.yaml")).train
    ids = args.images or [id for id, shown in labels.items() if set(shown) == {GIVEN}][:4]
    save_strips(args.out, list(strips(args.run, ids)), scale=2)


if __name__ == "__main__":
    main()
