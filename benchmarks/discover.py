"""Discovery in shards: rate beside the bare network, memory from 1000 to 100,000 images, and what kill -9 leaves.

Rate: ResNet-18 at 288x384, three tasks, rooms, from a folder and from tar files, with one view and with two.
``throughput_ratio`` divides images per second of a processor by those of the same network in memory, with as many
views, measured in the same process before and after: what files cost where no core is free; ``wall_ratio`` does so by
the clock, beside whatever else the machine does.

Memory: images of 16x16 pixels, hard links of eight files, one task, a tiny network; each row is a process of its own,
``memory_mb`` its largest resident set, ``listing_mb`` that of the process before it began the first shard.

Listing: the table of 100,000 hard links, of images and of the labels of one task, by a process of its own.

Kills: workers of a folder, of tar files, and of Ray are killed by SIGKILL at random moments, until ``kills`` have
struck; two workers at a time, of which one or both are killed, and in Ray's case the process that asked or one of its
workers.
After each kill every file that has its name is compared with that of a run without a kill; ``damaged`` counts files
that differ, are missing in the end, or are left over, the tables among them.

    python benchmarks/discover.py --out benchmarks/results/discover.json
    python benchmarks/discover.py --out benchmarks/results/discover.json --parts kills
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

import tasktokens
from tasktokens.datasets.file_table import write_table
from tasktokens.datasets.files_by_id import iter_paths
from tasktokens.datasets.tars import TarWriter
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.shards.worker import ShardWorker
from tasktokens.reporting.provenance import describe
from throughput import peak, timed, train

MEASURED = [f"src/tasktokens/{name}" for name in ("inference", "datasets", "models", "tasks", "utils")]
MODES = ("folder", "tars", "ray")
PARTS = ("rate", "listing", "memory", "kills")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="the others' rows stay")
    parser.add_argument("--images", type=int, default=24, help="of the rate")
    parser.add_argument("--small", type=int, nargs="+", default=[1000, 10_000, 100_000], help="of the memory")
    parser.add_argument("--kills", type=int, default=20, help="per mode")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="of the kills")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        case = json.loads(args.child)
        print(json.dumps(CHILDREN[case.pop("case")](**case)))
        return
    rows = json.loads(args.out.read_text())["rows"] if args.out.is_file() else []
    with tempfile.TemporaryDirectory() as folder:
        for row in measure(Path(folder), args):
            print(row, flush=True)
            rows = [other for other in rows if other["what"] != row["what"] or other["images"] != row["images"]] + [row]
            result = describe("beside other work", [0], measured=MEASURED)
            args.out.write_text(json.dumps(result | {"rows": rows}, indent=1) + "\n")


def measure(folder: Path, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of the parts that are wanted."""
    if "rate" in args.parts:
        run = train(folder, "resnet18", (288, 384), args.images)
        for views in (2, 1):
            for layout in ("folder", "tars"):
                yield child(case="rate", layout=layout, views=views, run=str(run))
    if "listing" in args.parts:
        yield child(case="listing", images=max(args.small), folder=str(folder))
    if {"memory", "kills"} & {*args.parts}:
        tiny = train(folder, "test_resnet", (32, 48), 8, ("semseg",))
    if "memory" in args.parts:
        for images in args.small:
            for layout in ("folder", "tars"):
                yield child(case="memory", layout=layout, images=images, run=str(tiny), folder=str(folder))
    if "kills" in args.parts:
        for mode in args.modes:
            yield kills(mode, args.kills, tiny, folder / mode)


