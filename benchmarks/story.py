"""A practitioner's story: three folders that are each labelled for another task, from `init` to a better network.

    tasktokens prepare --from nyud --root NYUD --height 96 --width 128 --out NYUD96
    python benchmarks/story.py --nyud NYUD96 --bsds BSDS500 --weights lite0.safetensors \
        --out benchmarks/results/story.json

`indoors` has photographs of NYU Depth v2 with classes, `depths` others with depth, `outdoors` photographs of BSDS500
with boundaries; BSDS500 holds `{train,test}/image` and `edge` beside it. All is done through the command line. A row
per command has its seconds of processor time (`cpu_seconds`, on one thread), the size of what it wrote, and, for a
training, the metrics on the test images of all three folders, with Delta_MTL against the first training. The person who
reviews is simulated: of the first images of `tasktokens review`, the classes of `depths` are repainted from the truth
in PASCAL VOC's format, and of the depths of `indoors` the pixels that are off by more than a quarter are masked; what
has no truth stays as it was discovered. Rows that are in the file are not made again while the working folder is there.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from tasktokens.cli import app
from tasktokens.datasets.folder import open_folder
from tasktokens.metrics import delta_mtl
from tasktokens.reporting.provenance import describe
from tasktokens.utils.atomic import write_atomically

FOLDERS = ("indoors", "depths", "outdoors")
OFF = 0.25
"""A person sees a depth that is off by this share."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nyud", type=Path, required=True, help="a folder that tasktokens prepare wrote")
    parser.add_argument("--bsds", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="ImageNet weights of tf_efficientnet_lite0")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/story"))
    parser.add_argument("--images", type=int, default=100, help="training images per folder")
    parser.add_argument("--tests", type=int, default=60, help="test images per folder")
    parser.add_argument("--top", type=int, default=60, help="images that the person reviews")
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--size", type=int, nargs=2, default=[96, 128], metavar=("HEIGHT", "WIDTH"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    Story(args).run()


