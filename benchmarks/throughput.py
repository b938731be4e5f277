"""Images per second and memory of `predict` and `discover` beside the bare network's; photographs; 10,000 images.

A network (ResNet-18 at 288x384, three tasks) is trained for a few steps on rooms, and then predicts and discovers them.
``network_images_per_second`` is the same network with as many views on images in memory, taken in the same process
before and after; ``ratio`` divides the two. ``cpu_ratio`` does so by the processors' seconds: what files cost where no
core is free. Times begin when the model is loaded. Each row is a process of its own, ``memory_mb`` its largest resident
set; ``loaded_mb`` is what the libraries and the model alone take. Photographs are enlarged from one of the package.
Last, a forward pass beside busy processes, with threads that sleep while they wait for each other (``PASSIVE``) and
with torch's own, which spin.

    python benchmarks/throughput.py --out benchmarks/results/throughput.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

import tasktokens
from tasktokens.datasets.rooms.dataset import rooms_folder
from tasktokens.inference import predictor as predicting
from tasktokens.inference.journal import Journal, _Appender
from tasktokens.reporting.provenance import describe

MEASURED = [f"src/tasktokens/{name}" for name in ("inference", "models", "tasks", "utils")]
PHOTO = Path(tasktokens.__file__).parent / "assets" / "photos"
MEGAPIXELS = {12: (3000, 4000), 24: (4000, 6000)}
TASKS = ["semseg", "depth", "normals"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        case = json.loads(args.child)
        print(json.dumps(CASES[case.pop("case")](**case)))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for row in measure(Path(folder), args.images, args.small):
            print(row, flush=True)
            rows.append(row)
            result = describe("beside other work", [0], measured=MEASURED) | {"size": [288, 384], "tasks": TASKS}
            args.out.write_text(json.dumps(result | {"rows": rows}, indent=1) + "\n")


def measure(folder: Path, images: int, small: int) -> Iterator[dict[str, Any]]:
    """All rows."""
    large, tiny = train(folder, "resnet18", (288, 384), images), train(folder, "test_resnet", (32, 48), 4)
    write_photographs(folder)
    write_small(folder / "small", small)
    cores = len(os.sched_getaffinity(0))
    cases: list[dict[str, Any]] = [
        {"case": "rate", "what": what, "threads": threads, "pictures": False, "run": str(large)}
        for what in ("predict", "discover")
        for threads in sorted({1, cores})
    ]
    cases.append({"case": "rate", "what": "predict", "threads": cores, "pictures": True, "run": str(large)})
    cases += [
        {"case": "photograph", "megapixels": size, "run": str(large), "folder": str(folder)} for size in MEGAPIXELS
    ]
    cases.append({"case": "many", "run": str(tiny), "folder": str(folder), "images": small})
    cases += [
        {"case": "beside", "threads": threads, "policy": policy, "busy": busy, "run": str(large)}
        for busy in (0, cores)
        for threads, policy in ((1, "PASSIVE"), (cores, "PASSIVE"), (cores, "unset"))
    ]
    for case in cases:
        # Unset, torch's threads spin while they wait; the package would set it.
        policy = {"OMP_WAIT_POLICY": "" if case.get("policy") == "unset" else "PASSIVE"}
        command = [sys.executable, __file__, "--child", json.dumps(case)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | policy)
        yield json.loads(done.stdout.splitlines()[-1])


def train(
    folder: Path,
    backbone: str,
    size: tuple[int, int],
    images: int,
    tasks: Sequence[str] | None = None,
) -> Path:
    """A run on rooms that saw one label per image."""
    root = rooms_folder({"train": images, "val": 1, "test": 1}, *size, 0)
    config = {
        "data": {"kind": "folder", "root": str(root), "size": list(size), "labels": "one", "check": False},
        "tasks": {name: {} for name in tasks or TASKS},
        "model": {"backbone": backbone, "pretrained": False},
        "method": {"name": "mtl", "steps": 12},
        "optim": {"batch_size": 4},
        "run": {"dir": str(folder / backbone), "evaluate": None, "device": "cpu", "threads": 1},
    }
    return tasktokens.train(config, quiet=True)


def write_photographs(folder: Path) -> None:
    """One photograph, enlarged, with the noise of a sensor."""
    with Image.open(next(iter(sorted(PHOTO.glob("*.jpg"))))) as image:
        for megapixels, (height, width) in MEGAPIXELS.items():
            pixels = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
            noise = np.random.default_rng(0).normal(0, 3, (height, width, 1)).astype(np.float32)
            noisy = (pixels + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"{megapixels}.jpg", quality=92)


def write_small(folder: Path, count: int) -> None:
    """Images of 32x48."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        low = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(low).resize((48, 32), Image.Resampling.BILINEAR).save(folder / f"{number:06}.jpg")


