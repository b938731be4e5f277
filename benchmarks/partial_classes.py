"""Cats in one folder, dogs in another: one task of classes from two folders that are each labelled for half of them.

    tasktokens rooms --out ROOMS --train 400 --val 1 --test 120
    python benchmarks/partial_classes.py --data rooms --root ROOMS --out benchmarks/results/partial_classes.json
    python benchmarks/partial_classes.py --data camvid --root CAMVID --out benchmarks/results/partial_classes.json

Half of the training images show the labels of one half of the classes, the other half those of the other. Strategies:
`marginal` (`labelled:` of the two folders: a pixel outside is one of the classes that were not labelled), `background`
(it is of a further class, as a plain union of the two folders has it), `void` (it is not learned from), and `full` (all
labels, the most that can be had). Measured on test images with all labels; `mIoU` is the mean IoU of the real classes,
whatever else a strategy predicts. ROOMS is a folder of `tasktokens rooms`, CAMVID holds `{train,test}/{image,semseg}`
or `{train,val}/...`. Rows that are in the file already are not made again, and finished runs not trained again.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

import tasktokens
from tasktokens.datasets.folder import open_folder
from tasktokens.reporting.provenance import describe
from tasktokens.utils.atomic import write_atomically

STRATEGIES = ("background", "void", "marginal", "full")
VOID = 255
CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist")


class Source(NamedTuple):
    """Images with all labels: (image, label file) pairs by split, and the classes in the order of their ids."""

    pairs: dict[str, list[tuple[Path, Path]]]
    classes: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("rooms", "camvid"), required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="where folders and runs lie; default: a temporary folder")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--backbone", default="mobilenetv3_large_100")
    parser.add_argument("--pretrained", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--images", type=int, help="at most this many training images")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        source = (rooms if args.data == "rooms" else camvid)(args.root)
        if args.images:
            source.pairs["train"][args.images :] = []
        for seed in args.seeds:
            for strategy in args.strategies:
                settings = {"steps": args.steps, "size": list(args.size), "backbone": args.backbone}
                key = {"data": args.data, "strategy": strategy, "seed": seed, **settings}
                if any(key.items() <= row.items() for row in known_rows(args.out)):
                    continue
                run = trained(source, strategy, seed, work / args.data, args)
                row = key | {"images": len(source.pairs["train"])} | measured(run, source.classes)
                add_row(args.out, row, args.seeds)
                print(row, flush=True)


# -- data --------------------------------------------------------------------------------------------------------------
def rooms(root: Path) -> Source:
    """A folder that `tasktokens rooms` wrote."""
    index = open_folder(root)
    labels = index.labels["semseg"]
    pairs = {
        name: [(index.images[id].path, labels[id].path) for id in index.splits[name]] for name in ("train", "test")
    }
    return Source(pairs, index.tasks["semseg"].class_names() or ())


def camvid(root: Path) -> Source:
    """``{split}/image`` beside ``{split}/semseg``, ids 0 to 10, 11 void."""
    test = "test" if (root / "test").is_dir() else "val"
    pairs = {
        name: [(image, root / folder / "semseg" / f"{image.stem}.png")
               for image in sorted((root / folder / "image").iterdir())]
        for name, folder in (("train", "train"), ("test", test))
    }  # fmt: skip
    return Source(pairs, CAMVID)


def halves(classes: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """The classes in two halves, by lot."""
    order = np.random.default_rng(seed).permutation(len(classes)).tolist()
    return sorted(order[::2]), sorted(order[1::2])


def write_half(source: Source, half: Sequence[int], number: int, strategy: str, out: Path) -> Path:
    """A folder of every second training image with the labels of half of the classes, and of all test images."""
    count = len(source.classes)
    other = next(id for id in range(count) if id not in half)  # says nothing: `labelled` leaves all others open
    outside = {"marginal": other, "background": count, "void": VOID, "full": None}[strategy]
    lines = ["image,semseg,split"]
    for split, pairs in source.pairs.items():
        for image, label in pairs[number::2] if split == "train" else pairs if number == 0 else ():
            ids = np.asarray(Image.open(label))
            stored = np.where(ids < count, ids, VOID).astype(np.uint8)
            if split == "train" and outside is not None:
                stored = np.where((stored == VOID) | np.isin(stored, half), stored, outside).astype(np.uint8)
            path = out / split / f"{image.stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(stored).save(path)
            lines.append(f"{image.resolve()},{path.relative_to(out)},{split}")
    lines[0] += ",semseg.labelled" if strategy == "marginal" else ""
    if strategy == "marginal":
        names = ";".join(source.classes[id] for id in half)
        lines[1:] = [f"{line},{names if line.endswith('train') else ''}" for line in lines[1:]]
    (out / "files.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    classes = [*source.classes, *(["background"] if strategy == "background" else [])]
    task = {"kind": "classes", "classes": classes, "void": [VOID]}
    (out / "dataset.yaml").write_text(
        yaml.safe_dump({"manifest": "files.csv", "tasks": {"semseg": task}}), encoding="utf-8"
    )
    return out


# -- training ----------------------------------------------------------------------------------------------------------
def trained(source: Source, strategy: str, seed: int, work: Path, args: argparse.Namespace) -> Path:
    """The run of a strategy; a finished one is there already."""
    run = work / f"{strategy}-{seed}-{args.steps}"
    if list(run.glob("evaluation-test.json")):
        return run
    parts = []
    for number, half in enumerate(halves(source.classes, seed)):
        folder = write_half(source, half, number, strategy, work / "data" / f"{strategy}-{seed}-{number}")
        parts.append({"name": f"half{number}", "source": {"kind": "folder", "root": str(folder)}})
    config = {
        "data": {"kind": "concat", "parts": parts, "size": list(args.size), "labels": "full"},
        "tasks": {"semseg": {}},
        "model": {"backbone": args.backbone, "pretrained": args.pretrained},
        "method": {"name": "mtl", "steps": args.steps},
        "optim": {"batch_size": args.batch},
        "seed": seed,
        "run": {"dir": str(run), "evaluate": "test"},
    }
    tasktokens.train(config, quiet=True, overwrite=run.exists())
    return run


def measured(run: Path, classes: Sequence[str]) -> dict[str, Any]:
    """Mean IoU of the real classes, in percent, and that of each."""
    found = json.loads((run / "evaluation-test.json").read_text())["semseg"]
    each = {name: found[f"IoU/{name}"] for name in classes}
    known = [value for value in each.values() if value is not None and not math.isnan(value)]
    return {"mIoU": round(float(np.mean(known)), 3), "pixAcc": round(found["pixAcc"], 3)}


# -- results -----------------------------------------------------------------------------------------------------------
def known_rows(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["rows"] if path.is_file() else []


def add_row(path: Path, row: dict[str, Any], seeds: Sequence[int]) -> None:
    """Write the results with one row more, in one piece."""
    head = describe("one thread", list(seeds), measured=["src", "benchmarks/partial_classes.py"])
    rows = [*known_rows(path), row]
    write_atomically(path, (json.dumps(head | {"rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
