"""Operation, second part: what lies around a run changes. Files, names, labels, devices, users, loader processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import faults_child as child
import yaml
from faults_kill import without_pictures

if TYPE_CHECKING:
    from faults_operation import Operations

RESERVED = ("images", "id", "confidence", "pictures")


def changed_content(cases: Operations) -> None:
    """A file that was replaced between stopping and resuming is named; one that was touched is the same."""
    for case, change, may in (
        ("resume, the pixels of a seen label were changed", replace_label, "refused"),
        ("resume, the pixels of an image were changed", replace_image, "refused"),
        ("resume, every file was touched", touch_all, "whole"),
    ):
        cases.data, cases.run = cases.fresh()
        change(cases)
        ended = child.run(cases.resume(), cases.log, without_pictures)
        cases.add(case, ended, cases.goes_on, may)


def replace_label(cases: Operations) -> None:
    id, task = cases.labels("1")[0]
    replace(cases.data / task / f"{id}.png")


def replace_image(cases: Operations) -> None:
    replace(cases.data / "images" / f"{cases.labels('1')[0][0]}.png")


def replace(path: Path) -> None:
    """By another file of its folder, with the old times."""
    times = path.stat()
    other = next(each for each in sorted(path.parent.iterdir()) if each.read_bytes() != path.read_bytes())
    shutil.copy(other, path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def touch_all(cases: Operations) -> None:
    for path in cases.data.rglob("*.png"):
        os.utime(path)


def another_device(cases: Operations) -> None:
    """The files of a run that a GPU began: it goes on on this machine, and says so."""
    cases.data, cases.run = cases.fresh()
    path = cases.run / "environment.json"
    began = json.loads(path.read_text()) | {"device": "cuda (NVIDIA H100 80GB HBM3)", "precision": "bf16"}
    path.write_text(json.dumps(began))
    ended = child.run(cases.resume(), cases.log, without_pictures)
    row = cases.add("resume, begun on a GPU", ended, cases.goes_on, "whole")
    if "precision bf16, now fp32" not in ended.output:
        row.examples.append(f"the change is not said: {ended.output}")


def colliding_names(cases: Operations) -> None:
    """A task whose files would be other files of a folder is refused, and no run begins."""
    for name in RESERVED:
        cases.data, _ = cases.fresh()
        values = yaml.safe_load((cases.data / "dataset.yaml").read_text())
        values["tasks"][name] = {"kind": "binary", "folder": "saliency"}
        (cases.data / "dataset.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        run = cases.work / "named"
        ended = child.run(cases.words(run), cases.log, without_pictures)
        row = cases.add(f"train, a task is called {name}", ended, lambda: False, "refused")
        if run.exists():
            row.examples.append("a run folder was made")


def labels_added_later(cases: Operations) -> None:
    """`discover` keeps a label that was given after the training, byte for byte."""
    cases.data, cases.run = cases.fresh()
    cases.goes_on()
    cases.add_label()
    out, given = cases.work / "out", cases.data / "depth" / "im00.png"
    ended = child.run(["discover", cases.run, "-q", "--out", out], cases.log)
    kept, table = out / "depth" / "im00.png", out / "provenance.csv"
    cases.add(
        "discover, a label was added after the training", ended,
        lambda: kept.read_bytes() == given.read_bytes() and "\nim00,depth,given," in table.read_text(),
        "whole",
    )  # fmt: skip


def loader_processes(cases: Operations) -> None:
    """Little shared memory and a loader process that is killed: the run goes on without, or ends in a sentence."""

    def small() -> None:
        without_pictures()
        real = os.statvfs

        def statvfs(path: str) -> os.statvfs_result:
            room = (4096, 4096, 16, 16, 16, 0, 0, 0, 0, 255)
            return os.statvfs_result(room) if path == "/dev/shm" else real(path)

        os.statvfs = statvfs  # type: ignore[assignment]

    def killed() -> None:
        without_pictures()
        from tasktokens.data.dataset import PartialDataset

        PartialDataset.__getitem__ = lambda *rest: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,method-assign,return-value]

    for case, before, may in (
        ("resume with loader processes, 64 kB of shared memory", small, "whole"),
        ("resume with loader processes, one is killed", killed, "refused"),
    ):
        cases.data, cases.run = cases.fresh()
        ended = child.run([*cases.resume(), "data.workers=2"], cases.log, before, limit=150)
        cases.add(case, ended, cases.goes_on, may)


def odd_users(cases: Operations) -> None:
    """No home folder, names at the limit of the file system, a run folder whose name is a number."""

    def homeless() -> None:
        without_pictures()
        for name in ("HOME", "XDG_CACHE_HOME", "TASKTOKENS_CACHE"):
            os.environ.pop(name, None)
        os.environ["TMPDIR"] = str(cases.place.work)
        import pwd

        def nobody(user: int) -> None:
            raise KeyError(f"getpwuid(): uid not found: {user}")

        pwd.getpwuid = nobody  # type: ignore[assignment]

    cases.data, cases.run = cases.fresh()
    ended = child.run(cases.resume(), cases.log, homeless)
    row = cases.add("resume without a home and an entry in the list of users", ended, cases.goes_on, "whole")
    if "no home folder" not in ended.output:
        row.examples.append(f"where the cache lies is not said: {ended.output}")

    cases.data, _ = cases.fresh()
    long = "n" * 245
    for path in cases.data.rglob("im00.png"):
        path.rename(path.with_name(f"{long}.png"))
    lists = cases.data / "train.txt"
    lists.write_text(lists.read_text().replace("im00", long))
    run, out = cases.work / "long", cases.work / "long-out"
    ended = child.run(cases.words(run), cases.log, without_pictures)
    cases.add("train, a name of 245 characters", ended, lambda: (run / "model").exists(), "whole")
    if ended.code == 0:
        ended = child.run(["discover", run, "-q", "--out", out], cases.log)
        cases.add(
            "discover, a name of 245 characters", ended,
            lambda: child.run(["check", out, "-q"], cases.log).code == 0, "whole", "refused",
        )  # fmt: skip

    cases.data, _ = cases.fresh()
    words = [word for word in cases.words(cases.run) if not str(word).startswith("run.dir=")]
    ended = child.run([*words, "run.dir=20241128"], cases.log, lambda: (without_pictures(), os.chdir(cases.work))[0])
    cases.add("train, run.dir=20241128", ended, lambda: (cases.work / "20241128" / "model").exists(), "whole")


PARTS = (changed_content, another_device, colliding_names, labels_added_later, loader_processes, odd_users)