class Story:
    """The commands in their order."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.work, self.out = args, args.work.resolve(), args.out.resolve()
        self.nyud, self.bsds, self.weights = args.nyud.resolve(), args.bsds.resolve(), args.weights.resolve()
        self.truth = open_folder(self.nyud)

    def run(self) -> None:
        """Go through all steps."""
        if not (self.work / "joined.yaml").is_file():
            shutil.rmtree(self.work, ignore_errors=True)
            self.gather()
        for name in FOLDERS:
            self.step(f"init {name}", ["init", name], name, then=lambda name=name: self.edit(name))
        for name in FOLDERS:
            self.step(f"check {name}", ["check", name], name)
        joined = ["train", "--config", "joined.yaml"]
        self.train("mtl", [*joined, "method.name=mtl", f"method.steps={self.args.steps}"])
        self.train("htt", [*joined, f"method.steps={self.args.steps}"])
        self.discover("discover", "tried", [])
        self.discover("discover half", "filled", self.thresholds())
        if not (self.work / "unreviewed").exists():
            shutil.copytree(self.work / "filled", self.work / "unreviewed")
        self.train("again", ["train", "data.root=unreviewed", *self.settings()])
        self.step("review", ["review", "filled", "--top", str(self.args.top)], "filled")
        self.review("semseg", "voc", self.repaint)
        self.review("depth", "maps", self.mask)
        self.train("reviewed", ["train", "data.root=filled", *self.settings()])

    # -- the folders ---------------------------------------------------------------------------------------------------
    def gather(self) -> None:
        """Photographs and labels as somebody would have them: no description, one task per folder."""
        count, tests = self.args.images, self.args.tests
        train, test = self.truth.splits["train"], self.truth.splits["test"]
        for name, task, first in (("indoors", "semseg", 0), ("depths", "depth", 1)):
            parts = {"train": train[first::2][:count], "test": test[first::2][:tests]}
            self.write_lists(name, parts)
            for id in (id for ids in parts.values() for id in ids):
                copy(self.truth.images[id].path, self.work / name / "images")
                copy(self.truth.labels[task][id].path, self.work / name / task)
        parts = {}
        for split, most in (("train", count), ("test", tests)):
            photos = sorted((self.bsds / split / "image").iterdir())[:most]
            parts[split] = [path.stem for path in photos]
            for photo in photos:
                copy(photo, self.work / "outdoors" / "images")
                copy(self.bsds / split / "edge" / f"{photo.stem}.png", self.work / "outdoors" / "edge")
        self.write_lists("outdoors", parts)
        source = [{"name": name, "source": {"kind": "folder", "root": name}} for name in FOLDERS]
        data = {"kind": "concat", "labels": "full", "size": self.args.size, "parts": source}
        model = {"backbone": "tf_efficientnet_lite0", "weights": str(self.weights)}
        (self.work / "joined.yaml").write_text(yaml.safe_dump({"data": data, "model": model, "run": {"threads": 1}}))

    def write_lists(self, name: str, parts: Mapping[str, Sequence[str]]) -> None:
        (self.work / name).mkdir(parents=True, exist_ok=True)
        for split, ids in parts.items():
            (self.work / name / f"{split}.txt").write_text("".join(f"{id}\n" for id in ids))

    def edit(self, name: str) -> None:
        """What a person writes into the proposed description: the names of the classes, the range of depths."""
        path = self.work / name / "dataset.yaml"
        found = yaml.safe_load(path.read_text())
        for task, spec in found["tasks"].items():
            if task in self.truth.tasks:
                known = self.truth.tasks[task].spec()
                spec |= {key: known[key] for key in ("classes", "void", "range") if key in known}
        path.write_text(yaml.safe_dump(found, sort_keys=False))

    def settings(self) -> list[str]:
        """Of a training on the completed folder."""
        return [
            f"data.size={json.dumps(self.args.size)}", "model.backbone=tf_efficientnet_lite0",
            f"model.weights={self.weights}", "run.threads=1", "method.name=mtl", f"method.steps={self.args.steps}",
        ]  # fmt: skip

    # -- commands ------------------------------------------------------------------------------------------------------
    def step(
        self, name: str, command: Sequence[str], output: str, then: Callable[[], Any] | None = None,
        more: Callable[[], dict[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        """Run a command unless its row is there; ``then`` is what a person does afterwards."""
        if any(row["step"] == name for row in known_rows(self.out)):
            return
        before, begin = time.process_time(), time.perf_counter()
        print(f"--- {' '.join(command)}", flush=True)
        os.chdir(self.work)
        app([str(word) for word in command], standalone_mode=False)
        cpu, seconds = time.process_time() - before, time.perf_counter() - begin
        row = {"step": name, "command": " ".join(["tasktokens", *command]).replace(str(self.weights), "FILE")}
        row |= {"cpu_seconds": round(cpu, 1), "seconds": round(seconds, 1), "mb": size(self.work / output)}
        told = then() if then is not None else None
        self.add_row(row | (more() if more else {}) | (told if isinstance(told, dict) else {}))

    def discover(self, name: str, out: str, options: Sequence[str]) -> None:
        def filled() -> dict[str, Any]:
            tasks = json.loads((self.work / out / "summary.json").read_text())["tasks"]
            return {f"filled_{each['task']}": each["filled"] for each in tasks}

        self.step(name, ["discover", "runs/htt", "--out", out, *options, "--quiet"], out, more=filled)

    def thresholds(self) -> list[str]:
        """Those that fill half of the pixels of each task, as the summary of the first discovery names them."""
        tasks = json.loads((self.work / "tried" / "summary.json").read_text())["tasks"]
        return [word for each in tasks for word in ("--threshold", f"{each['task']}={each['fills']['0.5']}")]

    def train(self, name: str, command: Sequence[str]) -> None:
        run = f"runs/{name}"
        resumed = ["--overwrite"] if (self.work / run).exists() else []
        self.step(name, [*command, f"run.dir={run}", "--quiet", *resumed], run, more=lambda: self.measured(name))

    def measured(self, name: str) -> dict[str, Any]:
        """The primary metrics of a run on its test images, and the change from the first training."""
        values, reference = self.primaries(name), self.primaries("mtl")
        tasks = self.joined_tasks()
        higher = {task: tasks[task].metric().primary_is_higher for task in values}
        named = {tasks[task].metric().primary: round(value, 4) for task, value in values.items()}
        return named | {"delta_mtl": round(delta_mtl(values, reference, higher), 2)}

    def joined_tasks(self) -> Mapping[str, Any]:
        return {task: each for name in FOLDERS for task, each in open_folder(self.work / name).tasks.items()}

    def primaries(self, name: str) -> dict[str, float]:
        found = json.loads((self.work / "runs" / name / "evaluation-test.json").read_text())
        return {task: found[task][each.metric().primary] for task, each in self.joined_tasks().items()}

    # -- the person who reviews ----------------------------------------------------------------------------------------
    def review(self, task: str, format: str, correct: Callable[[Path], int]) -> None:
        """Export, correct from the truth, import."""
        archive = f"{task}.zip"
        export = ["review", "export", "filled", "--format", format, "--task", task, "--top", str(self.args.top)]
        self.step(
            f"export {task}", [*export, "--out", archive, "--overwrite"], archive,
            then=lambda: {"corrected_labels": correct(self.work / archive)},
        )  # fmt: skip
        self.step(f"import {task}", ["review", "import", "filled", archive, "--unchanged", "open"], archive)

    def repaint(self, archive: Path) -> int:
        """PASCAL VOC masks of `depths` become the true classes, where these are known."""
        files, count = read_zip(archive), 0
        for name in [name for name in files if name.startswith("SegmentationClass/")]:
            id = self.true_id(name)
            if id is None:
                continue
            mask = Image.open(io.BytesIO(files[name]))
            value, valid = self.truth.labels["semseg"][id].read()
            painted = Image.fromarray(np.where(valid, value[0], 255).astype(np.uint8)).convert("P")
            painted.putpalette(mask.getpalette() or [])
            files[name], count = png(painted), count + 1
        write_zip(archive, files)
        return count

    def mask(self, archive: Path) -> int:
        """Depths of `indoors` that are far off are masked; `decisions.csv` says so."""
        files, count = read_zip(archive), 0
        filled = open_folder(self.work / "filled")
        lines = list(csv.reader(io.StringIO(files["decisions.csv"].decode())))
        head = lines[0]
        for line in lines[1:]:
            id = self.true_id(line[head.index("id")])
            if id is None:
                continue
            value, valid = filled.discovered["depth"][line[head.index("id")]].label.read()
            true, known = self.truth.labels["depth"][id].read()
            wrong = valid & known & (np.abs(value[0] - true[0]) > OFF * true[0])
            name = next(n for n in files if n.startswith("mask/") and line[head.index("id")] in n)
            old = np.asarray(Image.open(io.BytesIO(files[name])))
            files[name] = png(Image.fromarray(np.where(wrong, 0, old).astype(np.uint8)))
            line[head.index("decision")], count = "mask", count + 1
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        files["decisions.csv"] = text.getvalue().encode()
        write_zip(archive, files)
        return count

    def true_id(self, name: str) -> str | None:
        """The image of NYU Depth v2 that a name with its folder means; None for one of BSDS500."""
        stem = Path(name).with_suffix("").name
        return stem if "outdoors" not in name and stem in self.truth.images else None

    # -- results -------------------------------------------------------------------------------------------------------
    def add_row(self, row: dict[str, Any]) -> None:
        head = describe("one thread", [0], measured=["src", "benchmarks/story.py"])
        settings = {key: getattr(self.args, key) for key in ("images", "tests", "top", "steps", "size")}
        rows = [*known_rows(self.out), row]
        write_atomically(self.out, (json.dumps(head | settings | {"rows": rows}, indent=1) + "\n").encode())
        print(row, flush=True)


def known_rows(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["rows"] if path.is_file() else []


def copy(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, folder / source.name)


def size(path: Path) -> float:
    """Megabytes of a file or folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return round(sum(each.stat().st_size for each in files) / 1e6, 2)


def read_zip(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