# -- in processes of their own -----------------------------------------------------------------------------------------
def rate(what: str, threads: int, pictures: bool, run: str) -> dict[str, Any]:
    """Images per second of a verb and of its network."""
    torch.set_num_threads(threads)
    root, views = Path(tasktokens.load_config(Path(run) / "config.yaml").data.root), 2 if what == "discover" else 1  # type: ignore[union-attr]
    files = [root / "images" / f"{id}.png" for id in (root / "train.txt").read_text().split()]
    predictor = predicting.Predictor(run, "cpu", views)
    seen = [predictor.prepare(np.array(Image.open(file).convert("RGB"))) for file in files]

    def network() -> tuple[float, float, int]:
        predictor.logits(seen[:1])
        return timed(lambda: [predictor.logits([image]) for image in seen], len(seen))

    def verb() -> tuple[float, float, int]:
        with tempfile.TemporaryDirectory() as out, noted() as moments:
            if what == "predict":
                tasktokens.predict(run, files, Path(out) / "o", quiet=True, pictures=pictures)
            else:
                tasktokens.discover(run, Path(out) / "o", quiet=True, views=views)
        (began, cpu), (ended, cpu_ended) = moments[0], moments[-1]
        return ended - began, cpu_ended - cpu, len(files)  # `discover` also copies the other splits

    rounds = [("network", network()), ("verb", verb())]
    rounds.append(("network", network()))

    def of(name: str) -> tuple[float, float]:
        """Images per second, and per second of a processor."""
        own = [times for which, times in rounds if which == name]
        return tuple(sum(n for *_, n in own) / sum(times[k] for times in own) for k in (0, 1))  # type: ignore[return-value]

    (files_rate, files_cpu), (network_rate, network_cpu) = of("verb"), of("network")
    return {
        "what": what, "threads": threads, "views": views, "pictures": pictures,
        "images": len(files), "images_per_second": round(files_rate, 2),
        "network_images_per_second": round(network_rate, 2), "ratio": round(files_rate / network_rate, 3),
        "cpu_ratio": round(files_cpu / network_cpu, 3), "memory_mb": peak(),
    }  # fmt: skip


def photograph(megapixels: int, run: str, folder: str) -> dict[str, Any]:
    """Seconds of one photograph with its picture, loading the model included."""
    predicting.Predictor(run, "cpu")
    loaded = peak()
    seconds, cpu, _ = timed(
        lambda: tasktokens.predict(
            run, Path(folder) / f"{megapixels}.jpg", Path(folder) / f"o{megapixels}", quiet=True
        ),
        1,
    )
    return {
        "what": f"predict, a photograph of {megapixels} MP", "images": 1,
        "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "memory_mb": peak(), "loaded_mb": loaded,
    }  # fmt: skip


def many(run: str, folder: str, images: int) -> dict[str, Any]:
    """Resident memory after a tenth of many small images, and after all."""
    with noted(memory=True) as moments:
        tasktokens.predict(run, Path(folder) / "small", Path(folder) / "many", quiet=True, pictures=False)
    shutil.rmtree(Path(folder) / "many")
    seconds = moments[-1][0] - moments[0][0]
    return {
        "what": f"predict, {images} images of 32x48", "images": images,
        "images_per_second": round(images / seconds, 1), "memory_mb": peak(),
        "resident_mb": {f"{n}": round(moments[n][1] / 1e6) for n in (images // 10, images // 2, images)},
    }  # fmt: skip


def beside(threads: int, policy: str, busy: int, run: str) -> dict[str, Any]:
    """A forward pass beside processes that keep cores busy."""
    torch.set_num_threads(threads)
    predictor = predicting.Predictor(run, "cpu")
    image = torch.randint(256, (1, 3, 288, 384), dtype=torch.uint8)
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        predictor.logits([image])
        times = [timed(lambda: predictor.logits([image]), 1)[0] for _ in range(15)]
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    return {
        "what": "the network, one image", "threads": threads, "OMP_WAIT_POLICY": policy, "busy_processes": busy,
        "seconds": round(sorted(times)[len(times) // 2], 3),
    }  # fmt: skip


@contextmanager
def noted(memory: bool = False) -> Iterator[list[tuple[float, float]]]:
    """The clock, and the processors' seconds or the resident memory, at the beginning and as each image is done."""
    process, begin, note = psutil.Process(), Journal.appending, _Appender.note
    moments: list[tuple[float, float]] = []

    def look() -> None:
        moments.append((time.perf_counter(), process.memory_info().rss if memory else time.process_time()))

    def beginning(journal: Journal, rank: int) -> Any:
        look()
        return begin(journal, rank)

    def noting(appender: _Appender, id: str, facts: Any) -> None:
        note(appender, id, facts)
        look()

    Journal.appending, _Appender.note = beginning, noting  # type: ignore[method-assign]
    try:
        yield moments
    finally:
        Journal.appending, _Appender.note = begin, note  # type: ignore[method-assign]


def timed(do: Callable[[], object], images: int) -> tuple[float, float, int]:
    """Seconds, the processors' seconds, images."""
    wall, cpu = time.perf_counter(), time.process_time()
    do()
    return time.perf_counter() - wall, time.process_time() - cpu, images


def peak() -> int:
    """The largest resident set so far, in MB; not `resource`'s, which begins with that of the parent."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return round(int(lines["VmHWM"].split()[0]) * 1024 / 1e6)


CASES: dict[str, Callable[..., dict[str, Any]]] = {
    "rate": rate,
    "photograph": photograph,
    "many": many,
    "beside": beside,
}

if __name__ == "__main__":
    main()