def child(**case: Any) -> dict[str, Any]:
    """A row from a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps(case)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def write_tars(images: Path, out: Path, per_tar: int) -> Path:
    """Pack a folder of images."""
    files = sorted(path for path in images.rglob("*") if path.is_file())
    out.mkdir(parents=True)
    for number in range(0, len(files), per_tar):
        with (out / f"{number // per_tar:05}.tar").open("wb") as file, TarWriter(file) as tar:
            for path in files[number : number + per_tar]:
                tar.add(path.relative_to(images).as_posix(), path)
    return out


# -- rate and memory, in processes of their own ------------------------------------------------------------------------
def rate(layout: str, views: int, run: str) -> dict[str, Any]:
    """Images per second of a shard beside those of the network."""
    torch.set_num_threads(1)
    root = Path(tasktokens.load_config(Path(run) / "config.yaml").data.root)  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "images"
        images.mkdir()
        for id in (root / "train.txt").read_text().split():
            shutil.copyfile(root / "images" / f"{id}.png", images / f"{id.replace('/', '-')}.png")
        files = sorted(images.iterdir())
        source = images if layout == "folder" else write_tars(images, Path(place) / "tars", len(files))
        predictor = Predictor(run, "cpu", views)
        seen = [predictor.prepare(np.array(Image.open(file).convert("RGB"))) for file in files]

        def network() -> tuple[float, float, int]:
            predictor.logits(seen[:1])
            return timed(lambda: [predictor.logits([image]) for image in seen], len(seen))

        rounds: list[tuple[float, float, int]] = []
        shard = ShardWorker.run

        def timed_run(*words: Any, **shown: Any) -> int:
            rounds.append(timed(lambda: shard(*words, **shown), len(files)))
            return 0

        with patched("run", timed_run):
            before = network()
            tasktokens.discover_shards(run, Path(place) / "out", images=source, shards=None, views=views, quiet=True)
            after = network()
        table = (Path(place) / "out/provenance.csv").stat().st_size
    ratios = [2 * rounds[0][2] / rounds[0][k] / (before[2] / before[k] + after[2] / after[k]) for k in (0, 1)]
    return {
        "what": f"{layout}, {'two views' if views == 2 else 'one view'}, 288x384", "images": len(files),
        "images_per_second": round(len(files) / rounds[0][0], 2), "throughput_ratio": round(ratios[1], 3),
        "wall_ratio": round(ratios[0], 3), "memory_mb": peak(), "table_bytes_per_image": round(table / len(files)),
    }  # fmt: skip


def listing(images: int, folder: str) -> dict[str, Any]:
    """Seconds, memory and bytes of the table of a folder with labels."""
    source, table = Path(folder) / "listed", Path(folder) / "table"
    write_links(source, images)
    before, began = peak(), time.perf_counter()
    ways = [iter_paths(source, (".png",)) for _ in range(2)]
    write_table(table, ways[0], {"depth": ways[1]})
    seconds = time.perf_counter() - began
    row = {
        "what": "listing, one task", "images": images, "seconds": round(seconds, 2), "memory_mb": peak(),
        "before_mb": before, "table_bytes_per_image": round(table.stat().st_size / images),
    }  # fmt: skip
    shutil.rmtree(source)
    return row


def memory(layout: str, images: int, run: str, folder: str) -> dict[str, Any]:
    """The largest resident set, with many small images."""
    torch.set_num_threads(1)
    source, out = Path(folder) / f"small-{images}", Path(folder) / "out"
    if not source.exists():
        write_links(source, images)
    read = source if layout == "folder" else write_tars(source, Path(folder) / f"tars-{images}", 1000)
    began: list[float] = []
    work = ShardWorker.run
    settings = {"views": 1, "batch_size": 64, "quiet": True, "shards": None}
    with patched("run", lambda *words, **shown: began.extend((peak(), time.perf_counter())) or work(*words, **shown)):
        tasktokens.discover_shards(run, out, images=read, **settings)  # type: ignore[arg-type]
    seconds = time.perf_counter() - began[1]
    row = {
        "what": f"{layout}, 16x16", "images": images, "images_per_second": round(images / seconds, 1),
        "memory_mb": peak(), "listing_mb": began[0],
    }  # fmt: skip
    for used in (out, read):
        shutil.rmtree(used)
    return row


def write_links(source: Path, images: int) -> None:
    """Hard links of eight small images, 1000 per folder."""
    rng = np.random.default_rng(0)
    for number in range(images):
        path = source / f"{number // 1000:04}" / f"{number:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < 8:
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
        else:
            os.link(source / "0000" / f"{number % 8:07}.png", path)


@contextlib.contextmanager
def patched(name: str, way: Callable[..., Any]) -> Iterator[None]:
    """A method of `ShardWorker` replaced, to time it."""
    before = getattr(ShardWorker, name)
    setattr(ShardWorker, name, way)
    try:
        yield
    finally:
        setattr(ShardWorker, name, before)


CHILDREN: dict[str, Callable[..., dict[str, Any]]] = {"rate": rate, "listing": listing, "memory": memory}


# -- kills -------------------------------------------------------------------------------------------------------------
def discover_here(run: str, out: str, images: str, engine: str, address: str) -> None:
    """What a worker does, in a process that was forked for it."""
    os.environ.update({"RAY_ADDRESS": address, "RAY_USAGE_STATS_ENABLED": "0"} if address else {})
    os.setsid()
    torch.set_num_threads(1)
    shards = 15 if Path(images).name == "images" else None
    tasktokens.discover_shards(run, out, images, shards, engine=engine, views=1, quiet=True)  # type: ignore[arg-type]


def kills(mode: str, wanted: int, run: Path, place: Path) -> dict[str, Any]:
    """Kill workers until it has struck as often as wanted."""
    place.mkdir()
    write_links(place / "images", 240)
    images = write_tars(place / "images", place / "tars", 16) if mode != "folder" else place / "images"
    whole = place / "whole"
    with head_of_ray(place) if mode == "ray" else contextlib.nullcontext("") as address:
        began = time.perf_counter()
        discover_here_in_child(run, whole, images, mode, address).join()
        seconds = time.perf_counter() - began
        reference = files_of(whole)
        dice, struck, bad, rounds = random.Random(0), 0, 0, 0
        while struck < wanted:
            out, rounds = place / f"out{rounds}", rounds + 1
            for attempt in range(100):
                hit = wanted > struck and attempt < (8 if mode == "ray" else 4)  # Ray takes its time to start
                code, found = attempt_once(run, out, images, mode, address, dice if hit else None, seconds)
                struck += found
                bad += damaged(out, reference)
                print(f"{mode}: {struck} kills, {bad} damaged", file=sys.stderr, flush=True)
                if code == 0 and not found:
                    break
            bad += len(reference.keys() ^ files_of(out).keys()) + len(leftovers(out))
            shutil.rmtree(out)
    what = {"folder": "folder, kill -9", "tars": "tars, kill -9", "ray": "Ray, tars, kill -9"}[mode]
    return {"what": what, "images": 240, "kills": struck, "folders": rounds, "files": len(reference), "damaged": bad}


def discover_here_in_child(run: Path, out: Path, images: Path, mode: str, address: str) -> Any:
    """Start a worker."""
    context = multiprocessing.get_context("fork")
    words = (str(run), str(out), str(images), "ray" if mode == "ray" else "processes", address)
    # A fork: thousands of modules need not be read again for each kill.
    process = context.Process(target=discover_here, args=words)
    process.start()
    return process


def attempt_once(
    run: Path, out: Path, images: Path, mode: str, address: str, dice: random.Random | None, seconds: float
) -> tuple[int, int]:
    """Workers on a folder, of which some are killed; the exit code of the first that was not, and the kills."""
    workers = [discover_here_in_child(run, out, images, mode, address) for _ in range(1 if mode == "ray" else 2)]
    struck = 0
    if dice is not None:
        time.sleep(dice.uniform(0.05, 0.7 if mode == "ray" else 1.0) * seconds)
        chosen = dice.sample(workers, dice.randint(1, len(workers)))
        if mode == "ray" and dice.random() < 0.5:
            chosen = ray_workers()[:1]
        for process in chosen:
            alive = process.is_alive() if hasattr(process, "is_alive") else process.is_running()
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                process.kill()
                struck += alive
    for worker in workers:
        worker.join()
    codes = [worker.exitcode for worker in workers if worker.exitcode != -signal.SIGKILL]
    return (codes[0] if codes else 1), struck


@contextlib.contextmanager
def head_of_ray(place: Path) -> Iterator[str]:
    """A cluster of Ray on this machine, which outlives those who ask it; its address."""
    script = (
        "import ray, sys, time\n"
        "given = {'include_dashboard': False, 'object_store_memory': 100 * 2**20, 'log_to_driver': False}\n"
        "context = ray.init(num_cpus=3, **given)\n"
        "print(context.address_info['gcs_address'], flush=True)\n"
        "sys.stdin.read()\nray.shutdown()\n"
    )
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # who has it may join
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    head = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert head.stdout is not None
    assert head.stdin is not None
    try:
        yield next(line.strip() for line in head.stdout if ":" in line)
    finally:
        head.stdin.close()
        head.wait()


def ray_workers() -> list[psutil.Process]:
    """Processes in which Ray works on shards; those of this machine's cluster that this script has started."""
    mine = psutil.Process().children(recursive=True)
    found = []
    for process in mine:
        with contextlib.suppress(psutil.Error):
            found += [process] if "RayWorker" in " ".join(process.cmdline()) else []
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    """All files that have their names; work that goes on, and what is hidden, left out."""
    found = (path for path in folder.rglob("*") if path.is_file())
    relative = {path: path.relative_to(folder) for path in found}
    return {
        str(name): path.read_bytes()
        for path, name in relative.items()
        if name.parts[0] != "discovering" and not path.name.startswith(".")
    }


def damaged(out: Path, reference: dict[str, bytes]) -> int:
    """Files that are there and differ from those of a run without a kill."""
    return sum(reference.get(name) != content for name, content in files_of(out).items())


def leftovers(out: Path) -> list[Path]:
    """What should be gone from a whole folder."""
    return [path for path in out.rglob("*") if ".partial" in path.name or path.name == "discovering"]


if __name__ == "__main__":
    main()
